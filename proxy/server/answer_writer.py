"""How an answer's head is written: as gunicorn does, but its headers are looked at together."""

import time
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from gunicorn.http.message import TOKEN_RE
from gunicorn.http.wsgi import Response
from gunicorn.util import http_date, is_hoppish

KNOWN_NAMES = 512
# Of a body that was refused gunicorn reads what is left, if it is less than this; else
# it closes the connection.
DRAINED_BYTES = 65_536
# Kinds of a header, by its name. OTHER: gunicorn is to look at it, or to refuse it.
ORDINARY, LENGTH, OTHER = range(3)


class Answer(Response):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's, as what a client is sent. (An upstream's is `runtime.upstream.Answer`.)"""

    headers: list[tuple[str, str]]
    headers_sent: bool

    def process_headers(self, headers: Iterable[tuple[str, str]]) -> None:
        """gunicorn looks for what would end a line at each value, and this at all of them: to
        the rest it is the same."""
        headers = list(headers)
        names, values = zip(*headers, strict=True) if headers else ((), ())
        kinds, text = list(map(_kind, names)), "".join(values)
        lengths = kinds.count(LENGTH)
        if OTHER in kinds or lengths > 1 or not (text.isascii() and text.isprintable()):
            super().process_headers(headers)
            return
        # Of what is printable, spaces are all that is taken off; also it is `str` itself then.
        self.headers = list(zip(names, map(str.strip, values), strict=True))
        self.response_length = int(values[kinds.index(LENGTH)]) if lengths else None

    @property
    def is_open_ended(self) -> bool:
        """Its head is sent, and nobody knows how long it will be."""
        return bool(self.chunked and self.headers_sent)

    def framed(self, data: bytes) -> bytes:
        """Of such an answer what `write` would send, for who sends it otherwise."""
        self.sent += len(data)
        return b"%X\r\n%b\r\n" % (len(data), data)

    def send_headers(self) -> None:
        """As gunicorn does, without a step of Python for each line."""
        if not self.headers_sent:
            lines = self.default_headers()
            lines += map("%s: %s\r\n".__mod__, self.headers)
            lines.append("\r\n")
            self.sock.sendall("".join(lines).encode("latin-1"))
            self.headers_sent = True

    def default_headers(self) -> list[str]:
        if self.upgrade:
            found: list[str] = super().default_headers()
            return found
        if _leaves_much_unread(self.req.body):
            self.force_close()  # so it will be; who is not told sends its next request there
        major, minor = self.req.version
        lines = [
            f"HTTP/{major}.{minor} {self.status}\r\n",
            f"Server: {self.version}\r\n",
            _date(int(time.time())),
            "Connection: close\r\n" if self.should_close() else "Connection: keep-alive\r\n",
        ]
        if self.chunked:
            lines.append("Transfer-Encoding: chunked\r\n")
        return lines


def _leaves_much_unread(body: Any) -> bool:
    """Of the request's body: also of one in chunks, of which nobody knows how much is left, and
    of one that did not come to its end, which nobody waits for any more."""
    reader = getattr(body, "reader", None)
    length = getattr(reader, "length", 0)  # what is left of it
    is_in_chunks = getattr(reader, "parser", None) is not None
    return length >= DRAINED_BYTES or is_in_chunks or getattr(body, "failed", False)


@lru_cache(1)
def _date(second: int) -> str:
    return f"Date: {http_date(second)}\r\n"


@lru_cache(KNOWN_NAMES)
def _kind(name: Any) -> int:
    if not isinstance(name, str) or not TOKEN_RE.fullmatch(name) or is_hoppish(name):
        return OTHER
    return LENGTH if name.lower() == "content-length" else ORDINARY
