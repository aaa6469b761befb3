"""What is known of one instance now, and whether a call may go there."""

from collections.abc import Mapping
from dataclasses import dataclass

from proxy.core import limiter
from proxy.core.breaker import Breaker
from proxy.core.deltas import WHOLE_INSTANCE, Rest, SharedInstance
from proxy.core.median import MovingMedian
from proxy.core.types import Call, Candidate, InstanceConfig, Serving, is_same_upstream
from proxy.core.verdict import MISCONFIGURED
from proxy.core.window import Window

# Reasons of a refusal, besides those of rests.
NO_ROOM = "no room"
TOO_LONG = "prompt too long"
FAILING = "failing"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an instance that serves the model is not asked; `wait_seconds` until it could be.

    `used_share`: of the limit that leaves no room.
    """

    serving: Serving
    reason: str
    wait_seconds: float
    used_share: float | None = None


class Live:
    """One instance. Moments are seconds since the epoch. Not thread-safe: its owner locks.

    `rests` by deployment, "" for all of it. `breaker` and rests belong to an upstream: when
    the config names another, they begin anew.
    """

    __slots__ = (
        "_config",
        "breaker",
        "first_bytes",
        "in_flight",
        "last_used_at",
        "requests",
        "rests",
        "shared",
        "tokens",
    )

    def __init__(self) -> None:
        self.in_flight = 0
        self.tokens = Window()
        self.requests = Window()
        self.rests: dict[str, Rest] = {}
        self.breaker = Breaker()
        self.first_bytes: dict[str, MovingMedian] = {}  # ms, by deployment
        self.last_used_at = 0.0
        self.shared = SharedInstance()
        self._config: InstanceConfig | None = None

    def refusal(self, serving: Serving, call: Call, now: float) -> Refusal | None:
        """Why the call may not go there now; None if it may."""
        config = serving.config
        if not limiter.accepts_prompt(config, call.prompt_tokens):
            return Refusal(serving, TOO_LONG, 0.0)
        rest = self.rest(serving, now) if self.rests else None
        if rest is not None:
            return Refusal(serving, rest.reason, rest.until - now)
        if not self.breaker.is_closed and self.is_about(config):
            wait = self.breaker.wait_seconds(now)
            if wait > 0:
                return Refusal(serving, FAILING, wait)
        second = int(now)
        wait = limiter.wait_seconds(config, self.tokens, call.reserved_tokens, second)
        if wait > 0:
            # Room comes when a second is over, not a whole second after now.
            share = limiter.load(config, self.tokens, second)
            return Refusal(serving, NO_ROOM, second + wait - now, share)
        return None

    def rest(self, serving: Serving, now: float) -> Rest | None:
        """The longer of the rests of the deployment and of the whole instance."""
        found = [self.rests.get(d) for d in (WHOLE_INSTANCE, serving.deployment)]
        valid = [r for r in found if r and r.until > now and r.applies_to(serving.config)]
        return max(valid, key=lambda r: r.until, default=None)

    def candidate(self, serving: Serving, now: float) -> Candidate:
        median = self.first_bytes.get(serving.deployment)
        return Candidate(
            serving,
            self.in_flight,
            limiter.load(serving.config, self.tokens, int(now)),
            median.value if median else None,
        )

    def is_about(self, config: InstanceConfig) -> bool:
        """What the breaker knows, it knows of this upstream."""
        known = self._config
        return known is None or known is config or is_same_upstream(known, config)

    def begin(self, config: InstanceConfig, now: float) -> None:
        """An attempt at this upstream begins; if it is another than before, anew."""
        if self._config is not config:
            if not self.is_about(config):
                self.breaker.reset(now)
            self._config = config

    def measure(self, deployment: str, first_byte_ms: float) -> None:
        median = self.first_bytes.get(deployment)
        if median is None:
            if len(self.first_bytes) >= MAX_DEPLOYMENTS:
                self.first_bytes.clear()
            median = self.first_bytes[deployment] = MovingMedian()
        median.add(first_byte_ms)

    def status(self, rests: Mapping[str, Rest]) -> str:
        """One word: what stands most in the way of its being asked."""
        reasons = {r.reason for r in rests.values()}
        if reasons & MISCONFIGURED:
            return "misconfigured"
        if reasons:
            return "rate_limited"
        return "healthy" if self.breaker.is_closed else "error"


# Clients choose the names where an instance serves any model.
MAX_DEPLOYMENTS = 1000
