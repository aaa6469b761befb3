"""The way out under `requests`: one request on one connection, its answer read as it arrives.

An adapter as requests defines it (BaseAdapter): prepared request in, Response out, errors
are requests' own. Left out is what browsers need on each call: cookies, redirects, the
environment's proxies, and tries again; there is one loop that tries again, and it is not here.
"""

import math
import time
from collections.abc import Collection, Iterator, Mapping
from datetime import timedelta
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests
from requests.adapters import BaseAdapter
from requests.cookies import RequestsCookieJar
from requests.structures import CaseInsensitiveDict

from proxy.core.types import Payload, Spliced
from proxy.runtime.answer_reader import BROKE_OFF, AnswerReader, BrokenAnswer
from proxy.runtime.connection import (
    Connection,
    Origin,
    certificate_until,
    origin_of,
    proxy_lines,
    shut_down,
)
from proxy.runtime.connections import Connections
from proxy.runtime.dialling import FAILED
from proxy.runtime.line import Line

SLOW_ANSWER = "it timed out while we waited for its answer"
SILENT = "it timed out in the middle of its answer"
NO_URL = "its address cannot be asked"
NO_REQUEST = "the request holds what no header can"

# A server that closed an idle connection says so at once; after that long it may have seen the
# request.
STALE_SECONDS = 0.5

# Smaller bodies go out with the head in one send; larger ones are not copied for it.
MAX_JOINED_BYTES = 65_536

# What we say ourselves. Compressed events could not be passed on one by one.
_OURS = frozenset({"accept-encoding", "content-length", "host", "connection"})

KEPT_HOSTS = 4096


class Outgoing(requests.PreparedRequest):
    """A request that is ready. `line`: how another thread may end the waiting for it;
    `ends_at`: monotonic seconds at which it is over, wherever it stands. `was_sent`: all of it
    went out, and the upstream may be at work."""

    def __init__(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Payload | None,
        line: Line | None = None,
        ends_at: float = math.inf,
    ) -> None:
        # Not its own, which makes what only its `prepare` fills.
        self.method = method
        self.url = url
        self.headers = headers  # type: ignore[assignment]  # only iterated over
        self.body: Payload | None = body  # type: ignore[assignment]  # sent as it is
        self.line = line or Line()
        self.ends_at = ends_at
        self.was_sent = False


class Transport(BaseAdapter):
    """Thread-safe. `connections` is how many idle ones are kept for an upstream."""

    def __init__(
        self, *, connections: int, ca_bundle: Path | None = None, allow_private: bool = False
    ) -> None:
        super().__init__()
        self._connections = Connections(
            kept=connections, ca_bundle=ca_bundle, allow_private=allow_private
        )

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = True,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """The answer, its head read. `timeout` is (connect, silence), in seconds.

        It always streams, and whom to trust was said when this was made. Raises requests'
        exceptions; their texts name no host, key or proxy.
        """
        assert isinstance(request, Outgoing), "requests' own are prepared for its sessions"
        connect_seconds, silence_seconds = timeout
        try:
            host, target = _way(str(request.url), (proxies or {}).get("all"))
        except ValueError:
            raise requests.exceptions.InvalidURL(NO_URL) from None
        head = _head(request, host, target)
        connection = self._connections.take(host.origin)
        if connection is not None:
            response = self._exchange(request, head, connection, silence_seconds, was_idle=True)
            if response is not None:
                return response
        try:
            connection = self._connections.open(
                host.origin, seconds=connect_seconds, line=request.line
            )
        except ValueError:  # of a host name that cannot be one
            raise requests.exceptions.InvalidURL(NO_URL) from None
        response = self._exchange(request, head, connection, silence_seconds, was_idle=False)
        assert response is not None, "a new connection has an answer or an error"
        return response

    def certificate_until(
        self, url: str, proxy_url: str | None, *, seconds: float
    ) -> float | None:
        """Of an upstream that is connected to, and asked nothing. Raises as `send` does."""
        try:
            origin = origin_of(url, proxy_url)
            connection = self._connections.open(origin, seconds=seconds, line=Line())
        except ValueError:
            raise requests.exceptions.InvalidURL(NO_URL) from None
        try:
            return certificate_until(connection)
        finally:
            connection.close()

    def close_idle(self) -> None:
        """Closes connections that nobody used for a while."""
        self._connections.close_idle()

    def close(self) -> None:
        self._connections.close()

    def _exchange(
        self,
        request: Outgoing,
        head: bytes,
        connection: Connection,
        silence_seconds: float,
        *,
        was_idle: bool,
    ) -> requests.Response | None:
        """None if the connection was closed while it was idle, so that nobody saw the request:
        a server may close one in the moment in which we use it."""
        reader = AnswerReader(connection.receive)
        body = Body(reader, connection, self._connections, request.line)
        started = time.monotonic()
        try:
            is_large = len(request.body or b"") > MAX_JOINED_BYTES
            request.line.hold(partial(shut_down, connection.sock), waits=is_large)
            connection.silence_seconds = silence_seconds
            # The head as a whole: it may come byte by byte, or interim ones again and again.
            connection.ends_at = min(request.ends_at, started + silence_seconds)
            body.was_sent = request.was_sent = _sent(connection, head, request.body)
            request.line.about_to_wait()
            reader.read_head()
        except (OSError, BrokenAnswer) as error:
            body.close()
            # One that we ended may have been seen.
            unseen = was_idle and not reader.received_bytes and not request.line.was_woken
            soon = time.monotonic() - started < STALE_SECONDS
            if unseen and soon and not isinstance(error, TimeoutError):
                return None
            found = _translated(error)
            found.request = request
            raise found from None
        connection.ends_at = request.ends_at
        request.body = None  # it has been sent, and the answer may be open for long
        return _Response(request, reader.status, body)


class Body:
    """What requests calls `raw`: a body to be read. Closing it early closes the connection."""

    def __init__(
        self, reader: AnswerReader, connection: Connection, kept: Connections, line: Line
    ) -> None:
        self.was_sent = True
        self._reader = reader
        self._connection: Connection | None = connection
        self._kept = kept
        self._line = line

    def header_items(self) -> list[tuple[str, str]]:
        """Every header line, also where a name occurs twice."""
        return self._reader.headers

    @property
    def fields(self) -> Mapping[str, str]:
        """Header lines by their name in lower case."""
        return self._reader.fields

    @property
    def is_delimited(self) -> bool:
        """It says itself where it ends; else it may have been cut short."""
        return self._reader.is_delimited

    def read1(self) -> bytes:
        """What has arrived, at least one byte; b"" at the end. Raises requests' exceptions."""
        try:
            data = self._reader.read1()
        except (OSError, BrokenAnswer) as error:
            self.close()
            raise _translated(error, SILENT) from None
        if self._reader.complete:
            self._finish()
        return data

    def watched(self) -> int | None:
        """The number of the file by which more is seen to arrive; None if it has to be waited
        for by `read1`, or all is here."""
        if self._connection is None or self._reader.has_ended:
            return None
        return self._connection.watched()

    def arrived(self) -> bytes:
        """As `read1` of what is watched, but without waiting: raises BlockingIOError. Also at
        the end, and after an error, the connection stays as it is, to be watched no more; the
        next `read1` or `close` gives it up."""
        assert self._connection is not None, "it is watched"
        try:
            return self._reader.read1(self._connection.arrived)
        except BlockingIOError:
            raise
        except (OSError, BrokenAnswer) as error:
            raise _translated(error, SILENT) from None

    @property
    def has_ended(self) -> bool:
        """Nothing more is to be waited for: all has arrived, or what is broken."""
        return self._reader.has_ended

    def stream(self, _size: int = 0, decode_content: bool = True) -> Iterator[bytes]:
        """For `Response.iter_content` and `.content`."""
        while data := self.read1():
            yield data

    def allow_silence(self, seconds: float) -> None:
        """The longest wait of each read from now on."""
        if self._connection is not None:
            self._connection.silence_seconds = seconds

    def end_by(self, at: float) -> None:
        """Monotonic seconds beyond which no read goes on."""
        if self._connection is not None:
            self._connection.ends_at = at

    def close(self) -> None:
        """Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._reader.let_go()
            self._line.release()
            connection.close()

    release_conn = close

    def _finish(self) -> None:
        """The answer has ended: the connection may carry the next."""
        connection = self._connection
        if connection is not None and self._reader.reusable and self.was_sent:
            self._connection = None
            self._reader.let_go()
            self._line.release()
            self._kept.keep(connection)
        else:
            self.close()


class _Host(NamedTuple):
    """Whom URLs with the same beginning ask: over which connection, and what each request
    tells it. `prefix` stands before each target."""

    origin: Origin
    prefix: str
    lines: tuple[str, ...]


def _way(url: str, proxy_url: str | None) -> tuple[_Host, str]:
    """How a URL is asked: whom, and for what target. Raises ValueError if there is none.

    Of all the deployments of a host what comes before the path is looked at once."""
    end = url.find("/", url.find("//") + 2)
    if end < 0 or "#" in url or "?" in url[:end] or not url.isprintable():
        parts = urlsplit(url)
        host = _host(f"{parts.scheme}://{parts.netloc}", proxy_url)
        return host, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _host(url[:end], proxy_url), url[end:]


@lru_cache(KEPT_HOSTS)
def _host(base: str, proxy_url: str | None) -> _Host:
    origin = origin_of(base, proxy_url)
    prefix, lines = "", [f"Host: {origin.authority}"]
    if proxy_url and origin.scheme == "http":  # of https the proxy sees only the tunnel
        prefix = f"http://{origin.authority}"
        lines += proxy_lines(origin)
    return _Host(origin, prefix, tuple(lines))


def _head(request: Outgoing, host: _Host, target: str) -> bytes:
    first = f"{request.method} {host.prefix}{target} HTTP/1.1"
    lines = [first, *host.lines, "Accept-Encoding: identity"]
    told: Collection[tuple[str, str]] = request.headers.items()
    if not _OURS.isdisjoint(map(str.lower, request.headers)):
        told = [(name, value) for name, value in told if name.lower() not in _OURS]
    lines += map(": ".join, told)
    if request.body is not None:
        lines.append(f"Content-Length: {len(request.body)}")
    text = "\r\n".join(lines)
    # A line end inside of a value would begin a header of its own, or a request.
    if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1:
        raise requests.exceptions.InvalidHeader(NO_REQUEST)
    try:
        return f"{text}\r\n\r\n".encode("latin-1")
    except UnicodeEncodeError:  # its text quotes the value
        raise requests.exceptions.InvalidHeader(NO_REQUEST) from None


def _sent(connection: Connection, head: bytes, body: Payload | None) -> bool:
    """False if the peer did not take all of it: it may have answered before."""
    try:
        if isinstance(body, Spliced):
            for piece in (head, *body.pieces):
                connection.send_all(piece)
        elif body is None or len(body) <= MAX_JOINED_BYTES:
            connection.send_all(head + (body or b""))
        else:
            connection.send_all(head)
            connection.send_all(body)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


class _Response(requests.Response):
    """As requests' own; what that makes for browsers each time is made when it is asked for."""

    _content: Any = False
    _content_consumed = False
    _next = None
    encoding = None
    reason = ""
    elapsed = timedelta(0)

    def __init__(self, request: Outgoing, status: int, body: "Body") -> None:
        # Not its own: to make a jar for cookies takes longer than to read the answer's head.
        self.status_code = status
        self.url = str(request.url)
        self.request = request
        self.raw: Any = body

    @cached_property
    def headers(self) -> CaseInsensitiveDict[str]:  # type: ignore[override]
        return CaseInsensitiveDict(self.raw.header_items())

    @cached_property
    def history(self) -> list[requests.Response]:  # type: ignore[override]
        return []

    @cached_property
    def cookies(self) -> RequestsCookieJar:  # type: ignore[override]
        return RequestsCookieJar()


def _translated(error: Exception, silent: str = SLOW_ANSWER) -> requests.RequestException:
    """Without the texts of those who raised it: they may quote what was sent or came."""
    if isinstance(error, TimeoutError):
        return requests.ReadTimeout(silent)
    if isinstance(error, BrokenAnswer):
        return requests.ConnectionError(str(error))
    if isinstance(error, ConnectionError):
        return requests.ConnectionError(BROKE_OFF)
    why = error.strerror if isinstance(error, OSError) else None
    return requests.ConnectionError(FAILED.format(why or type(error).__name__))
