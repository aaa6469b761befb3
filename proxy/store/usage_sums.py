"""All that was ever counted of usage, summed up by the database: no more rows than are told."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Column, Connection, func, select

from proxy.core.usage import COUNTERS
from proxy.store.models import UsageRow, UsageTotalRow
from proxy.store.usage import rolled_until

# Of a client; how long its answers took is told by instance and model alone.
OF_CLIENT = ("requests", "prompt_tokens", "completion_tokens", "cost_nano")

_MINUTE = UsageRow.__table__
_TOTAL = UsageTotalRow.__table__

Sums = dict[str, int]


class UsageSums(NamedTuple):
    """By (instance, model), with all counters; by client, with those of OF_CLIENT."""

    served: dict[tuple[str, ...], Sums]
    clients: dict[tuple[str, ...], Sums]


def read(connection: Connection) -> UsageSums:
    """As of now; in one transaction, so that no minute is missed or counted twice."""
    until = rolled_until(connection)
    return UsageSums(
        _grouped(connection, ("instance_name", "model"), COUNTERS, until),
        _grouped(connection, ("client_name",), OF_CLIENT, until),
    )


def _grouped(
    connection: Connection, by: Sequence[str], counters: Sequence[str], until: int
) -> dict[tuple[str, ...], Sums]:
    """Apart, and not as one query: the totals lie in the order of instances and models, so that
    nothing has to be sorted; of minutes that are not in them there are one or two."""
    found: dict[tuple[str, ...], Sums] = {}
    for table, condition in ((_TOTAL, None), (_MINUTE, _MINUTE.c.minute_at >= until)):
        keys: list[Column[str]] = [table.c[name] for name in by]
        asked = select(*keys, *(func.sum(table.c[name]) for name in counters)).group_by(*keys)
        if condition is not None:
            asked = asked.where(condition)
        for row in connection.execute(asked):
            key, counts = tuple(row[: len(by)]), row[len(by) :]
            before = found.get(key)
            if before is None:
                found[key] = dict(zip(counters, map(int, counts), strict=True))
            else:
                for name, count in zip(counters, counts, strict=True):
                    before[name] += int(count)
    return found
