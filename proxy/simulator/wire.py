"""HTTP/1.1 on one socket: requests read, answers written, the peer's leaving noticed.

Written by hand because what a broken upstream does, no HTTP library lets one do.
"""

import json
import math
import select
import socket
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

MAX_LINE_BYTES = 65536
LAST_CHUNK = b"0\r\n\r\n"


class PeerLeft(Exception):
    """The peer closed the connection, or the simulator was stopped: nobody is there."""


class Malformed(Exception):
    """What came is not HTTP."""


class Headers(Mapping[str, str]):
    """A request's headers. Names ignore case; values of one name are joined by commas."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._values: dict[str, str] = {}
        for name, value in pairs:
            before = self._values.get(name.lower())
            self._values[name.lower()] = value if before is None else f"{before}, {value}"

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Headers({self._values!r})"


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came. `path` is still percent-encoded and without the query."""

    method: str
    path: str
    query: dict[str, str]
    headers: Headers
    body: bytes
    at: datetime

    @property
    def json(self) -> Any:
        """The body read as JSON. Raises ValueError."""
        return json.loads(self.body)


class Connection:
    """One peer's connection, used by one thread; only `interrupt` is for others."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._reader = sock.makefile("rb")
        self.keep_alive = True  # whether another request may follow the last one read

    def read(self) -> Received | None:
        """The next request; None if the peer leaves before it is complete.

        Raises Malformed.
        """
        try:
            line = self._line()
            if not line:
                return None
            method, target, version = _request_line(line)
            headers = Headers(self._header_lines())
            says_close = headers.get("connection", "").lower() == "close"
            self.keep_alive = version != "HTTP/1.0" and not says_close
            body = self._body(headers)
        except (OSError, EOFError):
            return None
        path, _, query = target.partition("?")
        values = dict(parse_qsl(query, keep_blank_values=True))
        return Received(method, path, values, headers, body, datetime.now(UTC))

    def _line(self) -> str:
        return self._reader.readline(MAX_LINE_BYTES).decode("latin-1").rstrip("\r\n")

    def _header_lines(self) -> Iterator[tuple[str, str]]:
        while line := self._line():
            name, colon, value = line.partition(":")
            if not colon:
                raise Malformed(f"no header: {line!r}")
            yield name, value.strip()

    def _body(self, headers: Headers) -> bytes:
        if headers.get("expect", "").lower() == "100-continue":
            self._sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return b"".join(self._chunks())
        return self._exactly(_number(headers.get("content-length", "0"), 10))

    def _chunks(self) -> Iterator[bytes]:
        while size := _number(self._line().partition(";")[0], 16):
            yield self._exactly(size)
            self._line()  # the line end behind each chunk
        while self._line():
            pass  # trailers mean nothing here

    def _exactly(self, size: int) -> bytes:
        data = self._reader.read(size)
        if len(data) < size:
            raise EOFError
        return data

    def send(self, data: bytes) -> None:
        """Send all of it. Raises PeerLeft."""
        try:
            self._sock.sendall(data)
        except OSError as error:
            raise PeerLeft from error

    def wait(self, seconds: float | None) -> None:
        """Let time pass, for None without an end. Raises PeerLeft as soon as the peer goes.

        A peer that only shuts down its sending side counts as gone. `interrupt` ends
        the wait as well, because it looks the same.
        """
        ends_at = None if seconds is None else time.monotonic() + seconds
        if not _happens(self._sock, select.POLLIN, ends_at):
            return
        if self._has_gone():
            raise PeerLeft
        # The next request is here already, so the socket stays readable: from now on
        # only a hang-up is news.
        if _happens(self._sock, 0, ends_at):
            raise PeerLeft

    def _has_gone(self) -> bool:
        """Whether what can be read is the end. TLS says goodbye with a record of its own."""
        if isinstance(self._sock, ssl.SSLSocket):
            return True
        try:
            return not self._sock.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def shake_hands(self) -> None:
        """The TLS handshake, if there is to be one. Raises OSError."""
        if isinstance(self._sock, ssl.SSLSocket):
            self._sock.do_handshake()

    def interrupt(self) -> None:
        """End whatever the connection's own thread waits for. For any thread."""
        try:
            # Not SSLSocket's own: that takes the TLS object away under a reader's feet.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
        except OSError:
            pass  # closed already, by the peer or by its own thread

    def close(self) -> None:
        self._reader.close()
        self._sock.close()


def _happens(sock: socket.socket, event: int, ends_at: float | None) -> bool:
    """Whether an event or a hang-up comes before a moment of monotonic time."""
    # poll and not select: with a few hundred streams, numbers of files exceed 1024.
    poller = select.poll()
    poller.register(sock, event)
    if ends_at is None:
        return bool(poller.poll())
    return bool(poller.poll(math.ceil(max(0.0, ends_at - time.monotonic()) * 1000)))


def _request_line(line: str) -> tuple[str, str, str]:
    parts = line.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise Malformed(f"no request: {line!r}")
    return parts[0], parts[1], parts[2]


def _number(text: str, base: int) -> int:
    try:
        number = int(text, base)
    except ValueError as error:
        raise Malformed(f"no length: {text!r}") from error
    if number < 0:
        raise Malformed(f"no length: {text!r}")
    return number


def head(status: int, headers: Mapping[str, str]) -> bytes:
    """Status line, headers and the empty line."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)
