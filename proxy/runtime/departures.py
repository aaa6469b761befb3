"""Notices clients that leave while the upstream is silent.

A server hears of it only when it writes; until then the upstream would go on answering
somebody who is not there. One thread a worker looks at the sockets of all open streams.
"""

import select
import socket
from threading import Lock

from proxy.runtime.attempt import Attempt
from proxy.runtime.periodic import Periodic

LOOK_SECONDS = 0.25

# The peer has closed, or at least will send no more: clients that wait for an answer do not.
_GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR | select.POLLNVAL


class Departures:
    """`watch` an open stream, `forget` it when it is closed. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._watched: dict[Attempt, socket.socket] = {}
        self._periodic = Periodic("departures", LOOK_SECONDS, self.look)
        self.start = self._periodic.start
        self.stop = self._periodic.stop

    def watch(self, attempt: Attempt, client: socket.socket) -> None:
        with self._lock:
            self._watched[attempt] = client

    def forget(self, attempt: Attempt) -> None:
        with self._lock:
            self._watched.pop(attempt, None)

    def look(self) -> None:
        """Ends the attempts whose client is gone; their threads find the stream at its end."""
        with self._lock:
            # Asked once: the server may close it between two questions, and -1 is no number.
            by_number = {n: a for a, c in self._watched.items() if (n := c.fileno()) >= 0}
        if not by_number:
            return
        poll = select.poll()
        for number in by_number:
            poll.register(number, _GONE)
        for number, _ in poll.poll(0):
            by_number[number].leave()
