"""What this worker measured of the instances, and what all workers did as of the last sync.

Attempts begin with `start` and end with `finish`; the syncer moves counts between this
memory and the database with `take`, `give_back` and `merge`. Thread-safe: one lock, held
for arithmetic only.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from types import MappingProxyType

from proxy.core import attempts
from proxy.core.attempts import Ending, Reservation
from proxy.core.deltas import (
    OPERATOR,
    TOTALS,
    WHOLE_INSTANCE,
    Deltas,
    LastError,
    Place,
    Rest,
    SharedInstance,
    SharedState,
    Totals,
)
from proxy.core.hints import Hint
from proxy.core.limiter import (
    COUNTED_SECONDS,
    Lately,
    Meter,
    Peers,
    instance_meter,
    reservation_tokens,
)
from proxy.core.live import ALONE, Live
from proxy.core.metering import NO_CONFIGS, Metering
from proxy.core.refusal import Refusal
from proxy.core.types import Call, Candidate, InstanceConfig, MeterKey, Serving
from proxy.core.usage import MINUTE_SECONDS
from proxy.core.verdict import ERRORS, MISCONFIGURED, Outcome, Verdict
from proxy.core.window import SET_BACK_SECONDS, WINDOW_SECONDS

NO_RESTS: Mapping[str, Rest] = MappingProxyType({})
NO_COUNTS: Mapping[str, int] = MappingProxyType({})

LAST_ERROR_CHARACTERS = 300
# Written in a tenth of a second, or in half of one where they are late.
MOST_USAGE_ROWS = 2_000

# What a person should hear of: keys of core/events.py, and the words of a log line that begins
# with the instance's name.
BREAKER_OPENED = "breaker_opened"
BREAKER_CLOSED = "breaker_closed"
MISCONFIGURED_NOW = "misconfigured"
LONG_REST = "instance_rests"
ACCEPTS_AGAIN = "accepts_again"
ASKED_AGAIN = "asked_again"
EVENT_WORDS = {
    BREAKER_OPENED: "fails, and is left alone for a while",
    BREAKER_CLOSED: "answers again: its breaker closed",
    MISCONFIGURED_NOW: "refuses the gateway; a person has to mend its config",
    LONG_REST: "wants to be left alone for long",
    ACCEPTS_AGAIN: "takes the gateway again, and is asked by all",
    ASKED_AGAIN: "is asked again: it was verified, changed or set healthy",
}
LONG_REST_SECONDS = 30.0
ILL = ("error", "misconfigured")  # statuses, of which it is told when they begin and end
# Of an answer that had begun these say nothing of how its instance would have ended it.
UNTOLD: frozenset[Outcome] = frozenset({"aborted", "expired", "failed"})

RATE_SECONDS = 10

# Beyond `timeout_seconds`, until a trial whose end nobody heard of is over.
TRIAL_GRACE_SECONDS = 5.0


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
        self._pending = Deltas()  # always this one, which the metering knows, too
        self._metering = Metering(self._pending)
        self._taken = Deltas()  # being written; neither pending nor among the shared yet
        # Written, but to where it waits and is in nobody's sums yet: see store/held.py.
        self._held: Sequence[Totals] = ()
        self._resting: set[str] = set()  # nobody else has rests
        self._asked_again: list[str] = []  # by a person's word, and nobody was told yet

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
            refusal = live.refusal(
                serving, call, self._metering.all, now, alone=alone, kept=kept
            )
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
                alone and live.retry(serving, now),
            )
            if is_trial:
                self._tell_breaker(live, config)
            self._metering.add(reservation, tokens, requests=1, second=int(now))
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

    def accepted(self, reservation: Reservation) -> bool:
        """An instance that refused the gateway when it was asked last takes it; true if that
        is new."""
        now, name = self._clock(), reservation.config.name
        with self._lock:
            live = self._live(name)
            if not live.is_about(reservation.config):
                return False
            places = live.mend(reservation.deployment)
            for place in places:
                self._pending.mend((name, place), now)
        return bool(places)

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
                self._live(s.config.name).refusal(s, call, self._metering.all, now, kept=kept)
                for s in servings
            ]

    def look(self, servings: Iterable[Serving]) -> list[Candidate]:
        """Each with its load now."""
        now = self._clock()
        with self._lock:
            return [
                self._live(s.config.name).candidate(s, self._metering.all, now)
                for s in servings
            ]

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
                self._metering.add(reservation, settled, requests=0, second=int(now))
            self._pending.add_totals(name, attempts.totals(ending))
            self._pending.add_usage(
                attempts.usage_key(reservation, verdict, now), attempts.usage(ending)
            )
            live.last_used_at = now
            self._pending.note(name, last_used=now)
            event = self._judge(live, reservation, ending, now)
            # While it refuses the gateway that is what is told of it, however else the attempt
            # failed that was to find out whether it still does.
            is_told = verdict.outcome in (MISCONFIGURED if reservation.is_retry else ERRORS)
            if ending.error and is_told and not verdict.is_ours:
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
        counts = {"requests": 1} | attempts.without_answer(verdict.outcome, is_left=is_left)
        key = attempts.usage_key(reservation, verdict, self._clock())
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

    def end_rests(self, name: str, places: Collection[str]) -> None:
        """Those at `places` and the breaker's; the others stand."""
        now = self._clock()
        with self._lock:
            live = self._live(name)
            others = {place: rest for place, rest in live.rests.items() if place not in places}
            self._clear(live, name, now, others)

    def asked_again(self) -> list[str]:
        """Instances that failed, or refused the gateway, until a person made that void, here or
        elsewhere; each is given once."""
        with self._lock:
            found, self._asked_again = self._asked_again, []
        return found

    def rest(self, name: str, until: float) -> None:
        """A person wants the instance left alone until then."""
        with self._lock:
            self._add_rest(name, WHOLE_INSTANCE, Rest(until, OPERATOR, self._clock()))

    def view(self, name: str) -> StateView:
        """As of now: everyone's as of the last sync, and this worker's since."""
        now = self._clock()
        with self._lock:
            live = self._live(name)
            live.breaker.doubt(now)
            meter = self._metering.meter(instance_meter(name))
            shared = live.shared
            mine = Counter[str]()
            for totals in (*self._held, self._taken.totals, self._pending.totals):
                mine.update(totals.get(name, NO_COUNTS))
            error = self._pending.errors.get(name) or self._taken.errors.get(name)
            rests = {d: r for d, r in live.rests.items() if r.stands(now)}
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
            requests = self._metering.meter(instance_meter(name)).requests
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
            found = self._metering.all
            return {key: found[key].tokens.total(second) if key in found else 0 for key in keys}

    # The syncer's.

    def take(self) -> Deltas:
        """What was measured since the last `take`. Give it back if it could not be written.

        Of usage not more than can be written while others wait for it; the rest has time, and
        is in the next ones.
        """
        with self._lock:
            self._take(self._pending.take(MOST_USAGE_ROWS))
            return self._taken

    def has_usage(self) -> bool:
        """Some is still to be taken."""
        return bool(self._pending.usage)

    def give_back(self, taken: Deltas) -> None:
        oldest = int(self._clock()) - COUNTED_SECONDS
        with self._lock:
            self._pending.add_earlier(taken)
            self._pending.forget_windows(before=oldest)
            self._take(Deltas())

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
            self._metering.note_written()
            self._taken, self._held = Deltas(), held
            for name, instance in shared.instances.items():
                self._adopt(self._live(name), name, instance, now)
            self._metering.merge(
                shared.windows, configs, is_whole=shared.is_whole, second=int(now)
            )
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
            tells = ending.was_answered and verdict.outcome not in UNTOLD
            if tells and live.breaker.confirm(now):
                self._tell_breaker(live, reservation.config)
                return BREAKER_CLOSED
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

    def _lately(self, meter: Meter) -> Lately | None:
        """What was added to it here that the others may not have heard of."""
        return self._metering.unknown(int(self._clock())).get(meter)

    def _take(self, taken: Deltas) -> None:
        self._taken = taken
        self._metering.writing = taken.windows

    def _replace_rests(self, shared: Mapping[Place, Rest]) -> None:
        for name in self._resting:
            self._live(name).rests.clear()
        self._resting.clear()
        for rests in (shared, self._pending.rests):
            for (name, deployment), rest in rests.items():
                if not self._pending.is_mended((name, deployment), rest):
                    self._let_rest(name, deployment, rest)

    def _add_rest(self, name: str, deployment: str, rest: Rest) -> None:
        self._let_rest(name, deployment, rest)
        self._pending.add_rest((name, deployment), rest)

    def _let_rest(self, name: str, deployment: str, rest: Rest) -> None:
        self._resting.add(name)
        rests = self._live(name).rests
        present = rests.get(deployment)
        is_there = present is not None and present.stands(self._clock())
        if present is None or not is_there or _replaces(rest, present):
            rests[deployment] = rest

    def _adopt(self, live: Live, name: str, instance: SharedInstance, now: float) -> None:
        if (instance.cleared_at or 0.0) > (live.shared.cleared_at or 0.0):
            self._clear(live, name, instance.cleared_at or 0.0)
        live.shared = instance
        live.last_used_at = max(live.last_used_at, instance.last_used or 0.0)
        live.breaker.hear(instance.breaker, now)

    def _clear(
        self, live: Live, name: str, before: float, others: Mapping[str, Rest] = NO_RESTS
    ) -> None:
        """Void what was measured here before that moment, but for `others`. Later measurements
        stand."""
        was_ill = self._is_ill(live)
        self._pending.drop_before(name, before)
        live.rests = {d: r for d, r in live.rests.items() if r.set_at > before}
        live.rests.update(others)
        if live.breaker.news.changed_at <= before:
            live.breaker.reset(before)
        if was_ill and not self._is_ill(live):
            self._asked_again.append(name)

    def _is_ill(self, live: Live) -> bool:
        now = self._clock()
        return live.status({d: r for d, r in live.rests.items() if r.stands(now)}) in ILL


def _replaces(rest: Rest, present: Rest) -> bool:
    """A longer one does. What a person wants stands, also against a longer rest of what refuses
    the gateway: that is asked now and then."""
    is_persons = present.reason == OPERATOR and present.until > rest.set_at
    return rest.until > present.until and not (is_persons and rest.reason in MISCONFIGURED)


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
