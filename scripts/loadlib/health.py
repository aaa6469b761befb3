"""Asks a gateway of ours how it is."""

import http.client

from proxy.settings import Settings

TIMEOUT_SECONDS = 5.0


def asked(settings: Settings, path: str) -> bool:
    """Whether it answers 200 there; on a connection of its own."""
    connection = http.client.HTTPConnection(
        settings.bind, settings.port, timeout=TIMEOUT_SECONDS
    )
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
