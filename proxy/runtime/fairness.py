"""What this worker knows of clients that compete for room, and hears of it from the others."""

import json
import time
from collections.abc import Callable, Mapping
from heapq import nlargest
from threading import Lock

from proxy.core.contention import HUNGRY_SECONDS, Competitor, Contention, Row, contention
from proxy.runtime.board import MAX_BYTES, Board

# How often it is told to the others and heard of them, and how old a view of it may be.
TELL_SECONDS = 0.03
# Less often where it takes long, as of hundreds of clients in many workers: so that it takes no
# more than this part of the time, but often enough to see who is hungry.
TELLING_SHARE = 0.05
MOST_TELL_SECONDS = HUNGRY_SECONDS / 4
FORGET_SECONDS = 1.0
# So many fit into a row of the board, if names are of usual length.
TOLD_CLIENTS = 200
# Of models and clients; beyond, all is forgotten. Clients choose the names of models where any
# is served.
MAX_COMPETITORS = 1_000

Competitors = dict[str, dict[str, Competitor]]  # by model and client


class Fairness:
    """Thread-safe. While nobody wants more than it gets, in any worker, nothing is counted, and
    every question costs a look at the clock."""

    def __init__(
        self, board: Board | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._board = board or Board()
        self._clock = clock
        self._lock = Lock()
        self._competitors: Competitors = {}
        self._others: list[Competitors] = []
        self._views: dict[str, Contention | None] = {}
        self._calm_until = 0.0  # when to look at the board again
        self._next_exchange = 0.0
        self._next_forgetting = 0.0

    def contention(self, model: str) -> Contention | None:
        """Who competes for it now; None if nobody wants more than it gets."""
        now = self._clock()
        if now < self._calm_until or self._is_calm(now):
            return None
        with self._lock:
            if now >= self._next_exchange:
                self._exchange(now)
            if model not in self._views:
                known = [self._competitors, *self._others]
                workers = [each[model] for each in known if model in each]
                self._views[model] = contention(workers, now)
            return self._views[model]

    def give(self, model: str, client: str, cost: float) -> None:
        """The client got so much; below 0: less than was told before."""
        now = self._clock()
        if now < self._calm_until or self._is_calm(now):
            return
        with self._lock:
            self._competitor(model, client).give(cost, now)

    def wait(self, model: str, client: str, barred: frozenset[str], *, short: bool) -> None:
        """The client waits, and would not take those instances. `short`: for want of room."""
        now = self._clock()
        with self._lock:
            self._competitor(model, client).wait(barred, now, short=short)
            self._call_out(now)

    def refuse(
        self,
        model: str,
        client: str,
        wait_seconds: float,
        barred: frozenset[str],
        *,
        short: bool,
    ) -> None:
        """The client was told to come back after so long."""
        now = self._clock()
        with self._lock:
            competitor = self._competitor(model, client)
            competitor.refuse(wait_seconds, barred, now, short=short)
            self._call_out(now)

    def _is_calm(self, now: float) -> bool:
        if self._board.until > now:
            return False
        self._calm_until = now + TELL_SECONDS
        return True

    # Below: only with the lock held.

    def _competitor(self, model: str, client: str) -> Competitor:
        clients = self._competitors.get(model)
        if clients is None:
            clients = self._competitors[model] = {}
        found = clients.get(client)
        if found is None:
            if sum(map(len, self._competitors.values())) >= MAX_COMPETITORS:
                self._competitors.clear()
                clients = self._competitors[model] = {}
            found = clients[client] = Competitor()
        return found

    def _call_out(self, now: float) -> None:
        """Somebody wants more: who has been calm is to look."""
        self._calm_until = 0.0
        if self._board.until <= now:
            self._exchange(now)

    def _exchange(self, now: float) -> None:
        began = self._clock()
        self._views.clear()
        if now >= self._next_forgetting:
            self._next_forgetting = now + FORGET_SECONDS
            self._forget(now)
        self._tell()
        self._others = [_read(data) for data in self._board.others()]
        rare_seconds = min((self._clock() - began) / TELLING_SHARE, MOST_TELL_SECONDS)
        self._next_exchange = now + max(rare_seconds, TELL_SECONDS)

    def _forget(self, now: float) -> None:
        for model, clients in list(self._competitors.items()):
            kept = {c: s for c, s in clients.items() if not s.is_over(now)}
            if kept:
                self._competitors[model] = kept
            else:
                del self._competitors[model]

    def _tell(self) -> None:
        """The latest, as far as there is space for them."""
        named = [
            (m, c, s) for m, clients in self._competitors.items() for c, s in clients.items()
        ]
        until = max((s.wants_until for _, _, s in named), default=0.0)
        count = TOLD_CLIENTS
        while True:
            chosen = nlargest(count, named, key=lambda each: each[2].wants_until)
            data = _written(chosen)
            if len(data) <= MAX_BYTES:
                break
            count //= 2
        self._board.write(data, until)


def _written(competitors: list[tuple[str, str, Competitor]]) -> bytes:
    told: dict[str, dict[str, Row]] = {}
    for model, client, competitor in competitors:
        told.setdefault(model, {})[client] = competitor.row()
    return json.dumps(told).encode()


def _read(data: bytes) -> Competitors:
    told: Mapping[str, Mapping[str, Row]] = json.loads(data)
    return {
        model: {client: Competitor.of_row(row) for client, row in clients.items()}
        for model, clients in told.items()
    }
