"""Where calls wait for room: clients take turns, and not more wait than there are places."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from threading import Event, Lock
from typing import TypeVar

from proxy.core.contention import Contention
from proxy.core.fair_queue import FairQueue, Ticket
from proxy.runtime.fairness import Fairness
from proxy.runtime.line import Line

Got = TypeVar("Got")

# What frees room is said (`poke`) or known beforehand; this is for what is neither: another
# worker's, or the operator's hand.
LOOK_SECONDS = 0.25
# Between two questions that nobody was told to ask.
LEAST_SECONDS = 0.01


class Full(Exception):
    """There is no place left to wait in."""


@dataclass(frozen=True, slots=True)
class Waiter:
    """Whose call waits, what it would cost, and the instances it would not take. `short`: it
    is for want of room, and not because instances rest or fail."""

    client: str = ""
    cost: float = 1.0
    barred: frozenset[str] = frozenset()
    short: bool = False


@dataclass(eq=False, slots=True)
class _Place:
    """One that waits. `is_lost`: another client's call has it now."""

    model: str
    waiter: Waiter
    woken: Event = field(default_factory=Event)
    is_lost: bool = False


_Queue = FairQueue[_Place]
ANYBODY = Waiter()


class WaitingRoom:
    """Calls for one model form one queue, in which clients take turns. Thread-safe.

    Who is first has the room: others ask only for instances that nobody before them would
    take. Who had more lately than its part leaves room to those who had less (`fairness`), and
    keeps nobody from it. `places` bounds the waiting threads of all queues together; where
    there is none left, the client that has most loses one to a client that has fewer.
    """

    def __init__(
        self,
        *,
        places: int,
        clock: Callable[[], float] = time.monotonic,
        fairness: Fairness | None = None,
    ) -> None:
        self._places = places
        self._clock = clock
        self._fairness = fairness or Fairness(clock=clock)
        self._lock = Lock()
        self._queues: dict[str, _Queue] = {}
        self._waiting: Counter[str] = Counter()  # by client
        self.count = 0

    def left_by_others(self, model: str, client: str = "") -> frozenset[str] | None:
        """The instances that nobody whom a call of this client has to let go first would take;
        None: there is none, so all."""
        if model not in self._queues:
            return None
        contention = self._fairness.contention(model)
        with self._lock:
            return _left_by(_before(client, self._queues.get(model, ()), contention))

    def poke(self) -> None:
        """Room may have come back: those who may are to ask again."""
        if not self.count:
            return
        for model in list(self._queues):
            self._wake(model)

    def wait(
        self,
        model: str,
        ask: Callable[[frozenset[str] | None], tuple[Got | None, float]],
        *,
        until: float,
        line: Line,
        waiter: Waiter = ANYBODY,
    ) -> Got | None:
        """What `ask` gives at last. None if it cannot before `until`, or if the line was cut.
        Raises Full.

        `ask` is given the instances it may ask for (None: all), and gives what was waited for,
        or else None and the seconds until there may be some.
        """
        mine = self._enter(_Place(model, waiter))
        got: Got | None = None
        try:
            line.hold(mine.item.woken.set)
            while not line.is_cut:
                seconds = LOOK_SECONDS
                free = self._free(mine)
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
                mine.item.woken.wait(min(seconds, left))
                mine.item.woken.clear()
        except ConnectionAbortedError:
            pass  # it was cut before it held
        finally:
            line.release()
            self._leave(mine, served=got is not None)
        return None

    def _free(self, mine: Ticket[_Place]) -> frozenset[str] | None:
        """What this call may ask for now; None: all. Raises Full if its place is lost."""
        model, waiter = mine.item.model, mine.item.waiter
        self._fairness.wait(model, waiter.client, waiter.barred, short=waiter.short)
        contention = self._fairness.contention(model)
        with self._lock:
            if mine.item.is_lost:
                raise Full
            before = takewhile(lambda ticket: ticket is not mine, self._queues[model])
            left = _left_by(_before(waiter.client, before, contention))
        return common(left, contention.left_to(waiter.client) if contention else None)

    def _enter(self, place: _Place) -> Ticket[_Place]:
        client = place.waiter.client
        with self._lock:
            if self.count >= self._places and not self._take_place(client):
                raise Full
            self.count += 1
            self._waiting[client] += 1
            queue = self._queues.get(place.model)
            if queue is None:
                queue = self._queues[place.model] = FairQueue()
            return queue.enter(place, client, place.waiter.cost)

    def close(self) -> int:
        """Nobody waits here any more: who did loses its place, and who comes has none. How many
        did."""
        with self._lock:
            self._places = 0
            tickets = [ticket for queue in self._queues.values() for ticket in queue]
            for ticket in tickets:
                self._lose(ticket)
        return len(tickets)

    def _take_place(self, client: str) -> bool:
        """The client with most places loses its last, unless this one would have as many."""
        if not self._waiting:
            return False
        rich, places = self._waiting.most_common(1)[0]
        if places <= self._waiting[client] + 1:
            return False
        tickets = (t for queue in self._queues.values() for t in queue if t.client == rich)
        self._lose(max(tickets, key=lambda ticket: (ticket.start, ticket.number)))
        return True

    def _lose(self, ticket: Ticket[_Place]) -> None:
        """Only with the lock held."""
        self._remove(ticket, served=False)
        ticket.item.is_lost = True
        ticket.item.woken.set()

    def _leave(self, mine: Ticket[_Place], *, served: bool) -> None:
        with self._lock:
            if not mine.item.is_lost:
                self._remove(mine, served=served)
        self._wake(mine.item.model)

    def _remove(self, ticket: Ticket[_Place], *, served: bool) -> None:
        """Only with the lock held."""
        self.count -= 1
        self._waiting[ticket.client] -= 1
        if not self._waiting[ticket.client]:
            del self._waiting[ticket.client]
        queue = self._queues[ticket.item.model]
        queue.leave(ticket, served=served)
        if not queue:
            del self._queues[ticket.item.model]

    def _wake(self, model: str) -> None:
        """Those who may ask for anything at all."""
        if model not in self._queues:
            return
        contention = self._fairness.contention(model)
        with self._lock:
            left: frozenset[str] | None = None
            last = None
            for place in _asking(self._queues.get(model, ()), contention):
                client = place.waiter.client
                has_room = left is None or left
                if has_room or (contention and last and contention.passes(client, last)):
                    place.woken.set()
                    left, last = common(left, place.waiter.barred), client
                elif contention is None:
                    return


def common(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    """What is in both, where None is all."""
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _asking(
    tickets: Iterable[Ticket[_Place]], contention: Contention | None
) -> Iterator[_Place]:
    """The places of those who are not held back."""
    held: dict[str, bool] = {}
    for ticket in tickets:
        client = ticket.client
        if contention is not None and client not in held:
            held[client] = contention.left_to(client) is not None
        if not held.get(client):
            yield ticket.item


def _before(
    client: str, tickets: Iterable[Ticket[_Place]], contention: Contention | None
) -> Iterator[_Place]:
    """The places of those who ask before a call of this client."""
    for place in _asking(tickets, contention):
        if contention is None or not contention.passes(client, place.waiter.client):
            yield place


def _left_by(places: Iterable[_Place]) -> frozenset[str] | None:
    """What none of them would take; None, which is all, if there are none."""
    left: frozenset[str] | None = None
    for place in places:
        left = common(left, place.waiter.barred)
        if not left:
            break
    return left
