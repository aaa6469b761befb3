"""How many of a worker's threads begin a request at the same time.

Python runs one thread at a time. A hundred that begin together take turns at every system
call: each waits for all the others, and all ask their upstreams last. Those that come in one
after the other have asked theirs long before, and wait for the answer while others begin.
"""

import threading
from _thread import LockType
from collections import deque
from threading import Lock

# While one thread is in a system call another can work; of more nobody has anything.
PLACES = 2


class Turnstile:
    """`enter` before a request is read, `leave` before whatever may take long. Thread-safe.

    Whoever has a place must neither wait for anybody nor sleep.
    """

    def __init__(self, places: int = PLACES) -> None:
        # As threading's Semaphore, which takes several times as long.
        self._lock = Lock()
        self._free = places
        self._waiting: deque[LockType] = deque()  # each is released for who may look again
        self._mine = threading.local()

    def enter(self) -> None:
        """Waits for a place. Those who came first go first, but for who comes in that moment:
        it runs already."""
        while True:
            with self._lock:
                if self._free:
                    self._free -= 1
                    self._mine.is_inside = True
                    return
                turn = Lock()
                turn.acquire()
                self._waiting.append(turn)
            turn.acquire()

    def leave(self) -> None:
        """Gives this thread's place to the next. Idempotent, also for who has none."""
        if getattr(self._mine, "is_inside", False):
            self._mine.is_inside = False
            with self._lock:
                self._free += 1
                if self._waiting:
                    self._waiting.popleft().release()
