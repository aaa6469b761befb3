"""Where calls wait for room: first come, first served, and not more than there are places."""

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import takewhile
from threading import Event, Lock
from typing import TypeVar

from proxy.runtime.line import Line

Got = TypeVar("Got")

# What frees room is said (`poke`) or known beforehand; this is for what is neither: another
# worker's, or the operator's hand.
LOOK_SECONDS = 0.25
# Between two questions that nobody was told to ask.
LEAST_SECONDS = 0.01


class Full(Exception):
    """There is no place left to wait in."""


@dataclass(eq=False, slots=True)
class _Place:
    """One that waits; `barred` are the instances it would not take."""

    barred: frozenset[str]
    woken: Event = field(default_factory=Event)


class WaitingRoom:
    """Calls for one model form one queue. Thread-safe.

    Who came first has the room: others ask only for instances that nobody before them would
    take. `places` bounds the waiting threads of all queues together.
    """

    def __init__(self, *, places: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._places = places
        self._clock = clock
        self._lock = Lock()
        self._queues: dict[str, deque[_Place]] = {}
        self.count = 0

    def left_by_others(self, model: str) -> frozenset[str] | None:
        """The instances that nobody who waits would take; None: nobody waits, so all."""
        if model not in self._queues:
            return None
        with self._lock:
            return _left_by(self._queues.get(model, ()))

    def poke(self) -> None:
        """Room may have come back: those who may are to ask again."""
        if not self.count:
            return
        with self._lock:
            for queue in self._queues.values():
                _wake(queue)

    def wait(
        self,
        model: str,
        ask: Callable[[frozenset[str] | None], tuple[Got | None, float]],
        *,
        until: float,
        line: Line,
        barred: frozenset[str] = frozenset(),
    ) -> Got | None:
        """What `ask` gives at last. None if it cannot before `until`, or if the line was cut.
        Raises Full.

        `ask` is given the instances it may ask for (None: all), and gives what was waited for,
        or else None and the seconds until there may be some.
        """
        mine = self._enter(model, barred)
        try:
            line.hold(mine.woken.set)
            while not line.is_cut:
                seconds = LOOK_SECONDS
                free = self._free(model, mine)
                if free is None or free:
                    got, wait = ask(free)
                    if got is not None:
                        return got
                    # Behind others there may be room when they are gone.
                    if free is None and self._clock() + wait > until:
                        return None
                    seconds = min(max(wait, LEAST_SECONDS), LOOK_SECONDS)
                left = until - self._clock()
                if left <= 0:
                    return None
                mine.woken.wait(min(seconds, left))
                mine.woken.clear()
        except ConnectionAbortedError:
            pass  # it was cut before it held
        finally:
            line.release()
            self._leave(model, mine)
        return None

    def _free(self, model: str, mine: _Place) -> frozenset[str] | None:
        with self._lock:
            queue = self._queues[model]
            return _left_by(takewhile(lambda place: place is not mine, queue))

    def _enter(self, model: str, barred: frozenset[str]) -> _Place:
        with self._lock:
            if self.count >= self._places:
                raise Full
            self.count += 1
            mine = _Place(barred)
            self._queues.setdefault(model, deque()).append(mine)
            return mine

    def _leave(self, model: str, mine: _Place) -> None:
        with self._lock:
            self.count -= 1
            queue = self._queues[model]
            queue.remove(mine)
            if queue:
                _wake(queue)
            else:
                del self._queues[model]


def _left_by(places: Iterable[_Place]) -> frozenset[str] | None:
    """What none of them would take; None, which is all, if there are none."""
    left: frozenset[str] | None = None
    for place in places:
        left = place.barred if left is None else left & place.barred
        if not left:
            break
    return left


def _wake(queue: Iterable[_Place]) -> None:
    """Those who may ask for anything at all."""
    left: frozenset[str] | None = None
    for place in queue:
        place.woken.set()
        left = place.barred if left is None else left & place.barred
        if not left:
            return
