"""Which clients of a model are hungry, and who leaves room to them.

A queue is fair only among those who stand in it. A client with one connection is away while
it is answered, and one that was refused comes back when it was told to: meanwhile one with
forty would take all there is. So for a moment it is remembered who was hungry, and what each
had lately. As long as somebody is hungry who had less than an equal part, whoever had more
is held back, but who had most is first. And while somebody was short of room lately, the
minute's is handed out evenly: taken all at once, it comes back all at once, and in between
nobody gets any. Of each second's, everybody leaves to those who had less as much as they use
and half as much again, so that they may come to use more, and a call's at least.

Moments are monotonic seconds, the same for all workers; the caller reads the clock.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# A client is hungry while it waits and so long after, and so long from when it was told to
# come back. What is left to one that does not come is left unused for no longer.
HUNGRY_SECONDS = 1.0
# It wants more than it gets for so long, also from then on.
WANTING_SECONDS = 10.0
# What a client had is forgotten bit by bit: after so long, about a third of it is left.
LATELY_SECONDS = 10.0
# Who had more than its part is not held back where another had so many times more.
MOST_TIMES = 1.15
# What is left to a client, of what it used: what it does not take, others get a moment later.
GROWTH_TIMES = 1.5
# Of what a client had, next to nothing is left by then.
MEMORY_SECONDS = 6 * LATELY_SECONDS

NOBODY: frozenset[str] = frozenset()

# As workers tell each other: see Competitor.row.
Row = tuple[float, float, float, float, float, float, float, tuple[str, ...]]


class Competitor:
    """One client, as one worker knows it: what it had lately, as of `at`, and what its last
    call was to cost; when it last waited and was refused, and when it was told to come back.
    `short_at` is when that last was for want of room, and not because instances rest or fail.
    `barred` are instances that it would not take."""

    __slots__ = (
        "at",
        "back_at",
        "barred",
        "call_cost",
        "had",
        "refused_at",
        "short_at",
        "waited_at",
    )

    def __init__(self) -> None:
        self.had = self.call_cost = 0.0
        self.at = self.waited_at = self.refused_at = self.back_at = self.short_at = -math.inf
        self.barred = NOBODY

    def give(self, cost: float, now: float) -> None:
        """Below 0: it turned out to have had less."""
        self.had = max(self.had_lately(now) + cost, 0.0)
        self.at = max(self.at, now)
        if cost > 0:
            self.call_cost = cost

    def had_lately(self, now: float) -> float:
        if not self.had:
            return 0.0
        return self.had * math.exp(-max(now - self.at, 0.0) / LATELY_SECONDS)

    def wait(self, barred: frozenset[str], now: float, *, short: bool) -> None:
        self.waited_at, self.barred = now, barred
        if short:
            self.short_at = now

    def refuse(
        self, wait_seconds: float, barred: frozenset[str], now: float, *, short: bool
    ) -> None:
        self.refused_at, self.back_at, self.barred = now, now + wait_seconds, barred
        if short:
            self.short_at = self.back_at

    def is_hungry(self, now: float) -> bool:
        return now - self.waited_at < HUNGRY_SECONDS or 0 <= now - self.back_at < HUNGRY_SECONDS

    def is_wanting(self, now: float) -> bool:
        last = max(self.waited_at, self.refused_at)
        return now - last < WANTING_SECONDS or 0 <= now - self.back_at < WANTING_SECONDS

    def is_short(self, now: float) -> bool:
        return self.is_wanting(now) and now - self.short_at < WANTING_SECONDS

    @property
    def wants_until(self) -> float:
        return max(self.waited_at, self.refused_at, self.back_at) + WANTING_SECONDS

    def is_over(self, now: float) -> bool:
        """It says nothing any more."""
        return max(self.at + MEMORY_SECONDS, self.wants_until) <= now

    def row(self) -> Row:
        barred = tuple(self.barred)
        moments = self.at, self.waited_at, self.refused_at, self.back_at, self.short_at
        return self.had, self.call_cost, *moments, barred

    @classmethod
    def of_row(cls, row: Row) -> "Competitor":
        found = cls()
        found.had, found.call_cost, found.at, found.waited_at = row[:4]
        found.refused_at, found.back_at, found.short_at, barred = row[4:]
        found.barred = frozenset(barred)
        return found


@dataclass(frozen=True, slots=True)
class Hungry:
    client: str
    had: float
    barred: frozenset[str]


@dataclass(frozen=True, slots=True)
class Contention:
    """The clients of one model at one moment. `had` is what each had lately, and `needs` what
    it needs of a second's room so that it need not wait; `hungry` are those who are, who had
    least first, and `wanting` those who were a moment ago, and had `wanting_had` together; of
    these `short` are those who were so for want of room."""

    had: Mapping[str, float]
    needs: Mapping[str, float]
    hungry: tuple[Hungry, ...]
    wanting: frozenset[str]
    short: frozenset[str]
    wanting_had: float

    @property
    def most(self) -> float:
        """What the one had who wants more though it had most."""
        return max(self.had[client] for client in self.wanting)

    def left_to(self, client: str) -> frozenset[str] | None:
        """The instances that this client may still take; None: all."""
        part, mine = self._part(client), self.had.get(client, 0.0)
        if mine <= part or self.most > MOST_TIMES * mine:
            return None
        left: frozenset[str] | None = None
        for one in self.hungry:
            if one.had >= part or left == NOBODY:
                break
            left = one.barred if left is None else left & one.barred
        return left

    def share(self, client: str) -> float:
        """Of what all had lately, from 0 to 1."""
        return self.had.get(client, 0.0) / (sum(self.had.values()) or 1.0)

    def is_shared(self, client: str) -> bool:
        """Somebody else was short of room: it is to be handed out evenly."""
        return len(self.short) > (client in self.short)

    def passes(self, client: str, other: str) -> bool:
        """A call of this client goes before one of that, though that came first: what is left
        to this one that had less, that one lacks."""
        return self.is_shared(other) and self.had.get(client, 0.0) < self.had.get(other, 0.0)

    def kept_from(self, client: str) -> float | None:
        """How much of each second's room is kept for others; None: it is not handed out evenly,
        because nobody else was short of it."""
        if not self.is_shared(client):
            return None
        mine = self.had.get(client, 0.0)
        return sum(self.needs[each] for each in self.wanting if self.had[each] < mine)

    def _part(self, client: str) -> float:
        """What each would have had, if those who want more had shared with this one."""
        if client in self.wanting:
            return self.wanting_had / len(self.wanting)
        return (self.wanting_had + self.had.get(client, 0.0)) / (len(self.wanting) + 1)


def contention(workers: Iterable[Mapping[str, Competitor]], now: float) -> Contention | None:
    """What all of them know of one model's clients together; None if nobody wants more."""
    had: defaultdict[str, float] = defaultdict(float)
    needs: defaultdict[str, float] = defaultdict(float)
    wanting: set[str] = set()
    short: set[str] = set()
    hungry: dict[str, frozenset[str]] = {}
    for competitors in workers:
        for client, competitor in competitors.items():
            had[client] += competitor.had_lately(now)
            needs[client] = max(needs[client], competitor.call_cost)
            if competitor.is_wanting(now):
                wanting.add(client)
            if competitor.is_short(now):
                short.add(client)
            if competitor.is_hungry(now):
                hungry[client] = competitor.barred & hungry.get(client, competitor.barred)
    if not wanting:
        return None
    found = [Hungry(client, had[client], barred) for client, barred in hungry.items()]
    found.sort(key=lambda one: one.had)
    wanting_had = sum(had[client] for client in wanting)
    needs_now = {
        client: max(cost, GROWTH_TIMES * had[client] / LATELY_SECONDS)
        for client, cost in needs.items()
    }
    return Contention(
        dict(had), needs_now, tuple(found), frozenset(wanting), frozenset(short), wanting_had
    )
