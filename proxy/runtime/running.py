"""The gateway that runs on this host, if one does, asked over its own door."""

import http.client
import json
import re
from typing import Any, cast
from urllib.parse import quote, urlsplit

from proxy.core.metrics import IN_FLIGHT

# A label of Prometheus' text format is written as JSON writes a string.
_IN_FLIGHT = re.compile(
    rf'^{IN_FLIGHT}\{{\w+=("(?:[^"\\]|\\.)*")\}} ([0-9.e+]+)$', re.MULTILINE
)


def health(address: str, *, seconds: float) -> dict[str, Any] | None:
    """What one of its workers says of itself (web/health.py); None if nobody answers so."""
    try:
        found = json.loads(_asked(address, "/health", seconds) or b"")
    except ValueError:
        return None
    is_ours = isinstance(found, dict) and "status" in found and "calls" in found
    return cast(dict[str, Any], found) if is_ours else None


def in_flight(address: str, token: str, *, seconds: float) -> dict[str, int] | None:
    """Attempts that are open now, by instance, over all workers; None if nobody tells. `token`
    is that of the metrics, empty where there is none."""
    told = _asked(address, f"/metrics?name[]={quote(IN_FLIGHT)}", seconds, token)
    if told is None:
        return None
    found = _IN_FLIGHT.findall(told.decode(errors="replace"))
    return {json.loads(name, strict=False): int(float(count)) for name, count in found}


def _asked(address: str, path: str, seconds: float, token: str = "") -> bytes | None:
    """The body of its answer; None if there is none, or one that refuses."""
    where = urlsplit(address)
    headers = {"Connection": "close"} | ({"Authorization": f"Bearer {token}"} if token else {})
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=seconds)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.read() if answer.status == http.client.OK else None
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()
