"""Sums of usage, read from as few rows as can be: series of one dimension, or of all three."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from operator import add
from typing import Any

from sqlalchemy import Connection, Table, bindparam, func, literal, select

from proxy.core.days import DAY_SECONDS
from proxy.core.report import Question, slices
from proxy.core.usage import COUNTERS, HOUR_SECONDS, MINUTE_SECONDS, OVERALL
from proxy.store.db import Prepared
from proxy.store.models import UsageDayRow, UsageHourRow, UsageRow, UsageSeriesRow
from proxy.store.usage import NAMED_BY, floor, rolled_until

Key = tuple[Any, ...]

# Statements that are kept: what can be asked has some hundred shapes.
MAX_SHAPES = 500

_SERIES = UsageSeriesRow.__table__
_WHOLE: Mapping[int, tuple[Table, str]] = {
    MINUTE_SECONDS: (UsageRow.__table__, "minute_at"),
    HOUR_SECONDS: (UsageHourRow.__table__, "hour_at"),
    DAY_SECONDS: (UsageDayRow.__table__, "day_at"),
}


def answer(connection: Connection, question: Question) -> dict[Key, dict[str, int]]:
    """(moment, *names in the order of `by`) -> counters; the moment is 0 without a series.
    `question` has to be aligned. In no order."""
    found: dict[Key, Sequence[Any]] = {}
    keys = 1 + len(question.by)
    for rows in _rows(connection, question):
        for row in rows:
            key, counts = tuple(row[:keys]), row[keys:]
            present = found.get(key)
            found[key] = counts if present is None else tuple(map(add, present, counts))
    # PostgreSQL's sums are no int.
    return {
        key: dict(zip(COUNTERS, map(int, counts), strict=True)) for key, counts in found.items()
    }


def _rows(connection: Connection, question: Question) -> Iterator[list[Any]]:
    """Minutes that are not rolled up yet are read as they were counted."""
    rolled = rolled_until(connection)
    is_series = len(question.dimensions) <= 1
    shape = tuple(question.by), tuple(sorted(question.where)), question.bucket_seconds
    names = {f"only_{dimension}": name for dimension, name in question.where.items()}
    for period, since, until in slices(question.since, question.until, question.bucket_seconds):
        if period == MINUTE_SECONDS:
            until = min(until, rolled)
        if since < until:
            statement = _of_series(*shape) if is_series else _of_all(period, *shape)
            between = {"since": since, "until": until}
            of = {"period": period, "dimension": (*question.dimensions, OVERALL)[0]}
            yield statement.rows(connection, **between, **names, **(of if is_series else {}))
    since = max(question.since, rolled)
    if since < question.until:
        statement = _of_all(MINUTE_SECONDS, *shape)
        yield statement.rows(connection, since=since, until=question.until, **names)


@lru_cache(MAX_SHAPES)
def _of_series(by: tuple[str, ...], where: tuple[str, ...], bucket_seconds: int) -> Prepared:
    names = dict.fromkeys((*by, *where), _SERIES.c.name)
    rows = [
        _SERIES.c.period_seconds == bindparam("period"),
        _SERIES.c.dimension == bindparam("dimension"),
    ]
    return _summed(_SERIES, _SERIES.c.begins_at, names, rows, by, where, bucket_seconds)


@lru_cache(MAX_SHAPES)
def _of_all(
    period: int, by: tuple[str, ...], where: tuple[str, ...], bucket_seconds: int
) -> Prepared:
    table, at = _WHOLE[period]
    names = {dimension: table.c[column] for dimension, column in NAMED_BY.items()}
    return _summed(table, table.c[at], names, [], by, where, bucket_seconds)


def _summed(
    table: Table,
    at: Any,
    names: Mapping[str, Any],
    rows: list[Any],
    by: tuple[str, ...],
    where: tuple[str, ...],
    bucket_seconds: int,
) -> Prepared:
    moment = floor(at, bucket_seconds) if bucket_seconds else literal(0)
    told_apart = [names[dimension] for dimension in by]
    rows = [*rows, at >= bindparam("since"), at < bindparam("until")]
    rows += [names[dimension] == bindparam(f"only_{dimension}") for dimension in where]
    groups = [moment, *told_apart] if bucket_seconds else told_apart
    sums = (func.sum(table.c[c]) for c in COUNTERS)
    found = select(moment, *told_apart, *sums).where(*rows)
    # Without groups there would be a row of NULLs where nothing was counted.
    return Prepared(found.group_by(*groups) if groups else found.having(func.count() > 0))
