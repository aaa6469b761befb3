"""The calls a worker is at: no more than it can hold, and each ends when its client leaves.

A server hears that a client has left only when it writes; until then a call would go on for
somebody who is not there, waiting for room, for an upstream, for the next event. One thread a
worker looks at the sockets of all calls.
"""

import select
import socket
import time
from collections.abc import Callable
from threading import Lock

from proxy.errors import Saturated
from proxy.runtime.line import Line
from proxy.runtime.periodic import Periodic

LOOK_SECONDS = 0.25

# The peer has closed, or at least will send no more: clients that wait for an answer do not.
_GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR | select.POLLNVAL


class OpenCalls:
    """`begin` a call, `end` it when its answer is out. `end_by` says when that must be: a
    client may stop sending its request, or reading its answer, and stay. Thread-safe.

    `before_wait` is called by a call's thread before it waits for anything (`Line`).

    Beyond `ceiling` calls nobody waits in a queue that only grows: the next is refused.
    """

    def __init__(
        self,
        ceiling: int,
        clock: Callable[[], float] = time.monotonic,
        before_wait: Callable[[], None] | None = None,
    ) -> None:
        self.ceiling = ceiling
        self._before_wait = before_wait
        self._lock = Lock()
        self._clients: dict[Line, socket.socket | None] = {}
        self._ends: dict[Line, float] = {}
        self._clock = clock
        self._periodic = Periodic("open-calls", LOOK_SECONDS, self.look)
        self.start = self._periodic.start
        self.stop = self._periodic.stop

    @property
    def count(self) -> int:
        return len(self._clients)

    def begin(self, client: socket.socket | None) -> Line:
        """The call's line, which is cut when `client` leaves. Raises Saturated."""
        line = Line(self._before_wait)
        with self._lock:
            if len(self._clients) >= self.ceiling:
                raise Saturated
            self._clients[line] = client
        return line

    def end_by(self, line: Line, at: float) -> None:
        """Monotonic seconds after which the client's connection is closed, whatever it does."""
        with self._lock:
            if line in self._clients:
                self._ends[line] = at

    def end(self, line: Line) -> None:
        """Idempotent."""
        with self._lock:
            self._clients.pop(line, None)
            self._ends.pop(line, None)

    def clients(self) -> set[object]:
        """Who asks now: the sockets that `begin` was given."""
        with self._lock:
            return set(self._clients.values())

    def look(self) -> None:
        """Closes the connections of calls whose time is over, and cuts the lines of clients
        that are gone: what their threads wait for ends."""
        now = self._clock()
        with self._lock:
            # With the lock: after `end` the connection may carry another call.
            for line in [line for line, at in self._ends.items() if at < now]:
                del self._ends[line]
                client = self._clients[line]
                if client is not None:
                    _shut(client)
            # Asked once: the server may close it between two questions, and -1 is no number.
            known = [(line, c.fileno()) for line, c in self._clients.items() if c is not None]
        by_number = {number: line for line, number in known if number >= 0}
        if not by_number:
            return
        poll = select.poll()
        for number in by_number:
            poll.register(number, _GONE)
        for number, _ in poll.poll(0):
            by_number[number].cut()


def _shut(client: socket.socket) -> None:
    try:
        client.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it has gone
