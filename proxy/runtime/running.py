"""The gateway that runs on this host, if one does, asked over its own door."""

import http.client
import json
from typing import Any, cast
from urllib.parse import urlsplit


def health(address: str, *, seconds: float) -> dict[str, Any] | None:
    """What one of its workers says of itself (web/health.py); None if nobody answers so."""
    where = urlsplit(address)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=seconds)
    try:
        connection.request("GET", "/health", headers={"Connection": "close"})
        found = json.loads(connection.getresponse().read())
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    is_ours = isinstance(found, dict) and "status" in found and "calls" in found
    return cast(dict[str, Any], found) if is_ours else None
