"""Heads of requests that came before, of whatever connection of this worker."""

from threading import Lock
from typing import Any

# What WSGI tells of a request that is its connection's; the rest is its head's. What errors are
# written to is open for as long as gunicorn's log is, which may be opened anew.
OF_CONNECTION = ("gunicorn.socket", "wsgi.errors", "REMOTE_ADDR", "REMOTE_PORT")

MOST_HEADS = 256
MOST_SEEN = 4_096  # numbers of heads that came once
# Where there are more that come again, one of so many takes the place of another: if each did,
# those that come in turns would all be gone before they come again.
ONE_IN = 8

Environ = dict[str, Any]


class KnownHeads:
    """What WSGI is told of a head, by its bytes without the line about its body's length. Of
    one address that is listened on; thread-safe.

    One is kept when it comes for the second time to be read: those that come once, as with an
    id in them, would push out all others.
    """

    def __init__(self) -> None:
        self._heads: dict[bytes, Environ] = {}
        self._seen: set[int] = set()  # hashes
        self._left_out = 0  # for lack of room, about
        self._lock = Lock()

    def get(self, head: bytes) -> Environ | None:
        """Not to be changed; without what is in OF_CONNECTION."""
        return self._heads.get(head)

    def note(self, head: bytes) -> bool:
        """That it came, and has to be read. True: `keep` what it says."""
        number = hash(head)
        if number not in self._seen:
            if len(self._seen) >= MOST_SEEN:
                self._seen.clear()
            self._seen.add(number)
            return False
        if head in self._heads:  # since another thread has read it
            return False
        if len(self._heads) < MOST_HEADS:
            return True
        self._left_out += 1
        return self._left_out % ONE_IN == 0

    def keep(self, head: bytes, told: Environ) -> None:
        """Instead of the one that was kept first, where there are too many."""
        kept = {key: value for key, value in told.items() if key not in OF_CONNECTION}
        with self._lock:
            if len(self._heads) >= MOST_HEADS and head not in self._heads:
                del self._heads[next(iter(self._heads))]
            self._heads[head] = kept
