"""Upstreams with bad manners: sockets on loopback that say exactly what they are told to."""

import contextlib
import logging
import socket
import ssl
import threading

import pytest
import trustme

from proxy.runtime.connections import Connections
from proxy.runtime.entra import NoToken, Tokens
from proxy.runtime.upstream import Upstream
from proxy.simulator import Simulator


class NoSource:
    """Of a gateway whose instances have keys."""

    def problem(self):
        return "nobody wants a token"

    def fetch(self):
        raise NoToken("nobody wants a token")


class Peer:
    """One connection that was accepted."""

    def __init__(self, sock):
        self.sock = sock
        self._reader = sock.makefile("rb")

    def request(self):
        """Head and body of the next request; b"" and b"" if the other side left."""
        lines = []
        while (line := self._reader.readline()) not in (b"\r\n", b""):
            lines.append(line)
        length = next(
            (int(h.split(b":")[1]) for h in lines if h.lower().startswith(b"content-length:")),
            0,
        )
        return b"".join(lines), self._reader.read(length)

    def send(self, *data):
        self.sock.sendall(b"".join(data))

    def answer(self, body=b"ok", *headers, status=b"200 OK"):
        """A whole answer, on a connection that goes on."""
        lines = [b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *headers]
        self.send(b"\r\n".join(lines), b"\r\n\r\n", body)

    def close(self):
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self._reader.close()
        self.sock.close()


class Listener:
    """Each connection is given to `talk`, in a thread of its own, and closed after it."""

    def __init__(self, talk, context=None):
        self._talk = talk
        self._context = context
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.peers = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self):
        while True:
            try:
                sock, _ = self._socket.accept()
            except OSError:
                return  # closed
            thread = threading.Thread(target=self._serve, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock):
        with contextlib.suppress(OSError):
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_side=True)
        peer = Peer(sock)
        self.peers.append(peer)
        with contextlib.suppress(OSError):
            self._talk(peer)
        peer.close()

    def close(self):
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._socket.close()
        self._threads[0].join(5)
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive()


@pytest.fixture
def listen():
    """A function that starts a Listener; all stop at the end."""
    with contextlib.ExitStack() as stack:

        def start(talk, context=None):
            listener = Listener(talk, context)
            stack.callback(listener.close)
            return listener

        yield start


@pytest.fixture
def make_upstream():
    with contextlib.ExitStack() as stack:

        def make(**changes):
            defaults = {"connections": 10, "connect_timeout_seconds": 2.0, "ca_bundle": None}
            defaults["tokens"] = Tokens(NoSource())
            upstream = Upstream(**(defaults | changes))
            stack.callback(upstream.close)
            return upstream

        yield make


@pytest.fixture
def upstream(make_upstream):
    return make_upstream()


@pytest.fixture
def simulate():
    """A function that starts resources and returns the simulator; all stop at the end."""
    with contextlib.ExitStack() as stack:
        yield lambda *resources: stack.enter_context(Simulator(list(resources)))


@pytest.fixture
def logged():
    """(level, line) of what the proxy logs, whatever other tests did to its logger."""
    seen = []

    class Collect(logging.Handler):
        def emit(self, record):
            seen.append((record.levelname, record.getMessage()))

    logger, handler = logging.getLogger("proxy"), Collect()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel("INFO")
    yield seen
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
def full_port():
    """A port whose queue is full: connecting to it neither succeeds nor fails."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        waiting = []
        for _ in range(4):
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
        for sock in waiting:
            sock.close()


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_bundle(authority, tmp_path_factory):
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture(scope="module")
def server_context(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


@pytest.fixture
def make_connections(ca_bundle):
    with contextlib.ExitStack() as stack:

        def make(**changes):
            made = Connections(**({"kept": 10, "ca_bundle": ca_bundle} | changes))
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
def connections(make_connections):
    return make_connections()


@pytest.fixture
def silent(listen):
    """A listener that says nothing, until the other side leaves."""
    return listen(lambda peer: peer.request())
