"""A request's body, read whole and no further than it may be; and what its JSON, or its form,
says."""

import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from gunicorn.http.errors import ChunkMissingTerminator, ParseException
from werkzeug.sansio.utils import get_content_length

from proxy.context import Parts
from proxy.core.form import BrokenForm, Form, form_of
from proxy.core.types import Bytes
from proxy.errors import BadRequest, ClientLeft, RequestTimeout, TooLarge, UnsupportedCoding
from proxy.runtime.client_socket import ClientSocket

PIECE_BYTES = 1_048_576
BEGINNING = 64  # bytes
CRLF = b"\r\n"
# The longest a request's body may take to arrive.
BODY_SECONDS = 300.0

LATE = "The request's body did not come in time."
CUT_OFF = "The client closed its connection in the middle of the request's body."
SHORT = "The request's body ended before its Content-Length."


def read_body(mine: Parts, environ: Mapping[str, Any], ends_at: float = math.inf) -> Bytes:
    """What arrives until `ends_at`, in monotonic seconds, and within BODY_SECONDS.

    Raises TooLarge, UnsupportedCoding, RequestTimeout, ClientLeft where it ends in the middle,
    and BadRequest if it does not come as it was announced.

    Not the framework's `get_data`: of a chunked body above its limit that returns the
    beginning without a word.
    """
    limit = mine.settings.max_body_bytes
    announced = get_content_length(
        environ.get("CONTENT_LENGTH"), environ.get("HTTP_TRANSFER_ENCODING")
    )
    if announced is not None and announced > limit:
        raise _too_large(limit)
    if announced is None and not environ.get("wsgi.input_terminated"):
        return b""  # the server cannot tell where a body would end, so there is none
    size = limit + 1 if announced is None else announced
    until = min(ends_at, time.monotonic() + BODY_SECONDS)
    body = _received(environ, size, until)
    if len(body) > limit:
        raise _too_large(limit)
    if announced is not None and len(body) < announced:
        raise ClientLeft(SHORT)  # at least it sends no more
    if environ.get("HTTP_CONTENT_ENCODING") and not _is_readable(body):
        raise UnsupportedCoding(
            "The body is compressed (Content-Encoding); the gateway takes it as it is only."
        )
    return body


def parsed_json(body: Bytes) -> Any:
    """Raises BadRequest. The parser goes 1,024 levels deep, whatever the interpreter allows."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if "depth limit" in str(error):
            raise BadRequest("The body is nested too deeply.") from None
        if "BOM" in str(error):
            raise BadRequest("The body begins with a byte order mark; leave it out.") from None
        if body.startswith(b"--"):
            raise BadRequest("The body is a form; a JSON object is needed here.") from None
        if "UTF-8" in str(error):  # the parser does not say where
            raise BadRequest("The body is not valid JSON: it is not UTF-8.") from None
        raise BadRequest(f"The body is not valid JSON: {error}.") from None


def parsed_form(environ: Mapping[str, Any], body: Bytes) -> Form:
    """Raises BadRequest that names the field, where one is to blame."""
    try:
        return form_of(body, environ.get("CONTENT_TYPE") or "")
    except BrokenForm as error:
        message = f"{error.name}: {error}" if error.name else str(error)
        raise BadRequest(message, param=error.name) from None


def _received(environ: Mapping[str, Any], size: int, until: float) -> Bytes:
    client = environ.get("gunicorn.socket")
    if isinstance(client, ClientSocket):  # of others the connection is closed, in time
        client.receive_until = until
    try:
        return _joined(_pieces(environ["wsgi.input"], size))
    except TimeoutError:
        raise RequestTimeout(LATE) from None
    except OSError:
        raise ClientLeft(CUT_OFF) from None
    except ParseException as error:  # of chunks that are none; its text would quote them
        if isinstance(error, ChunkMissingTerminator) and CRLF.startswith(error.term):
            raise ClientLeft(CUT_OFF) from None  # what is there of its end is right
        raise BadRequest(
            "The request's body could not be read: its chunks are broken."
        ) from None
    finally:
        if isinstance(client, ClientSocket):
            client.receive_until = math.inf


def _is_readable(body: Bytes) -> bool:
    """It begins as JSON, or as a form: some name a coding that they did not use, or one that is
    none."""
    return body[:BEGINNING].lstrip()[:1] in (b"{", b"[", b"-", b"")


def _joined(pieces: Iterator[bytes]) -> Bytes:
    """Of several, gathered: to join a large body is to have it twice."""
    first = next(pieces, b"")
    second = next(pieces, b"")
    if not second:
        return first
    whole = bytearray(first)
    whole += second
    for piece in pieces:
        whole += piece
    return whole


def _pieces(stream: Any, size: int) -> Iterator[bytes]:
    """Up to `size` bytes. One by one, because a server that is asked for all at once holds
    them several times."""
    while size > 0:
        piece: bytes = stream.read(min(size, PIECE_BYTES))
        if not piece:
            return
        yield piece
        size -= len(piece)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The request's body is larger than {limit} bytes (PROXY_MAX_BODY_BYTES).")
