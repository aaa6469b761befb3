"""What is known of one instance now, and whether a call may go there."""

from collections.abc import Callable, Container, Mapping
from operator import attrgetter

from proxy.core import limiter
from proxy.core.breaker import HEARSAY_SECONDS, Breaker
from proxy.core.deltas import WHOLE_INSTANCE, Rest, SharedInstance
from proxy.core.hints import Hint
from proxy.core.limiter import Lately, Meter, Peers
from proxy.core.median import MovingMedian
from proxy.core.refusal import (
    FAILING,
    LEFT_TO_OTHERS,
    NO_ROOM,
    SHARED_OUT,
    TOO_LONG,
    UPSTREAM_SAYS,
    Refusal,
)
from proxy.core.types import (
    Call,
    Candidate,
    InstanceConfig,
    Limit,
    MeterKey,
    Serving,
    is_same_upstream,
)
from proxy.core.verdict import MISCONFIGURED

# Clients choose the names of deployments where an instance serves any model.
MAX_DEPLOYMENTS = 1000

# Where nobody else can be asked: after an instance refused the gateway, until one request of a
# worker tries whether it was mended.
RETRY_SECONDS = 10.0

Meters = Mapping[MeterKey, Meter]

ALONE = Peers()
NO_REST: tuple[str, Rest | None] = (WHOLE_INSTANCE, None)


def nothing_lately(_meter: Meter) -> Lately | None:
    """Of who is alone."""
    return None


class Live:
    """One instance. Moments are seconds since the epoch. Not thread-safe: its owner locks.

    `rests` by deployment, "" for all of it. Breaker, rests and hints belong to an upstream:
    when the config names another, they begin anew. What calls count in are the owner's
    `meters`: instances of a group share some. `lately` tells what this worker added to one of
    them that its `peers` may not have heard of.
    """

    __slots__ = (
        "_config",
        "_lately",
        "_peers",
        "breaker",
        "contents",
        "first_bytes",
        "hints",
        "in_flight",
        "last_used_at",
        "rests",
        "retried_at",
        "shared",
    )

    def __init__(
        self,
        peers: Peers = ALONE,
        lately: Callable[[Meter], Lately | None] = nothing_lately,
    ) -> None:
        self.in_flight = 0
        self.rests: dict[str, Rest] = {}
        # What all hear of only later is tried only later by those who hear of it.
        self.breaker = Breaker(max(HEARSAY_SECONDS, 2 * peers.sync_seconds))
        self.first_bytes: dict[str, MovingMedian] = {}  # ms, by deployment
        self.contents: dict[str, MovingMedian] = {}  # the same, of streams alone
        self.hints: dict[str, Hint] = {}  # by deployment
        self.last_used_at = 0.0
        self.retried_at: dict[str, float] = {}  # by whose rest it was
        self.shared = SharedInstance()
        self._config: InstanceConfig | None = None
        self._peers = peers
        self._lately = lately

    def refusal(
        self,
        serving: Serving,
        call: Call,
        meters: Meters,
        now: float,
        *,
        alone: bool = False,
        kept: float | None = None,
    ) -> Refusal | None:
        """Why the call may not go there now; None if it may. `alone`: nobody else can be
        asked. `kept`: of each second's tokens, for other clients; None: they want no more
        than they get."""
        config = serving.config
        if not limiter.accepts_prompt(config, call.prompt_tokens):
            return Refusal(serving, TOO_LONG, 0.0)
        found = self._barred(serving, now, alone=alone)
        if found is not None and found.reason in MISCONFIGURED:
            return found
        if config.rate_limit_enabled and (serving.limits or self.hints):
            tokens = call.reserved_tokens
            full = self._full(serving, tokens, meters, now, kept=kept)
            if full and (found is None or full.wait_seconds > found.soonest_seconds):
                return full
        return found

    def _barred(self, serving: Serving, now: float, *, alone: bool) -> Refusal | None:
        """Whatever the call is: it rests, or fails."""
        place, rest = self._rest(serving, now) if self.rests else NO_REST
        if rest is not None and rest.reason in MISCONFIGURED:
            wait_alone = self._retry_seconds(place, rest, now)
            if not alone or wait_alone > 0:
                wait = rest.until - now
                return Refusal(serving, rest.reason, wait, alone_seconds=wait_alone)
            _, rest = self._rest(serving, now, besides=MISCONFIGURED)
        failing = None
        if not self.breaker.is_closed:
            self.breaker.doubt(now)
        if not self.breaker.is_closed and self.is_about(serving.config):
            wait, wait_alone = self.breaker.wait_seconds(now), self.breaker.alone_seconds(now)
            if (wait_alone if alone else wait) > 0:
                failing = Refusal(serving, FAILING, wait, alone_seconds=wait_alone)
        if rest is not None and (failing is None or rest.until - now > failing.soonest_seconds):
            return Refusal(serving, rest.reason, rest.until - now)
        return failing

    def _full(
        self, serving: Serving, tokens: int, meters: Meters, now: float, *, kept: float | None
    ) -> Refusal | None:
        """The limit that leaves no room for longest; or what the upstream said."""
        hint = self.hints.get(serving.deployment) if self.hints else None
        waits, second, others = [], int(now), self._peers.others
        for limit in _limits(serving, hint, now):
            meter = meters.get(limit.meter)
            if meter is None:
                continue
            if kept is None and limiter.has_plenty(limit, meter, tokens, second, others):
                continue
            found = self._bounded(serving, limit, meter, tokens, now, kept=kept)
            if found is not None:
                waits.append(found)
        if waits:
            return max(waits, key=attrgetter("wait_seconds"))
        wait_upstream = hint.wait_seconds(tokens, now) if hint else 0.0
        return Refusal(serving, UPSTREAM_SAYS, wait_upstream) if wait_upstream > 0 else None

    def _bounded(
        self,
        serving: Serving,
        limit: Limit,
        meter: Meter,
        tokens: int,
        now: float,
        *,
        kept: float | None,
    ) -> Refusal | None:
        """Why this limit leaves no room."""
        second, others = int(now), self._peers.others
        reason = NO_ROOM
        tokens += int(kept or 0)
        # Room comes when a second is over, not a whole second after now.
        seconds = second - now + limiter.wait_seconds(limit, meter, tokens, second)
        if kept is not None:
            even = second - now + limiter.even_wait_seconds(limit, meter, second, kept)
            if even > max(seconds, 0):
                reason, seconds = SHARED_OUT, even
        if seconds <= 0:
            mine = self._lately(meter) if others else None
            if mine is None or not limiter.is_left_to_others(
                limit, meter, mine, tokens, second, others
            ):
                return None
            reason, seconds = LEFT_TO_OTHERS, self._peers.sync_seconds
        share = limiter.used_share(limit, meter, second)
        return Refusal(serving, reason, seconds, limit, share)

    def _rest(
        self, serving: Serving, now: float, besides: Container[str] = ()
    ) -> tuple[str, Rest | None]:
        """The longer of the rests of the deployment and of the whole instance, and whose it is;
        none that has one of the reasons `besides`."""
        longest = NO_REST
        for place in (WHOLE_INSTANCE, serving.deployment):
            rest = self.rests.get(place)
            if rest is None or rest.reason in besides or not rest.stands(now):
                continue
            if rest.applies_to(serving.config) and (
                longest[1] is None or rest.until > longest[1].until
            ):
                longest = place, rest
        return longest

    def _retry_seconds(self, place: str, rest: Rest, now: float) -> float:
        """Until one that refuses the gateway may be asked where nobody else can be."""
        retried_at = self.retried_at.get(place, 0.0)
        if retried_at > now:  # by a clock that was set back since
            retried_at = 0.0
        return max(max(rest.set_at, retried_at) + RETRY_SECONDS - now, 0.0)

    def retry(self, serving: Serving, now: float) -> bool:
        """An attempt begins where nobody else can be asked; true if it is to find out whether
        what refused the gateway was mended."""
        place, rest = self._rest(serving, now)
        if rest is None or rest.reason not in MISCONFIGURED:
            return False
        if len(self.retried_at) >= MAX_DEPLOYMENTS:
            self.retried_at.clear()
        self.retried_at[place] = now
        return True

    def mend(self, deployment: str) -> list[str]:
        """What refused the gateway takes it: ends those rests, and tells whose they were."""
        places = [
            place
            for place in (WHOLE_INSTANCE, deployment)
            if place in self.rests and self.rests[place].reason in MISCONFIGURED
        ]
        for place in places:
            del self.rests[place]
            self.retried_at.pop(place, None)
        return places

    def candidate(self, serving: Serving, meters: Meters, now: float) -> Candidate:
        median = self.first_bytes.get(serving.deployment)
        load = limiter.largest_share(serving.limits, meters, int(now))
        return Candidate(serving, self.in_flight, load, median.value if median else None)

    def is_about(self, config: InstanceConfig) -> bool:
        """What the breaker and the hints know, they know of this upstream."""
        known = self._config
        return known is None or known is config or is_same_upstream(known, config)

    def begin(self, serving: Serving, tokens: int, now: float) -> None:
        """An attempt at this upstream begins; if it is another than before, anew."""
        config = serving.config
        if self._config is not config:
            if not self.is_about(config):
                self.breaker.reset(now)
                self.hints.clear()
                self.first_bytes.clear()
                self.contents.clear()
            self._config = config
        self.in_flight += 1
        hint = self.hints.get(serving.deployment) if self.hints else None
        if hint is not None:
            self.hints[serving.deployment] = hint.less(tokens)

    def answered(
        self,
        deployment: str,
        first_byte_ms: float | None,
        hint: Hint | None,
        *,
        streams: bool = False,
    ) -> None:
        """What an answer tells besides itself."""
        if first_byte_ms is not None:
            _median(self.first_bytes, deployment).add(first_byte_ms)
            if streams:
                _median(self.contents, deployment).add(first_byte_ms)
        if hint is not None:
            if len(self.hints) >= MAX_DEPLOYMENTS:
                self.hints.clear()
            self.hints[deployment] = hint

    def status(self, rests: Mapping[str, Rest]) -> str:
        """One word: what stands most in the way of its being asked. A rest of one deployment
        leaves the others, and a breaker none."""
        if not self.breaker.is_closed and WHOLE_INSTANCE not in rests:
            return "error"
        reasons = {r.reason for r in rests.values()}
        if reasons & MISCONFIGURED:
            return "misconfigured"
        return "rate_limited" if reasons else "healthy"


def _limits(serving: Serving, hint: Hint | None, now: float) -> tuple[Limit, ...]:
    """Ours, and a lower one of which the upstream told lately. Where an operator set no limit
    of tokens, none is: there it is the upstream that refuses."""
    limits, least = serving.limits, serving.least_tpm
    if hint is None or not least:
        return limits
    told = hint.lower_limit_tokens(now)
    if told is None or told >= least:  # ours count what the deployment does, and more
        return limits
    return (*limits, Limit((limiter.DEPLOYMENT, serving.config.name, serving.deployment), told))


def _median(medians: dict[str, MovingMedian], deployment: str) -> MovingMedian:
    found = medians.get(deployment)
    if found is None:
        if len(medians) >= MAX_DEPLOYMENTS:
            medians.clear()
        found = medians[deployment] = MovingMedian()
    return found
