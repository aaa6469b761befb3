"""Writes a plan into the tables: one transaction, nothing that is there is overwritten."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, MetaData, Table, func, insert, select, update

from migrations.legacy.convert import OLD_TOTALS
from migrations.legacy.plan import Imported, Plan
from migrations.legacy.report import counts
from proxy.core.masking import masked

AUTHOR = "migration"
ACTION = "instance imported"
REST_REASON = "throttled"

# State as old files call it -> the column that it is added to.
ADDED = (
    "error_count",
    "total_requests",
    "successful_requests",
    "total_tokens_served",
    "total_upstream_400_errors",
    "total_upstream_429_errors",
    "total_upstream_500_errors",
    "total_upstream_other_errors",
)
NEWEST = ("last_used", "last_error_time")
# Kept as they were for the way back: what ours does not count, and what it derives.
KEPT = (*OLD_TOTALS, "avg_latency_ms", "successful_requests")


@dataclass(slots=True)
class Result:
    """`kept`: exists already, with the fields in which the file differs."""

    imported: list[str] = field(default_factory=list)
    kept: dict[str, list[str]] = field(default_factory=dict)
    states: list[str] = field(default_factory=list)


def apply(
    connection: Connection, plan: Plan, *, source: Path, backup: Path, now: float | None = None
) -> Result:
    """Running it twice changes nothing: a config that exists is kept as it is, and state is
    added once.

    The tables are read from the database and not from the models: this runs in a migration,
    and later models know columns that are not there yet.
    """
    tables = _Tables(connection)
    result = Result()
    moment = time.time() if now is None else now
    present = {r["name"]: r for r in connection.execute(select(tables.config)).mappings()}
    for each in plan.instances:
        row = present.get(each.name)
        if row is not None and each.config is not None:
            result.kept[each.name] = [k for k, v in each.config.items() if row[k] != v]
        elif each.config is not None:
            _add_config(connection, tables, each, moment)
            result.imported.append(each.name)
        if each.state and _add_state(connection, tables, each, moment):
            result.states.append(each.name)
    connection.execute(
        insert(tables.imports).values(
            imported_at=moment,
            source=str(source),
            backup_folder=str(backup),
            counts=counts(plan),
        )
    )
    return result


class _Tables:
    def __init__(self, connection: Connection) -> None:
        metadata = MetaData()

        def table(name: str) -> Table:
            return Table(name, metadata, autoload_with=connection)

        self.config = table("instance_config")
        self.state = table("instance_state")
        self.rests = table("deployment_state")
        self.revisions = table("config_revision")
        self.imports = table("legacy_import")


def _add_config(connection: Connection, tables: _Tables, each: Imported, now: float) -> None:
    assert each.config is not None, "asked for only with a config"
    values = {k: v for k, v in each.config.items() if k in tables.config.c}
    changes = {k: [None, masked(k, v)] for k, v in values.items()}
    revision = connection.execute(
        insert(tables.revisions).values(
            made_at=now, author=AUTHOR, action=ACTION, subject=each.name, changes=changes
        )
    ).inserted_primary_key
    connection.execute(
        insert(tables.config).values(
            **values,
            legacy_extra=each.extra or None,
            created_at=now,
            updated_at=now,
            revision=revision[0] if revision else 0,
        )
    )


def _add_state(connection: Connection, tables: _Tables, each: Imported, now: float) -> bool:
    table = tables.state
    here = table.c.instance_name == each.name
    row = connection.execute(select(table).where(here)).mappings().first()
    if row is not None and row["legacy_imported_at"] is not None:
        return False
    old = each.state
    values: dict[str, Any] = {c: old.get(c, 0) + (row[c] if row else 0) for c in ADDED}
    latency_ms = old.get("avg_latency_ms", 0) * old.get("successful_requests", 0)
    values["latency_total_ms"] = round(latency_ms) + (row["latency_total_ms"] if row else 0)
    for column in NEWEST:
        values[column] = max(
            (v for v in (old.get(column), row and row[column]) if v), default=None
        )
    values["last_error"] = (row and row["last_error"]) or old.get("last_error")
    values["legacy_state"] = {k: old[k] for k in KEPT if k in old}
    values["legacy_imported_at"] = now
    if row is None:
        connection.execute(insert(table).values(instance_name=each.name, **values))
    else:
        connection.execute(update(table).where(here).values(**values))
    if "rate_limited_until" in old:
        _add_rest(connection, tables.rests, each.name, old["rate_limited_until"], now)
    return True


def _add_rest(
    connection: Connection, table: Table, name: str, until: float, now: float
) -> None:
    """Of the whole instance: the old program knew no deployments' rests."""
    here = (table.c.instance_name == name) & (table.c.deployment == "")
    present = connection.execute(select(func.count()).select_from(table).where(here)).scalar()
    if not present:
        connection.execute(
            insert(table).values(
                instance_name=name,
                deployment="",
                rate_limited_until=until,
                rest_reason=REST_REASON,
                rest_set_at=now,
            )
        )
