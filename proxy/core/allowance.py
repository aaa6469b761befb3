"""What a client may use now: its limits, compared with what it used and has in flight.

A minute is a plain one: what began in a second counts until that second is a minute old.
Budgets are of the UTC day and month. What a call may cost is taken when it begins, and
settled with what it did cost when it ends.
"""

from dataclasses import dataclass
from typing import NamedTuple

from proxy.core.days import DAY_SECONDS, day_at, month
from proxy.core.limiter import COUNTED_SECONDS, Meter
from proxy.core.prices import NANO
from proxy.core.types import Client
from proxy.core.window import Window

# Where only the end of another call makes room, and nobody knows when that is.
SOON_SECONDS = 1.0

HeaderLine = tuple[str, str]  # name and value

# As OpenAI writes durations. A reset is rounded up to whole seconds, and at most this far.
_RESETS = tuple(
    f"{s // 60}m{s % 60}s" if s >= 60 else f"{s}s" for s in range(COUNTED_SECONDS + 1)
)


class Limits:
    """A client's, made ready to be compared with. 0 is no limit; costs are in billionths."""

    __slots__ = (
        *("budgets", "has_cost", "has_minute", "parallel"),
        *("rpm", "rpm_line", "tpm", "tpm_line"),
    )

    def __init__(self, client: Client) -> None:
        self.tpm, self.rpm = client.max_tpm, client.max_rpm
        self.parallel = client.max_parallel_requests
        self.tpm_line = ("x-ratelimit-limit-tokens", str(self.tpm))
        self.rpm_line = ("x-ratelimit-limit-requests", str(self.rpm))
        self.has_minute = bool(self.tpm or self.rpm)
        self.budgets = tuple(b for b in _budgets(client) if b.bound > 0)
        self.has_cost = any(b.is_cost for b in self.budgets)

    def __bool__(self) -> bool:
        return bool(self.tpm or self.rpm or self.parallel or self.budgets)


class Budget(NamedTuple):
    limit: str  # the client's field
    bound: int
    is_month: bool
    is_cost: bool


def _budgets(client: Client) -> tuple[Budget, ...]:
    """The longer ones first: who is refused is told the longest wait."""
    return (
        Budget("max_cost_per_month", round(client.max_cost_per_month * NANO), True, True),
        Budget("max_tokens_per_month", client.max_tokens_per_month, True, False),
        Budget("max_cost_per_day", round(client.max_cost_per_day * NANO), False, True),
        Budget("max_tokens_per_day", client.max_tokens_per_day, False, False),
    )


# Of some calls: how many are in flight, how many began in this minute and what tokens they took
# of it, and what tokens and cost of the budgets. A plain tuple: four are made for each call.
Amounts = tuple[int, int, int, int, int]

NOTHING: Amounts = (0, 0, 0, 0, 0)

Spending = tuple[int, int]  # tokens and cost

NO_SPENDING: Spending = (0, 0)


@dataclass(frozen=True, slots=True)
class Denial:
    """Why a call is not let in. `limit` is the client's field, of whose `bound` so much is
    `used`; the call needs `asked`. `until` is the moment from which it may be, None if never.
    `is_pointless`: to ask again before is in vain. Costs are in billionths."""

    limit: str
    bound: int
    used: int
    asked: int
    until: float | None
    is_pointless: bool = False

    @property
    def is_budget(self) -> bool:
        return self.limit.endswith(("_day", "_month"))


_NO_METER = Meter()  # of clients without limits, which are many; nothing is added to it


class Account:
    """What one client used, as far as this worker knows; how many of its calls are in flight
    here, and what these hold of the budgets. Moments are seconds since the epoch, from the
    caller. Not thread-safe: its owner locks."""

    __slots__ = (
        *("_days", "_ends_at", "_turned_at", "day", "day_at", "held_nano", "held_tokens"),
        *("in_flight", "meter", "month", "month_at", "month_ends_at", "requests_at"),
        "tokens_at",
    )

    def __init__(self) -> None:
        self.in_flight = self.held_tokens = self.held_nano = 0
        self.meter = _NO_METER
        self.forget()

    def forget(self) -> None:
        """All but what is in flight."""
        if self.meter is not _NO_METER:
            self.meter = Meter()
        self.requests_at = self.tokens_at = -COUNTED_SECONDS
        self._days: dict[int, tuple[int, int]] = {}
        self._turned_at = self._ends_at = 0
        self.day_at = self.month_at = self.month_ends_at = 0
        self.day = self.month = (0, 0)  # tokens, cost

    def count_minutes(self) -> None:
        """Before anything is added to `meter`."""
        if self.meter is _NO_METER:
            self.meter = Meter()

    def add(self, tokens: int, requests: int, second: int) -> None:
        """To the minute of that second."""
        if self.meter is _NO_METER:
            self.meter = Meter()
        meter = self.meter
        if tokens:
            meter.tokens.add(tokens, second)
            if second > self.tokens_at:
                self.tokens_at = second
        if requests:
            meter.requests.add(requests, second)
            if second > self.requests_at:
                self.requests_at = second

    def spend(self, day: int, tokens: int, cost_nano: int) -> None:
        """Of that day's and its month's budgets."""
        self._days[day] = _sum(self._days.get(day), tokens, cost_nano)
        if day == self.day_at:
            self.day = _sum(self.day, tokens, cost_nano)
        if self.month_at <= day < self.month_ends_at:
            self.month = _sum(self.month, tokens, cost_nano)

    def turn(self, now: float) -> None:
        """To the day and the month of that moment."""
        if self._turned_at <= now < self._ends_at:
            return
        self.day_at = self._turned_at = day_at(now)
        self._ends_at = self.day_at + DAY_SECONDS
        began, ends = month(now)
        if (began, ends) != (self.month_at, self.month_ends_at):
            self.month_at, self.month_ends_at = began, ends
            self._days = {d: n for d, n in self._days.items() if d >= began}
            inside = [n for d, n in self._days.items() if d < ends]
            self.month = sum(t for t, _ in inside), sum(c for _, c in inside)
        self.day = self._days.get(self.day_at, (0, 0))


def _sum(before: tuple[int, int] | None, tokens: int, cost_nano: int) -> tuple[int, int]:
    return (before[0] + tokens, before[1] + cost_nano) if before else (tokens, cost_nano)


def denial(
    limits: Limits,
    account: Account,
    asked: Amounts,
    others: Amounts,
    now: float,
    settled: Spending = NO_SPENDING,
) -> Denial | None:
    """Why the call may not go now; None if it may. What asks for no tokens is kept by no limit
    of these, nor of costs. `others` is what other workers took that is
    not in the account yet; `settled` is what of that is spent for good."""
    second = int(now)
    in_flight, requests, tokens, _, _ = others
    found = None
    if limits.budgets and asked[3]:
        found = _overspent(limits, account, asked, others, settled, now)
    if limits.tpm and asked[2]:
        window, asks = account.meter.tokens, asked[2]
        if window.total(second) + tokens + asks > limits.tpm:
            full = _full("max_tpm", limits.tpm, window, asks, tokens, second)
            found = _worse(found, full)
    if limits.rpm:
        window = account.meter.requests
        if window.total(second) + requests >= limits.rpm:
            full = _full("max_rpm", limits.rpm, window, 1, requests, second)
            found = _worse(found, full)
    if found is None and limits.parallel:
        in_flight += account.in_flight
        if in_flight >= limits.parallel:
            soon = now + SOON_SECONDS
            found = Denial("max_parallel_requests", limits.parallel, in_flight, 1, soon)
    return found


def _never(limit: str, bound: int, asked: int) -> Denial:
    return Denial(limit, bound, 0, asked, None, is_pointless=True)


def _full(
    limit: str, bound: int, window: Window, asked: int, others: int, second: int
) -> Denial:
    if asked > bound:
        return _never(limit, bound, asked)
    seconds = window.seconds_until(bound - asked - others, second)
    # None: it is what the others took just now that has to pass.
    until = second + (COUNTED_SECONDS if seconds is None else seconds)
    return Denial(limit, bound, window.total(second) + others, asked, until)


def _worse(one: Denial | None, other: Denial) -> Denial:
    """The one that lasts longer; the longest is the one that never passes."""
    if one is None or other.until is None:
        return other
    return one if one.until is None or one.until >= other.until else other


def _overspent(
    limits: Limits,
    account: Account,
    asked: Amounts,
    others: Amounts,
    settled: Spending,
    now: float,
) -> Denial | None:
    account.turn(now)
    found = None
    tokens, nano = account.held_tokens + others[3], account.held_nano + others[4]
    for limit, bound, is_month, is_cost in limits.budgets:
        spent = (account.month if is_month else account.day)[is_cost]
        used, asks = spent + (nano if is_cost else tokens), asked[3 + is_cost]
        if used + asks <= bound:
            continue
        if asks > bound:
            denied = _never(limit, bound, asks)
        elif spent + settled[is_cost] + asks > bound:
            ends = account.month_ends_at if is_month else account.day_at + DAY_SECONDS
            denied = Denial(limit, bound, used, asks, ends, is_pointless=True)
        else:  # what is in flight may cost less than it took
            denied = Denial(limit, bound, used, asks, now + SOON_SECONDS)
        found = _worse(found, denied)
    return found


def lines(limits: Limits, account: Account, others: Amounts, now: float) -> list[HeaderLine]:
    """The headers that tell a client of its limits a minute: how many requests and tokens,
    what is left of them, and when nothing is used any more if it asks for nothing."""
    found: list[HeaderLine] = []
    second = int(now)
    if limits.rpm:
        used = account.meter.requests.total(second) + others[1]
        left = str(limits.rpm - used) if used < limits.rpm else "0"
        found = [
            limits.rpm_line,
            ("x-ratelimit-remaining-requests", left),
            ("x-ratelimit-reset-requests", _reset(used, account.requests_at, second)),
        ]
    if limits.tpm:
        used = account.meter.tokens.total(second) + others[2]
        left = str(limits.tpm - used) if used < limits.tpm else "0"
        found += (
            limits.tpm_line,
            ("x-ratelimit-remaining-tokens", left),
            ("x-ratelimit-reset-tokens", _reset(used, account.tokens_at, second)),
        )
    return found


def _reset(used: int, latest_at: int, second: int) -> str:
    if used <= 0:
        return _RESETS[0]
    # What others took lately is not in the account, and began now or before.
    seconds = latest_at + COUNTED_SECONDS - second
    return _RESETS[seconds] if 0 < seconds <= COUNTED_SECONDS else _RESETS[COUNTED_SECONDS]
