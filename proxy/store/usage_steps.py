"""The statements that sum usage up: by hour and day, for ever, as series, by two dimensions.

Written as text: as SQLAlchemy's objects these few, with all counters three times in each, would
take 5 MB of every worker and a fifth of a second, a minute after its start. What is put into
the text are names of ours alone; the moments are parameters.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple, cast

from sqlalchemy import Table, text

from proxy.core.days import DAY_SECONDS
from proxy.core.usage import (
    COUNTERS,
    DIMENSIONS,
    HOUR_SECONDS,
    MINUTE_SECONDS,
    OVERALL,
    PAIRS,
)
from proxy.store.models import (
    Base,
    UsageDayRow,
    UsageHourRow,
    UsagePairRow,
    UsageSeriesRow,
    UsageTotalRow,
)
from proxy.store.statements import NO_VALUES, Prepared

WHO = ("instance_name", "model", "client_name")
# The column that names a row of a series.
NAMED_BY = dict(zip(DIMENSIONS, WHO, strict=True))
# Of longer periods: the table, the column of the moment, and how long one is.
PERIODS: tuple[tuple[type[Base], str, int], ...] = (
    (UsageHourRow, "hour_at", HOUR_SECONDS),
    (UsageDayRow, "day_at", DAY_SECONDS),
)


def name_of(pair: Sequence[str]) -> str:
    return ",".join(pair)


class Step(NamedTuple):
    """A statement, and what else it is given besides the moments."""

    statement: Prepared
    values: Mapping[str, str] = NO_VALUES


@cache
def steps() -> tuple[Step, ...]:
    """Of a roll-up of the minutes from `since` to before `until`, in this order: the series'
    hours and days are made of their minutes, which are few."""
    return (*_of_keys(), *_of_minutes(), *_of_series())


@cache
def steps_of_pairs() -> tuple[Step, ...]:
    """The same of days."""
    return tuple(
        Step(
            _adding(
                UsagePairRow,
                {
                    "pair": f"'{name_of(pair)}'",
                    "day_at": "day_at",
                    "name": NAMED_BY[pair[0]],
                    "other_name": NAMED_BY[pair[1]],
                },
                "usage_day WHERE day_at >= :since AND day_at < :until",
            )
        )
        for pair in PAIRS
    )


def _of_keys() -> Iterator[Step]:
    found = "usage_minute WHERE minute_at >= :since AND minute_at < :until"
    who = {name: name for name in WHO}
    for model, at, seconds in PERIODS:
        yield Step(_adding(model, {at: _floor("minute_at", seconds), **who}, found))
    yield Step(_adding(UsageTotalRow, who, found))


def _of_minutes() -> Iterator[Step]:
    """One statement for all: each takes the driver 100 KB."""
    whens = " ".join(f"WHEN '{name}' THEN {column}" for name, column in NAMED_BY.items())
    keys = {
        "period_seconds": str(MINUTE_SECONDS),
        "dimension": ":dimension",
        "begins_at": "minute_at",
        "name": f"CASE :dimension {whens} ELSE '' END",
    }
    found = "usage_minute WHERE minute_at >= :since AND minute_at < :until"
    statement = _adding(UsageSeriesRow, keys, found)
    for dimension in (OVERALL, *DIMENSIONS):
        yield Step(statement, {"dimension": dimension})


def _of_series() -> Iterator[Step]:
    dimensions = ", ".join(f"'{dimension}'" for dimension in (OVERALL, *DIMENSIONS))
    for _, _, seconds in PERIODS:
        keys = {
            "period_seconds": str(seconds),
            "dimension": "dimension",
            "begins_at": _floor("begins_at", seconds),
            "name": "name",
        }
        # Named all: the table's key has them between the period and the moment.
        found = (
            f"usage_series WHERE period_seconds = {MINUTE_SECONDS}"
            f" AND dimension IN ({dimensions}) AND begins_at >= :since AND begins_at < :until"
        )
        yield Step(_adding(UsageSeriesRow, keys, found))


def _floor(at: str, seconds: int) -> str:
    return f"{at} - {at} % {seconds}"


def _adding(into: type[Base], keys: Mapping[str, str], found: str) -> Prepared:
    """Adds what is found, summed up by these keys; `keys`: column -> what it is of a row."""
    table, names = cast(Table, into.__table__).name, (*keys, *COUNTERS)
    values = (*keys.values(), *(f"SUM({counter})" for counter in COUNTERS))
    # By their places: some are constants, which are no columns to group by.
    groups = (str(number + 1) for number in range(len(keys)))
    added = (f"{c} = {table}.{c} + excluded.{c}" for c in COUNTERS)
    return Prepared(
        text(
            f"INSERT INTO {table} ({', '.join(names)})"  # nosec B608
            f" SELECT {', '.join(values)} FROM {found} GROUP BY {', '.join(groups)}"
            f" ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {', '.join(added)}"
        )
    )
