"""Usage of the last minutes, by instance: what a person wants to see at a glance."""

from collections.abc import Sequence

from sqlalchemy import Connection, func, select

from proxy.store.models import UsageRow

_MINUTE = UsageRow.__table__


def by_instance(
    connection: Connection, since: int, counters: Sequence[str]
) -> dict[str, dict[str, int]]:
    """These counters of the minutes that begin then or later."""
    name = _MINUTE.c.instance_name
    sums = (func.sum(_MINUTE.c[c]) for c in counters)
    found = select(name, *sums).where(_MINUTE.c.minute_at >= since).group_by(name)
    return {
        instance: dict(zip(counters, map(int, counts), strict=True))
        for instance, *counts in connection.execute(found)
    }
