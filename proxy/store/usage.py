"""Usage that is kept: counters by minute, instance, model and client."""

from typing import Any

from sqlalchemy import Connection, Table, delete

from proxy.core.deltas import Deltas
from proxy.store.db import upsert
from proxy.store.models import UsageRow

KEY_COLUMNS = ("minute_at", "instance_name", "model", "client_name")
COUNTERS = tuple(c.name for c in UsageRow.__table__.columns if c.name not in KEY_COLUMNS)


def add(connection: Connection, deltas: Deltas) -> None:
    """Adds one worker's counts."""
    rows = [
        dict(zip(KEY_COLUMNS, key, strict=True)) | {c: counts[c] for c in COUNTERS}
        for key, counts in deltas.usage.items()
    ]
    upsert(connection, UsageRow, rows, _add)


def forget_old(connection: Connection, before: int) -> None:
    """Deletes the minutes before that moment."""
    connection.execute(delete(UsageRow).where(UsageRow.minute_at < before))


def _add(present: Table, given: Any) -> dict[str, Any]:
    return {c: present.c[c] + given[c] for c in COUNTERS}
