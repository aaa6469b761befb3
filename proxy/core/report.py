"""What a report of usage reads, and what it says: ranges of time, and figures from counters."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import itemgetter
from typing import Any

from proxy.core import histogram
from proxy.core.days import DAY_SECONDS
from proxy.core.prices import NANO
from proxy.core.usage import (
    ABANDONED,
    COUNTERS,
    FIRST_BYTE,
    HOUR_SECONDS,
    LATENCY,
    LIMITED,
    LOST,
    MINUTE_SECONDS,
    MISTAKEN,
    PERIODS,
    REFUSED,
    TOKENS,
    Counts,
)
from proxy.core.verdict import LOSSES

RECENT_SECONDS = 900  # what people look at first
SHARES = (0.5, 0.9, 0.99)
NO_TIMES: dict[str, float | None] = {"p50": None, "p90": None, "p99": None, "mean": None}
# Of an answer, each of some kilobytes; one for each instance, model and client of a large host
# is to be had.
MAX_ROWS = 25_000
BUCKETS = {"minute": MINUTE_SECONDS, "hour": HOUR_SECONDS, "day": DAY_SECONDS}

# Classes of errors of attempts; the others are of requests.
OF_ATTEMPTS = ("upstream_429", "upstream_5xx", "upstream_4xx", "connection", "timeout")

# Where in a row of counters which stand.
_TOLD = (
    *("requests", "attempts", "succeeded", "rejected", MISTAKEN, REFUSED, LIMITED, LOST),
    *("throttled", "misconfigured", "failed", "unreachable", "expired"),
    *("aborted", ABANDONED),
    *(*TOKENS, "first_byte_total_ms", "latency_total_ms", "cost_nano"),
)
_NAMED = itemgetter(*map(COUNTERS.index, _TOLD))
_FIRST_BYTE, _LATENCY = (
    slice(COUNTERS.index(names[0]), COUNTERS.index(names[-1]) + 1)
    for names in (FIRST_BYTE, LATENCY)
)
assert (COUNTERS[_FIRST_BYTE], COUNTERS[_LATENCY]) == (FIRST_BYTE, LATENCY)
assert set(_TOLD[8:13]) == LOSSES


@dataclass(frozen=True, slots=True)
class Question:
    """Usage from `since` to before `until`, seconds since the epoch, of those who are named.

    `where`: dimension -> the name it must have. `by`: the dimensions that are told apart.
    `bucket_seconds`: of a series, one of PERIODS; 0: no series.
    """

    since: int
    until: int
    where: Mapping[str, str] = field(default_factory=dict)
    by: Sequence[str] = ()
    bucket_seconds: int = 0

    @property
    def dimensions(self) -> tuple[str, ...]:
        """All that it needs to know of a row."""
        return tuple(dict.fromkeys((*self.where, *self.by)))


def last(seconds: int, now: float, by: Sequence[str] = ()) -> Question:
    """What was counted since then."""
    until = int(now) + 1
    return Question(until - seconds, until, by=by)


def aligned(question: Question, oldest: Mapping[int, int]) -> tuple[int, int]:
    """From when until when there are whole rows: outwards to minutes, to the buckets of a
    series, and to hours or days where what is shorter is not kept any more. `oldest`: period
    -> the moment since which it is kept."""
    since, until = question.since, question.until
    step = question.bucket_seconds or MINUTE_SECONDS
    since, until = _down(since, step), _up(until, step)
    for shorter, longer in pairwise(PERIODS):
        if since < oldest[shorter]:
            since = _down(since, max(longer, step))
        if _down(until, longer) < oldest[shorter]:  # where the last of the shorter begin
            until = _up(until, max(longer, step))
    return since, until


def slices(since: int, until: int, bucket_seconds: int = 0) -> list[tuple[int, int, int]]:
    """(period, since, until) that together are the range, in as few rows as can be; of a series
    none longer than its buckets."""
    longest = bucket_seconds or PERIODS[-1]
    return list(_cover(since, until, [p for p in PERIODS if p <= longest]))


def _cover(since: int, until: int, periods: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    if since >= until:
        return
    *shorter, longest = periods
    if not shorter:
        yield longest, since, until
        return
    first, last = _up(since, longest), _down(until, longest)
    if first >= last:
        yield from _cover(since, until, shorter)
        return
    yield from _cover(since, first, shorter)
    yield longest, first, last
    yield from _cover(last, until, shorter)


def usual_bucket(since: int, until: int, oldest: Mapping[int, int]) -> str:
    """Of a series over that time: between about 60 and 200 points, fewer where what is shorter
    is not kept any more. `oldest` as of `aligned`."""
    seconds = until - since
    if seconds <= 3 * HOUR_SECONDS and is_kept(since, MINUTE_SECONDS, oldest):
        return "minute"
    if seconds <= 8 * DAY_SECONDS and is_kept(since, HOUR_SECONDS, oldest):
        return "hour"
    return "day"


def kept_since(bucket_seconds: int, oldest: Mapping[int, int]) -> int:
    """From when on there are all rows of such buckets; of sums without a series: any."""
    period = bucket_seconds or PERIODS[-1]
    return _up(oldest[period], period)


def is_kept(since: int, bucket_seconds: int, oldest: Mapping[int, int]) -> bool:
    """All buckets from that one on, but for the one that is being forgotten now."""
    return since >= kept_since(bucket_seconds, oldest) - bucket_seconds


def figures(counts: Counts) -> dict[str, Any]:
    """What a row of counters says.

    `success_rate`: of the requests that an instance answered well or that failed through no
    fault of the client, the share that was answered well; None where there was none.
    `attempt_success_rate` is the same of attempts, in which a failure counts also where
    another instance made it good.
    """
    # Reports have thousands of rows.
    told = _NAMED(counts)
    requests, attempts, good, rejected, mistaken, refused, limited, lost = told[:8]
    throttled, misconfigured, failed, unreachable, expired = told[8:13]
    aborted, abandoned = told[13:15]
    prompt, completion, cached, reasoning, first_byte_ms, latency_ms, cost_nano = told[15:]
    bad = throttled + misconfigured + failed + unreachable + expired
    return {
        "requests": requests,
        "succeeded": good,
        "success_rate": _share(good, good + lost + refused),
        "attempts": attempts,
        "attempt_success_rate": _share(good, good + bad),
        "errors": {
            "client": mistaken + rejected,
            "ours": refused + limited,
            "upstream_429": throttled,
            "upstream_4xx": misconfigured,
            "upstream_5xx": failed,
            "connection": unreachable,
            "timeout": expired,
        },
        "limited": limited,
        "lost": lost,
        "aborted": aborted + abandoned,
        "tokens": {
            "prompt": prompt,
            "completion": completion,
            "cached": cached,
            "reasoning": reasoning,
            "total": prompt + completion,
        },
        "first_byte_ms": _times(counts[_FIRST_BYTE], first_byte_ms),
        "latency_ms": _times(counts[_LATENCY], latency_ms),
        "cost": cost_nano / NANO,
    }


def failed_attempts(shown: Mapping[str, Any]) -> int:
    """Of figures: those after which a client got an error, if nobody did better."""
    return sum(shown["errors"][kind] for kind in OF_ATTEMPTS)


def failed_share(rate: float | None) -> float | None:
    """What is missing of a success rate."""
    return None if rate is None else round(1 - rate, 4)


def _times(buckets: Counts, total_ms: int) -> dict[str, float | None]:
    found = histogram.quantiles(buckets, SHARES)
    if not found:
        return NO_TIMES
    # As round(ms, 1) would, in a third of its time: this is most of a long report.
    p50, p90, p99 = [int(10 * ms + 0.5) / 10 for ms in found]
    return {"p50": p50, "p90": p90, "p99": p99, "mean": round(total_ms / sum(buckets), 1)}


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _down(moment: int, step: int) -> int:
    return moment // step * step


def _up(moment: int, step: int) -> int:
    return -(-moment // step) * step
