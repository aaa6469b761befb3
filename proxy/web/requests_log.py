"""Each request's id, and its one line in the log."""

import json
import logging
import re
import secrets
import time
from typing import Any

from flask import Flask, Response, g, request

from proxy.core.headers import request_id
from proxy.runtime.attempt import Attempt

logger = logging.getLogger(__name__)

# Asked every few seconds by whoever watches us: a line each would bury the others.
QUIET_PATHS = frozenset({"/health", "/ready"})

_PLAIN = re.compile(r"[!#-<>-~]+")  # printable ASCII without space, quote and equals sign


def register(app: Flask) -> None:
    app.before_request(begin)
    app.after_request(finish)


def begin() -> None:
    g.started = time.monotonic()
    g.request_id = request_id(request.headers.get("x-request-id"), secrets.token_hex(8))


def finish(response: Response) -> Response:
    response.headers["x-request-id"] = g.request_id
    seen = dict(g.__dict__)
    method, path, status = request.method, request.path, response.status_code
    # When the last byte is out: only then a stream's tokens and duration are known.
    response.call_on_close(lambda: write_line(method, path, status, seen))
    return response


def write_line(method: str, path: str, status: int, seen: dict[str, Any]) -> None:
    """`seen` is what the request left in `flask.g`. No header and no body is in it."""
    attempt: Attempt | None = seen.get("attempt")
    fields: dict[str, Any] = {
        "id": seen["request_id"],
        "method": method,
        "path": path,
        "status": status,
        "ms": int((time.monotonic() - seen["started"]) * 1000),
    }
    if "client" in seen:
        fields["client"] = seen["client"].name
    if "model" in seen:
        fields["model"] = seen["model"]
    if "tried" in seen:
        fields["instance"] = attempt.serving.config.name if attempt else ""
        fields["attempts"] = len(seen["tried"])
        fields["tried"] = ",".join(seen["tried"])
    if attempt is not None:
        fields["outcome"] = attempt.verdict.outcome
        fields["prompt_tokens"] = attempt.usage.prompt_tokens
        fields["completion_tokens"] = attempt.usage.completion_tokens
    level = logging.DEBUG if path in QUIET_PATHS else logging.INFO
    logger.log(level, "request %s", _Line(fields))


class _Line:
    """Put into words only when it is written."""

    __slots__ = ("_fields",)

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    def __str__(self) -> str:
        return " ".join(f"{name}={_quoted(value)}" for name, value in self._fields.items())


def _quoted(value: object) -> str:
    """Names come from clients: what could break the line, or look like a field, is quoted."""
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
