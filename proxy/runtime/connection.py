"""One connection to an upstream: where it leads, what is sent and received, how it stands."""

import fcntl
import math
import select
import socket
import ssl
import struct
import termios
import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from urllib3.util.ssltransport import SSLTransport

from proxy.core.types import Bytes
from proxy.runtime import short_calls
from proxy.runtime.buffers import thread_address, thread_buffer, timeval

PORTS = {"http": 80, "https": 443}

# linux/tcp.h: of the structure tcp_info the part that ends with the bytes received (Linux 4.1).
TCP_INFO_BYTES = 136
_RECEIVED = struct.Struct("@Q")
TCP_ESTABLISHED = 1  # its first byte then
_UNREAD = struct.Struct("@i")

AnySocket = socket.socket | SSLTransport


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
        host = bracketed(self.host)
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


def proxy_lines(origin: Origin) -> list[str]:
    """The header line by which the origin's proxy knows us; none if its URL names nobody."""
    parts = urlsplit(origin.proxy_url or "")
    if parts.username is None:
        return []
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return [f"Proxy-Authorization: Basic {b64encode(pair.encode('latin-1')).decode()}"]


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


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

    def send_all(self, data: Bytes | memoryview) -> None:
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
