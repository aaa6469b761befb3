"""What a report of usage reads, and what it says: ranges of time, and figures from counters."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import itemgetter
from typing import Any

from proxy.core import histogram
from proxy.core.days import DAY_SECONDS
from proxy.core.usage import (
    FIRST_BYTE,
    HOUR_SECONDS,
    LATENCY,
    LIMITED,
    LOST,
    MINUTE_SECONDS,
    MISTAKEN,
    PERIODS,
    REFUSED,
)
from proxy.core.verdict import LOSSES

NANO = 1_000_000_000
RECENT_SECONDS = 900  # what people look at first
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
SHARES = tuple(QUANTILES.values())
NO_TIMES = {**dict.fromkeys(QUANTILES), "mean": None}
BUCKETS = {"minute": MINUTE_SECONDS, "hour": HOUR_SECONDS, "day": DAY_SECONDS}

# Classes of errors of attempts; the others are of requests.
OF_ATTEMPTS = ("upstream_429", "upstream_5xx", "upstream_4xx", "connection")

Buckets = Callable[[Mapping[str, int]], tuple[int, ...]]
_FIRST_BYTE: Buckets = itemgetter(*FIRST_BYTE)
_LATENCY: Buckets = itemgetter(*LATENCY)


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


def usual_bucket(seconds: int) -> str:
    """Of a series over so long: between about 60 and 200 points."""
    if seconds <= 3 * HOUR_SECONDS:
        return "minute"
    return "hour" if seconds <= 8 * DAY_SECONDS else "day"


def figures(counts: Mapping[str, int]) -> dict[str, Any]:
    """What a row of counters says.

    `success_rate`: of the requests that an instance answered well or that failed through no
    fault of the client, the share that was answered well; None where there was none.
    `attempt_success_rate` is the same of attempts, in which a failure counts also where
    another instance made it good.
    """
    good = counts["succeeded"]
    bad_attempts = sum(counts[outcome] for outcome in LOSSES)
    return {
        "requests": counts["requests"],
        "succeeded": good,
        "success_rate": _share(good, good + counts[LOST] + counts[REFUSED]),
        "attempts": counts["attempts"],
        "attempt_success_rate": _share(good, good + bad_attempts),
        "errors": {
            "client": counts[MISTAKEN] + counts["rejected"],
            "ours": counts[REFUSED] + counts[LIMITED],
            "upstream_429": counts["throttled"],
            "upstream_4xx": counts["misconfigured"],
            "upstream_5xx": counts["failed"],
            "connection": counts["unreachable"],
            "timeout": counts["expired"],
        },
        "limited": counts[LIMITED],
        "lost": counts[LOST],
        "aborted": counts["aborted"] + counts["abandoned"],
        "tokens": {
            "prompt": counts["prompt_tokens"],
            "completion": counts["completion_tokens"],
            "cached": counts["cached_tokens"],
            "reasoning": counts["reasoning_tokens"],
            "total": counts["prompt_tokens"] + counts["completion_tokens"],
        },
        "first_byte_ms": _times(counts, _FIRST_BYTE, "first_byte_total_ms"),
        "latency_ms": _times(counts, _LATENCY, "latency_total_ms"),
        "cost": counts["cost_nano"] / NANO,
    }


def failed_attempts(shown: Mapping[str, Any]) -> int:
    """Of figures: those for which an instance is to blame, or the gateway's config of it."""
    return sum(shown["errors"][kind] for kind in OF_ATTEMPTS)


def failed_share(rate: float | None) -> float | None:
    """What is missing of a success rate."""
    return None if rate is None else round(1 - rate, 4)


def _times(counts: Mapping[str, int], columns: Buckets, total: str) -> dict[str, Any]:
    buckets = columns(counts)
    counted = sum(buckets)
    if not counted:
        return NO_TIMES
    found: dict[str, Any] = {
        name: round(ms or 0.0, 1)
        for name, ms in zip(QUANTILES, histogram.quantiles(buckets, SHARES), strict=True)
    }
    found["mean"] = round(counts[total] / counted, 1)
    return found


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _down(moment: int, step: int) -> int:
    return moment // step * step


def _up(moment: int, step: int) -> int:
    return -(-moment // step) * step
