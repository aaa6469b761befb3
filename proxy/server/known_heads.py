"""Heads of requests that came before, of whatever connection of this worker."""

from threading import Lock
from typing import Any

# What WSGI tells of a request that is its connection's; the rest is its head's.
OF_CONNECTION = ("gunicorn.socket", "REMOTE_ADDR", "REMOTE_PORT")

MOST_HEADS = 256
MOST_SEEN = 4_096  # numbers of heads that came once

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
        self._lock = Lock()

    def get(self, head: bytes) -> Environ | None:
        """Not to be changed; without what is in OF_CONNECTION."""
        return self._heads.get(head)

    def is_wanted(self, head: bytes) -> bool:
        """It came before, so that `keep` is worth it."""
        number = hash(head)
        if number in self._seen:
            return head not in self._heads
        if len(self._seen) >= MOST_SEEN:
            self._seen.clear()
        self._seen.add(number)
        return False

    def keep(self, head: bytes, told: Environ) -> None:
        """Instead of the one that was kept first, where there are too many."""
        kept = {key: value for key, value in told.items() if key not in OF_CONNECTION}
        with self._lock:
            if len(self._heads) >= MOST_HEADS:
                del self._heads[next(iter(self._heads))]
            self._heads[head] = kept
