"""A request's body, read whole and no further than it may be."""

from flask import request
from gunicorn.http.errors import ParseException

from proxy.context import parts
from proxy.errors import BadRequest, TooLarge


def read_body() -> bytes:
    """Raises TooLarge, and BadRequest if it does not come as it was announced.

    Not the framework's `get_data`: of a chunked body above its limit that returns the
    beginning without a word.
    """
    limit = parts().settings.max_body_bytes
    announced = request.content_length
    if announced is not None and announced > limit:
        raise _too_large(limit)
    if announced is None and not request.environ.get("wsgi.input_terminated"):
        return b""  # the server cannot tell where a body would end, so there is none
    try:
        body: bytes = request.environ["wsgi.input"].read(
            limit + 1 if announced is None else announced
        )
    except (OSError, ParseException):  # of chunks that are none; its text would quote them
        raise BadRequest(
            "The request's body could not be read: its chunks are broken."
        ) from None
    if len(body) > limit:
        raise _too_large(limit)
    if announced is not None and len(body) < announced:
        raise BadRequest("The request's body ended before its Content-Length.")
    return body


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The request's body is larger than {limit} bytes (PROXY_MAX_BODY_BYTES).")
