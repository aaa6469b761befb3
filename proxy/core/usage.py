"""What is counted of usage: the names of its counters, which are those of its columns."""

from dataclasses import dataclass
from itertools import combinations

from proxy.core import histogram
from proxy.core.days import DAY_SECONDS
from proxy.core.verdict import OUTCOMES

# By which it can be told apart; each is a column, too.
DIMENSIONS = ("instance", "model", "client")
OVERALL = ""  # told apart by nothing
# Any two of them, by whose names sums of days are kept, too.
PAIRS = tuple(combinations(DIMENSIONS, 2))

# How a request ended that no instance was asked for: the client's own fault; a limit of its
# key; nobody had room, or could serve it; it left while it waited, or sent its body too slowly.
# The last one also after an attempt that failed.
MISTAKEN, LIMITED, REFUSED, ABANDONED = "mistaken", "limited", "refused", "abandoned"
REFUSALS = (MISTAKEN, LIMITED, REFUSED, ABANDONED)

# Of requests that an instance was asked for: those whose client got an error by no fault of
# its own.
LOST = "lost"

TOKENS = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens")
# Of requests that succeeded, from their beginning, as clients see it: with the waiting for room
# and the attempts that failed. How long a refusal took says nothing.
TIMES = ("latency_total_ms", "first_byte_total_ms")
FIRST_BYTE = histogram.columns("first_byte")
LATENCY = histogram.columns("latency")
COUNTERS = (
    "requests",
    "attempts",
    *OUTCOMES,
    *REFUSALS,
    LOST,
    *TOKENS,
    *TIMES,
    # By the prices of that moment, in billionths of their currency.
    "cost_nano",
    *FIRST_BYTE,
    *LATENCY,
)

# A row of counters, in their order.
Counts = tuple[int, ...]
NOTHING: Counts = (0,) * len(COUNTERS)

MINUTE_SECONDS, HOUR_SECONDS = 60, 3600
PERIODS = (MINUTE_SECONDS, HOUR_SECONDS, DAY_SECONDS)  # for which sums are kept


@dataclass(frozen=True, slots=True)
class Kept:
    """For how many seconds usage by the minute, the hour and the day is."""

    minutes: int
    hours: int
    days: int

    def since(self, now: float) -> dict[int, int]:
        """Period -> the moment since which it is there."""
        kept = (self.minutes, self.hours, self.days)
        return {p: int(now) - seconds for p, seconds in zip(PERIODS, kept, strict=True)}
