"""Why an instance that serves a model is not asked now; what several such refusals say."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from proxy.core.types import Limit, Serving
from proxy.core.verdict import MISCONFIGURED

# Reasons of a refusal, besides those of rests.
NO_ROOM = "no room"
TOO_LONG = "prompt too long"
FAILING = "failing"
LEFT_TO_OTHERS = "room left to other workers"
UPSTREAM_SAYS = "no room upstream"
SHARED_OUT = "room shared out evenly"

# It lacks room only, by limits of ours; or by its upstream's, too.
SHORT = frozenset({NO_ROOM, SHARED_OUT, LEFT_TO_OTHERS})
FULL = SHORT | {UPSTREAM_SAYS}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an instance that serves the model is not asked; `wait_seconds` until it could be.

    `limit` leaves no room, of which `used_share` is used. `alone_seconds` is until it could be
    if nobody else can, where that is sooner.
    """

    serving: Serving
    reason: str
    wait_seconds: float
    limit: Limit | None = None
    used_share: float | None = None
    alone_seconds: float = math.inf

    @property
    def soonest_seconds(self) -> float:
        return min(self.wait_seconds, self.alone_seconds)

    @property
    def passes(self) -> bool:
        """Time will mend it, and not a person or a shorter prompt."""
        return self.reason not in MISCONFIGURED and self.reason != TOO_LONG


def is_short(refusals: Iterable[Refusal]) -> bool:
    """There is an instance that only lacks room, by limits of ours."""
    return any(refusal.reason in SHORT for refusal in refusals)


def only_failing_are_left(
    refusals: Iterable[Refusal | None], patience_seconds: float = math.inf
) -> bool:
    """Nobody but failing instances is back in time. None stands for one that may be asked."""
    others = (0.0 if r is None else r.wait_seconds for r in refusals if r is None or _rests(r))
    soonest = min(others, default=math.inf)
    return soonest > patience_seconds or soonest == math.inf


def to_ask_all_the_same(
    refusals: Sequence[Refusal], patience_seconds: float = math.inf, *, are_all: bool = True
) -> list[Serving]:
    """Where nobody else is back in time: those that fail, and then, if those that were refused
    `are_all` there are, those that refuse the gateway. It may be over, and nobody would find
    out."""
    if not only_failing_are_left(refusals, patience_seconds):
        return []
    failing = [r.serving for r in refusals if r.reason == FAILING]
    refusing = [r.serving for r in refusals if r.reason in MISCONFIGURED]
    return failing + refusing if are_all else failing


def soonest_seconds(
    refusals: Sequence[Refusal | None], patience_seconds: float = math.inf
) -> float:
    """Until one may be asked; 0 if one may be now (None), infinite if time mends none."""
    if None in refusals:
        return 0.0
    are_left = only_failing_are_left(refusals, patience_seconds)
    waits = (
        r.soonest_seconds if are_left else r.wait_seconds for r in refusals if r and r.passes
    )
    return min(waits, default=math.inf)


def _rests(refusal: Refusal) -> bool:
    return refusal.passes and refusal.reason != FAILING
