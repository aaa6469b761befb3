"""The Flask app and the response this gateway is made of: without what browsers need."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

from flask import Flask, Request, Response, g, request
from flask.ctx import _AppCtxGlobals
from flask.sessions import NullSession, SessionInterface
from werkzeug.datastructures import Headers
from werkzeug.routing import MapAdapter

from proxy.core.types import Bytes
from proxy.runtime.streams import StreamSource
from proxy.runtime.tell import tell
from proxy.web.routes import Routes

logger = logging.getLogger(__name__)

PIECE_BYTES = 1_048_576
NO_SESSION = NullSession()


class _NoSessions(SessionInterface):
    """Nobody has one: who calls shows a key each time."""

    def open_session(self, _app: Flask, _request: Request) -> NullSession:
        return NO_SESSION


class _Remembered(_AppCtxGlobals):
    """Flask's `g`, whose attributes are set as any other's."""

    __setattr__ = object.__setattr__  # type: ignore[assignment]  # nothing else


class Gateway(Flask):
    session_interface = _NoSessions()
    app_ctx_globals_class = _Remembered
    routes = Routes(())

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        make = super().create_url_adapter
        if request is None:
            return make(None)
        return self.routes.adapter(request.environ, partial(make, request))

    def finalize_request(self, rv: Any, from_error_handler: bool = False) -> Response:
        """Where one of its steps fails the client gets a 500, and nobody closes the rest."""
        try:
            return super().finalize_request(rv, from_error_handler)
        except BaseException:
            if isinstance(rv, Relayed):
                rv.spoil()
            raise

    def log_exception(self, exc_info: Any) -> None:
        """What nobody foresaw; the client gets a 500."""
        said = "A mistake of the gateway's own in %s %s (request %s)."
        about = request.method, request.path, g.get("request_id", "")
        tell(logger, "unexpected_error", said, *about, with_traceback=exc_info)

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Every one is; to find that out takes longer than most of them."""
        return func


class Relayed(Response):
    """An upstream's answer. `lines` are its headers as `core.headers` lets them through: they
    are neither checked nor copied again. A body of bytes tells its length; a bytearray, which
    is a large one, goes out piece by piece, and is not copied as a whole. While a stream is
    iterated, the server may watch its `source` instead."""

    def __init__(
        self,
        body: Bytes | Iterable[bytes],
        status: int,
        lines: list[tuple[str, str]],
        *,
        source: StreamSource | None = None,
    ) -> None:
        super().__init__(None, status, _Lines(lines))
        self._source = source
        if not isinstance(body, bytes | bytearray):
            self.response = body
            return
        self.response = [body] if isinstance(body, bytes) else _pieces(body)
        if not (status < 200 or status in (204, 304)):  # RFC 9110, 8.6
            lines.append(("content-length", str(len(body))))

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        """A server that refuses its head has nothing to close."""
        try:
            return super().__call__(environ, start_response)
        except BaseException:
            self.spoil()
            raise

    def spoil(self) -> None:
        """Ends all that it holds: by a mistake of ours the client does not get it."""
        with ExitStack() as stack:
            stack.callback(self.close)
            if hasattr(self.response, "spoil"):
                stack.callback(self.response.spoil)

    def get_app_iter(self, _environ: Any) -> Iterable[bytes]:
        return _Closing(self.response, self.close, self._source)

    def get_wsgi_headers(self, _environ: Any) -> Headers:
        return self.headers


class _Closing:
    """What is relayed, and what is to be done at its end, however it comes."""

    __slots__ = ("_pieces", "close", "source")

    def __init__(
        self, pieces: Any, close: Callable[[], None], source: StreamSource | None
    ) -> None:
        self._pieces = pieces
        self.close = close
        self.source = source

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)


def _pieces(body: bytearray) -> Iterator[bytes]:
    with memoryview(body) as whole:
        for at in range(0, len(whole), PIECE_BYTES):
            yield bytes(whole[at : at + PIECE_BYTES])


class _Lines(Headers):
    def __init__(self, lines: list[tuple[str, str]]) -> None:
        self._list = lines
