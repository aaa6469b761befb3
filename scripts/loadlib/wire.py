"""HTTP/1.1 answers and server-sent events taken apart, whatever pieces they arrive in."""

from http.client import responses
from typing import Protocol

DONE = b"[DONE]"
MAX_HEAD_BYTES = 65_536


class NotHttp(Exception):
    """What came is not an HTTP answer we can read, or it was cut short."""


class Answer:
    """Feed it what arrives for one request; it returns what of that is body.

    Anything after the answer's end is an error: we never ask twice before we have read.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}  # names in lower case
        self.complete = False
        self._head = b""
        self._body: _Body | None = None

    @property
    def keeps_alive(self) -> bool:
        """Whether the connection may be used again, once the answer is complete."""
        return self.headers.get("connection", "").lower() != "close" and not isinstance(
            self._body, _UntilClose
        )

    def feed(self, data: bytes) -> bytes:
        """Raises NotHttp."""
        if self._body is None:
            self._head += data
            head, found, data = self._head.partition(b"\r\n\r\n")
            if not found:
                if len(self._head) > MAX_HEAD_BYTES:
                    raise NotHttp("a head without an end")
                return b""
            self._read_head(head.decode("latin-1"))
        assert self._body is not None, "reading the head decides how the body is read"
        body = self._body.feed(data)
        self.complete = self._body.complete
        return body

    def end(self) -> None:
        """The peer closed the connection. Raises NotHttp unless that is how this body ends."""
        if not isinstance(self._body, _UntilClose):
            raise NotHttp("the connection was closed before the answer's end")
        self.complete = True

    def _read_head(self, head: str) -> None:
        first, *lines = head.split("\r\n")
        parts = first.split(" ", 2)
        if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdecimal():
            raise NotHttp(f"no status line: {first[:80]!r}")
        self.status = int(parts[1])
        for line in lines:
            name, _, value = line.partition(":")
            self.headers[name.strip().lower()] = value.strip()
        length = self.headers.get("content-length")
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            self._body = _Chunked()
        elif length is not None:
            self._body = _Counted(_number(length, 10))
        else:
            self._body = _UntilClose()


class _Body(Protocol):
    @property
    def complete(self) -> bool: ...

    def feed(self, data: bytes) -> bytes: ...


class _Counted:
    def __init__(self, length: int) -> None:
        self._left = length

    @property
    def complete(self) -> bool:
        return self._left == 0

    def feed(self, data: bytes) -> bytes:
        if len(data) > self._left:
            raise NotHttp("more than the content-length")
        self._left -= len(data)
        return data


class _UntilClose:
    complete = False

    def feed(self, data: bytes) -> bytes:
        return data


class _Chunked:
    """RFC 9112, 7.1. Trailers are not read: who sends some is told that we cannot."""

    def __init__(self) -> None:
        self.complete = False
        self._waiting = b""

    def feed(self, data: bytes) -> bytes:
        data = self._waiting + data if self._waiting else data
        body = []
        at = 0
        while not self.complete:
            line_end = data.find(b"\r\n", at)
            if line_end < 0:
                break
            size = _number(data[at:line_end].partition(b";")[0].decode("latin-1"), 16)
            start, end = line_end + 2, line_end + 2 + size
            if len(data) < end + 2:
                break
            if data[end : end + 2] != b"\r\n":
                raise NotHttp("a chunk without an end, or a trailer")
            body.append(data[start:end])
            at = end + 2
            self.complete = size == 0
        self._waiting = data[at:]
        if self.complete and self._waiting:
            raise NotHttp("more than the last chunk")
        return b"".join(body)


def _number(text: str, base: int) -> int:
    try:
        return int(text, base)
    except ValueError as error:
        raise NotHttp(f"no length: {text[:20]!r}") from error


class Events:
    """Feed it a stream's bytes; it returns the data of the events that are complete now."""

    def __init__(self) -> None:
        self._waiting = b""

    def feed(self, data: bytes) -> list[bytes]:
        # A "\r" at the end may be half of an end of line: it waits, because what is kept is
        # kept as it came.
        *events, self._waiting = (self._waiting + data).replace(b"\r\n", b"\n").split(b"\n\n")
        return [found for event in events if (found := _data(event))]

    @property
    def is_between_events(self) -> bool:
        return not self._waiting


def _data(event: bytes) -> bytes:
    lines = (line for line in event.split(b"\n") if line.startswith(b"data:"))
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines)


def request_bytes(method: str, path: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def status_line(status: int) -> str:
    return f"HTTP {status} {responses.get(status, '')}".rstrip()
