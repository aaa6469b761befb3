"""Sums of usage, read from as few rows as can be: series of one dimension, sums of days by two,
or all that is kept."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from operator import add
from typing import Any

from sqlalchemy import Connection, Table, bindparam, func, literal, select

from proxy.core.days import DAY_SECONDS
from proxy.core.report import Question, slices
from proxy.core.usage import (
    COUNTERS,
    HOUR_SECONDS,
    MINUTE_SECONDS,
    OVERALL,
    PAIRS,
    Counts,
)
from proxy.store.models import (
    UsageDayRow,
    UsageHourRow,
    UsagePairRow,
    UsageRow,
    UsageSeriesRow,
)
from proxy.store.statements import Prepared
from proxy.store.usage import floor, paired_until, rolled_until
from proxy.store.usage_steps import NAMED_BY, name_of

Key = tuple[Any, ...]
# Of a question: `by`, the dimensions of `where`, the bucket.
Shape = tuple[tuple[str, ...], tuple[str, ...], int]

# Statements that are kept: what can be asked has some hundred shapes.
MAX_SHAPES = 500

_SERIES, _PAIR = UsageSeriesRow.__table__, UsagePairRow.__table__
_WHOLE: Mapping[int, tuple[Table, str]] = {
    MINUTE_SECONDS: (UsageRow.__table__, "minute_at"),
    HOUR_SECONDS: (UsageHourRow.__table__, "hour_at"),
    DAY_SECONDS: (UsageDayRow.__table__, "day_at"),
}
_LIMIT: Any = bindparam("limit")
_PAIR_OF = {frozenset(pair): pair for pair in PAIRS}


def answer(connection: Connection, question: Question, most_rows: int) -> dict[Key, Counts]:
    """(moment, *names in the order of `by`) -> counters; the moment is 0 without a series.
    `question` has to be aligned. In no order. If there are more than `most_rows`, some of them,
    and at least one more than that: then no more are read."""
    found: dict[Key, Counts] = {}
    keys = 1 + len(question.by)
    for rows in _rows(connection, question, most_rows + 1):
        for row in rows:
            key, counts = row[:keys], row[keys:]
            present = found.get(key)
            found[key] = counts if present is None else tuple(map(add, present, counts))
        if len(found) > most_rows:
            break
    return found


def _rows(connection: Connection, question: Question, limit: int) -> Iterator[list[Any]]:
    """Minutes that are not rolled up yet are read as they were counted, days that are not over
    from the whole rows."""
    rolled = rolled_until(connection)
    shape: Shape = tuple(question.by), tuple(sorted(question.where)), question.bucket_seconds
    names = {f"only_{dimension}": name for dimension, name in question.where.items()}
    for period, since, until in _parts(question, rolled):
        is_over = until <= paired_until(rolled)
        statement, constants = _statement(question, shape, period, is_over)
        yield _integers(
            statement.rows(
                connection, since=since, until=until, limit=limit, **names, **constants
            )
        )
    since = max(question.since, rolled)
    if since < question.until:
        statement = _of_all(MINUTE_SECONDS, *shape)
        between = {"since": since, "until": question.until}
        yield _integers(statement.rows(connection, **between, limit=limit, **names))


def _parts(question: Question, rolled: int) -> Iterator[tuple[int, int, int]]:
    """(period, since, until), of which days are all over, or none of them."""
    for period, since, until in slices(question.since, question.until, question.bucket_seconds):
        if period == MINUTE_SECONDS:
            until = min(until, rolled)
        over = paired_until(rolled) if period == DAY_SECONDS else since
        for begin, end in ((since, min(until, over)), (max(since, over), until)):
            if begin < end:
                yield period, begin, end


def _statement(
    question: Question, shape: Shape, period: int, is_over: bool
) -> tuple[Prepared, dict[str, Any]]:
    """And what it asks for besides time and names."""
    told = question.dimensions
    if len(told) <= 1:
        return _of_series(period, *shape), {"period": period, "dimension": (*told, OVERALL)[0]}
    pair = _PAIR_OF.get(frozenset(told))
    if pair and period == DAY_SECONDS and is_over:
        return _of_pair(pair, *shape), {"pair": name_of(pair)}
    return _of_all(period, *shape), {}


def _integers(rows: list[Any]) -> list[Any]:
    """PostgreSQL's sums are no int."""
    if not rows or isinstance(rows[0][-1], int):
        return rows
    keys = len(rows[0]) - len(COUNTERS)
    return [(*row[:keys], *map(int, row[keys:])) for row in rows]


@lru_cache(MAX_SHAPES)
def _of_series(
    period: int, by: tuple[str, ...], where: tuple[str, ...], bucket_seconds: int
) -> Prepared:
    names = dict.fromkeys((*by, *where), _SERIES.c.name)
    rows = [
        _SERIES.c.period_seconds == bindparam("period"),
        _SERIES.c.dimension == bindparam("dimension"),
    ]
    is_each = period == bucket_seconds
    return _summed(
        _SERIES, _SERIES.c.begins_at, names, rows, by, where, bucket_seconds, is_each=is_each
    )


@lru_cache(MAX_SHAPES)
def _of_pair(
    pair: tuple[str, ...], by: tuple[str, ...], where: tuple[str, ...], bucket_seconds: int
) -> Prepared:
    names = dict(zip(pair, (_PAIR.c.name, _PAIR.c.other_name), strict=True))
    rows = [_PAIR.c.pair == bindparam("pair")]
    is_each = bucket_seconds == DAY_SECONDS
    return _summed(
        _PAIR, _PAIR.c.day_at, names, rows, by, where, bucket_seconds, is_each=is_each
    )


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
    *,
    is_each: bool = False,
) -> Prepared:
    """`is_each`: no two rows belong together, and there is nothing to sum up."""
    told_apart = [names[dimension] for dimension in by]
    rows = [*rows, at >= bindparam("since"), at < bindparam("until")]
    rows += [names[dimension] == bindparam(f"only_{dimension}") for dimension in where]
    if is_each:
        counters = (table.c[c] for c in COUNTERS)
        return Prepared(select(at, *told_apart, *counters).where(*rows).limit(_LIMIT))
    moment = floor(at, bucket_seconds) if bucket_seconds else literal(0)
    groups = [moment, *told_apart] if bucket_seconds else told_apart
    sums = (func.sum(table.c[c]) for c in COUNTERS)
    found = select(moment, *told_apart, *sums).where(*rows).limit(_LIMIT)
    # Without groups there would be a row of NULLs where nothing was counted.
    return Prepared(found.group_by(*groups) if groups else found.having(func.count() > 0))
