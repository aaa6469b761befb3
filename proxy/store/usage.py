"""Usage that is kept: counters by minute, instance, model and client, and their sums.

Workers add to `usage_minute`. Once a minute `roll_up` adds the minutes that are over to the
hours, the days, the totals and the series, and notes until when; when a day is over, it adds it
to the pairs. What comes later for one of them is added everywhere at once. So each count is in
every sum once, whenever it was written.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

from sqlalchemy import (
    Connection,
    Table,
    bindparam,
    delete,
    func,
    literal_column,
    select,
    union_all,
)

from proxy.core.days import DAY_SECONDS
from proxy.core.deltas import Deltas
from proxy.core.usage import (
    COUNTERS,
    DIMENSIONS,
    HOUR_SECONDS,
    MINUTE_SECONDS,
    OVERALL,
    PAIRS,
    Kept,
)
from proxy.store.models import (
    Base,
    UsageDayRow,
    UsageHourRow,
    UsagePairRow,
    UsageRolledRow,
    UsageRow,
    UsageSeriesRow,
    UsageTotalRow,
)
from proxy.store.statements import Prepared, upsert
from proxy.store.usage_steps import NAMED_BY, PERIODS, WHO, name_of, steps, steps_of_pairs

KEY_COLUMNS = ("minute_at", *WHO)
SERIES_KEY = ("period_seconds", "dimension", "begins_at", "name")
PAIR_KEY = ("pair", "day_at", "name", "other_name")
NO_OTHER_NAMES: Mapping[str, str] = MappingProxyType({})

# Most workers have written a minute by then; what comes later costs a little more.
GRACE_SECONDS = 10
# At once, so that a long time without roll-ups does not keep others from writing for long: so
# many rows take a fifth of a second, or more where each is of another client.
MOST_SECONDS = HOUR_SECONDS
MOST_ROWS = 2_000

_MINUTE, _SERIES = UsageRow.__table__, UsageSeriesRow.__table__
_HOUR, _DAY, _PAIR = UsageHourRow.__table__, UsageDayRow.__table__, UsagePairRow.__table__
_TOTAL = UsageTotalRow.__table__
_ROLLED = Prepared(select(UsageRolledRow.until))
_SINCE: Any = bindparam("since")
_FIRST = Prepared(select(func.min(_MINUTE.c.minute_at)).where(_MINUTE.c.minute_at >= _SINCE))
_NEXT_STEP = Prepared(
    select(_MINUTE.c.minute_at)
    .where(_MINUTE.c.minute_at >= _SINCE)
    .order_by(_MINUTE.c.minute_at)
    .limit(1)
    .offset(bindparam("most"))
)
_BEFORE: Any = bindparam("before")
# Of minutes, hours and days.
_OLD_ROWS = [
    Prepared(delete(_MINUTE).where(_MINUTE.c.minute_at < _BEFORE)),
    Prepared(delete(_HOUR).where(_HOUR.c.hour_at < _BEFORE)),
    Prepared(delete(_DAY).where(_DAY.c.day_at < _BEFORE)),
]
_OLD_PAIRS = Prepared(
    delete(_PAIR).where(_PAIR.c.pair == bindparam("pair"), _PAIR.c.day_at < _BEFORE)
)
_OLD_SERIES = Prepared(
    delete(_SERIES).where(
        _SERIES.c.period_seconds == bindparam("period"),
        _SERIES.c.dimension == bindparam("dimension"),
        _SERIES.c.begins_at < _BEFORE,
    )
)


def add(
    connection: Connection, deltas: Deltas, names: Mapping[str, str] = NO_OTHER_NAMES
) -> None:
    """Adds one worker's counts. In the same transaction as states.add, which keeps others from
    rolling up meanwhile. `names`: of models, under which other name they are counted."""
    if not deltas.usage:
        return
    keys = [
        (minute, instance, names.get(model, model), client)
        for minute, instance, model, client in deltas.usage
    ]
    rows = _summed(KEY_COLUMNS, keys, list(deltas.usage.values()))
    _upsert(connection, UsageRow, rows)
    until = rolled_until(connection)
    late = [row for row in rows if row["minute_at"] < until]
    if late:
        _add_late(connection, late, paired_until(until))


def rolled_until(connection: Connection) -> int:
    """Minutes before that moment are in all sums; 0 before the first time."""
    return next((until for (until,) in _ROLLED.rows(connection)), 0)


def paired_until(rolled: int) -> int:
    """Days before that moment are in the sums of pairs, if all is rolled up until `rolled`."""
    return rolled // DAY_SECONDS * DAY_SECONDS


def roll_up(connection: Connection, now: float) -> bool:
    """Adds the minutes that are over to the sums; True if there are more to add."""
    rolled = rolled_until(connection)
    first, newest = first_to_roll_up(connection), _newest(now)
    if first is None or first >= newest:
        return False
    until = min(newest, first + MOST_SECONDS, _next_step(connection, first))
    for step in steps():
        step.statement.run(connection, since=first, until=until, **step.values)
    paired, over = paired_until(rolled), paired_until(until)
    if paired < over:
        for step in steps_of_pairs():
            step.statement.run(connection, since=paired, until=over, **step.values)
    upsert(connection, UsageRolledRow, [{"id": 1, "until": until}], _until)
    return until < newest


def _next_step(connection: Connection, first: int) -> int:
    """Until when there are not too many rows; one minute is taken whatever it has."""
    rows = _NEXT_STEP.rows(connection, since=first, most=MOST_ROWS)
    at = next((at for (at,) in rows), first + MOST_SECONDS)
    return max(at, first + MINUTE_SECONDS)


def is_to_be_rolled_up(connection: Connection, now: float) -> bool:
    first = first_to_roll_up(connection)
    return first is not None and first < _newest(now)


def first_to_roll_up(connection: Connection) -> int | None:
    """The first minute that is not in the sums; None where there is none."""
    ((first,),) = _FIRST.rows(connection, since=rolled_until(connection))
    return cast(int | None, first)


def totals(connection: Connection) -> dict[tuple[str, str, str], dict[str, int]]:
    """All that was ever counted, as of now: (instance, model, client) -> counters. Never
    pruned."""
    until = rolled_until(connection)
    both = union_all(
        select(*(_TOTAL.c[c] for c in (*WHO, *COUNTERS))),
        select(*(_MINUTE.c[c] for c in (*WHO, *COUNTERS))).where(_MINUTE.c.minute_at >= until),
    ).subquery()
    sums = (func.sum(both.c[c]) for c in COUNTERS)
    who = [both.c[c] for c in WHO]
    return {
        (instance, model, client): dict(zip(COUNTERS, map(int, counts), strict=True))
        for instance, model, client, *counts in connection.execute(
            select(*who, *sums).group_by(*who)
        )
    }


def forget_old(connection: Connection, now: float, kept: Kept) -> None:
    """Deletes what is older, but no minute that is not in the sums yet."""
    minutes = min(int(now) - kept.minutes, rolled_until(connection))
    hours, days = int(now) - kept.hours, int(now) - kept.days
    for old, before in zip(_OLD_ROWS, (minutes, hours, days), strict=True):
        old.run(connection, before=before)
    for pair in PAIRS:  # named all: the key begins with them
        _OLD_PAIRS.run(connection, pair=name_of(pair), before=days)
    for seconds, before in (
        (MINUTE_SECONDS, minutes),
        (HOUR_SECONDS, hours),
        (DAY_SECONDS, days),
    ):
        for dimension in (OVERALL, *DIMENSIONS):
            _OLD_SERIES.run(connection, period=seconds, dimension=dimension, before=before)


def _newest(now: float) -> int:
    """Before that, minutes are over."""
    return (int(now) - GRACE_SECONDS) // MINUTE_SECONDS * MINUTE_SECONDS


def _add_late(connection: Connection, rows: Sequence[Mapping[str, Any]], paired: int) -> None:
    for model, at, seconds in PERIODS:
        hours_or_days = (
            (row["minute_at"] // seconds * seconds, *(row[c] for c in WHO)) for row in rows
        )
        _upsert(connection, model, _summed((at, *WHO), hours_or_days, rows))
    who = (tuple(row[c] for c in WHO) for row in rows)
    _upsert(connection, UsageTotalRow, _summed(WHO, who, rows))
    for seconds in (MINUTE_SECONDS, HOUR_SECONDS, DAY_SECONDS):
        for dimension in (OVERALL, *DIMENSIONS):
            named = NAMED_BY.get(dimension, "")
            keys = (
                (seconds, dimension, row["minute_at"] // seconds * seconds, row.get(named, ""))
                for row in rows
            )
            _upsert(connection, UsageSeriesRow, _summed(SERIES_KEY, keys, rows))
    over = [row for row in rows if row["minute_at"] < paired]  # other days are added whole
    days = [row["minute_at"] // DAY_SECONDS * DAY_SECONDS for row in over]
    for pair in PAIRS:
        name, other = (NAMED_BY[dimension] for dimension in pair)
        of_pair = (
            (name_of(pair), day_at, row[name], row[other])
            for day_at, row in zip(days, over, strict=True)
        )
        _upsert(connection, UsagePairRow, _summed(PAIR_KEY, of_pair, over))


def _summed(
    columns: Sequence[str],
    keys: Iterable[tuple[Any, ...]],
    rows: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """The rows under these keys, a row for each key: that is far less for the database to add
    one by one, while nobody else can write."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for key, row in zip(keys, rows, strict=True):
        into = found.get(key)
        if into is None:
            # Whatever keys the row has of its own table: they are no columns of this one, or
            # the same.
            found[key] = {**row, **dict(zip(columns, key, strict=True))}
            continue
        for name, count in row.items():
            if name not in KEY_COLUMNS:
                into[name] = into.get(name, 0) + count
    return list(found.values())


def _upsert(connection: Connection, model: type[Base], rows: list[dict[str, Any]]) -> None:
    """Counters that a row does not name are 0."""
    keys = tuple(c.name for c in cast(Table, model.__table__).primary_key)
    upsert(connection, model, rows, _add, keys)


def floor(at: Any, seconds: int) -> Any:
    """Written out, and no parameter: PostgreSQL would not see that it is what it groups by."""
    return at - at % literal_column(str(seconds))


def _add(present: Table, given: Any) -> dict[str, Any]:
    return {c: present.c[c] + given[c] for c in COUNTERS}


def _until(_present: Table, given: Any) -> dict[str, Any]:
    return {"until": given.until}
