"""The order of calls that wait: each client's in turn, by what they cost.

Start-time fair queueing (Goyal, Vin, Cheng: SIGCOMM 1996). A call starts, in virtual time,
where its client's call before it finished, or now if that is later; it finishes by its cost
later. Who starts first is first, and then is now. So a client with fifty calls has its second
where another's first has been served, and one that comes back after a while has gained
nothing by its absence.
"""

from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")

# Beyond so many clients those that finished before now are forgotten: it makes no difference.
FINISHES = 64


@dataclass(eq=False, slots=True)
class Ticket(Generic[Item]):
    """One call's place. `entered_at` is the virtual time when it came, `start` its turn."""

    item: Item
    client: str
    cost: float
    number: int
    entered_at: float
    start: float

    def __lt__(self, other: "Ticket[Item]") -> bool:
        return (self.start, self.number) < (other.start, other.number)


class FairQueue(Generic[Item]):
    """Not thread-safe: its owner locks. An empty one may be thrown away: what it remembers is
    how far a client is ahead, and that is one call at most.

    `cost` is in whatever the calls compete for; that of a client which is to weigh twice as
    much would be halved.
    """

    __slots__ = ("_finishes", "_most_finishes", "_now", "_number", "_tickets")

    def __init__(self) -> None:
        self._tickets: list[Ticket[Item]] = []
        self._finishes: dict[str, float] = {}  # of what was served, by client
        self._most_finishes = FINISHES
        self._now = 0.0
        self._number = 0

    def __iter__(self) -> Iterator[Ticket[Item]]:
        """Who is first, first."""
        return iter(self._tickets)

    def __len__(self) -> int:
        return len(self._tickets)

    def enter(self, item: Item, client: str, cost: float) -> Ticket[Item]:
        self._number += 1
        waiting = (t.start + t.cost for t in self._tickets if t.client == client)
        start = max(self._now, self._finishes.get(client, 0.0), *waiting)
        ticket = Ticket(item, client, cost, self._number, self._now, start)
        insort(self._tickets, ticket)
        return ticket

    def leave(self, ticket: Ticket[Item], *, served: bool) -> None:
        """It waits no longer. What was not served costs nothing: the client's next calls move
        up."""
        self._tickets.remove(ticket)
        if served:
            self._serve(ticket)
        else:
            self._move_up(ticket.client)

    def _serve(self, ticket: Ticket[Item]) -> None:
        # Not always who is first: what that one would not take is another's.
        self._now = max(self._now, ticket.start)
        finish = max(ticket.start + ticket.cost, self._finishes.get(ticket.client, 0.0))
        self._finishes[ticket.client] = finish
        if len(self._finishes) > self._most_finishes:
            self._finishes = {c: f for c, f in self._finishes.items() if f > self._now}
            self._most_finishes = max(FINISHES, 2 * len(self._finishes))

    def _move_up(self, client: str) -> None:
        finish = self._finishes.get(client, 0.0)
        for ticket in sorted((t for t in self._tickets if t.client == client), key=_number):
            ticket.start = max(ticket.entered_at, finish)
            finish = ticket.start + ticket.cost
        self._tickets.sort()


def _number(ticket: Ticket[Item]) -> int:
    return ticket.number
