"""Each request's id, and its one line in the log."""

import json
import logging
import random
import re
import time
from functools import partial
from typing import Any

from flask import Flask, Response, g, request

from proxy.core.headers import request_id
from proxy.web.app import Relayed

logger = logging.getLogger(__name__)

# Asked every few seconds by whoever watches us: a line each would bury the others.
QUIET_PATHS = frozenset({"/health", "/ready"})

# What a line tells, in this order. What a request did not come to is left out.
FIELDS = (
    *("id", "method", "path", "status", "ms", "client", "model"),
    *("instance", "attempts", "tried"),
    *("outcome", "prompt_tokens", "completion_tokens"),
)

_PLAIN = re.compile(r"[!#-<>-~]+")  # printable ASCII without space, quote and equals sign


def register(app: Flask) -> None:
    app.before_request(begin)
    app.after_request(finish)


def begin() -> None:
    seen = g._get_current_object()
    seen.started = time.monotonic()
    # Of 64 bits by chance, not from the system's source of secrets: it protects nothing.
    given = request.environ.get("HTTP_X_REQUEST_ID")
    seen.request_id = request_id(given, f"{random.getrandbits(64):016x}")


def finish(response: Response) -> Response:
    seen = g._get_current_object().__dict__
    if isinstance(response, Relayed):
        response.headers.add("x-request-id", seen["request_id"])  # its upstream's was left out
    else:
        response.headers["x-request-id"] = seen["request_id"]
    environ = request.environ
    # When the last byte is out: only then a stream's tokens and duration are known.
    response.call_on_close(
        partial(
            write_line,
            environ["REQUEST_METHOD"],
            request.path,
            response.status_code,
            seen.copy(),
        )
    )
    return response


def write_line(method: str, path: str, status: int, seen: dict[str, Any]) -> None:
    """`seen` is what the request left in `flask.g`. No header and no body is in it."""
    level = logging.DEBUG if path in QUIET_PATHS else logging.INFO
    if not logger.isEnabledFor(level):
        return
    ms = int((time.monotonic() - seen["started"]) * 1000)
    values: list[object] = [seen["request_id"], method, path, status, ms]
    client, attempt = seen.get("client"), seen.get("attempt")
    values += (client and client.name, seen.get("model"))
    tried = seen.get("tried")
    if tried is not None:
        values += (attempt.serving.config.name if attempt else "", len(tried), ",".join(tried))
    if attempt is not None:  # it is not kept until it is written: it holds bodies
        usage = attempt.usage
        values += (attempt.verdict.outcome, usage.prompt_tokens, usage.completion_tokens)
    logger.log(level, "request %s", _Line(values))


class _Line:
    """Put into words only when it is written."""

    __slots__ = ("_values",)

    def __init__(self, values: list[object]) -> None:
        self._values = values

    def __str__(self) -> str:
        return " ".join(
            f"{name}={quoted(value)}"
            for name, value in zip(FIELDS, self._values, strict=False)
            if value is not None
        )


def quoted(value: object) -> str:
    """Names come from clients: what could break the line, or look like a field, is quoted."""
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
