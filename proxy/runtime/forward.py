"""The one loop that tries again: from a call to the attempt whose answer the client gets."""

import logging
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from threading import Event
from typing import Any

from proxy.core.attempts import Reservation
from proxy.core.catalog import names_model
from proxy.core.contention import Contention
from proxy.core.record import Trail
from proxy.core.refusal import (
    TOO_LONG,
    Refusal,
    is_short,
    soonest_seconds,
    to_ask_all_the_same,
)
from proxy.core.routing import Pool, Turn, order
from proxy.core.types import Call, Serving
from proxy.core.verdict import (
    ABORTED,
    CUT_OFF,
)
from proxy.errors import (
    ClientLeft,
    ModelNotAllowed,
    NoRoom,
    ProxyError,
    Saturated,
)
from proxy.runtime import no_answer
from proxy.runtime.attempt import NO_HEADERS, Attempt
from proxy.runtime.estimates import Estimates
from proxy.runtime.fairness import Fairness
from proxy.runtime.line import Line
from proxy.runtime.snapshot import Snapshot, Snapshots
from proxy.runtime.state import State
from proxy.runtime.tell import tell
from proxy.runtime.trip import Charge, Trip, charge_nobody, queue_of
from proxy.runtime.upstream import Upstream
from proxy.runtime.waiting import Full, WaitingRoom, common

logger = logging.getLogger(__name__)

# Before the only instance is asked once more; by chance, so that not all come back at once.
PAUSE_SECONDS = (0.2, 1.0)

MAX_TURNS = 10_000
LOOK_SECONDS = 0.01  # for streams that are being ended

_Taken = tuple[Serving, Reservation]


class _Turns:
    """Numbers of calls, from `first` on. To take one is atomic."""

    __slots__ = ("_next", "upcoming")

    def __init__(self, first: int = 0) -> None:
        self._next = count(first).__next__
        self.upcoming = first  # to be looked at only

    def take(self) -> int:
        number = self._next()
        self.upcoming = number + 1
        return number


class Forward:
    """Thread-safe. `policy` is a key of POLICIES. Times are in seconds.

    `max_wait_seconds`: how long a call waits for room, if there will be some by then; at most
    `waiting_places` calls do at a time.
    `stream_idle_seconds`: the longest silence of a stream that has begun to say something.
    `pause_seconds`: least and most before the only instance is asked once more.
    `estimates` learn from each answer's usage. `fairness` says who is to leave room to whom.
    """

    def __init__(
        self,
        snapshots: Snapshots,
        state: State,
        upstream: Upstream,
        *,
        policy: str,
        max_wait_seconds: float = 0.0,
        waiting_places: int = 0,
        stream_idle_seconds: float = 60.0,
        pause_seconds: tuple[float, float] = PAUSE_SECONDS,
        estimates: Estimates | None = None,
        fairness: Fairness | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._snapshots = snapshots
        self._state = state
        self._upstream = upstream
        self._policy = policy
        self._max_wait_seconds = max_wait_seconds
        self._stream_idle_seconds = stream_idle_seconds
        self._pause_seconds = pause_seconds
        self._estimates = estimates or Estimates()
        self._clock = clock
        self._random = random.Random()  # draws instances, not secrets
        self._turns: defaultdict[str, _Turns] = defaultdict(_Turns)  # by `queue_of`
        self._open: set[Attempt] = set()  # adding and discarding are atomic
        self._fairness = fairness or Fairness(clock=clock)
        self._is_ending = False
        self.waiting = WaitingRoom(places=waiting_places, clock=clock, fairness=self._fairness)

    def start(self) -> None:
        """Once a process, after the fork: or all workers would draw the same, and take turns
        from the same instance on."""
        self._random.seed()
        self._turns = defaultdict(lambda: _Turns(self._random.randrange(MAX_TURNS)))

    def forward(
        self,
        call: Call,
        trail: Trail,
        line: Line | None = None,
        charge: Charge = charge_nobody,
    ) -> Attempt:
        """The first attempt another instance could not better, or else the last.

        Its answer may be an error one; read `body` or iterate it, then close it. `trail`
        takes what the log tells of the way: as long as it has no attempt, the request is
        counted nowhere yet. Raises a ProxyError if there is nothing
        that may be shown: an unknown model, no room, no instance that answers. Cutting the
        line ends whatever it waits for. `charge` hears of the attempt that is returned, when
        it ends.
        """
        changes = self._snapshots.changes  # before the config: else one would be overlooked
        pool = _pool(call, self._snapshots.current)
        line, patience_seconds = line or Line(), self._max_wait_seconds
        turn, trail.policy = self._turn(call), self._policy
        trip = Trip(
            call, changes, pool, queue_of(call), line, trail, turn, patience_seconds, charge
        )
        try:
            return self._best(trip)
        except ProxyError:
            raise
        except BaseException:
            if trip.attempt is not None:
                trip.attempt.spoil()  # whatever it was, the room is given back
            raise

    def _best(self, trip: Trip) -> Attempt:
        """The attempt whose answer the client gets; raises what it gets instead."""
        self._try_in_order(trip, in_turn=True)
        try:
            while self._is_worth_waiting(trip) and self._wait_and_try(trip):
                pass
        except Full:
            if self._is_ending:  # nobody would count what began now
                if trip.attempt is not None:
                    trip.attempt.claim()
                raise no_answer.ending() from None
            self._try_in_order(trip, in_turn=True)
            if trip.attempt is None:
                raise self._refuse(trip, Saturated()) from None
        self._try_again(trip)
        if trip.attempt is None:
            raise ClientLeft() if trip.line.is_cut else self._refuse(trip)
        return self._to_show(trip, trip.attempt)

    def end_open(self, seconds: float) -> int:
        """Ends the calls that are still open; how many. They are broken off, and have so many
        seconds to say so to their clients. What is open then is counted as it stands: what its
        thread does after that is not counted any more."""
        until, seen = self._clock() + seconds, set[Attempt]()
        self._is_ending = True
        waited = self.waiting.close()
        while still := self._open.copy():
            for attempt in still:
                # Again where it waits for its head: it may be at another connection by now.
                if attempt not in seen or attempt.stream is None:
                    attempt.break_off()
            seen |= still
            if self._clock() >= until:
                break
            time.sleep(LOOK_SECONDS)
        seen |= self._open.copy()  # what began meanwhile, too
        cut_off = [a for a in seen if a.settle(is_cut_off=True) or a.verdict is CUT_OFF]
        for attempt in cut_off:
            name = attempt.serving.config.name
            said = "%s %s was still answering when the worker ended"
            asked = attempt.request_id
            tell(logger, "answer_cut_off", said, asked, name, id=asked, instance=name)
        return len(cut_off) + waited

    def explain(self, call: Call) -> Iterator[tuple[Serving, Refusal | None]]:
        """Who would be tried in which order, and why others would not. Asks nobody, and takes
        nobody's turn."""
        pool = _pool(call, self._snapshots.current)
        number = self._turns[queue_of(call)].upcoming
        turn = Turn(random.Random(), number, call.affinity, self._state.look)
        servings = list(order(self._policy, pool, turn))
        found = self._state.refusals(servings, call, kept=self._kept(queue_of(call), call))
        yield from zip(servings, found, strict=True)

    def contention(self, model: str) -> Contention | None:
        """The clients that want more of it than they get; None if there are none."""
        return self._fairness.contention(model.lower())

    def _on_close(self, attempt: Attempt, *, counts_tokens: bool) -> None:
        """`counts_tokens`: of what its pool's clients compete for it took what it reserved, and
        not one request."""
        self._open.discard(attempt)
        usage, call = attempt.usage, attempt.call
        if counts_tokens:
            surplus = usage.total_tokens - call.reserved_tokens
            self._fairness.give(queue_of(call), call.client.name, surplus)
        elif attempt.verdict.try_next:  # its client had nothing of it
            self._fairness.give(queue_of(call), call.client.name, -1.0)
        self.waiting.poke()  # what it had reserved is free
        # Of what it refers to, nobody here knows how long it is.
        if usage.prompt_tokens and not usage.estimated and not call.homes:
            self._estimates.learn(call.model, call.prompt, usage.prompt_tokens)

    def _turn(self, call: Call) -> Turn:
        if len(self._turns) > MAX_TURNS:  # clients choose the names where any model is served
            self._turns.clear()
        number = self._turns[queue_of(call)].take()
        return Turn(self._random, number, call.affinity, self._state.look)

    def _free(self, trip: Trip, contention: Contention | None) -> frozenset[str] | None:
        """The instances that this call may ask for; None: all. Who waits has the room, so a
        call that finds others waiting waits too; and so has who is hungry, and had less."""
        left = None
        if self._max_wait_seconds > 0:
            left = self.waiting.left_by_others(trip.queue, trip.call.client.name)
        return common(left, contention.left_to(trip.call.client.name) if contention else None)

    def _kept(self, queue: str, call: Call) -> float | None:
        """Of each second's room, for other clients; None: they want no more than they get."""
        contention = self._fairness.contention(queue)
        return contention.kept_from(call.client.name) if contention else None

    def _try_in_order(self, trip: Trip, *, in_turn: bool = False) -> None:
        """Asks one after the other until nobody could do better, or nobody is left. `in_turn`:
        only whoever is left by those whose turn it is."""
        contention = self._fairness.contention(trip.queue)
        kept = contention.kept_from(trip.call.client.name) if contention else None
        free = self._free(trip, contention) if in_turn else None
        patience_seconds = self._patience_seconds(trip)
        for taken in self._take_in_order(trip, trip.asked, free, kept, patience_seconds):
            if trip.ends_with(self._try(trip, *taken)):
                return

    def _take_in_order(
        self,
        trip: Trip,
        left_out: set[str],
        free: frozenset[str] | None,
        kept: float | None,
        patience_seconds: float,
    ) -> Iterator[_Taken]:
        """Takes room at one after the other that has some. All in the policy's order. Then, if
        that was nobody, those whose time has not come, where there is nobody else. Each as the
        config is then: an attempt may take a minute, and a call waits for long."""
        trip.refused.clear()
        for serving in order(self._policy, trip.pool, trip.turn):
            if self._snapshots.changes != trip.changes:
                break
            if trip.left is None:
                trip.left = 1 + serving.config.retry_count  # of the one chosen first
            name = serving.config.name
            if name in left_out or (free is not None and name not in free):
                continue
            taken = self._take(trip, serving, kept)
            if taken is not None:
                yield serving, taken
        if self._snapshots.changes == trip.changes:
            yield from self._take_all_the_same(trip, kept, patience_seconds)
        if self._snapshots.changes != trip.changes:  # anew, without whom was asked
            self._follow(trip)
            yield from self._take_in_order(trip, left_out, free, kept, patience_seconds)

    def _take_all_the_same(
        self, trip: Trip, kept: float | None, patience_seconds: float
    ) -> Iterator[_Taken]:
        # Who was asked already, or is left to others, may answer yet.
        are_all = len(trip.refused) == len(trip.pool.servings)
        for serving in to_ask_all_the_same(trip.refused, patience_seconds, are_all=are_all):
            if self._snapshots.changes != trip.changes:
                return
            taken = self._take(trip, serving, kept, alone=True)
            if taken is not None:
                trip.trail.passed_over.pop(serving.config.name, None)
                yield serving, taken

    def _follow(self, trip: Trip) -> None:
        """The config has changed: who is new may be asked, and who is gone may not."""
        trip.changes = self._snapshots.changes
        trip.pool = _servings(trip.call, self._snapshots.current)

    def _take(
        self, trip: Trip, serving: Serving, kept: float | None, *, alone: bool = False
    ) -> Reservation | None:
        taken = self._state.start(serving, trip.call, alone=alone, kept=kept)
        if not isinstance(taken, Refusal):
            return taken
        trip.refused.append(taken)
        reason = taken.reason, taken.wait_seconds
        trip.trail.passed_over.setdefault(serving.config.name, reason)
        return None

    def _is_worth_waiting(self, trip: Trip) -> bool:
        """Somebody could do it, or do better, within the time to wait."""
        if trip.attempt is not None and trip.ends_with(trip.attempt):
            return False
        others = [s for s in trip.pool.servings if s.config.name not in trip.failed]
        patience_seconds = self._patience_seconds(trip)
        found = self._state.refusals(others, trip.call, kept=self._kept(trip.queue, trip.call))
        return 0 < patience_seconds >= soonest_seconds(found, patience_seconds)

    def _patience_seconds(self, trip: Trip) -> float:
        return min(trip.patience_seconds, trip.call.ends_at - self._clock())

    def _wait_and_try(self, trip: Trip) -> bool:
        """Waits for the first room there is, behind those who came before. False if there was
        none in time. Raises Full."""
        started = self._clock()
        until = started + self._patience_seconds(trip)

        def ask(free: frozenset[str] | None) -> tuple[_Taken | None, float]:
            patience_seconds, kept = until - self._clock(), self._kept(trip.queue, trip.call)
            for taken in self._take_in_order(trip, trip.failed, free, kept, patience_seconds):
                return taken, 0.0
            return None, soonest_seconds(trip.refused, patience_seconds)

        try:
            got = self.waiting.wait(
                trip.queue, ask, until=until, line=trip.line, waiter=trip.waiter()
            )
        finally:
            waited_seconds = self._clock() - started
            trip.patience_seconds -= waited_seconds
            trip.trail.waited_seconds += waited_seconds
        if got is None:
            return False
        trip.asked = trip.failed.copy()
        if not trip.ends_with(self._try(trip, *got)):
            self._try_in_order(trip)
        return True

    def _try_again(self, trip: Trip) -> None:
        """Nobody else is left: what may have been a passing failure is tried once more."""
        failed, last = trip.again, trip.attempt
        if failed is None or last is None or trip.ends_with(last):
            return
        pause = self._random.uniform(*self._pause_seconds)
        if self._clock() + pause > trip.call.ends_at:
            return
        if not self._pause(trip.line, pause) or self._is_ending:
            return
        if self._snapshots.changes != trip.changes:
            self._follow(trip)
        name = failed.config.name
        serving = next((s for s in trip.pool.servings if s.config.name == name), None)
        if serving is None:  # it is gone
            return
        taken = self._state.start(serving, trip.call, alone=True)
        if not isinstance(taken, Refusal):
            self._try(trip, serving, taken)

    def _pause(self, line: Line, seconds: float) -> bool:
        """False if the line was cut meanwhile."""
        woken = Event()
        try:
            line.hold(woken.set)
        except ConnectionAbortedError:
            return False
        is_cut = woken.wait(seconds)
        line.release()
        return not is_cut

    def _try(self, trip: Trip, serving: Serving, reservation: Reservation) -> Attempt:
        """One attempt. One that others could do better is closed at once: what it had reserved
        is free, and what it told of its instance is known, before the next begins."""
        before = trip.attempt
        if before is not None:
            is_same = before.serving.config.name == serving.config.name
            what = "it once more" if is_same else "another"
            said = "%s %s, trying %s"
            fields = _told(before)
            tell(logger, "attempt_failed", said, fields["id"], str(before), what, **fields)
        attempt = Attempt(
            self._state,
            reservation,
            trip.call,
            serving,
            line=trip.line,
            stream_idle_seconds=self._stream_idle_seconds,
            on_close=partial(self._on_close, counts_tokens=trip.pool.counts_tokens),
            # Not of the trip, which holds the attempt: in a circle both would stay.
            is_made_up=partial(self._is_made_up, trip.pool, trip.call.model),
            cost_nano=self._snapshots.current.cost_nano,
            charge=trip.charge,
        )
        trip.attempt = attempt
        self._open.add(attempt)
        self._fairness.give(trip.queue, trip.call.client.name, trip.cost)
        trip.asked.add(serving.config.name)
        try:
            begin = trip.trail.begin_attempt
            attempt.open(self._upstream, begin() if begin is not None else NO_HEADERS)
        except BaseException:
            attempt.spoil()
            trip.trail.attempts.append(attempt.tried())
            raise
        if attempt.verdict.try_next:
            attempt.close(answered=False)
        trip.trail.attempts.append(attempt.tried())
        trip.left = (trip.left or 1) - 1
        trip.note(attempt)
        if attempt.was_recovery:
            self.waiting.poke()
        return attempt

    def _is_made_up(self, pool: Pool, model: str) -> bool:
        """Nobody but the client says that there is such a model."""
        if any(names_model(s.config, model) for s in pool.servings):
            return False
        return all(c.first_byte_ms is None for c in self._state.look(pool.servings))

    def _to_show(self, trip: Trip, attempt: Attempt) -> Attempt:
        """The attempt, if a client may see its answer. Raises what to say instead."""
        verdict, call = attempt.verdict, trip.call
        if attempt.error is None and not verdict.try_next:
            return attempt
        attempt.claim()
        if attempt.usage.total_tokens:
            trip.trail.charged = attempt.usage, attempt.cost_nano
        if trip.line.is_cut:
            raise ClientLeft()
        if verdict is CUT_OFF:
            raise no_answer.ending()
        is_shown = attempt.error is None and verdict.shown and verdict.outcome != "throttled"
        if not is_shown or verdict.outcome == "failed":
            self._tell_no_answer(call, attempt)
        if is_shown:
            return attempt
        if verdict.outcome in ("throttled", "misconfigured", "rejected"):
            raise self._refuse(trip)
        raise no_answer.unreachable(call, attempt)

    def _tell_no_answer(self, call: Call, attempt: Attempt) -> None:
        """Nothing of one that ended as its client, who was in a hurry, wished."""
        if attempt.verdict is ABORTED:
            return
        is_late = self._clock() >= call.ends_at
        why = "there is no time to ask another" if is_late else "nobody else can serve it"
        said = "%s %s, and %s"
        tell(logger, "no_answer", said, call.request_id, str(attempt), why, **_told(attempt))

    def _refuse(self, trip: Trip, error: ProxyError | None = None) -> ProxyError:
        """Why the call is refused. For a while its client is expected back, if it was told
        when."""
        error, call = error or self._why_nobody(trip), trip.call
        if isinstance(error, (NoRoom, Saturated)) and error.retry_after_seconds is not None:
            self._fairness.refuse(
                trip.queue,
                call.client.name,
                error.retry_after_seconds,
                trip.barred(),
                short=is_short(trip.refused),
            )
        return error

    def _why_nobody(self, trip: Trip) -> ProxyError:
        """Why nobody was, or can be, asked now, and when to come back."""
        call, servings = trip.call, trip.pool.servings
        if not servings:  # they are gone since
            return trip.failure or _nobody(call, self._snapshots.current)
        found = self._state.refusals(servings, call, kept=self._kept(trip.queue, call))
        if trip.is_of_no_model(found):
            return no_answer.model_not_found(call)
        if trip.failure is not None:
            return trip.failure
        others = [
            r for s, r in zip(servings, found, strict=True) if s.config.name not in trip.failed
        ]
        refused = [r for r in others if r is not None]
        if len(refused) < len(others):
            contention = self._fairness.contention(trip.queue)
            if contention is not None and contention.left_to(call.client.name) is not None:
                return no_answer.held_back(call)
            free = len(others) - len(refused)
            return no_answer.no_room(call, refused, no_answer.SOON_SECONDS, free=free)
        if any(r.passes for r in refused):
            return no_answer.no_room(call, refused, soonest_seconds(refused))
        if refused and all(r.reason == TOO_LONG for r in refused):
            return no_answer.too_long(call, servings)
        return no_answer.misconfigured(call, servings)


def _pool(call: Call, snapshot: Snapshot) -> Pool:
    """Raises what its client is told where there is nobody in it."""
    pool = _servings(call, snapshot)
    if not pool.servings:
        raise _nobody(call, snapshot)
    return pool


def _servings(call: Call, snapshot: Snapshot) -> Pool:
    return snapshot.catalog.pool(call.model, call.homes or call.client.allowed_instances)


def _nobody(call: Call, snapshot: Snapshot) -> ProxyError:
    """Why there is nobody in its pool."""
    if call.homes:
        is_out = snapshot.disabled.pool(call.model, call.homes).servings
        return no_answer.home_out_of_service() if is_out else no_answer.not_at_home(call)
    allowed = call.client.allowed_instances
    out = snapshot.disabled.pool(call.model, allowed).servings
    if out:
        return no_answer.out_of_service(call, out, lacks_token=snapshot.lack is not None)
    if allowed:  # who may not use all is not told what there is besides
        said = f"No instance that this API key may use serves {call.model!r}."
        return ModelNotAllowed(said, param="model")
    return no_answer.model_not_found(call)


def _told(attempt: Attempt) -> dict[str, Any]:
    """For the log, in words at once: a line that waits to be written must hold no bodies."""
    name = attempt.serving.config.name
    return {"id": attempt.request_id, "instance": name, "why": attempt.what()}
