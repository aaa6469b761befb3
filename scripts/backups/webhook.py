"""Telling a chat or a pager about alerts. The URL may hold a token: it is never shown."""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 10.0


class NotSent(Exception):
    """A sentence without the URL."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """It would become a GET without the alerts, to somewhere nobody named."""


def is_usable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def send(url: str, text: str, alerts: Sequence[dict[str, str]]) -> None:
    """Raises NotSent."""
    body = json.dumps({"text": text, "alerts": list(alerts)}).encode()
    try:
        request = urllib.request.Request(
            url, body, {"Content-Type": "application/json"}, method="POST"
        )
        opener = urllib.request.build_opener(_NoRedirects)
        with opener.open(request, timeout=TIMEOUT_SECONDS):
            pass  # any 2xx will do, whatever it says
    except urllib.error.HTTPError as error:
        error.close()
        raise NotSent(f"The webhook answered {error.code}; the alerts were not sent.") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        # Of a URL that cannot be used these repeat parts; `reason` is the system's.
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        known = getattr(reason, "strerror", None) or type(reason).__name__
        raise NotSent(f"The webhook cannot be reached: {known}.") from None
