"""gunicorn's worker with threads, for clients that ask again at once, and for many at a time.

Its own hands each request from the loop to a thread and the connection back to the loop:
two switches of threads, a pipe, and four system calls. Here the thread looks for a moment
whether the client asks again, and goes on itself.
"""

import select
import socket
from functools import partial
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from proxy.runtime.threads import ThreadPool

# Made before the first request, so that many clients may begin in one moment: to make a thread
# costs more than what a request does until it waits for its upstream.
READY_THREADS = 128

# Of a kept connection after an answer. A client that works through a queue asks within a
# millisecond; for others it is one system call, and a thread that is idle a little later.
LINGER_MS = 5
# Of a new one until its first byte, before the loop looks after it.
FIRST_BYTE_MS = 5_000


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """What differs from gunicorn's is here, by the methods it offers for that."""

    def get_thread_pool(self) -> ThreadPool:
        return ThreadPool(self.cfg.threads, ready=READY_THREADS)

    def enqueue_req(self, conn: Any) -> None:
        self.tpool.submit(partial(self._serve, conn))

    def handle(self, conn: Any) -> Any:
        """The requests of one connection until its client pauses. False: close it."""
        if not conn.initialized:
            # As gunicorn does it, but without a selector for each connection.
            conn.data_ready = conn.data_ready or _is_readable(conn.sock, FIRST_BYTE_MS)
        while True:
            kept = super().handle(conn)
            if kept is not True or not self.alive or not self._is_asked_again(conn):
                return kept

    def _is_asked_again(self, conn: Any) -> bool:
        if self.tpool.is_full:  # others wait for this thread
            return False
        return bool(conn.parser.unreader.buf.getvalue()) or _is_readable(conn.sock, LINGER_MS)

    def _serve(self, conn: Any) -> None:
        done = _Done()
        try:
            done.value = self.handle(conn)
        finally:
            self.method_queue.defer(self.finish_request, conn, done)


class _Done:
    """What `finish_request` reads of a future."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: Any = False

    def result(self) -> Any:
        return self.value

    def cancelled(self) -> bool:
        return False


def _is_readable(sock: socket.socket, milliseconds: int) -> bool:
    """Also where its end can be read."""
    number = sock.fileno()
    if number < 0:
        return False
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return bool(poll.poll(milliseconds))
