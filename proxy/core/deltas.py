"""What workers tell each other through the database: deltas out, shared state back."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from proxy.core.breaker import CLOSED, BreakerNews
from proxy.core.types import InstanceConfig, is_same_upstream
from proxy.core.usage import HOUR_SECONDS
from proxy.core.verdict import MISCONFIGURED
from proxy.core.window import SET_BACK_SECONDS

# (instance, deployment); deployment "" is the whole instance.
Place = tuple[str, str]
# (minute_at, instance, model, client)
UsageKey = tuple[int, str, str, str]
# (second_at, instance, deployment)
WindowKey = tuple[int, str, str]
# What was added in one second: (second_at, instance, deployment, tokens, requests)
Added = tuple[int, str, str, int, int]
# Of instances: name -> {one of TOTALS: count}
Totals = Mapping[str, Mapping[str, int]]

Key = TypeVar("Key")
Row = TypeVar("Row")

WHOLE_INSTANCE = ""
OPERATOR = "operator"  # the reason of a rest that a person set

# Counters of an instance that only grow, as columns and JSON call them.
TOTALS = (
    "total_requests",
    "successful_requests",
    "error_count",
    "total_tokens_served",
    "total_upstream_400_errors",
    "total_upstream_429_errors",
    "total_upstream_500_errors",
    "total_upstream_other_errors",
    "latency_total_ms",
)

# While the database is away, counts pile up here; of more rows than this the model and
# the minute within the hour are given up, never a count.
MAX_USAGE_KEYS = 20_000
OTHER_MODEL = ""


@dataclass(frozen=True, slots=True)
class Rest:
    """Leave it alone until then. `set_at` decides whether an operator cleared it since.

    `config` is the one it was earned with: a rest does not concern another key or address
    (`applies_to`). None where that is settled: what is read from the database, or set by a
    person.
    """

    until: float
    reason: str
    set_at: float
    config: InstanceConfig | None = None

    def stands(self, now: float) -> bool:
        """It is not over; nor was it measured by a clock that was set back since, which a
        person's word needs no clock for."""
        if self.until <= now:
            return False
        return self.set_at <= now + SET_BACK_SECONDS or self.reason == OPERATOR

    def applies_to(self, config: InstanceConfig) -> bool:
        return self.config is None or is_same_upstream(self.config, config)


@dataclass(frozen=True, slots=True)
class LastError:
    message: str
    at: float


@dataclass(slots=True)
class Deltas:
    """What one worker measured since it last wrote. Owned by whoever holds it."""

    totals: dict[str, dict[str, int]] = field(default_factory=dict)
    # Instance -> {"last_used" | "last_success_time" | "last_failure_time": moment}
    moments: dict[str, dict[str, float]] = field(default_factory=dict)
    errors: dict[str, LastError] = field(default_factory=dict)
    # With the config that each was measured with, as rests have it.
    breakers: dict[str, tuple[BreakerNews, InstanceConfig]] = field(default_factory=dict)
    rests: dict[Place, Rest] = field(default_factory=dict)
    # Where an instance was refusing the gateway and answered it since: what was set until then
    # is over.
    mended: dict[Place, float] = field(default_factory=dict)
    # Tokens and requests.
    windows: dict[WindowKey, tuple[int, int]] = field(default_factory=dict)
    usage: dict[UsageKey, dict[str, int]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(
            self.totals
            or self.rests
            or self.mended
            or self.windows
            or self.usage
            or self.moments
            or self.breakers
            or self.errors
        )

    def add_totals(self, instance: str, counts: Mapping[str, int]) -> None:
        _add(self.totals, instance, counts)

    def add_window(self, key: WindowKey, tokens: int, requests: int) -> None:
        present = self.windows.get(key)
        if present is not None:
            tokens, requests = tokens + present[0], requests + present[1]
        self.windows[key] = (tokens, requests)

    def add_usage(self, key: UsageKey, counts: Mapping[str, int]) -> None:
        if key not in self.usage and len(self.usage) >= MAX_USAGE_KEYS:
            minute, instance, _, client = key
            key = (minute // HOUR_SECONDS * HOUR_SECONDS, instance, OTHER_MODEL, client)
        _add(self.usage, key, counts)

    def add_rest(self, place: Place, rest: Rest) -> None:
        present = self.rests.get(place)
        if self.is_mended(place, rest):
            return
        if present is None or rest.until > present.until:
            self.rests[place] = rest

    def mend(self, place: Place, at: float) -> None:
        self.mended[place] = max(at, self.mended.get(place, 0.0))
        if place in self.rests and self.is_mended(place, self.rests[place]):
            del self.rests[place]

    def is_mended(self, place: Place, rest: Rest) -> bool:
        return rest.reason in MISCONFIGURED and rest.set_at <= self.mended.get(place, 0.0)

    def note(self, instance: str, **moments: float) -> None:
        mine = self.moments.setdefault(instance, {})
        for name, at in moments.items():
            if at > mine.get(name, 0.0):
                mine[name] = at

    def voidable(self) -> set[str]:
        """Instances of which something was measured that an operator can make void."""
        failed = {n for n, moments in self.moments.items() if "last_failure_time" in moments}
        return failed | self.errors.keys() | self.breakers.keys() | {n for n, _ in self.rests}

    def drop_before(self, instance: str, before: float) -> None:
        """Forget rests and failures of an instance from before an operator cleared it."""
        moments = self.moments.get(instance, {})
        if moments.get("last_failure_time", before + 1) <= before:
            del moments["last_failure_time"]
        news, _ = self.breakers.get(instance, (None, None))
        if news is not None and news.changed_at <= before:
            del self.breakers[instance]
        for place, rest in list(self.rests.items()):
            if place[0] == instance and rest.set_at <= before:
                del self.rests[place]

    def drop_errors(self, instance: str, before: float) -> None:
        """Forget the errors of an instance, if none came after `before`."""
        if instance in self.errors and self.errors[instance].at <= before:
            del self.errors[instance]
            self.totals.get(instance, {}).pop("error_count", None)

    def drop_stale(self, configs: Mapping[str, InstanceConfig]) -> None:
        """Forget rests and breakers of a key or address that is no longer in use.

        A worker that did not know the new key yet may be refused with the old one: nobody
        else must leave the instance alone for that.
        """
        for name, (_, measured_with) in list(self.breakers.items()):
            config = configs.get(name)
            if config is not None and not is_same_upstream(measured_with, config):
                del self.breakers[name]
        for place, rest in list(self.rests.items()):
            config = configs.get(place[0])
            if config is not None and not rest.applies_to(config):
                del self.rests[place]

    def add(self, later: "Deltas") -> None:
        """Takes in what was measured after this."""
        self.errors |= later.errors
        self.breakers |= later.breakers
        self._add_sums(later)

    def add_earlier(self, earlier: "Deltas") -> None:
        """Takes in what was measured before this, which is used up; it takes as long as that
        is long, but for seconds, of which it goes through the shorter ones."""
        self.errors = earlier.errors | self.errors
        self.breakers = earlier.breakers | self.breakers
        if len(earlier.windows) > len(self.windows):
            self.windows, earlier.windows = earlier.windows, self.windows
        self._add_sums(earlier)

    def _add_sums(self, other: "Deltas") -> None:
        for instance, counts in other.totals.items():
            self.add_totals(instance, counts)
        for instance, moments in other.moments.items():
            self.note(instance, **moments)
        for place, at in other.mended.items():
            self.mend(place, at)
        for place, rest in other.rests.items():
            self.add_rest(place, rest)
        for window_key, (tokens, requests) in other.windows.items():
            self.add_window(window_key, tokens, requests)
        for usage_key, counts in other.usage.items():
            self.add_usage(usage_key, counts)

    def take(self, usage: int) -> "Deltas":
        """Takes out, and returns, all; but of usage so many rows, those that have waited
        longest."""
        taken = Deltas(self.totals, self.moments, self.errors, self.breakers)
        taken.rests, taken.windows, taken.usage = self.rests, self.windows, self.usage
        taken.mended, self.mended = self.mended, {}
        self.totals, self.moments, self.errors, self.breakers = {}, {}, {}, {}
        self.rests, self.windows, self.usage = {}, {}, {}
        if len(taken.usage) > usage:
            rows = list(taken.usage.items())
            taken.usage, self.usage = dict(rows[:usage]), dict(rows[usage:])
        return taken

    def split(self) -> tuple["Deltas", "Deltas"]:
        """What others decide by, with all that a person can make void; and what is but shown
        and can wait: usage, totals and moments. Both have their values from this."""
        at_once = Deltas(errors=self.errors, breakers=self.breakers)
        at_once.rests, at_once.windows, at_once.mended = self.rests, self.windows, self.mended
        waits = Deltas(self.totals, self.moments, usage=self.usage)
        failed = self.voidable() | {n for n, c in self.totals.items() if "error_count" in c}
        if failed:
            at_once.totals, waits.totals = _parted(self.totals, failed)
            at_once.moments, waits.moments = _parted(self.moments, failed)
        return at_once, waits

    def forget_windows(self, before: int) -> None:
        """Drop seconds that are over: no limit asks for them any more."""
        for key in [k for k in self.windows if k[0] < before]:
            del self.windows[key]


def _parted(
    rows: Mapping[str, Row], names: Container[str]
) -> tuple[dict[str, Row], dict[str, Row]]:
    """Those of the names, and the others."""
    return (
        {name: row for name, row in rows.items() if name in names},
        {name: row for name, row in rows.items() if name not in names},
    )


def _add(rows: dict[Key, dict[str, int]], key: Key, counts: Mapping[str, int]) -> None:
    """As a Counter would, which takes four times as long."""
    row = rows.get(key)
    if row is None:
        rows[key] = dict(counts)
        return
    for name, number in counts.items():
        if name in row:
            row[name] += number
        else:
            row[name] = number


@dataclass(frozen=True, slots=True)
class SharedInstance:
    """One instance as all workers measured it, as of the last read."""

    totals: Mapping[str, int] = field(default_factory=dict)
    last_used: float | None = None
    last_success_time: float | None = None
    last_failure_time: float | None = None
    last_error: str | None = None
    last_error_time: float | None = None
    cleared_at: float | None = None
    breaker: BreakerNews = CLOSED


@dataclass(frozen=True, slots=True)
class SharedState:
    """Everything the workers of a host share, or what of it changed since it was last read.

    `windows`: what all added in the seconds of the last minute, or where only changes were
    read, what others did since. `rests` are always all. `number` is of the last write that is
    in it: with it the next read begins.
    """

    instances: Mapping[str, SharedInstance] = field(default_factory=dict)
    rests: Mapping[Place, Rest] = field(default_factory=dict)
    windows: Sequence[Added] = ()
    number: int = 0
    is_whole: bool = True
