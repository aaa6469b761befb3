"""How many of a worker's threads begin a request at the same time.

Python runs one thread at a time. A hundred that begin together take turns at every system
call: each waits for all the others, and all ask their upstreams last. Those that come in one
after the other have asked theirs long before, and wait for the answer while others begin.
"""

import threading
from threading import Semaphore

# While one thread is in a system call another can work; of more nobody has anything.
PLACES = 2


class Entry:
    """`enter` before a request is read, `leave` before whatever may take long. Thread-safe.

    Whoever has a place must neither wait for anybody nor sleep.
    """

    def __init__(self, places: int = PLACES) -> None:
        self._places = Semaphore(places)
        self._mine = threading.local()

    def enter(self) -> None:
        """Waits for a place; those who came first go first."""
        self._places.acquire()
        self._mine.is_inside = True

    def leave(self) -> None:
        """Gives this thread's place to the next. Idempotent, also for who has none."""
        if getattr(self._mine, "is_inside", False):
            self._mine.is_inside = False
            self._places.release()
