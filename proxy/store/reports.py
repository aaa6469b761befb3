"""Sums of usage, read from as few rows as can be: series of one dimension, or of all three."""

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, Table, func, literal, select

from proxy.core.days import DAY_SECONDS
from proxy.core.report import Question, slices
from proxy.core.usage import COUNTERS, HOUR_SECONDS, MINUTE_SECONDS, OVERALL
from proxy.store.models import UsageDayRow, UsageHourRow, UsageRow, UsageSeriesRow
from proxy.store.usage import NAMED_BY, floor, rolled_until

Key = tuple[Any, ...]

_SERIES = UsageSeriesRow.__table__
_WHOLE: Mapping[int, tuple[Table, str]] = {
    MINUTE_SECONDS: (UsageRow.__table__, "minute_at"),
    HOUR_SECONDS: (UsageHourRow.__table__, "hour_at"),
    DAY_SECONDS: (UsageDayRow.__table__, "day_at"),
}


def answer(connection: Connection, question: Question) -> dict[Key, dict[str, int]]:
    """(moment, *names in the order of `by`) -> counters; the moment is 0 without a series.
    `question` has to be aligned. In no order."""
    found: dict[Key, list[int]] = {}
    for statement in _statements(connection, question):
        for row in connection.execute(statement):
            key, counts = tuple(row[: 1 + len(question.by)]), row[1 + len(question.by) :]
            present = found.get(key)
            if present is None:
                found[key] = [int(n) for n in counts]
            else:
                found[key] = [a + int(b) for a, b in zip(present, counts, strict=True)]
    return {key: dict(zip(COUNTERS, counts, strict=True)) for key, counts in found.items()}


def _statements(connection: Connection, question: Question) -> Iterator[Any]:
    """Minutes that are not rolled up yet are read as they were counted."""
    rolled = rolled_until(connection)
    is_series = len(question.dimensions) <= 1
    for period, since, until in slices(question.since, question.until, question.bucket_seconds):
        if period == MINUTE_SECONDS:
            until = min(until, rolled)
        if since < until:
            of = _of_series if is_series else _of_all
            yield of(question, period, since, until)
    since = max(question.since, rolled)
    if since < question.until:
        yield _of_all(question, MINUTE_SECONDS, since, question.until)


def _of_series(question: Question, period: int, since: int, until: int) -> Any:
    (dimension,) = question.dimensions or (OVERALL,)
    names = {dimension: _SERIES.c.name}
    rows = [
        _SERIES.c.period_seconds == period,
        _SERIES.c.dimension == dimension,
        _SERIES.c.begins_at >= since,
        _SERIES.c.begins_at < until,
    ]
    return _summed(question, _SERIES, _SERIES.c.begins_at, names, rows)


def _of_all(question: Question, period: int, since: int, until: int) -> Any:
    table, at = _WHOLE[period]
    names = {dimension: table.c[column] for dimension, column in NAMED_BY.items()}
    rows = [table.c[at] >= since, table.c[at] < until]
    return _summed(question, table, table.c[at], names, rows)


def _summed(
    question: Question, table: Table, at: Any, names: Mapping[str, Any], rows: list[Any]
) -> Any:
    bucket = question.bucket_seconds
    moment = floor(at, bucket) if bucket else literal(0)
    by = [names[dimension] for dimension in question.by]
    rows += [names[dimension] == name for dimension, name in question.where.items()]
    groups = [moment, *by] if bucket else by
    found = select(moment, *by, *(func.sum(table.c[c]) for c in COUNTERS)).where(*rows)
    if groups:
        return found.group_by(*groups)
    # Without groups there would be a row of NULLs where nothing was counted.
    return found.having(func.count() > 0)
