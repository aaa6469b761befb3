"""How the gateway is, in one sentence for people."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from proxy.core.metrics import left_of_model
from proxy.core.types import MeterKey, Serving

WELL, POOR, BAD = "well", "poor", "bad"

DISABLED = "disabled"
# Statuses as they are of several instances, and of one.
WORDS = {
    "rate_limited": ("rest", "rests"),
    "error": ("fail", "fails"),
    "misconfigured": ("are misconfigured", "is misconfigured"),
}
LOW_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Budget:
    """Tokens a minute of a model over all that serve it, by all limits that bound it there:
    `left` with those that may be asked now. `max_tpm` 0: some of these have no limit.
    `available`: how many may be asked, of `servings`."""

    model: str
    servings: int
    available: int
    max_tpm: int = 0
    left: int = 0

    @property
    def left_share(self) -> float:
        if not self.available:
            return 0.0
        return self.left / self.max_tpm if self.max_tpm else 1.0


@dataclass(frozen=True, slots=True)
class Outlook:
    """`level` is WELL, POOR or BAD."""

    level: str
    sentence: str


Served = Mapping[str, Sequence[Serving]]  # by model


def bounding(served: Served) -> set[MeterKey]:
    """What is to be known of to tell budgets: the meters of all limits."""
    every = (serving for servings in served.values() for serving in servings)
    return {limit.meter for serving in every for limit in serving.limits}


def budgets(
    served: Served, used: Mapping[MeterKey, int], may_ask: Callable[[Serving], bool]
) -> list[Budget]:
    """Of each model. `used` has the meters that are `bounding`."""
    return [_of_model(model, servings, used, may_ask) for model, servings in served.items()]


def _of_model(
    model: str,
    servings: Sequence[Serving],
    used: Mapping[MeterKey, int],
    may_ask: Callable[[Serving], bool],
) -> Budget:
    barred = {s.config.name for s in servings if not may_ask(s)}
    available = len(servings) - len(barred)
    # One that may not be asked now and has no limit neither bounds the others nor adds to them.
    counted = [
        s for s in servings if s.config.name not in barred or any(x.max_tpm for x in s.limits)
    ]
    max_tpm, left = left_of_model(counted, used, barred) or (0, 0)
    return Budget(model, len(servings), available, max_tpm, left)


def outlook(statuses: Iterable[str], budgets: Sequence[Budget]) -> Outlook:
    """`statuses` of all instances, of which those that are switched off are DISABLED."""
    counts = Counter(statuses)
    total = counts.total() - counts[DISABLED]
    if not total:
        return Outlook(BAD, "No instance is enabled: nobody can be served.")
    lowest = min(budgets, key=lambda b: (b.left_share, b.model), default=None)
    said = [_instances(counts, total)]
    if lowest is not None and round(100 * lowest.left_share) < 100:
        said.append(_budget(lowest))
    ill = total - counts["healthy"]
    is_bad = not counts["healthy"] or (lowest is not None and not lowest.available)
    is_low = lowest is not None and lowest.left_share < LOW_SHARE
    level = BAD if is_bad else POOR if ill or is_low else WELL
    return Outlook(level, f"{'; '.join(said)}.")


def _instances(counts: Counter[str], total: int) -> str:
    parts = [
        (counts[status], words[counts[status] == 1])
        for status, words in WORDS.items()
        if counts[status]
    ]
    if not parts:
        return "The one instance is well" if total == 1 else f"All {total} instances are well"
    (number, words), *more = parts
    whole = "The one instance" if total == 1 else f"{number} of {total} instances"
    return ", ".join([f"{whole} {words}", *(f"{n} {w}" for n, w in more)])


def _budget(lowest: Budget) -> str:
    if not lowest.available:
        return f"nobody can be asked for {lowest.model} now"
    return f"{lowest.model} has {round(100 * lowest.left_share)} % of its budget left"
