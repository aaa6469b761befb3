"""What a call waits for, so that another thread can end the waiting when its client leaves."""

from collections.abc import Callable
from threading import Lock


class Line:
    """Of one call. Whoever waits holds the line with a function that wakes it; `before_wait`
    is called by the thread that is about to wait."""

    __slots__ = ("_before_wait", "_lock", "_wake", "is_cut", "was_woken")

    def __init__(self, before_wait: Callable[[], None] | None = None) -> None:
        self._before_wait = before_wait
        self._lock = Lock()
        self._wake: Callable[[], None] | None = None
        self.is_cut = False
        self.was_woken = False  # what waited on it was ended by us

    def about_to_wait(self) -> None:
        """What comes next may take long."""
        if self._before_wait is not None:
            self._before_wait()

    def hold(self, wake: Callable[[], None], *, waits: bool = True) -> None:
        """From now on `cut` calls `wake`, which must not wait. Raises ConnectionAbortedError if
        it was cut before. `waits` False: there is something to do before the waiting."""
        if waits:
            self.about_to_wait()
        with self._lock:
            self._wake = wake
            if self.is_cut:
                raise ConnectionAbortedError

    def release(self) -> None:
        """What was waited for may be another call's from now on."""
        with self._lock:
            self._wake = None

    def wake(self) -> None:
        """Ends what waits on it now, as if its other side had closed. As `cut` otherwise."""
        with self._lock:
            self.was_woken = True
            if self._wake is not None:
                self._wake()

    def cut(self) -> None:
        """Ends whatever waits on it, now and later. Raises nothing; for any thread."""
        # With the lock: between a look and a call, a connection could become another call's.
        with self._lock:
            self.is_cut = self.was_woken = True
            if self._wake is not None:
                self._wake()
