"""How a connection to an upstream is opened: its address, TLS, and proxies on the way."""

import errno
import os
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from threading import Event, Thread
from typing import Any, cast

import certifi
import requests
from urllib3.util.ssltransport import SSLTransport

from proxy.core.addresses import refused
from proxy.runtime.answer_reader import AnswerReader, BrokenAnswer
from proxy.runtime.connection import (
    AnySocket,
    Connection,
    Origin,
    bracketed,
    origin_of,
    proxy_lines,
    shut_down,
)
from proxy.runtime.line import Line

# A peer that vanished without a word is noticed while we wait for it.
_OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 45),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
    # Heads and events are small: none is to wait for the one before to be acknowledged.
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)

REFUSED = "the connection was refused"
UNKNOWN_HOST = "its host name could not be resolved"
SLOW_CONNECT = "it timed out while we connected"
NO_TLS = "TLS failed: its certificate or protocol was not accepted"
FAILED = "the connection failed ({})"
NO_MEANS = "the gateway can open no more connections ({})"
NO_PROXY = "its proxy_url refused or could not be reached"
NOT_ALLOWED = (
    "it, or its proxy_url, leads to a link-local or metadata address, which only"
    " PROXY_ALLOW_PRIVATE_UPSTREAMS allows"
)


# What the system has no more of: files, memory, threads.
_USED_UP = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN})


class NoMeans(requests.ConnectionError):
    """The system gives us nothing to connect with, which says nothing about the upstream."""

    def __init__(self, why: str) -> None:
        super().__init__(NO_MEANS.format(why))


class NotAllowed(requests.ConnectionError):
    """It leads to where nobody is to be asked."""

    def __init__(self) -> None:
        super().__init__(NOT_ALLOWED)


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


class Dialler:
    """Thread-safe. Without `allow_private` none is opened to where core/addresses.py refuses
    it."""

    def __init__(
        self,
        *,
        ca_bundle: Path | None = None,
        allow_private: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ca_bundle = ca_bundle
        self._allow_private = allow_private
        self._clock = clock

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
        except (requests.ConnectTimeout, NotAllowed, NoMeans):
            raise  # it may be we who have no more time, or do not ask, or cannot
        except (ValueError, requests.RequestException):
            raise requests.exceptions.ProxyError(NO_PROXY) from None
        if origin.scheme == "http":
            return Connection(origin, sock)
        with _closed_if_it_fails(sock):
            _ask_for_tunnel(sock, origin, until)
            return Connection(origin, self._secured(sock, origin, until, line))

    def _connected(self, origin: Origin, until: _Deadline, line: Line) -> AnySocket:
        sock = _dialled(origin, until, line, allow_private=self._allow_private)
        if origin.scheme == "http":
            return sock
        with _closed_if_it_fails(sock):
            return self._secured(sock, origin, until, line)

    def _secured(
        self, sock: AnySocket, origin: Origin, until: _Deadline, line: Line
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


def _dialled(
    origin: Origin, until: _Deadline, line: Line, *, allow_private: bool
) -> socket.socket:
    """By the first of the host's addresses that answers; each gets its share of the time."""
    try:
        found = _addresses(origin, until, line)
    except socket.gaierror:
        raise _without_name() from None
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
    by itself after the resolver's own time. Raises OSError also where there is no thread."""
    found: list[list[Any] | Exception] = []
    done = Event()

    def run() -> None:
        try:
            found.append(look())
        except (OSError, ValueError) as error:  # ValueError: no name can be written so
            found.append(error)
        done.set()

    line.hold(done.set)
    try:
        Thread(target=run, name="resolve", daemon=True).start()
    except RuntimeError:
        raise OSError(errno.EAGAIN, "no more threads") from None
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


def _without_name() -> requests.RequestException:
    """The resolver does not say that it could not open a file of its own."""
    try:
        socket.socket().close()
    except OSError as failure:
        return _not_connected(failure)
    return requests.ConnectionError(UNKNOWN_HOST)


def _not_connected(error: OSError) -> requests.RequestException:
    if isinstance(error, TimeoutError):
        return requests.ConnectTimeout(SLOW_CONNECT)
    if isinstance(error, ConnectionRefusedError):
        return requests.ConnectionError(REFUSED)
    if error.errno in _USED_UP:
        return NoMeans(error.strerror or os.strerror(error.errno))
    return requests.ConnectionError(FAILED.format(error.strerror or type(error).__name__))


def _ask_for_tunnel(sock: AnySocket, origin: Origin, until: _Deadline) -> None:
    """RFC 9110, 9.3.6. Raises ProxyError if the proxy makes none."""
    where = f"{bracketed(origin.host)}:{origin.port}"

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


@contextmanager
def _closed_if_it_fails(sock: AnySocket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        sock.close()
        raise
