"""How an instance stands, for people: in one word, with the reason and until when."""

from collections.abc import Mapping
from dataclasses import dataclass

from proxy.core.deltas import WHOLE_INSTANCE, Rest
from proxy.core.verdict import MISCONFIGURED, NO_DEPLOYMENT

DISABLED = "disabled"

# Reasons of rests, in words.
REASONS = {
    "throttled": "its limit is reached (429)",
    "misconfigured": "it refuses the gateway",
    NO_DEPLOYMENT: "it has no such deployment",
    "operator": "an operator wants it so",
}


@dataclass(frozen=True, slots=True)
class Standing:
    """`status` is a word of the admin API's, or DISABLED. `until`: when it may be asked again,
    where time mends it, in seconds since the epoch. `deployments`: those that rest alone, while
    the others may be asked."""

    status: str
    reason: str = ""
    until: float | None = None
    deployments: tuple[str, ...] = ()

    def seconds_left(self, now: float) -> float | None:
        return None if self.until is None else max(self.until - now, 0.0)

    @property
    def why(self) -> str:
        """And of which deployments, if not of all."""
        return (
            f"{', '.join(self.deployments)}: {self.reason}" if self.deployments else self.reason
        )

    def in_words(self, now: float) -> str:
        """Why, and for how long still."""
        left = self.seconds_left(now)
        return self.why if left is None else f"{self.why}, {countdown(left)} left"


def standing(
    status: str,
    *,
    enabled: bool,
    rests: Mapping[str, Rest],
    last_error: str | None,
    open_until: float | None,
) -> Standing:
    """`status` as measured; `rests` are those that are not over, by deployment; `open_until`
    is the breaker's."""
    if not enabled:
        return Standing(DISABLED)
    if status == "error":  # all of it, whatever rests besides
        return Standing(status, last_error or "it fails", open_until)
    bad = {d: r for d, r in rests.items() if r.reason in MISCONFIGURED}
    resting = bad or rests
    if resting:
        whole = resting.get(WHOLE_INSTANCE)
        longest = whole or max(resting.values(), key=lambda r: r.until)
        reason = REASONS.get(longest.reason, longest.reason)
        return Standing(status, reason, longest.until, () if whole else tuple(sorted(resting)))
    if status == "misconfigured":  # what no upstream told of
        return Standing(status, last_error or "")
    return Standing(status)


def countdown(seconds: float) -> str:
    """As short as can be read at a glance; never "0 s" while there is something left."""
    whole = max(1, round(seconds)) if seconds > 0 else 0
    if whole < 100:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 100 * 60 else f"{whole // 3600} h"
