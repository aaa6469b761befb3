"""What this worker measured of the instances, and what all workers did as of the last sync.

Attempts begin with `start` and end with `finish`; the syncer moves counts between this
memory and the database with `take`, `give_back` and `merge`. Thread-safe: one lock, held
for arithmetic only.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from types import MappingProxyType
from typing import NamedTuple

from proxy.core.deltas import (
    OPERATOR,
    OTHER_MODEL,
    TOTALS,
    WHOLE_INSTANCE,
    Added,
    Deltas,
    LastError,
    Place,
    Rest,
    SharedInstance,
    SharedState,
    Totals,
    UsageKey,
    WindowKey,
)
from proxy.core.hints import Hint
from proxy.core.histogram import bucket
from proxy.core.limiter import (
    COUNTED_SECONDS,
    DEPLOYMENT,
    Lately,
    Meter,
    Peers,
    instance_meter,
    may_be_limited,
    meters,
    reservation_tokens,
    ungrouped,
)
from proxy.core.live import ALONE, Live
from proxy.core.refusal import Refusal
from proxy.core.types import (
    NO_USAGE,
    Call,
    Candidate,
    InstanceConfig,
    MeterKey,
    Serving,
    Usage,
)
from proxy.core.usage import ABANDONED, FIRST_BYTE, LATENCY, LOST, MINUTE_SECONDS
from proxy.core.verdict import (
    ERRORS,
    LOSSES,
    MISCONFIGURED,
    NO_SUCH_MODEL,
    OUTCOMES,
    Outcome,
    Verdict,
)
from proxy.core.window import SET_BACK_SECONDS, WINDOW_SECONDS

NO_COUNTS: Mapping[str, int] = MappingProxyType({})
NO_CONFIGS: Mapping[str, InstanceConfig] = MappingProxyType({})

LAST_ERROR_CHARACTERS = 300
# Written in a tenth of a second, or in half of one where they are late.
MOST_USAGE_ROWS = 2_000

# What a person should hear of: keys of core/events.py, and the words of a log line that begins
# with the instance's name.
BREAKER_OPENED = "breaker_opened"
MISCONFIGURED_NOW = "misconfigured"
LONG_REST = "instance_rests"
EVENT_WORDS = {
    BREAKER_OPENED: "fails, and is left alone for a while",
    MISCONFIGURED_NOW: "refuses the gateway; a person has to mend its config",
    LONG_REST: "wants to be left alone for long",
}
LONG_REST_SECONDS = 30.0

RATE_SECONDS = 10

# Beyond `timeout_seconds`, until a trial whose end nobody heard of is over.
TRIAL_GRACE_SECONDS = 5.0


class Reservation(NamedTuple):
    """Room taken by `start`; `finish` gives back what was too much."""

    config: InstanceConfig
    deployment: str
    model: str
    client: str
    tokens: int
    second: int
    meters: tuple[MeterKey, ...] = ()
    is_trial: bool = False  # of a breaker that is half open


class Ending(NamedTuple):
    """How an attempt ended. Its times are its own; `before_ms` is what its client had waited
    when it began. `answered`: its answer went to the client, so the client's
    request counts here; `is_left`: the client did not wait for it; `was_answered`:
    `State.answered` was told before; `error` is what an operator should read of it;
    `cost_nano` what its usage costs, in billionths."""

    verdict: Verdict
    usage: Usage = NO_USAGE
    latency_ms: int = 0
    first_byte_ms: int = 0
    before_ms: int = 0
    answered: bool = True
    is_left: bool = False
    was_answered: bool = False
    error: str | None = None
    cost_nano: int = 0


@dataclass(frozen=True, slots=True)
class StateView:
    """One instance's state as the admin API shows it, at one moment."""

    status: str
    current_tpm: int
    current_rpm: int
    totals: Mapping[str, int]
    rests: Mapping[str, Rest]
    last_used: float | None
    last_error: str | None
    last_error_time: float | None
    breaker: str = "closed"
    open_until: float | None = None


class State:
    """`clock` gives seconds since the epoch: workers share moments, so it is the wall's.
    `chance` from 0 to 1 spreads the moments at which breakers let somebody try again. `peers`
    are the other workers.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
        peers: Peers = ALONE,
    ) -> None:
        self._clock = clock
        self._chance = chance
        self._peers = peers
        self._lock = Lock()
        self._lives: dict[str, Live] = {}
        self._meters: dict[MeterKey, Meter] = {}
        self._pending = Deltas()
        self._taken = Deltas()  # being written; neither pending nor among the shared yet
        # Written, but to where it waits and is in nobody's sums yet: see store/held.py.
        self._held: Sequence[Totals] = ()
        self._configs = NO_CONFIGS
        self._is_adrift = False  # something counted in other meters than `_configs` say
        self._meters_at: dict[Place, tuple[Meter, ...]] = {}
        # Written in the last round: the others hear of it in their next. With what is being
        # written and what is pending it is what they may not have heard of; by meter it is
        # summed up when somebody first asks after a round, which where there is plenty of room
        # is nobody.
        self._told: Mapping[WindowKey, tuple[int, int]] = {}
        self._lately_of: dict[Meter, Lately] | None = None
        self._resting: set[str] = set()  # nobody else has rests
        self._next_sweep = 0

    # A call's way: for each attempt start, answered if it was, and finish.

    def start(
        self, serving: Serving, call: Call, *, alone: bool = False, kept: float | None = None
    ) -> Reservation | Refusal:
        """Takes room for one attempt, or says why there is none. `alone`: nobody else can be
        asked. `kept`: of each second's tokens, for other clients; None: they want no more
        than they get."""
        now = self._clock()
        config = serving.config
        with self._lock:
            live = self._live(config.name)
            refusal = live.refusal(serving, call, self._meters, now, alone=alone, kept=kept)
            if refusal is not None:
                return refusal
            tokens = reservation_tokens(serving, call.reserved_tokens)
            live.begin(serving, tokens, now)
            is_trial = live.breaker.start(now, config.timeout_seconds + TRIAL_GRACE_SECONDS)
            reservation = Reservation(
                config,
                serving.deployment,
                call.model,
                call.client.name,
                tokens,
                int(now),
                serving.meters,
                is_trial,
            )
            if is_trial:
                self._tell_breaker(live, config)
            self._add_window(reservation, tokens, requests=1)
        return reservation

    def answered(
        self,
        reservation: Reservation,
        first_byte_ms: float | None,
        hint: Hint | None = None,
        *,
        streams: bool = False,
    ) -> bool:
        """The instance gave an answer that is none of its failures; true if that closed its
        breaker. It may still fail before the end. `first_byte_ms` is None if it was none of
        those that tell how fast it is; `hint` is what its headers said."""
        now = self._clock()
        name = reservation.config.name
        with self._lock:
            live = self._live(name)
            if not live.is_about(reservation.config):
                return False
            live.answered(reservation.deployment, first_byte_ms, hint, streams=streams)
            closed = live.breaker.succeed(now, is_trial=reservation.is_trial)
            if closed:
                self._tell_breaker(live, reservation.config)
        return closed

    def usual_content_ms(self, reservation: Reservation) -> float | None:
        """What half of the deployment's streams take until they say something; None if nobody
        knows."""
        with self._lock:
            median = self._live(reservation.config.name).contents.get(reservation.deployment)
            return median.value if median else None

    def refusals(
        self, servings: Iterable[Serving], call: Call, *, kept: float | None = None
    ) -> list[Refusal | None]:
        """For each why the call may not go there now; None if it may. Takes nothing."""
        now = self._clock()
        with self._lock:
            return [
                self._live(s.config.name).refusal(s, call, self._meters, now, kept=kept)
                for s in servings
            ]

    def look(self, servings: Iterable[Serving]) -> list[Candidate]:
        """Each with its load now."""
        now = self._clock()
        with self._lock:
            return [self._live(s.config.name).candidate(s, self._meters, now) for s in servings]

    def finish(self, reservation: Reservation, ending: Ending) -> str | None:
        """Settles, counts, and lets the instance rest if the verdict says so. Once each.

        What a person should hear of: a key of EVENT_WORDS.
        """
        now = self._clock()
        name = reservation.config.name
        verdict = ending.verdict
        with self._lock:
            live = self._live(name)
            live.in_flight -= 1
            age_seconds = int(now) - reservation.second
            # Below 0 by much: the clock was set back since.
            if -SET_BACK_SECONDS <= age_seconds < COUNTED_SECONDS:
                settled = ending.usage.total_tokens - reservation.tokens
                self._add_window(reservation, settled, requests=0)
            self._pending.add_totals(name, _totals(ending))
            self._pending.add_usage(_usage_key(now, reservation, verdict), _usage(ending))
            live.last_used_at = now
            self._pending.note(name, last_used=now)
            event = self._judge(live, reservation, ending, now)
            if ending.error and verdict.outcome in ERRORS:
                # What no database takes must not keep all else from it.
                text = ending.error.encode("utf-8", "replace").decode()
                message = text[:LAST_ERROR_CHARACTERS]
                self._pending.errors[name] = LastError(message, now)
            if verdict.rest_seconds > 0:
                place = WHOLE_INSTANCE if verdict.whole_instance else reservation.deployment
                reason = verdict.rest_reason or verdict.outcome
                rest = Rest(now + verdict.rest_seconds, reason, now, reservation.config)
                if place not in live.rests:
                    event = _event_of(rest, verdict.rest_seconds) or event
                self._add_rest(name, place, rest)
        return event

    def count_request(
        self, reservation: Reservation, verdict: Verdict, *, is_left: bool = False
    ) -> None:
        """The client got no better than this attempt, which was finished as one that it would
        not get: its request counts here. `is_left`: it did not wait for a better one."""
        counts = {"requests": 1} | _without_answer(verdict.outcome, is_left=is_left)
        key = _usage_key(self._clock(), reservation, verdict)
        with self._lock:
            self._pending.add_usage(key, counts)

    def refuse(self, client: str, model: str, why: str) -> None:
        """Counts a request for which no instance was asked; `why` is one of REFUSALS."""
        key = (int(self._clock()) // MINUTE_SECONDS * MINUTE_SECONDS, "", model, client)
        with self._lock:
            self._pending.add_usage(key, {"requests": 1, why: 1})

    # The operator's hand.

    def clear(self, name: str, at: float | None = None) -> None:
        """Errors and rests measured until now are void, or until `at`: then the database was
        cleared."""
        now = self._clock() if at is None else at
        with self._lock:
            live = self._live(name)
            self._clear(live, name, now)
            self._pending.totals.get(name, {}).pop("error_count", None)
            self._pending.errors.pop(name, None)
            if (live.shared.cleared_at or 0.0) >= now:
                return  # a sync was faster, and what it read may be newer
            # Everyone's, as of the last sync: cleared in the database, shown so at once.
            live.shared = replace(
                live.shared,
                totals={**live.shared.totals, "error_count": 0},
                last_error=None,
                last_error_time=None,
            )

    def clear_rests(self, name: str) -> None:
        """After a change of key or address: what the old one earned is void."""
        now = self._clock()
        with self._lock:
            self._clear(self._live(name), name, now)

    def rest(self, name: str, until: float) -> None:
        """A person wants the instance left alone until then."""
        with self._lock:
            self._add_rest(name, WHOLE_INSTANCE, Rest(until, OPERATOR, self._clock()))

    def view(self, name: str) -> StateView:
        """As of now: everyone's as of the last sync, and this worker's since."""
        now = self._clock()
        with self._lock:
            live = self._live(name)
            meter = self._meter(instance_meter(name))
            shared = live.shared
            mine = Counter[str]()
            for totals in (*self._held, self._taken.totals, self._pending.totals):
                mine.update(totals.get(name, NO_COUNTS))
            error = self._pending.errors.get(name) or self._taken.errors.get(name)
            rests = {d: r for d, r in live.rests.items() if r.until > now}
            breaker = live.breaker.state(now)
            return StateView(
                status=live.status(rests),
                current_tpm=meter.tokens.recent(int(now), WINDOW_SECONDS),
                current_rpm=meter.requests.recent(int(now), WINDOW_SECONDS),
                totals={c: shared.totals.get(c, 0) + mine[c] for c in TOTALS},
                rests=rests,
                last_used=live.last_used_at or None,
                last_error=error.message if error else shared.last_error,
                last_error_time=error.at if error else shared.last_error_time,
                breaker=breaker,
                open_until=now + live.breaker.wait_seconds(now) if breaker == "open" else None,
            )

    def requests_per_second(self, name: str) -> float:
        """Attempts that began, over the last ten seconds that are over."""
        with self._lock:
            requests = self._meter(instance_meter(name)).requests
            *over, _ = requests.by_second(int(self._clock()), RATE_SECONDS + 1)
            return sum(over) / RATE_SECONDS

    def in_flight(self) -> dict[str, int]:
        """Attempts of this worker that are open, by instance."""
        with self._lock:
            return {
                name: live.in_flight for name, live in self._lives.items() if live.in_flight
            }

    def used_tokens(self, keys: Iterable[MeterKey]) -> dict[MeterKey, int]:
        """Of the last minute, as limits count it."""
        second = int(self._clock())
        with self._lock:
            return {
                key: self._meters[key].tokens.total(second) if key in self._meters else 0
                for key in keys
            }

    # The syncer's.

    def take(self) -> Deltas:
        """What was measured since the last `take`. Give it back if it could not be written.

        Of usage not more than can be written while others wait for it; the rest has time, and
        is in the next ones.
        """
        with self._lock:
            self._taken = self._pending.take(MOST_USAGE_ROWS)
            return self._taken

    def has_usage(self) -> bool:
        """Some is still to be taken."""
        return bool(self._pending.usage)

    def give_back(self, taken: Deltas) -> None:
        oldest = int(self._clock()) - COUNTED_SECONDS
        with self._lock:
            self._pending.add_earlier(taken)
            self._pending.forget_windows(before=oldest)
            self._taken = Deltas()

    def merge(
        self,
        shared: SharedState,
        configs: Mapping[str, InstanceConfig] = NO_CONFIGS,
        held: Sequence[Totals] = (),
    ) -> None:
        """Everyone's sums, with what was measured here since they were read on top, and what
        of this worker's own is `held` back from them.

        `configs` say in which meters an instance's deployments count; as long as they are the
        same object, nothing in them changed. It takes as long as what is shared is long.
        """
        now = self._clock()
        with self._lock:
            self._told, self._lately_of = self._taken.windows, None
            self._taken, self._held = Deltas(), held
            for name, instance in shared.instances.items():
                self._adopt(self._live(name), name, instance, now)
            before, self._configs = self._configs, configs
            if shared.is_whole:
                self._recount()
            elif configs is not before or self._is_adrift:
                self._regroup()
            self._count(shared.windows)
            self._sweep(int(now))
            self._replace_rests(shared.rests)

    # Below: only with the lock held.

    def _live(self, name: str) -> Live:
        live = self._lives.get(name)
        if live is None:
            live = self._lives[name] = Live(self._peers, self._lately)
        return live

    def _judge(
        self, live: Live, reservation: Reservation, ending: Ending, now: float
    ) -> str | None:
        """Tells the breaker how an attempt ended. Of an answer it knows already: with that a
        trial was over, and what came after it is none."""
        name, verdict = reservation.config.name, ending.verdict
        is_trial = reservation.is_trial and not ending.was_answered
        if verdict.outcome == "succeeded":
            self._pending.note(name, last_success_time=now)
        if not live.is_about(reservation.config):
            return None
        if not verdict.failure:
            live.breaker.give_back(now, is_trial=is_trial)
            if is_trial:
                self._tell_breaker(live, reservation.config)
            return None
        self._pending.note(name, last_failure_time=now)
        before = live.breaker.news
        opened = live.breaker.fail(
            now,
            self._chance(),
            is_trial=is_trial,
            no_answer=verdict.no_answer,
            was_answered=ending.was_answered,
        )
        if live.breaker.news is not before:
            self._tell_breaker(live, reservation.config)
        return BREAKER_OPENED if opened else None

    def _tell_breaker(self, live: Live, config: InstanceConfig) -> None:
        self._pending.breakers[config.name] = (live.breaker.news, config)

    def _meter(self, key: MeterKey) -> Meter:
        meter = self._meters.get(key)
        if meter is None:
            meter = self._meters[key] = Meter()
        return meter

    def _recount(self) -> None:
        """Fills the meters anew, with what nobody else knows yet."""
        self._meters, self._meters_at, self._is_adrift = {}, {}, False
        self._count([key + counts for key, counts in self._pending.windows.items()])

    def _regroup(self) -> None:
        """Fills those meters anew in which several deployments count."""
        own = {k: meter for k, meter in self._meters.items() if k[0] == DEPLOYMENT}
        self._meters, self._meters_at, self._is_adrift = dict(own), {}, False
        for (_, name, deployment), meter in own.items():
            others = [m for m in self._meters_of((name, deployment)) if m is not meter]
            for at, tokens, requests in meter.seconds():
                for other in others:
                    other.add(tokens, requests, at)

    def _count(self, added: Iterable[Added]) -> None:
        meters_at = self._meters_at
        for at, name, deployment, tokens, requests in added:
            place = name, deployment
            for meter in meters_at.get(place) or self._meters_of(place):
                meter.add(tokens, requests, at)

    def _lately(self, meter: Meter) -> Lately | None:
        """What was added to it here that the others may not have heard of."""
        return self._all_lately().get(meter)

    def _all_lately(self) -> dict[Meter, Lately]:
        if self._lately_of is None:
            self._lately_of = {}
            oldest = int(self._clock()) - COUNTED_SECONDS
            for windows in (self._told, self._taken.windows, self._pending.windows):
                for (at, name, deployment), (tokens, requests) in windows.items():
                    config = self._configs.get(name)
                    if at > oldest and (config is None or may_be_limited(config)):
                        for each in self._meters_of((name, deployment)):
                            self._add_lately(each, tokens, requests, at)
        return self._lately_of

    def _add_lately(self, meter: Meter, tokens: int, requests: int, at: int) -> None:
        assert self._lately_of is not None, "it is summed up"
        lately = self._lately_of.get(meter)
        if lately is None:
            lately = self._lately_of[meter] = Lately()
        lately.add(tokens, requests, at)

    def _sweep(self, second: int) -> None:
        """Now and then forgets what no limit asks for any more: clients name deployments."""
        oldest = second - COUNTED_SECONDS
        if second >= self._next_sweep or second < self._next_sweep - COUNTED_SECONDS:
            self._next_sweep = second + COUNTED_SECONDS
            self._meters = {k: m for k, m in self._meters.items() if m.newest > oldest}
            self._meters_at = {}

    def _replace_rests(self, shared: Mapping[Place, Rest]) -> None:
        for name in self._resting:
            self._live(name).rests.clear()
        self._resting.clear()
        for rests in (shared, self._pending.rests):
            for (name, deployment), rest in rests.items():
                self._let_rest(name, deployment, rest)

    def _meters_of(self, place: Place) -> tuple[Meter, ...]:
        """All in which calls to this deployment count."""
        found = self._meters_at.get(place)
        if found is None:
            name, deployment = place
            config = self._configs.get(name)
            keys = meters(config, deployment) if config else ungrouped(name, deployment)
            found = self._meters_at[place] = tuple(map(self._meter, keys))
        return found

    def _add_window(self, reservation: Reservation, tokens: int, *, requests: int) -> None:
        at, config = reservation.second, reservation.config
        if self._configs.get(config.name) is not config:
            self._is_adrift = True
            self._all_lately()  # as long as it can be: this counts where `_configs` do not say
        notes = self._lately_of is not None and may_be_limited(config)
        found = self._meters.get
        for meter_key in reservation.meters:
            meter = found(meter_key) or self._meter(meter_key)
            meter.add(tokens, requests, at)
            if notes:
                self._add_lately(meter, tokens, requests, at)
        key = (at, config.name, reservation.deployment)
        self._pending.add_window(key, tokens, requests)

    def _add_rest(self, name: str, deployment: str, rest: Rest) -> None:
        self._let_rest(name, deployment, rest)
        self._pending.add_rest((name, deployment), rest)

    def _let_rest(self, name: str, deployment: str, rest: Rest) -> None:
        self._resting.add(name)
        rests = self._live(name).rests
        present = rests.get(deployment)
        if present is None or rest.until > present.until:
            rests[deployment] = rest

    def _adopt(self, live: Live, name: str, instance: SharedInstance, now: float) -> None:
        if (instance.cleared_at or 0.0) > (live.shared.cleared_at or 0.0):
            self._clear(live, name, instance.cleared_at or 0.0)
        live.shared = instance
        live.last_used_at = max(live.last_used_at, instance.last_used or 0.0)
        live.breaker.hear(instance.breaker, now)

    def _clear(self, live: Live, name: str, before: float) -> None:
        """Void what was measured here before that moment. Later measurements stand."""
        self._pending.drop_before(name, before)
        live.rests = {d: r for d, r in live.rests.items() if r.set_at > before}
        if live.breaker.news.changed_at <= before:
            live.breaker.reset(before)


def removed_view(shared: SharedInstance) -> StateView:
    """Of an instance whose config is gone: its totals remain."""
    return StateView(
        status="removed",
        current_tpm=0,
        current_rpm=0,
        totals=shared.totals,
        rests={},
        last_used=shared.last_used,
        last_error=shared.last_error,
        last_error_time=shared.last_error_time,
    )


def _event_of(rest: Rest, seconds: float) -> str | None:
    if rest.reason in MISCONFIGURED:
        return MISCONFIGURED_NOW
    return LONG_REST if seconds >= LONG_REST_SECONDS else None


def _totals(ending: Ending) -> dict[str, int]:
    outcome = ending.verdict.outcome
    counts = {"total_requests": 1, "total_tokens_served": ending.usage.total_tokens}
    counter = OUTCOMES[outcome]
    if counter is not None:
        counts[counter] = 1
    if outcome in ERRORS:
        counts["error_count"] = 1
    if outcome == "succeeded":
        counts["latency_total_ms"] = ending.latency_ms
    return counts


def _usage_key(now: float, reservation: Reservation, verdict: Verdict) -> UsageKey:
    """Names that clients make up are not kept."""
    return (
        int(now) // MINUTE_SECONDS * MINUTE_SECONDS,
        reservation.config.name,
        OTHER_MODEL if verdict is NO_SUCH_MODEL else reservation.model,
        reservation.client,
    )


def _without_answer(outcome: Outcome, *, is_left: bool) -> dict[str, int]:
    """How the request of a client ended that got no good answer, if not by its own fault."""
    if is_left:
        return {ABANDONED: 1}
    return {LOST: 1} if outcome in LOSSES else {}


def _usage(ending: Ending) -> dict[str, int]:
    usage, outcome = ending.usage, ending.verdict.outcome
    counts = {"requests": int(ending.answered), "attempts": 1, outcome: 1}
    if usage is not NO_USAGE:
        counts["prompt_tokens"] = usage.prompt_tokens
        counts["completion_tokens"] = usage.completion_tokens
        if usage.cached_tokens:
            counts["cached_tokens"] = usage.cached_tokens
        if usage.reasoning_tokens:
            counts["reasoning_tokens"] = usage.reasoning_tokens
    if outcome == "succeeded":
        # As its client saw it: with what went before, which is no matter of the instance's.
        latency_ms = ending.before_ms + ending.latency_ms
        first_byte_ms = ending.before_ms + ending.first_byte_ms
        counts["latency_total_ms"] = latency_ms
        counts["first_byte_total_ms"] = first_byte_ms
        counts[LATENCY[bucket(latency_ms)]] = 1
        counts[FIRST_BYTE[bucket(first_byte_ms)]] = 1
    elif ending.answered and outcome != "aborted":
        counts |= _without_answer(outcome, is_left=ending.is_left)
    if ending.cost_nano:
        counts["cost_nano"] = ending.cost_nano
    return counts
