"""Each request's id, and its one line in the log."""

import logging
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from flask import Flask, Response, g, request

from proxy.context import parts
from proxy.core.headers import request_id
from proxy.core.record import Seen
from proxy.web.app import Relayed

# Asked every few seconds by whoever watches us, and each second by the console's pages: a line
# each would bury the others.
QUIET_PATHS = frozenset(
    {"/health", "/ready", "/metrics"}
    | {f"/admin/ui/live/{page}" for page in "overview traffic instances instance".split()}
    | {f"/admin/ui/live/{page}" for page in "requests keys key".split()}
)


def register(app: Flask) -> None:
    app.before_request(begin)
    app.after_request(finish)


def begin() -> None:
    seen, asked = g._get_current_object(), cast(Any, request)._get_current_object()
    seen.started, seen.asked = time.monotonic(), asked
    # Of 64 bits by chance, not from the system's source of secrets: it protects nothing.
    given = asked.environ.get("HTTP_X_REQUEST_ID")
    seen.request_id = request_id(given, f"{random.getrandbits(64):016x}")


def finish(response: Response) -> Response:
    seen = g._get_current_object().__dict__.copy()
    asked = seen.pop("asked")  # it is not kept until an answer's end
    if isinstance(response, Relayed):
        response.headers.add("x-request-id", seen["request_id"])  # its upstream's was left out
    else:
        response.headers["x-request-id"] = seen["request_id"]
    # When the last byte is out: only then a stream's tokens and duration are known.
    response.call_on_close(
        partial(
            tell,
            parts().log_writer.tell_request,
            asked.method,
            asked.path,
            response.status_code,
            seen,
        )
    )
    return response


def tell(
    told: Callable[[int, Seen], None], method: str, path: str, status: int, seen: dict[str, Any]
) -> None:
    """`seen` is what the request left in `flask.g`. Of an attempt only small values are kept
    until they are written: it holds bodies."""
    get = seen.get
    client, attempt = get("client"), get("attempt")
    started = seen["started"]
    told(
        logging.DEBUG if path in QUIET_PATHS else logging.INFO,
        Seen(
            time.time(),
            started,
            int((time.monotonic() - started) * 1000),
            seen["request_id"],
            method,
            path,
            status,
            client.name if client is not None else None,
            get("model"),
            get("endpoint"),
            get("request_bytes"),
            get("error"),
            get("trail"),
            attempt.ended() if attempt is not None else None,
            get("trace"),
            get("source"),
            get("home"),
            get("said"),
        ),
    )
