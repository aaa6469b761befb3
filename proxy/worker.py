"""gunicorn's worker with threads, for clients that ask again at once, and for many at a time.

Its own hands each request from the loop to a thread and the connection back to the loop:
two switches of threads, a pipe, and four system calls. Here the thread looks for a moment
whether the client asks again, and goes on itself.
"""

from functools import partial
from typing import Any

from gunicorn.workers.gthread import _DEFER, ThreadWorker

from proxy.context import EXTENSION, Parts
from proxy.core.request_head import is_whole
from proxy.runtime.client_socket import ClientSocket
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
            conn.data_ready = conn.data_ready or conn.sock.is_readable(FIRST_BYTE_MS)
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
                unreader.unread(conn.sock.received())
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
            data = conn.sock.received_within(LINGER_MS)
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


class _Done:
    """What `finish_request` reads of a future."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: Any = False

    def result(self) -> Any:
        return self.value

    def cancelled(self) -> bool:
        return False
