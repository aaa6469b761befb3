"""Notices clients that leave while they wait: for room, for an upstream, for the next event.

A server hears of it only when it writes; until then the upstream would go on answering
somebody who is not there. One thread a worker looks at the sockets of all calls.
"""

import select
import socket
from threading import Lock

from proxy.runtime.line import Line
from proxy.runtime.periodic import Periodic

LOOK_SECONDS = 0.25

# The peer has closed, or at least will send no more: clients that wait for an answer do not.
_GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR | select.POLLNVAL


class Departures:
    """`watch` a call's line, `forget` it when the call is over. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._watched: dict[Line, socket.socket] = {}
        self._periodic = Periodic("departures", LOOK_SECONDS, self.look)
        self.start = self._periodic.start
        self.stop = self._periodic.stop

    def watch(self, line: Line, client: socket.socket) -> None:
        with self._lock:
            self._watched[line] = client

    def forget(self, line: Line) -> None:
        with self._lock:
            self._watched.pop(line, None)

    def look(self) -> None:
        """Cuts the lines of those who are gone: what their threads wait for has ended."""
        with self._lock:
            # Asked once: the server may close it between two questions, and -1 is no number.
            by_number = {n: a for a, c in self._watched.items() if (n := c.fileno()) >= 0}
        if not by_number:
            return
        poll = select.poll()
        for number in by_number:
            poll.register(number, _GONE)
        for number, _ in poll.poll(0):
            by_number[number].cut()
