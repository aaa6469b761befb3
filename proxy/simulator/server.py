"""The simulator: a listener on loopback for each resource, a thread for each connection."""

import ipaddress
import socket
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from proxy.simulator import errors
from proxy.simulator.exchange import serve
from proxy.simulator.faults import FAULTS
from proxy.simulator.resource import Resource
from proxy.simulator.wire import Connection, Malformed, PeerLeft, head

BACKLOG = 1024
"""Clients that may wait to be accepted; a load test opens hundreds of streams at once."""

STOP_SECONDS = 5.0
"""For a connection's thread to end; they are told to, so this is for a bug only."""


class Simulator:
    """Several simulated resources, each on a port of its own.

    `port` 0 takes free ports; any other is the first resource's, and the others follow.
    Only loopback: everybody who can connect can spend an afternoon of your CPU, and
    nothing here is hardened. Raises ValueError for another host or a name used twice.
    """

    def __init__(
        self, resources: Sequence[Resource], port: int = 0, host: str = "127.0.0.1"
    ) -> None:
        _check_loopback(host)
        self.resources = {resource.name: resource for resource in resources}
        if len(self.resources) != len(resources):
            raise ValueError("two resources with the same name")
        self._host = host
        self._port = port
        self._listeners: list[_Listener] = []

    def __getitem__(self, name: str) -> Resource:
        return self.resources[name]

    def start(self) -> None:
        """Begin to listen. Raises OSError if a port is taken; then none is listened on."""
        if self._listeners:
            return
        try:
            for number, resource in enumerate(self.resources.values()):
                port = self._port + number if self._port else 0
                self._listeners.append(_Listener(resource, self._host, port))
        except OSError:
            self.stop()
            raise
        for listener in self._listeners:
            listener.start()

    def stop(self) -> None:
        """Close listeners and connections, end all threads. May be called twice."""
        for listener in self._listeners:
            listener.close()
        for listener in self._listeners:
            listener.join()
        self._listeners = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def describe(simulator: Simulator) -> list[str]:
    """What somebody who started it wants to know, line by line."""
    width = max((len(name) for name in simulator.resources), default=0)
    lines = [
        f"{resource.name:{width}}  {resource.url or 'not started'}  "
        f"key: {'any' if resource.api_key is None else resource.api_key}"
        for resource in simulator.resources.values()
    ]
    names = max(len(name) for name in FAULTS)
    lines.append("A deployment whose name contains fault-NAME has that fault:")
    lines += [f"  {name:{names}}  {fault.summary}" for name, fault in FAULTS.items()]
    return lines


def _check_loopback(host: str) -> None:
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False  # some other name: it could be anybody's
    if not is_loopback:
        raise ValueError(f"the simulator listens on loopback only, not on {host!r}")


class _Listener:
    """The open port of one resource, and the connections that came through it."""

    def __init__(self, resource: Resource, host: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._resource = resource
        self._socket = socket.create_server((host, port), family=family, backlog=BACKLOG)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._lock = threading.Lock()  # of the two below
        self._open: dict[threading.Thread, Connection] = {}
        self._closed = False
        scheme = "https" if resource.ssl_context else "http"
        shown = f"[{host}]" if ":" in host else host
        resource.url = f"{scheme}://{shown}:{self._socket.getsockname()[1]}"

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Take nobody any more and interrupt everybody."""
        with self._lock:
            self._closed = True
            connections = list(self._open.values())
        # Closing a socket does not wake a thread that is in accept() on it; a visitor does.
        try:
            socket.create_connection(self._socket.getsockname()[:2], timeout=1).close()
        except OSError:
            pass  # the accepting thread has gone already
        for connection in connections:
            connection.interrupt()

    def join(self) -> None:
        """Wait for the threads to end."""
        ends_at = time.monotonic() + STOP_SECONDS
        if self._thread.ident is not None:
            self._thread.join(STOP_SECONDS)
        self._socket.close()
        with self._lock:
            threads = list(self._open)
        for thread in threads:
            thread.join(max(0.0, ends_at - time.monotonic()))

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                # Out of files, or the peer gave up meanwhile: others may still come.
                if self._closed:
                    return
                time.sleep(0.01)
                continue
            if not self._take(peer):
                peer.close()
                return

    def _take(self, peer: socket.socket) -> bool:
        """Give a peer a thread; False if we are closed."""
        try:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if (context := self._resource.ssl_context) is not None:
                # The handshake is for the thread: a slow peer must not keep others out.
                peer = context.wrap_socket(
                    peer, server_side=True, do_handshake_on_connect=False
                )
        except OSError:
            peer.close()  # it has left
            return not self._closed
        connection = Connection(peer)
        thread = threading.Thread(target=self._talk, args=(connection,), daemon=True)
        with self._lock:
            if self._closed:
                connection.close()
                return False
            self._open[thread] = connection
        thread.start()
        return True

    def _talk(self, connection: Connection) -> None:
        try:
            connection.shake_hands()
            while self._answer_next(connection):
                pass
        except OSError:
            pass  # no handshake; there is nobody to tell
        finally:
            connection.close()
            with self._lock:
                del self._open[threading.current_thread()]

    def _answer_next(self, connection: Connection) -> bool:
        """Read a request, answer it. Whether there may be another on this connection."""
        try:
            received = connection.read()
            if received is None:
                return False
            self._resource.note(received)
            return serve(self._resource, connection, received) and connection.keep_alive
        except Malformed as problem:
            body = errors.invalid(str(problem)).body
            self._say_goodbye(connection, body)
        except PeerLeft:
            if not self._closed:
                self._resource.note_abort()
        return False

    def _say_goodbye(self, connection: Connection, body: bytes) -> None:
        length = {"content-length": str(len(body)), "connection": "close"}
        try:
            connection.send(head(400, {"content-type": "application/json", **length}) + body)
        except PeerLeft:
            pass  # it did not wait to hear what was wrong
