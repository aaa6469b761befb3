"""Usage of the last minutes, by instance: what a person wants to see at a glance."""

from typing import cast

from sqlalchemy import Connection, Table, func, select

from proxy.store.models import UsageRow
from proxy.store.usage import COUNTERS

_MINUTE = cast(Table, UsageRow.__table__)


def by_instance(connection: Connection, since: int) -> dict[str, dict[str, int]]:
    """All counters of the minutes that begin then or later."""
    name = _MINUTE.c.instance_name
    sums = (func.sum(_MINUTE.c[c]) for c in COUNTERS)
    found = select(name, *sums).where(_MINUTE.c.minute_at >= since).group_by(name)
    return {
        instance: dict(zip(COUNTERS, map(int, counts), strict=True))
        for instance, *counts in connection.execute(found)
    }
