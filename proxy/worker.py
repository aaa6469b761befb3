"""gunicorn's worker with threads, for clients that ask again at once, and for many at a time.

Its own hands each request from the loop to a thread and the connection back to the loop:
two switches of threads, a pipe, and four system calls. Here the thread looks for a moment
whether the client asks again, and goes on itself.
"""

import math
import select
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from gunicorn.workers.gthread import _DEFER, ThreadWorker

from proxy.context import EXTENSION, Parts
from proxy.runtime.buffers import thread_buffer, timeval
from proxy.runtime.threads import ThreadPool

# Made before the first request, so that many clients may begin in one moment: to make a thread
# costs more than what a request does until it waits for its upstream.
READY_THREADS = 128

# Of a kept connection after an answer. A client that works through a queue asks within a
# millisecond; for others it is one system call, and a thread that is idle a little later.
LINGER_MS = 5
# Of a new one until its first byte, before the loop looks after it.
FIRST_BYTE_MS = 5_000

# Connections taken from the queue at once, before the loop looks at anything else: one for so
# many as there are. A few clients are shared among the workers; of a crowd nobody waits long.
CONNECTIONS_FOR_EACH = 8

READ_BYTES = 16_384
# A larger body is not copied to go out with its head.
MAX_JOINED_BYTES = 65_536


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """What differs from gunicorn's is here, by the methods it has for that."""

    def load_wsgi(self) -> None:
        super().load_wsgi()
        parts: Parts = self.wsgi.extensions[EXTENSION]
        self._entry = parts.entry

    def get_thread_pool(self) -> ThreadPool:
        return ThreadPool(self.cfg.threads, ready=READY_THREADS)

    def accept(self, listener: Any) -> None:
        for _ in range(1 + self.nr_conns // CONNECTIONS_FOR_EACH):
            before = self.nr_conns
            super().accept(listener)
            if self.nr_conns in (before, self.worker_connections):
                return

    def enqueue_req(self, conn: Any) -> None:
        if not isinstance(conn.sock, ClientSocket):
            conn.sock = ClientSocket(conn.sock, self._entry.leave)
        self.tpool.submit(partial(self._serve, conn))

    def handle(self, conn: Any) -> Any:
        """The requests of one connection until its client pauses. False: close it."""
        if not conn.initialized:
            # As gunicorn does it, but without a selector for each connection.
            conn.data_ready = conn.data_ready or _is_readable(conn.sock, FIRST_BYTE_MS)
            if not conn.data_ready:
                return _DEFER  # or gunicorn would wait as long again
        while True:
            self._enter(conn)
            try:
                kept = super().handle(conn)
            finally:
                self._entry.leave()
            if kept is not True or not self.alive or not self._is_asked_again(conn):
                return kept

    def _enter(self, conn: Any) -> None:
        """Takes its turn, if the request is there: who waits for the rest of one must not keep
        others waiting."""
        try:
            conn.sock.setblocking(True)
            conn.init()
            unreader = conn.parser.unreader
            if not unreader.buf.getvalue():
                buffer = thread_buffer(READ_BYTES)
                unreader.unread(bytes(buffer[: conn.sock.recv_into(buffer)]))
            if is_whole(unreader.buf.getvalue()):
                self._entry.enter()
        except OSError:
            pass  # gunicorn finds it again, and knows what to do

    def handle_request(self, req: Any, conn: Any) -> Any:
        conn.sock.begin_answer()
        kept = super().handle_request(req, conn)
        conn.sock.end_answer()
        return kept

    def _keepalive_after(self, conn: Any, keepalive: Any) -> Any:
        self._entry.leave()  # what was not read of a body is waited for
        return super()._keepalive_after(conn, keepalive)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Any) -> Any:
        self._entry.leave()  # it writes to the client
        client.end_answer()  # a head of its own, and all at once
        return super().handle_error(req, client, addr, exc)

    def _is_asked_again(self, conn: Any) -> bool:
        unreader = conn.parser.unreader
        if self.tpool.is_full:  # others wait for this thread
            return False
        if unreader.buf.getvalue():
            return True
        try:
            data = conn.sock.received(LINGER_MS)
        except OSError:
            return True  # gunicorn finds it again, and knows what to do
        if data:
            unreader.unread(data)
        return data is not None

    def _serve(self, conn: Any) -> None:
        done = _Done()
        try:
            done.value = self.handle(conn)
        finally:
            if done.value:
                self.method_queue.defer(self.finish_request, conn, done)
            else:
                self._close(conn)

    def _close(self, conn: Any) -> None:
        """Here, and not in the loop as gunicorn does it: it waits for the client to go."""
        try:
            conn.close(graceful=True)
        except OSError:
            conn.close()
        finally:
            self.method_queue.defer(self._forget)

    def _forget(self) -> None:
        self.nr_conns -= 1


class ClientSocket:
    """A client's socket that gives the interpreter away less often: that happens at each system
    call, and where many threads wait for it, to get it back takes longer than the call.

    An answer's head, which is sent first, goes out with what comes next. How long to wait is
    told to the system only when there is something to wait for: gunicorn changes it several
    times a request. `before_send` is called before anything is sent: its client may not read.
    """

    __slots__ = ("_before_send", "_head", "_is_answering", "_set", "_sock", "_wanted")

    def __init__(self, sock: socket.socket, before_send: Callable[[], None]) -> None:
        self._sock = sock
        self._before_send = before_send
        self._wanted = self._set = sock.gettimeout()
        self._head = b""
        self._is_answering = True

    def begin_answer(self) -> None:
        """What is sent next is a head."""
        self._is_answering = False

    def end_answer(self) -> None:
        """What is sent from now on goes out at once, and what waits does now."""
        self._is_answering = True
        head, self._head = self._head, b""
        if head:
            self._waiting().sendall(head)

    def send(self, data: bytes) -> int:
        self._before_send()
        return self._waiting().send(data)

    def sendall(self, data: bytes) -> None:
        self._before_send()
        if not self._is_answering:
            self._is_answering = True
            self._head = data
            return
        if self._head:
            if len(data) <= MAX_JOINED_BYTES:
                data = self._head + data
                self._head = b""
            else:
                self.end_answer()
        self._waiting().sendall(data)

    def sendfile(self, *args: Any, **options: Any) -> int:
        self._before_send()
        self.end_answer()
        return self._waiting().sendfile(*args, **options)

    def recv(self, size: int) -> bytes:
        return self._waiting().recv(size)

    def recv_into(self, buffer: memoryview) -> int:
        return self._waiting().recv_into(buffer)

    def setblocking(self, is_blocking: bool) -> None:
        self._wanted = None if is_blocking else 0.0

    def settimeout(self, seconds: float | None) -> None:
        self._wanted = seconds

    def gettimeout(self) -> float | None:
        return self._wanted

    def received(self, milliseconds: int) -> bytes | None:
        """What arrives within that time: b"" is the end, None is nothing."""
        self.setblocking(True)
        sock = self._waiting()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval(milliseconds / 1000))
        try:
            buffer = thread_buffer(READ_BYTES)
            return bytes(buffer[: sock.recv_into(buffer)])
        except BlockingIOError:
            return None
        finally:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval(math.inf))

    def _waiting(self) -> socket.socket:
        """The socket, as long as it is wanted to wait."""
        if self._set != self._wanted:
            self._sock.settimeout(self._wanted)
            self._set = self._wanted
        return self._sock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class _Done:
    """What `finish_request` reads of a future."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: Any = False

    def result(self) -> Any:
        return self.value

    def cancelled(self) -> bool:
        return False


def is_whole(received: bytes) -> bool:
    """A request's head is there, and as much of a body as it announces."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return False
    head = received[:end].lower()
    if b"\r\ntransfer-encoding:" in head:
        return False
    _, _, behind = head.partition(b"\r\ncontent-length:")
    announced = behind.partition(b"\r\n")[0].strip()
    if not announced:
        return True
    # What begins with many zeros is a number, too: nobody has to wait for such a one.
    if not announced.isdigit() or len(announced) > 15:
        return False
    return len(received) - end - 4 >= int(announced)


def _is_readable(sock: ClientSocket, milliseconds: int) -> bool:
    """Also where its end can be read."""
    number = sock.fileno()
    if number < 0:
        return False
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return bool(poll.poll(milliseconds))
