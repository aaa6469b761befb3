"""What our server refuses before the app hears of it, said as the app would say it."""

import json
from email.utils import formatdate
from http import HTTPStatus

from gunicorn.http import errors as gunicorn

from proxy.errors import (
    ExpectationFailed,
    HeadTooLarge,
    Malformed,
    ProxyError,
    UriTooLong,
)

NOT_HTTP = "What was sent is not an HTTP/1.1 request."
TOO_MANY = "The request has too many headers, or one that is too long."
TWO_WAYS = (
    "The request's headers are not proper HTTP, or tell in two ways where its body ends"
    " (Content-Length, Transfer-Encoding: chunked)."
)
HOST = "The request needs one Host header, with the name of a host (RFC 9112, 3.2)."

# gunicorn's errors, whose texts quote what came, and ours.
REFUSALS: tuple[tuple[type[ProxyError], str, tuple[type[Exception], ...]], ...] = (
    (UriTooLong, "The request line is too long.", (gunicorn.LimitRequestLine,)),
    (HeadTooLarge, TOO_MANY, (gunicorn.LimitRequestHeaders,)),
    (ExpectationFailed, "Expect: only 100-continue is known.", (gunicorn.ExpectationFailed,)),
    (
        Malformed,
        NOT_HTTP,
        (
            *(gunicorn.InvalidRequestLine, gunicorn.InvalidRequestMethod),
            *(gunicorn.InvalidHTTPVersion, gunicorn.InvalidH2CPreface),
        ),
    ),
    (
        Malformed,
        TWO_WAYS,
        (
            *(gunicorn.InvalidHeader, gunicorn.InvalidHeaderName, gunicorn.ObsoleteFolding),
            *(gunicorn.UnsupportedTransferCoding, gunicorn.InvalidSchemeHeaders),
            *(gunicorn.InvalidChunkSize, gunicorn.InvalidChunkExtension),
            gunicorn.ChunkMissingTerminator,
        ),
    ),
)
# These are kinds of InvalidHeader too, but the app's.
OUR_FAULT = (gunicorn.InvalidResponseHeader, gunicorn.InvalidResponseHeaderName)


def refusal_of(error: Exception) -> ProxyError | None:
    """What to say to the client; None if the error is not about what it sent."""
    if isinstance(error, ProxyError):
        return error
    if isinstance(error, OUR_FAULT):
        return None
    if isinstance(error, gunicorn.InvalidHeader) and error.hdr == "HOST":
        return Malformed(HOST)
    for ours, message, kinds in REFUSALS:
        if isinstance(error, kinds):
            return ours(message)
    return None


def answer(error: ProxyError, request_id: str, now: float) -> bytes:
    """Head and body, as the last on its connection. `now` is seconds since the epoch."""
    body = json.dumps(error.to_dict()).encode()
    lines = [
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}",
        f"Date: {formatdate(now, usegmt=True)}",
        "Connection: close",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"x-request-id: {request_id}",
        *(f"{name}: {value}" for name, value in error.headers().items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
