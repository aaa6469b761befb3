"""Reads one HTTP/1.1 answer as its bytes arrive: the head first, then the body piece by piece.

The grammar (RFC 9112) is llhttp's, by way of httptools: strict, and in C. What is here are
the limits, the two ways a body can be cut short, and compression nobody asked for.
"""

import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

# As much as has arrived is read at once, up to this. Each thread that reads has as much.
READ_BYTES = 32_768

# Of a head; and of what surrounds a body's bytes (chunk extensions, trailers) in a row.
MAX_HEAD_BYTES = 65_536
MAX_HEADERS = 200

BODILESS = frozenset({204, 304})  # whatever their headers say (RFC 9112, 6.3)

KNOWN_NAMES = 256
FRAMING = frozenset({"content-length", "transfer-encoding", "content-encoding"})

# Bits for zlib: it tells the formats gzip and zlib apart by itself.
_ANY_DEFLATE = 47
DEFLATES = frozenset({"gzip", "x-gzip", "deflate"})


NO_ANSWER = "it closed the connection without an answer"
BROKE_OFF = "it broke off its answer"
NOT_HTTP = "its answer is not proper HTTP"
TOO_LARGE = "its answer is above a limit: the head, or what stands between the body's parts"
NOT_READABLE = "its answer is encoded in a way it was not asked for"


class BrokenAnswer(Exception):
    """What came is not HTTP, is above a limit, or ended before its end; its text says which."""


class AnswerReader:
    """`receive(n)` gives up to n bytes of the connection, none at its end.

    `headers` is every line in order, its name in lower case (RFC 9110, 5.1: case says nothing);
    `fields` is the same by name, of one that occurs twice the last.
    Every method that reads raises BrokenAnswer, and what `receive` raises: OSError. Not
    thread-safe.
    """

    __slots__ = (
        "_broken",
        "_head_done",
        "_inflate",
        "_keep_alive",
        "_length_known",
        "_lines",
        "_parser",
        "_pieces",
        "_receive",
        "_seen_bytes",
        "_surplus",
        "complete",
        "fields",
        "headers",
        "on_body",
        "received_bytes",
        "status",
    )

    def __init__(self, receive: Callable[[int], Any]) -> None:
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.fields: dict[str, str] = {}
        self.complete = False  # the body's last byte has arrived
        self._broken: str | None = None  # and how, behind what of it is still to be read
        self.received_bytes = 0
        self._receive = receive
        self._lines: list[tuple[bytes, bytes]] = []  # of the head, as they came
        self._pieces: list[bytes] = []
        self._head_done = False
        self._length_known = False
        self._keep_alive = False
        self._surplus = False  # something came behind the answer
        self._seen_bytes = 0  # of what was received, when a byte of the body was among it
        self._inflate: zlib._Decompress | None = None
        self.on_body = self._pieces.append  # what the parser calls most is no call of Python's
        self._parser: Any = HttpResponseParser(self)

    @property
    def has_ended(self) -> bool:
        """Nothing more is to be waited for: all has arrived, or what is broken."""
        return self.complete or self._broken is not None

    @property
    def reusable(self) -> bool:
        """The connection may carry another request: this answer ended where it should."""
        return self.complete and self._keep_alive and not self._surplus

    @property
    def is_delimited(self) -> bool:
        """It says itself where it ends; else its end is the connection's, however that came."""
        return self._length_known

    def let_go(self) -> None:
        """Nothing is read any more. Parser and reader hold each other; now they do not, and
        need not wait for the garbage collector."""
        self._parser = None

    def read_head(self) -> None:
        """Until `status` and `headers` are those of the final answer, not of an interim one."""
        while not self._head_done:
            self._fill(self._receive)

    def read1(self, receive: Callable[[int], Any] | None = None) -> bytes:
        """What has arrived of the body, at least one byte; b"" at its end. `receive` is asked
        instead of its own: what that raises leaves the reader as it was."""
        while True:
            while not self._pieces:
                if self.complete:
                    return self._rest()
                if self._broken is not None:
                    raise BrokenAnswer(self._broken)
                self._fill(receive or self._receive)
            data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            self._pieces.clear()
            if self._inflate is not None:
                data = self._inflated(data)
            if data:
                return data

    def _fill(self, receive: Callable[[int], Any]) -> None:
        data = receive(READ_BYTES)
        if not data:
            self._end()
            return
        self.received_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            raise BrokenAnswer(NOT_HTTP) from None
        except HttpParserError as error:
            # Behind a whole answer it concerns the connection only.
            if self.complete:
                self._surplus = True
            elif not self._pieces:
                raise _why(error) from None
            else:  # what came before it is good, however much of both came at once
                self._broken = str(_why(error))
        if self._pieces:
            self._seen_bytes = self.received_bytes
        elif self.received_bytes - self._seen_bytes > MAX_HEAD_BYTES and not self.complete:
            raise BrokenAnswer(TOO_LARGE)

    def _end(self) -> None:
        if not self._head_done or self._length_known:
            raise BrokenAnswer(BROKE_OFF if self.received_bytes else NO_ANSWER)
        self.complete = True  # its end is the connection's

    def _inflated(self, data: bytes) -> bytes:
        assert self._inflate is not None, "only asked where the body is compressed"
        try:
            found = self._inflate.decompress(data)
            # Another member (RFC 1952, 2.2); what else stands behind one is padding.
            while (rest := self._inflate.unused_data).startswith(b"\x1f\x8b"):
                self._inflate = zlib.decompressobj(_ANY_DEFLATE)
                found += self._inflate.decompress(rest)
            if len(rest) > MAX_HEAD_BYTES:
                raise BrokenAnswer(TOO_LARGE)
            return found
        except zlib.error:
            raise BrokenAnswer(NOT_READABLE) from None

    def _rest(self) -> bytes:
        if self._inflate is not None:
            is_begun = self._inflate.unused_data == b"\x1f"  # another member
            if not self._inflate.eof or is_begun:
                raise BrokenAnswer(BROKE_OFF)
        return b""

    # What the parser calls, as it does `on_body` with each piece.

    def on_message_begin(self) -> None:
        if self.complete:
            raise BrokenAnswer(NOT_HTTP)  # it ends the reading of what a peer sent too much

    def on_header(self, name: bytes, value: bytes) -> None:
        self._lines.append((name, value))  # behind the head, trailers, which nobody reads

    def on_headers_complete(self) -> None:
        if self._head_done:
            return
        self.status = self._parser.get_status_code()
        lines, self._lines = self._lines, []
        if len(lines) > MAX_HEADERS:
            raise BrokenAnswer(TOO_LARGE)
        if self.status < 200:
            return  # RFC 9110, 15.2: there may be several before the answer
        self.headers = headers = _headers(lines)
        self.fields = fields = dict(headers)
        self._head_done = True
        self._length_known = self.status in BODILESS
        framing = FRAMING.intersection(fields)
        if len(fields) == len(headers):
            for name in framing:
                self._note(name, fields[name].lower())
        else:
            for name, value in headers:
                if name in framing:
                    self._note(name, value.lower())

    def _note(self, name: str, value: str) -> None:
        """What a header says about the body. Of encodings we asked for none."""
        if name == "content-length":
            self._length_known = True
        elif name == "transfer-encoding":
            if value != "chunked":
                raise BrokenAnswer(NOT_READABLE)
            self._length_known = True
        elif name == "content-encoding" and value not in ("", "identity"):
            if value not in DEFLATES:
                raise BrokenAnswer(NOT_READABLE)
            self._inflate = zlib.decompressobj(_ANY_DEFLATE)

    def on_message_complete(self) -> None:
        if self._head_done and not self.complete:
            self.complete = True
            self._keep_alive = self._parser.should_keep_alive()


def _headers(lines: list[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """All together: one by one they take longer than all else of a short answer. The parser
    lets no line end into a value."""
    if not lines:
        return []
    names, values = zip(*lines, strict=True)
    text = b"\n".join(map(bytes.strip, values)).decode("latin-1")
    return list(zip(map(_name, names), text.split("\n"), strict=True))


# The same few names come with every answer.
@lru_cache(KNOWN_NAMES)
def _name(name: bytes) -> str:
    return name.decode("latin-1").lower()


def _why(error: HttpParserError) -> BrokenAnswer:
    """Ours, where a function above raised it; the parser's own texts quote what came."""
    ours = error.__context__
    return ours if isinstance(ours, BrokenAnswer) else BrokenAnswer(NOT_HTTP)
