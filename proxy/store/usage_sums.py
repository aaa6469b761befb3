"""All that was ever counted of usage, summed up by the database: no more rows than are told."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, Table, func, select, tuple_, union

from proxy.core.usage import COUNTERS, LATENCY
from proxy.store.models import UsageRow, UsageTotalRow
from proxy.store.usage import rolled_until

# Of a model: how long an answer takes, its length says more than its instance.
OF_MODEL = ("latency_total_ms", *LATENCY)
# Of a client; how long its answers took is told by instance and model alone.
OF_CLIENT = ("requests", "prompt_tokens", "completion_tokens", "cost_nano")

# Pairs of instance and model, each of which has about 40 lines.
MOST_SERVED = 2_000
# Where instances serve any model, clients choose the names, also of what is refused.
MOST_REFUSED = 500

_MINUTE = UsageRow.__table__
_TOTAL = UsageTotalRow.__table__
_PAIR = ("instance_name", "model")

Sums = dict[str, int]
Found = dict[tuple[str, ...], Sums]


class UsageSums(NamedTuple):
    """By (instance, model), with all counters: the pairs with the most attempts, and of those
    without an instance the ones with the most requests; `dropped` says how many are not here.
    By model, of all instances, with those of OF_MODEL: the models that are in a pair here. By
    client, with those of OF_CLIENT."""

    served: Found
    models: Found
    clients: Found
    dropped: int = 0


class _Most(NamedTuple):
    """Those with the most of a counter, `number` of them, with an instance or without."""

    counter: str
    number: int
    is_served: bool

    def among(self, asked: Select[Any], table: Table) -> Select[Any]:
        asked = asked.where((table.c.instance_name != "") == self.is_served)
        if table is not _TOTAL:
            return asked  # what is told of a pair has to have all its minutes
        pair = [table.c[name] for name in _PAIR]
        most = select(*pair).where((table.c.instance_name != "") == self.is_served)
        most = most.group_by(*pair).order_by(func.sum(table.c[self.counter]).desc())
        return asked.where(tuple_(*pair).in_(most.limit(self.number)))

    def of(self, found: Found) -> Found:
        best = sorted(found, key=lambda key: -found[key][self.counter])[: self.number]
        return {key: found[key] for key in best}


class _Told(NamedTuple):
    """These models."""

    models: Sequence[str]

    def among(self, asked: Select[Any], table: Table) -> Select[Any]:
        return asked.where(table.c.model.in_(set(self.models)))


def read(connection: Connection) -> UsageSums:
    """As of now; in one transaction, so that no minute is missed or counted twice."""
    until = rolled_until(connection)
    most_served = _Most("attempts", MOST_SERVED, is_served=True)
    most_refused = _Most("requests", MOST_REFUSED, is_served=False)
    served = _grouped(connection, _PAIR, COUNTERS, until, most_served)
    served |= _grouped(connection, _PAIR, COUNTERS, until, most_refused)
    return UsageSums(
        served,
        _grouped(connection, ("model",), OF_MODEL, until, _Told([m for _, m in served])),
        _grouped(connection, ("client_name",), OF_CLIENT, until),
        _pairs(connection, until) - len(served),
    )


def _grouped(
    connection: Connection,
    by: Sequence[str],
    counters: Sequence[str],
    until: int,
    told: _Most | _Told | None = None,
) -> Found:
    """Apart, and not as one query: the totals lie in the order of instances and models, so that
    nothing has to be sorted; of minutes that are not in them there are one or two."""
    found: Found = {}
    for table in (_TOTAL, _MINUTE):
        keys = [table.c[name] for name in by]
        asked = select(*keys, *(func.sum(table.c[name]) for name in counters)).group_by(*keys)
        if table is _MINUTE:
            asked = asked.where(_MINUTE.c.minute_at >= until)
        if told is not None:
            asked = told.among(asked, table)
        # Of a pair that is not among the most in the totals, a minute alone would be wrong.
        is_full = isinstance(told, _Most) and len(found) >= told.number
        for row in connection.execute(asked):
            key, counts = (
                tuple(row[: len(by)]),
                dict(zip(counters, row[len(by) :], strict=True)),
            )
            before = found.get(key)
            if before is None and is_full:
                continue
            found[key] = {n: int(c) + (before[n] if before else 0) for n, c in counts.items()}
    return told.of(found) if isinstance(told, _Most) else found


def _pairs(connection: Connection, until: int) -> int:
    """How many there are in all."""
    pairs = union(
        select(*(_TOTAL.c[name] for name in _PAIR)),
        select(*(_MINUTE.c[name] for name in _PAIR)).where(_MINUTE.c.minute_at >= until),
    ).subquery()
    return int(connection.execute(select(func.count()).select_from(pairs)).scalar_one())
