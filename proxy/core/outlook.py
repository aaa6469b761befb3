"""How the gateway is, in one sentence for people."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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
    """Tokens a minute of a model over all that serve it: `left` with those that may be asked
    now. `max_tpm` 0: some have no limit. `available`: how many may be asked, of `servings`."""

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


def budget(model: str, servings: Iterable[tuple[int, int, bool]]) -> Budget:
    """Of each that serves the model its `max_tpm`, what of that is used, and whether it may be
    asked now."""
    each = list(servings)
    free = [(most, used) for most, used, may in each if may]
    if any(most == 0 for most, _ in free):
        return Budget(model, len(each), len(free))
    whole = sum(most for most, _, _ in each)
    left = sum(max(most - used, 0) for most, used in free)
    return Budget(model, len(each), len(free), whole, left)


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
