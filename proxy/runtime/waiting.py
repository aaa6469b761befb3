"""Where calls wait for room: first come, first served, and not more than there are places."""

import time
from collections import deque
from collections.abc import Callable
from threading import Event, Lock
from typing import TypeVar

from proxy.runtime.line import Line

Got = TypeVar("Got")

# What frees room is said (`poke`) or known beforehand; this is for what is neither: another
# worker's, or the operator's hand.
LOOK_SECONDS = 0.25


class WaitingRoom:
    """Calls for one model form one queue; only its head asks. Thread-safe.

    `places` bounds the waiting threads of all queues together.
    """

    def __init__(self, *, places: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._places = places
        self._clock = clock
        self._lock = Lock()
        self._queues: dict[str, deque[Event]] = {}
        self.count = 0

    def is_waiting(self, model: str) -> bool:
        """Somebody came first."""
        return model in self._queues

    def poke(self) -> None:
        """Room may have come back: the heads of the queues are to ask again."""
        if not self.count:
            return
        with self._lock:
            for queue in self._queues.values():
                queue[0].set()

    def wait(
        self,
        model: str,
        ask: Callable[[], tuple[Got | None, float]],
        *,
        until: float,
        line: Line,
    ) -> Got | None:
        """What `ask` gives at last. None if it cannot before `until`, if there is no place to
        wait, or if the line was cut.

        `ask` gives what was waited for, or else None and the seconds until there may be some.
        """
        mine = Event()
        if not self._enter(model, mine):
            return None
        try:
            line.hold(mine.set)
            while not line.is_cut:
                seconds = LOOK_SECONDS
                if self._queues[model][0] is mine:
                    got, wait = ask()
                    if got is not None:
                        return got
                    if self._clock() + wait > until:
                        return None
                    seconds = min(wait, LOOK_SECONDS)
                left = until - self._clock()
                if left <= 0:
                    return None
                mine.wait(min(seconds, left))
                mine.clear()
        except ConnectionAbortedError:
            pass  # it was cut before it held
        finally:
            line.release()
            self._leave(model, mine)
        return None

    def _enter(self, model: str, mine: Event) -> bool:
        with self._lock:
            if self.count >= self._places:
                return False
            self.count += 1
            self._queues.setdefault(model, deque()).append(mine)
            return True

    def _leave(self, model: str, mine: Event) -> None:
        with self._lock:
            self.count -= 1
            queue = self._queues[model]
            queue.remove(mine)
            if queue:
                queue[0].set()
            else:
                del self._queues[model]
