"""What clients use, and whether a call of one may go: in this worker, and in all of them.

Calls begin with `start` and end with their ticket's `settle`; the syncer moves counts between
this memory and the database with `take`, `give_back` and `merge`, as it does for instances.
What other workers took since they were heard of is in the shared counts. Thread-safe: one lock,
held for arithmetic only.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from proxy.core import allowance
from proxy.core.allowance import NOTHING, Account, Amounts, Denial, HeaderLine, Limits
from proxy.core.client_deltas import ClientDeltas, SharedClients
from proxy.core.days import month
from proxy.core.limiter import COUNTED_SECONDS
from proxy.core.prices import NANO
from proxy.core.tally import Tally
from proxy.core.types import NO_USAGE, Client, Usage
from proxy.core.window import SET_BACK_SECONDS, WINDOW_SECONDS
from proxy.runtime.shared_counts import SharedCounts

USE_SECONDS = 1.0

ONE_CALL: Amounts = (1, 0, 0, 0, 0)


class Known:
    """What this worker knows of one client. `record` is where the shared counts have it."""

    __slots__ = (
        "account",
        "client",
        "last_used_at",
        "limits",
        "number",
        "record",
        "written_at",
    )

    def __init__(self) -> None:
        self.account = Account()
        self.client: Client | None = None
        self.limits: Limits | None = None  # None: it has none
        self.last_used_at = self.written_at = 0.0
        self.number = -1
        self.record = 0


class Ticket:
    """A call that was let in, and what it took. Settled once, whoever does it first."""

    __slots__ = ("_state", "held", "is_settled", "known", "name", "second")

    def __init__(
        self, state: "ClientState", known: Known, name: str, second: int, held: Amounts
    ) -> None:
        self._state = state
        self.known = known
        self.is_settled = False
        self.name = name
        self.second = second
        self.held = held

    def settle(self, usage: Usage = NO_USAGE, cost_nano: int = 0) -> None:
        """The call is over. Idempotent."""
        self._state.settle(self, usage.total_tokens, cost_nano)


@dataclass(frozen=True, slots=True)
class ClientView:
    """One client's state as the admin API shows it, at one moment. The minute is counted only
    of clients with a limit of it, else it is None. Costs are in the currency of the prices."""

    in_flight: int
    current_tpm: int | None
    current_rpm: int | None
    tokens_today: int
    tokens_this_month: int
    cost_today: float
    cost_this_month: float
    last_used_at: float | None


class ClientState:
    """`clock` gives seconds since the epoch, as the database has them."""

    def __init__(
        self,
        counts: SharedCounts | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.counts = counts or SharedCounts()
        self._clock = clock
        self._lock = Lock()
        self._known: dict[str, Known] = {}
        self._pending = ClientDeltas()
        self._taken = ClientDeltas()  # being written
        # As of the last `merge`; what was written then, until all have heard of it.
        self._seconds, self._days = Tally(), Tally()
        self._unheard: set[int] = set()

    def begin(self) -> None:
        """Once a process, after the fork."""
        self.counts.start()

    # A call's way: start, and in the end its ticket's settle.

    def start(self, client: Client, tokens: int = 0, cost_nano: int = 0) -> Ticket | Denial:
        """Takes what one call of the client may use at most, or says why it may not go."""
        now = self._clock()
        with self._lock:
            known = self._of(client)
            self._note_use(known, client.name, now)
            limits = known.limits
            asked = ONE_CALL if limits is None else _asked(limits, tokens, cost_nano)
            self.counts.add(known.record, asked)
            if limits is not None:
                denied = self._denial(known, limits, asked, now)
                if denied is not None:
                    self.counts.add(known.record, _negative(asked))
                    return denied
                self._take(known, client.name, asked, int(now))
            known.account.in_flight += 1
        return Ticket(self, known, client.name, int(now), asked)

    def settle(self, ticket: Ticket, tokens: int, cost_nano: int) -> None:
        """A ticket's: gives back what was too much, and counts what was used."""
        now = self._clock()
        with self._lock:
            if ticket.is_settled:
                return
            ticket.is_settled = True
            known = ticket.known
            account = known.account
            account.in_flight -= 1
            _, counted, held_tokens, held_spent, held_nano = ticket.held
            window_tokens = 0
            if counted:
                age_seconds = int(now) - ticket.second
                # Below 0 by much: the clock was set back since.
                if -SET_BACK_SECONDS <= age_seconds < COUNTED_SECONDS:
                    window_tokens = tokens - held_tokens
                    account.meter.tokens.add(window_tokens, ticket.second)
                    self._pending.add_window((ticket.second, ticket.name), window_tokens, 0)
            account.held_tokens -= held_spent
            account.held_nano -= held_nano
            if tokens or cost_nano:
                account.turn(now)
                account.spend(account.day_at, tokens, cost_nano)
                self._pending.add_spending((account.day_at, ticket.name), tokens, cost_nano)
            limits = known.limits
            self.counts.add(
                known.record,
                (-1, 0, window_tokens, tokens - held_spent, cost_nano - held_nano),
                (tokens, cost_nano) if limits is not None and limits.budgets else None,
            )

    def denial(self, client: Client, tokens: int, cost_nano: int = 0) -> Denial | None:
        """Why a call may not go now; None if it may. Takes nothing."""
        now = self._clock()
        with self._lock:
            known = self._of(client)
            if known.limits is None:
                return None
            asked = _asked(known.limits, tokens, cost_nano)
            return self._denial(known, known.limits, asked, now)

    def note_use(self, client: Client) -> None:
        """Its key was used, for something that is not counted."""
        now = self._clock()
        with self._lock:
            self._note_use(self._of(client), client.name, now)

    def lines(self, client: Client) -> list[HeaderLine]:
        """The headers about its limits a minute; none without such a limit."""
        now = self._clock()
        with self._lock:
            known = self._of(client)
            if known.limits is None or not known.limits.has_minute:
                return []
            others = self.counts.about(known.record)
            if others != NOTHING:
                others = self.counts.exactly(known.record)
            return allowance.lines(known.limits, known.account, others, now)

    def view(self, client: Client) -> ClientView:
        """As of now: everyone's as of the last sync, and this worker's since."""
        now = self._clock()
        second = int(now)
        with self._lock:
            known = self._of(client)
            account, limits = known.account, known.limits
            account.turn(now)
            meter = account.meter if limits is not None and limits.has_minute else None
            return ClientView(
                in_flight=account.in_flight + self.counts.about(known.record)[0],
                current_tpm=meter.tokens.recent(second, WINDOW_SECONDS) if meter else None,
                current_rpm=meter.requests.recent(second, WINDOW_SECONDS) if meter else None,
                tokens_today=account.day[0],
                tokens_this_month=account.month[0],
                cost_today=account.day[1] / NANO,
                cost_this_month=account.month[1] / NANO,
                last_used_at=known.last_used_at or None,
            )

    # The syncer's.

    def take(self) -> ClientDeltas:
        """What was measured since the last `take`. Give it back if it could not be written."""
        with self._lock:
            self._taken, self._pending = self._pending, ClientDeltas()
            return self._taken

    def give_back(self, taken: ClientDeltas) -> None:
        oldest = int(self._clock()) - COUNTED_SECONDS
        with self._lock:
            taken.add(self._pending)
            for name, tokens, requests in taken.forget_windows(before=oldest):
                self.counts.add(self._known[name].record, (0, -requests, -tokens, 0, 0))
            self._pending, self._taken = taken, ClientDeltas()

    def merge(self, shared: SharedClients) -> None:
        """Everyone's sums, with what was measured here since they were read on top. It takes as
        long as what is shared is long."""
        now = self._clock()
        with self._lock:
            written, self._taken = self._taken, ClientDeltas()
            for name, used_at in shared.used_at.items():
                known = self._named(name)
                known.last_used_at = max(known.last_used_at, used_at)
            if shared.is_whole:
                self._recount(shared)
            else:
                self._count(shared, written)
            self._seconds.forget(int(now) - COUNTED_SECONDS)
            self._days.forget(month(now)[0] - 1)
            self.counts.hear(shared.number)
            self._tell_written(written, shared.number)

    # Below: only with the lock held.

    def _of(self, client: Client) -> Known:
        known = self._known.get(client.name)
        if known is None or known.client is not client:
            known = self._named(client.name)
            self._adopt(known, client)
        return known

    def _named(self, name: str) -> Known:
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = Known()
        return known

    def _adopt(self, known: Known, client: Client) -> None:
        """Its config is another, or seen for the first time."""
        known.client, known.limits = client, Limits(client) or None
        if known.limits is not None and known.limits.has_minute:
            known.account.count_minutes()
        if known.number == client.number:
            return
        record = self.counts.record(client.number)
        if known.number >= 0:  # the name is another client's now: what is counted goes on
            self.counts.move(known.record, record)
            if known.record in self._unheard:
                self._unheard.add(record)
        known.number, known.record = client.number, record

    def _note_use(self, known: Known, name: str, now: float) -> None:
        known.last_used_at = now
        # To a second is close enough to write it, and of a busy client a tenth of the work.
        if not known.written_at <= now < known.written_at + USE_SECONDS:
            known.written_at = self._pending.used_at[name] = now

    def _denial(
        self, known: Known, limits: Limits, asked: Amounts, now: float
    ) -> Denial | None:
        """First as if others had taken all that they may have; that is right for most calls,
        and sooner known."""
        account, others = known.account, self.counts.about(known.record)
        denied = allowance.denial(limits, account, asked, others, now)
        if denied is None or others == NOTHING:
            return denied
        others = self.counts.exactly(known.record)
        settled = self.counts.settled(known.record)
        return allowance.denial(limits, account, asked, others, now, settled)

    def _take(self, known: Known, name: str, asked: Amounts, second: int) -> None:
        account = known.account
        _, counted, tokens, spent_tokens, cost_nano = asked
        if counted:
            account.add(tokens, 1, second)
            self._pending.add_window((second, name), tokens, 1)
        account.held_tokens += spent_tokens
        account.held_nano += cost_nano

    def _recount(self, shared: SharedClients) -> None:
        """Fills all accounts anew."""
        self._seconds, self._days = Tally(), Tally()
        for known in self._known.values():
            known.account.forget()
        self._count(shared, ClientDeltas())
        for (second, name), (tokens, requests) in self._pending.windows.items():
            self._named(name).account.add(tokens, requests, second)
        for (day, name), (tokens, cost_nano) in self._pending.spending.items():
            self._named(name).account.spend(day, tokens, cost_nano)

    def _count(self, shared: SharedClients, written: ClientDeltas) -> None:
        """Adds what others did. What was written here is in the accounts already."""
        for name, rows in shared.windows.items():
            account = self._named(name).account
            for second, tokens, requests in self._seconds.hear((name, ""), rows):
                mine = written.windows.get((second, name), (0, 0))
                account.add(tokens - mine[0], requests - mine[1], second)
        for name, rows in shared.spending.items():
            account = self._named(name).account
            for day, tokens, cost_nano in self._days.hear((name, ""), rows):
                mine = written.spending.get((day, name), (0, 0))
                if (tokens, cost_nano) != mine:
                    account.spend(day, tokens - mine[0], cost_nano - mine[1])

    def _tell_written(self, written: ClientDeltas, number: int) -> None:
        """What was written is in the shared counts until all have read it."""
        if self.counts.all_heard():
            for record in self._unheard:
                self.counts.drop_written(record)
            self._unheard.clear()
        if not written:
            return
        self.counts.begin_written(number)
        for (_, name), (tokens, requests) in written.windows.items():
            self._note_written(name, (0, requests, tokens, 0, 0))
        for (_, name), (tokens, cost_nano) in written.spending.items():
            self._note_written(name, (0, 0, 0, tokens, cost_nano))

    def _note_written(self, name: str, amounts: Amounts) -> None:
        record = self._known[name].record
        self.counts.add_written(record, amounts)
        self._unheard.add(record)


def _asked(limits: Limits, tokens: int, cost_nano: int) -> Amounts:
    """What of it is counted against these limits."""
    requests = 1 if limits.has_minute else 0
    spent_tokens = tokens if limits.budgets else 0
    cost_nano = cost_nano if limits.has_cost else 0
    return (1, requests, requests * tokens, spent_tokens, cost_nano)


def _negative(amounts: Amounts) -> Amounts:
    return (-amounts[0], -amounts[1], -amounts[2], -amounts[3], -amounts[4])
