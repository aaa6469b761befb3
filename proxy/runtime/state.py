"""What this worker measured of the instances, and what all workers did as of the last sync.

Attempts begin with `start` and end with `finish`; the syncer moves counts between this
memory and the database with `take`, `give_back` and `merge`. Thread-safe: one lock, held
for arithmetic only.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from threading import Lock

from proxy.core import limiter
from proxy.core.deltas import (
    TOTALS,
    WHOLE_INSTANCE,
    Deltas,
    LastError,
    Rest,
    SharedInstance,
    SharedState,
)
from proxy.core.types import NO_USAGE, Call, Candidate, InstanceConfig, Serving, Usage
from proxy.core.verdict import ERRORS, MISCONFIGURED, OUTCOMES, Verdict
from proxy.core.window import WINDOW_SECONDS, Window

# For so long after a failure an instance is asked only after the others.
FAILING_SECONDS = 10.0
LAST_ERROR_CHARACTERS = 300
OPERATOR = "operator"  # the reason of a rest that a person set


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an instance that serves the model was not asked; `wait_seconds` until it could be."""

    name: str
    reason: str
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class Reservation:
    """Room taken by `start`; `finish` gives back what was too much."""

    config: InstanceConfig
    deployment: str
    model: str
    client: str
    tokens: int
    second: int


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended. `answered`: its answer went to the client, so the client's
    request counts here; `error` is what an operator should read of it."""

    verdict: Verdict
    usage: Usage = NO_USAGE
    latency_ms: int = 0
    first_byte_ms: int = 0
    answered: bool = True
    error: str | None = None


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


@dataclass(slots=True)
class _Live:
    """One instance. `rests` by deployment, "" for all of it."""

    in_flight: int = 0
    tokens: Window = field(default_factory=Window)
    requests: Window = field(default_factory=Window)
    rests: dict[str, Rest] = field(default_factory=dict)
    last_used_at: float = 0.0
    last_success_at: float = 0.0
    last_failure_at: float = 0.0
    shared: SharedInstance = field(default_factory=SharedInstance)

    def rest(self, serving: Serving, now: float) -> Rest | None:
        """The longer of the rests of the deployment and of the whole instance."""
        if not self.rests:
            return None
        found = [self.rests.get(d) for d in (WHOLE_INSTANCE, serving.deployment)]
        valid = [r for r in found if r and r.until > now and r.applies_to(serving.config)]
        return max(valid, key=lambda r: r.until, default=None)

    def is_failing(self, now: float) -> bool:
        return (
            self.last_failure_at > self.last_success_at
            and now < self.last_failure_at + FAILING_SECONDS
        )


class State:
    """`clock` gives seconds since the epoch: workers share moments, so it is the wall's."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = Lock()
        self._lives: dict[str, _Live] = {}
        self._pending = Deltas()
        self._taken = Deltas()  # being written; neither pending nor among the shared yet

    # A call's way: candidates, then for each attempt start and finish.

    def candidates(
        self, servings: Iterable[Serving], tokens: int
    ) -> tuple[list[Candidate], list[Refusal]]:
        """Who could serve a call of `tokens` estimated tokens now, and why others cannot."""
        now = self._clock()
        found: list[Candidate] = []
        refused: list[Refusal] = []
        with self._lock:
            for serving in servings:
                live = self._live(serving.config.name)
                refusal = _refusal(live, serving, tokens, now)
                if refusal is not None:
                    refused.append(refusal)
                    continue
                load = limiter.load(serving.config, live.tokens, int(now))
                found.append(Candidate(serving, live.in_flight, load, live.is_failing(now)))
        return found, refused

    def start(self, serving: Serving, call: Call) -> Reservation | None:
        """Takes room for one attempt. None if another thread took the last in between."""
        now = self._clock()
        config = serving.config
        with self._lock:
            live = self._live(config.name)
            if _refusal(live, serving, call.reserved_tokens, now) is not None:
                return None
            reservation = Reservation(
                config,
                serving.deployment,
                call.model,
                call.client.name,
                limiter.reservation_tokens(config, call.reserved_tokens),
                int(now),
            )
            live.in_flight += 1
            self._add_window(live, reservation, reservation.tokens, requests=1)
        return reservation

    def finish(self, reservation: Reservation, ending: Ending) -> None:
        """Settles, counts, and lets the instance rest if the verdict says so. Once each."""
        now = self._clock()
        name = reservation.config.name
        verdict = ending.verdict
        with self._lock:
            live = self._live(name)
            live.in_flight -= 1
            if reservation.second > int(now) - WINDOW_SECONDS:
                settled = ending.usage.total_tokens - reservation.tokens
                self._add_window(live, reservation, settled, requests=0)
            self._pending.add_totals(name, _totals(ending))
            self._pending.add_usage(
                (int(now) // 60 * 60, name, reservation.model, reservation.client),
                _usage(ending),
            )
            live.last_used_at = now
            self._pending.note(name, last_used=now)
            if verdict.outcome == "succeeded":
                live.last_success_at = now
                self._pending.note(name, last_success_time=now)
            elif verdict.failure:
                live.last_failure_at = now
                self._pending.note(name, last_failure_time=now)
            if ending.error and verdict.outcome in ERRORS:
                message = ending.error[:LAST_ERROR_CHARACTERS]
                self._pending.errors[name] = LastError(message, now)
            if verdict.rest_seconds > 0:
                place = WHOLE_INSTANCE if verdict.whole_instance else reservation.deployment
                reason = verdict.rest_reason or verdict.outcome
                rest = Rest(now + verdict.rest_seconds, reason, now, reservation.config)
                self._add_rest(name, place, rest)

    def refuse(self, call: Call) -> None:
        """Counts a request for which no instance could be asked."""
        minute = int(self._clock()) // 60 * 60
        with self._lock:
            self._pending.add_usage((minute, "", call.model, call.client.name), {"requests": 1})

    # The operator's hand.

    def clear(self, name: str) -> None:
        """Errors and rests measured until now are void."""
        now = self._clock()
        with self._lock:
            live = self._live(name)
            self._clear(live, name, now)
            self._pending.totals.get(name, Counter()).pop("error_count", None)
            self._pending.errors.pop(name, None)
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
            shared = live.shared
            mine = self._taken.totals.get(name, Counter()).copy()
            mine.update(self._pending.totals.get(name, Counter()))
            error = self._pending.errors.get(name) or self._taken.errors.get(name)
            rests = {d: r for d, r in live.rests.items() if r.until > now}
            return StateView(
                status=status_of(rests, is_failing=live.is_failing(now)),
                current_tpm=live.tokens.total(int(now)),
                current_rpm=live.requests.total(int(now)),
                totals={c: shared.totals.get(c, 0) + mine[c] for c in TOTALS},
                rests=rests,
                last_used=live.last_used_at or None,
                last_error=error.message if error else shared.last_error,
                last_error_time=error.at if error else shared.last_error_time,
            )

    # The syncer's.

    def take(self) -> Deltas:
        """What was measured since the last `take`. Give it back if it could not be written."""
        with self._lock:
            self._taken, self._pending = self._pending, Deltas()
            return self._taken

    def give_back(self, taken: Deltas) -> None:
        oldest = int(self._clock()) - WINDOW_SECONDS
        with self._lock:
            taken.add(self._pending)
            taken.forget_windows(before=oldest)
            self._pending, self._taken = taken, Deltas()

    def merge(self, shared: SharedState) -> None:
        """Everyone's sums, with what was measured here since they were read on top."""
        second = int(self._clock())
        with self._lock:
            self._taken = Deltas()
            for name, instance in shared.instances.items():
                self._adopt(self._live(name), name, instance)
            for name in {*self._lives, *shared.windows}:
                live = self._live(name)
                rows = shared.windows.get(name, ())
                live.tokens.replace(((at, tokens) for at, tokens, _ in rows), second)
                live.requests.replace(((at, requests) for at, _, requests in rows), second)
                live.rests.clear()
            for (at, name, _), counts in self._pending.windows.items():
                self._live(name).tokens.add(counts["tokens"], at)
                self._live(name).requests.add(counts["requests"], at)
            for rests in (shared.rests, self._pending.rests):
                for (name, deployment), rest in rests.items():
                    present = self._live(name).rests.get(deployment)
                    if present is None or rest.until > present.until:
                        self._live(name).rests[deployment] = rest

    # Below: only with the lock held.

    def _live(self, name: str) -> _Live:
        live = self._lives.get(name)
        if live is None:
            live = self._lives[name] = _Live()
        return live

    def _add_window(
        self, live: _Live, reservation: Reservation, tokens: int, *, requests: int
    ) -> None:
        at = reservation.second
        live.tokens.add(tokens, at)
        live.requests.add(requests, at)
        key = (at, reservation.config.name, reservation.deployment)
        self._pending.add_window(key, tokens, requests)

    def _add_rest(self, name: str, deployment: str, rest: Rest) -> None:
        rests = self._live(name).rests
        present = rests.get(deployment)
        if present is None or rest.until > present.until:
            rests[deployment] = rest
        self._pending.add_rest((name, deployment), rest)

    def _adopt(self, live: _Live, name: str, instance: SharedInstance) -> None:
        if (instance.cleared_at or 0.0) > (live.shared.cleared_at or 0.0):
            self._clear(live, name, instance.cleared_at or 0.0)
        live.shared = instance
        live.last_used_at = max(live.last_used_at, instance.last_used or 0.0)
        live.last_success_at = max(live.last_success_at, instance.last_success_time or 0.0)
        live.last_failure_at = max(live.last_failure_at, instance.last_failure_time or 0.0)

    def _clear(self, live: _Live, name: str, before: float) -> None:
        """Void what was measured here before that moment. Later measurements stand."""
        self._pending.drop_rests(name, before)
        live.rests = {d: r for d, r in live.rests.items() if r.set_at > before}
        if live.last_failure_at <= before:
            live.last_failure_at = 0.0
            self._pending.moments.get(name, {}).pop("last_failure_time", None)


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


def status_of(rests: Mapping[str, Rest], *, is_failing: bool) -> str:
    """One word for an instance: what stands most in the way of its being asked."""
    reasons = {r.reason for r in rests.values()}
    if reasons & MISCONFIGURED:
        return "misconfigured"
    if reasons:
        return "rate_limited"
    return "error" if is_failing else "healthy"


def _refusal(live: _Live, serving: Serving, tokens: int, now: float) -> Refusal | None:
    rest = live.rest(serving, now)
    if rest is not None:
        return Refusal(serving.config.name, rest.reason, rest.until - now)
    second = int(now)
    wait = limiter.wait_seconds(serving.config, live.tokens, tokens, second)
    if wait > 0:
        # Room comes when a second is over, not a whole second after now.
        return Refusal(serving.config.name, "no room", second + wait - now)
    return None


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


def _usage(ending: Ending) -> dict[str, int]:
    usage = ending.usage
    return {
        "requests": int(ending.answered),
        "attempts": 1,
        ending.verdict.outcome: 1,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
        "latency_total_ms": ending.latency_ms,
        "first_byte_total_ms": ending.first_byte_ms,
    }
