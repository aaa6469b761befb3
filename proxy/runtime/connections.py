"""Connections to upstreams: opened with TLS and through proxies, kept, and used again."""

import errno
import fcntl
import math
import os
import select
import socket
import ssl
import struct
import termios
import time
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from threading import Event, Thread
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import certifi
import requests
from urllib3.util.ssltransport import SSLTransport

from proxy.core.addresses import refused
from proxy.core.types import Bytes
from proxy.runtime import short_calls
from proxy.runtime.answer_reader import AnswerReader, BrokenAnswer
from proxy.runtime.buffers import thread_address, thread_buffer, timeval
from proxy.runtime.line import Line

# Azure's front door closes what is idle for some minutes; better we do than it, just then.
KEPT_SECONDS = 90.0

PORTS = {"http": 80, "https": 443}

# A peer that vanished without a word is noticed while we wait for it.
_OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 45),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
    # Heads and events are small: none is to wait for the one before to be acknowledged.
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)

# linux/tcp.h: of the structure tcp_info the part that ends with the bytes received (Linux 4.1).
TCP_INFO_BYTES = 136
_RECEIVED = struct.Struct("@Q")
TCP_ESTABLISHED = 1  # its first byte then
_UNREAD = struct.Struct("@i")

REFUSED = "the connection was refused"
UNKNOWN_HOST = "its host name could not be resolved"
SLOW_CONNECT = "it timed out while we connected"
NO_TLS = "TLS failed: its certificate or protocol was not accepted"
FAILED = "the connection failed ({})"
NO_PROXY = "its proxy_url refused or could not be reached"
NOT_ALLOWED = (
    "it, or its proxy_url, leads to a link-local or metadata address, which only"
    " PROXY_ALLOW_PRIVATE_UPSTREAMS allows"
)

AnySocket = socket.socket | SSLTransport


class NotAllowed(requests.ConnectionError):
    """It leads to where nobody is to be asked."""

    def __init__(self) -> None:
        super().__init__(NOT_ALLOWED)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a connection leads. Equal ones may share connections."""

    scheme: str
    host: str
    port: int
    proxy_url: str | None = field(default=None, repr=False)

    @property
    def authority(self) -> str:
        """As in a Host header: the port only where it is not the usual one."""
        host = _bracketed(self.host)
        return host if PORTS[self.scheme] == self.port else f"{host}:{self.port}"


def origin_of(url: str, proxy_url: str | None = None) -> Origin:
    """Raises ValueError if the URL is none of http or https with a host."""
    parts = urlsplit(url)
    port = parts.port  # raises ValueError
    if parts.scheme not in PORTS or not parts.hostname:
        raise ValueError("not an http or https URL with a host")
    if port is None:
        port = PORTS[parts.scheme]
    return Origin(parts.scheme, parts.hostname, port, proxy_url or None)


class Connection:
    """One that stands. Used by one thread at a time."""

    __slots__ = (
        "_clock",
        "_received_bytes",
        "_set_seconds",
        "ends_at",
        "idle_since",
        "origin",
        "silence_seconds",
        "sock",
    )

    def __init__(
        self, origin: Origin, sock: AnySocket, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.origin = origin
        self.sock = sock
        self.idle_since = 0.0
        # Of each send or receive: its longest wait, and when it ends at the latest.
        self.silence_seconds = math.inf
        self.ends_at = math.inf
        self._set_seconds = -1.0
        self._clock = clock
        self._received_bytes = 0
        if type(sock) is socket.socket:
            sock.settimeout(None)

    def receive(self, size: int) -> memoryview:
        """What has arrived, up to `size`, within the times; to be used before the thread
        receives again. Raises OSError."""
        self._set_time()
        buffer = thread_buffer(size)
        try:
            size = cast(int, self.sock.recv_into(buffer))
        except BlockingIOError:
            raise TimeoutError from None
        self._received_bytes += size
        return buffer[:size]

    def watched(self) -> int | None:
        """Its file's number, for who waits for many of them at once and then asks for what has
        arrived. None: it has to be waited for by itself."""
        if isinstance(self.sock, SSLTransport):
            return None
        if isinstance(self.sock, ssl.SSLSocket):
            self.sock.settimeout(0)
            self._set_seconds = -1.0
        return self.sock.fileno()

    def arrived(self, size: int) -> memoryview:
        """As `receive`, but without waiting: of one that is watched. Raises BlockingIOError
        where nothing has arrived."""
        buffer = thread_buffer(size)
        found = short_calls.received(self.sock, thread_address(), size)
        if found is None:
            found = self._received_now(buffer)
        self._received_bytes += found
        return buffer[:found]

    def _received_now(self, buffer: memoryview) -> int:
        sock = cast(socket.socket, self.sock)
        if type(sock) is socket.socket:
            return sock.recv_into(buffer, len(buffer), socket.MSG_DONTWAIT)
        try:
            return sock.recv_into(buffer)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def send_all(self, data: Bytes) -> None:
        """As the socket's own, within the times: also where the peer takes it bit by bit.
        Raises OSError."""
        left = memoryview(data)
        if len(data) <= short_calls.MAX_BYTES:
            left = left[short_calls.sent(self.sock, data) :]
        while left:
            self._set_time()
            try:
                left = left[self.sock.send(cast(bytes, left)) :]
            except BlockingIOError:
                raise TimeoutError from None

    def _set_time(self) -> None:
        seconds = min(self.silence_seconds, self.ends_at - self._clock())
        if seconds <= 0:
            raise TimeoutError
        # It is asked for each time, and mostly a moment less than before: that is near enough.
        if seconds <= self._set_seconds <= seconds * 1.01:
            return
        self._set_seconds = seconds
        if type(self.sock) is socket.socket:
            # The system's own. Python's is a question before each call whether it would wait:
            # the interpreter would be given away twice.
            limit = timeval(seconds)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        else:
            self.sock.settimeout(None if seconds == math.inf else seconds)

    def note_idle(self, now: float) -> None:
        """Nobody uses it from now on."""
        self.idle_since = now
        if isinstance(self.sock, ssl.SSLSocket):  # what it receives is not what we read
            _, received_bytes = self._standing()
            # Asked for later: what comes in between makes it stale, and not good.
            self._received_bytes = received_bytes - _unread_bytes(self.sock)

    def is_stale(self) -> bool:
        """Since it is idle the peer has closed it, or says something nobody asked for."""
        if isinstance(self.sock, SSLTransport):
            is_held = self.sock.incoming.pending or self.sock.sslobj.pending()
            return bool(is_held or select.select([self.sock.fileno()], [], [], 0)[0])
        return self._standing() != (TCP_ESTABLISHED, self._received_bytes)

    def _standing(self) -> tuple[int, int]:
        """Its state, and how many bytes it received. Asked of TCP, because to ask whether it
        can be read gives the interpreter away."""
        info = cast(socket.socket, self.sock).getsockopt(
            socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES
        )
        received_bytes: int = _RECEIVED.unpack_from(info, TCP_INFO_BYTES - _RECEIVED.size)[0]
        return info[0], received_bytes

    def close(self) -> None:
        self.sock.close()


def _unread_bytes(sock: ssl.SSLSocket) -> int:
    """What has arrived behind the last answer, and would be read as the next one's."""
    found = fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(_UNREAD.size))
    in_the_system: int = _UNREAD.unpack(found)[0]
    return in_the_system + sock.pending()


def certificate_until(connection: Connection) -> float | None:
    """When the peer's certificate expires, in seconds since the epoch; None without TLS."""
    if not isinstance(connection.sock, ssl.SSLSocket | SSLTransport):
        return None
    shown = cast(dict[str, Any], connection.sock.getpeercert() or {})
    return ssl.cert_time_to_seconds(shown["notAfter"]) if "notAfter" in shown else None


class Connections:
    """Thread-safe. `kept` is how many idle ones an origin may have; without `allow_private`
    none is opened to where core/addresses.py refuses it."""

    def __init__(
        self,
        *,
        kept: int,
        ca_bundle: Path | None = None,
        allow_private: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kept = kept
        self._ca_bundle = ca_bundle
        self._allow_private = allow_private
        self._clock = clock
        # Taking from a deque and adding to it is atomic; the newest is used first.
        self._idle: dict[Origin, deque[Connection]] = {}
        self._closed = False

    def take(self, origin: Origin) -> Connection | None:
        """An idle one that still stands; None if there is none."""
        idle = self._idle.get(origin)
        while idle:
            try:
                connection = idle.pop()
            except IndexError:  # another thread was faster
                return None
            if not connection.is_stale():
                return connection
            connection.close()
        return None

    def keep(self, connection: Connection) -> None:
        """For the next request to the same origin."""
        idle = self._idle.get(connection.origin)
        if idle is None:
            idle = self._idle.setdefault(connection.origin, deque())
        if len(idle) >= self._kept or self._closed:
            connection.close()
            return
        connection.note_idle(self._clock())
        idle.append(connection)
        if self._closed:  # just now, by another thread that did not see this one
            self.close()

    def close_idle(self) -> None:
        """Closes those that nobody used for KEPT_SECONDS."""
        before = self._clock() - KEPT_SECONDS
        for idle in list(self._idle.values()):
            while idle:
                try:
                    connection = idle.popleft()
                except IndexError:
                    break
                if connection.idle_since > before:
                    idle.appendleft(connection)
                    break
                connection.close()

    def close(self) -> None:
        """Closes what is idle; what is in use closes when it would be kept."""
        self._closed = True
        for idle in list(self._idle.values()):
            while idle:
                try:
                    idle.pop().close()
                except IndexError:
                    break  # another thread was faster

    def open(self, origin: Origin, *, seconds: float, line: Line) -> Connection:
        """A new one, which stands within so many seconds, TLS and proxy included.

        Raises requests' exceptions, with a text that names no host, address or password.
        """
        until = _Deadline(self._clock() + seconds, self._clock)
        if origin.proxy_url is None:
            return Connection(origin, self._connected(origin, until, line))
        # Where a name leads to only the proxy knows.
        if not self._allow_private and refused(origin.host):
            raise NotAllowed
        try:
            sock = self._connected(origin_of(origin.proxy_url), until, line)
        except (requests.ConnectTimeout, NotAllowed):
            raise  # it may be we who have no more time, or do not ask
        except (ValueError, requests.RequestException):
            raise requests.exceptions.ProxyError(NO_PROXY) from None
        if origin.scheme == "http":
            return Connection(origin, sock)
        with _closed_if_it_fails(sock):
            _ask_for_tunnel(sock, origin, until)
            return Connection(origin, self._secured(sock, origin, until, line))

    def _connected(self, origin: Origin, until: "_Deadline", line: Line) -> AnySocket:
        sock = _dialled(origin, until, line, allow_private=self._allow_private)
        if origin.scheme == "http":
            return sock
        with _closed_if_it_fails(sock):
            return self._secured(sock, origin, until, line)

    def _secured(
        self, sock: AnySocket, origin: Origin, until: "_Deadline", line: Line
    ) -> AnySocket:
        try:
            sock.settimeout(until.seconds())
            if type(sock) is not socket.socket:  # TLS inside of TLS: by a proxy's https://
                return SSLTransport(cast(socket.socket, sock), self._tls, origin.host)
            secured = self._tls.wrap_socket(
                sock, server_hostname=origin.host, do_handshake_on_connect=False
            )
            with _closed_if_it_fails(secured):
                line.hold(partial(shut_down, secured))
                secured.do_handshake()
                return secured
        except TimeoutError:
            raise requests.ConnectTimeout(SLOW_CONNECT) from None
        except (OSError, ValueError) as error:  # ssl's own are OSErrors
            # The cause is for who asks why; it may name the host.
            raise requests.exceptions.SSLError(NO_TLS) from error

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self._ca_bundle or certifi.where())
        context.set_alpn_protocols(["http/1.1"])
        return context


class _Deadline:
    """Until when a connection must stand. Raises TimeoutError when asked after that."""

    def __init__(self, at: float, clock: Callable[[], float]) -> None:
        self._at = at
        self._clock = clock

    def seconds(self, parts: int = 1) -> float:
        """What is left, shared among so many."""
        left = self._at - self._clock()
        if left <= 0:
            raise TimeoutError
        return left / parts


def _dialled(
    origin: Origin, until: _Deadline, line: Line, *, allow_private: bool
) -> socket.socket:
    """By the first of the host's addresses that answers; each gets its share of the time."""
    try:
        found = _addresses(origin, until, line)
    except socket.gaierror:
        raise requests.ConnectionError(UNKNOWN_HOST) from None
    except OSError as failure:
        raise _not_connected(failure) from None
    if not allow_private:
        # Of what is connected to, and not of the name: that may lead elsewhere the next time.
        found = [each for each in found if not refused(each[-1][0])]
        if not found:
            raise NotAllowed
    error: OSError = socket.gaierror()
    for left, (family, kind, protocol, _, address) in zip(
        range(len(found), 0, -1), found, strict=True
    ):
        try:
            sock = socket.socket(family, kind, protocol)
            with _closed_if_it_fails(sock):
                for option in _OPTIONS:
                    sock.setsockopt(*option)
                _connect(sock, address, until.seconds(left), line)
            return sock
        except OSError as failure:  # also that we may open no more files
            error = failure
    raise _not_connected(error)


def _addresses(origin: Origin, until: _Deadline, line: Line) -> list[Any]:
    """As getaddrinfo gives and raises them; also TimeoutError or ConnectionAbortedError."""
    look = partial(socket.getaddrinfo, origin.host, origin.port, type=socket.SOCK_STREAM)
    try:
        return look(flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        return _looked_up(look, until.seconds(), line)


def _looked_up(look: Callable[[], list[Any]], seconds: float, line: Line) -> list[Any]:
    """In a thread of its own, because nothing can end a look into the DNS from outside; it ends
    by itself after the resolver's own time."""
    found: list[list[Any] | Exception] = []
    done = Event()

    def run() -> None:
        try:
            found.append(look())
        except (OSError, ValueError) as error:  # ValueError: no name can be written so
            found.append(error)
        done.set()

    line.hold(done.set)
    Thread(target=run, name="resolve", daemon=True).start()
    done.wait(seconds)
    if line.is_cut:
        raise ConnectionAbortedError
    if not found:
        raise TimeoutError
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


def _connect(sock: socket.socket, address: Any, seconds: float, line: Line) -> None:
    """Raises OSError. Not by `sock.connect`: a line that is cut wakes only who has begun to
    connect, so it is held in between."""
    sock.setblocking(False)
    code = sock.connect_ex(address)
    line.hold(partial(shut_down, sock), waits=False)
    if code == errno.EINPROGRESS:
        line.about_to_wait()
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLOUT)
        if not poll.poll(seconds * 1000):
            raise TimeoutError
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))
    if line.is_cut:
        raise ConnectionAbortedError
    sock.settimeout(seconds)


def _not_connected(error: OSError) -> requests.RequestException:
    if isinstance(error, TimeoutError):
        return requests.ConnectTimeout(SLOW_CONNECT)
    if isinstance(error, ConnectionRefusedError):
        return requests.ConnectionError(REFUSED)
    return requests.ConnectionError(FAILED.format(error.strerror or type(error).__name__))


def _ask_for_tunnel(sock: AnySocket, origin: Origin, until: _Deadline) -> None:
    """RFC 9110, 9.3.6. Raises ProxyError if the proxy makes none."""
    where = f"{_bracketed(origin.host)}:{origin.port}"

    def receive(size: int) -> Any:
        sock.settimeout(until.seconds())
        return sock.recv(size)

    reader = AnswerReader(receive)
    try:
        lines = [f"CONNECT {where} HTTP/1.1", f"Host: {where}", *proxy_lines(origin), "", ""]
        sock.settimeout(until.seconds())
        sock.sendall("\r\n".join(lines).encode("latin-1"))
        reader.read_head()
    except TimeoutError:
        raise requests.ConnectTimeout(SLOW_CONNECT) from None
    except (OSError, ValueError, BrokenAnswer):
        raise requests.exceptions.ProxyError(NO_PROXY) from None
    if not 200 <= reader.status < 300:
        raise requests.exceptions.ProxyError(NO_PROXY)


def proxy_lines(origin: Origin) -> list[str]:
    """The header line by which the origin's proxy knows us; none if its URL names nobody."""
    parts = urlsplit(origin.proxy_url or "")
    if parts.username is None:
        return []
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return [f"Proxy-Authorization: Basic {b64encode(pair.encode('latin-1')).decode()}"]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def shut_down(sock: AnySocket) -> None:
    """Wakes whoever waits on it. Raises nothing; for any thread.

    Not the TLS layer's own way: that waits for the peer, and takes the TLS object away under a
    reader's feet.
    """
    while isinstance(sock, SSLTransport):
        sock = sock.socket
    try:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        pass  # it does not stand yet, or not any more


@contextmanager
def _closed_if_it_fails(sock: AnySocket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        sock.close()
        raise
