"""Writes a plan into the tables: one transaction, nothing that is there is overwritten."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Connection,
    MetaData,
    Select,
    Table,
    bindparam,
    delete,
    insert,
    inspect,
    select,
    update,
)

from migrations.legacy.convert import OLD_TOTALS, latency_total_ms
from migrations.legacy.plan import Imported, Plan
from migrations.legacy.records import CONFIG_KEYS
from migrations.legacy.report import counts
from migrations.legacy.showing import json_of
from migrations.legacy.tables import reflected
from proxy.core.masking import SECRET_FIELDS, masked
from proxy.store import instances, states
from proxy.store.sealed import Unreadable

AUTHOR = "migration"
ACTION = "instance imported"
REST_REASON = "throttled"
WHOLE_INSTANCE = ""  # the old program knew no deployments' rests

# State as old files call it: what is added to the column of that name.
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
# Kept as they were for the way back: what ours does not count, and what it derives.
KEPT = (*OLD_TOTALS, "avg_latency_ms", "successful_requests")

# Of a state that was added before, what a row has, or had when it was added.
COMPARED = frozenset((*ADDED, *KEPT, "last_used", "last_error", "last_error_time"))

Row = dict[str, Any]


@dataclass(slots=True)
class Result:
    """`kept`: exists already, with the fields in which the file differs. `removed`: was
    imported before, and an operator removed it since. `states_kept`: their totals were added
    before, or a downgrade wrote them into the old program's files; with what of the file's the
    database has nothing of, as where the files were imported one by one."""

    imported: list[str] = field(default_factory=list)
    kept: dict[str, list[str]] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    states_kept: dict[str, list[str]] = field(default_factory=dict)


def apply(
    connection: Connection, plan: Plan, *, source: Path, backup: Path, now: float | None = None
) -> Result:
    """Running it twice changes nothing: a config that exists is kept as it is, one that was
    removed after an import stays so, and state is added once.

    The tables are read from the database and not from the models: this runs in a migration,
    and later models know columns that are not there yet. It takes a few statements, however
    many instances there are.
    """
    tables = _Tables(connection)
    moment = time.time() if now is None else now
    result = Result()
    new = _new_configs(connection, tables, plan, result)
    if new:
        _add_configs(connection, tables, new, moment)
    result.imported = [each.name for each in new]
    _add_states(connection, tables, plan, result, moment)
    written = {"configs": len(result.imported), "states": len(result.states)}
    connection.execute(
        insert(tables.imports).values(
            imported_at=moment,
            source=str(source.absolute()),
            backup_folder=str(backup),
            counts={**counts(plan), "written": written},
        )
    )
    return result


def preview(connection: Connection, plan: Plan) -> Result | None:
    """What `apply` would do in this database; None where our tables are not made yet. Reads
    only."""
    if not inspect(connection).has_table("legacy_import"):
        return None
    tables = _Tables(connection)
    result = Result()
    new, _ = _decided(connection, tables, plan, result)
    result.imported = [each.name for each in new]
    _added_states(connection, tables, plan, result)
    return result


class _Tables:
    def __init__(self, connection: Connection) -> None:
        metadata = MetaData()

        def table(name: str) -> Table:
            return reflected(connection, name, metadata)

        self.config = table("instance_config")
        self.state = table("instance_state")
        self.rests = table("deployment_state")
        self.revisions = table("config_revision")
        self.changes = table("config_change")
        self.imports = table("legacy_import")


def _new_configs(
    connection: Connection, tables: _Tables, plan: Plan, result: Result
) -> list[Imported]:
    """Those to add; `result` gets the others. Of these only unknown keys are new to us."""
    new, extras = _decided(connection, tables, plan, result)
    if extras:
        column = tables.config.c.legacy_extra
        values = {"legacy_extra": bindparam("extra", type_=column.type)}
        here = tables.config.c.name == bindparam("of")
        connection.execute(update(tables.config).where(here).values(values), extras)
    return new


def _decided(
    connection: Connection, tables: _Tables, plan: Plan, result: Result
) -> tuple[list[Imported], list[Row]]:
    """Configs to add, and unknown keys for rows that exist; `result` gets what is neither."""
    present = {r["name"]: r for r in connection.execute(select(tables.config)).mappings()}
    known = set(connection.scalars(_imported_before(tables)))
    new, extras = [], []
    for each in plan.instances:
        row = present.get(each.name)
        if each.config is None:
            continue
        if row is not None:
            result.kept[each.name] = [k for k, v in each.config.items() if row[k] != v]
            if isinstance(row["legacy_extra"], Unreadable):
                continue  # it may be decrypted again, and is not to be written over
            kept = row["legacy_extra"] or {}
            if each.extra and not kept.keys() - CONFIG_KEYS:
                extras.append({"of": each.name, "extra": {**kept, **json_of(each.extra)}})
        elif each.name in known:
            result.removed.append(each.name)
        else:
            new.append(each)
    return new, extras


def _imported_before(tables: _Tables) -> Select[Any]:
    """Names of instances that an import ever brought."""
    revisions, changes = tables.revisions.c, tables.changes.c
    return (
        select(changes.name)
        .join(tables.revisions, revisions.id == changes.revision)
        .where(revisions.action == ACTION)
    )


def _add_configs(
    connection: Connection, tables: _Tables, new: Sequence[Imported], now: float
) -> None:
    columns = tables.config.c
    rows = [{k: v for k, v in (e.config or {}).items() if k in columns} for e in new]
    revision = {"made_at": now, "author": AUTHOR, "action": ACTION}
    statement = insert(tables.revisions).values(revision).returning(tables.revisions.c.id)
    number = connection.execute(statement).scalar_one()
    changes = [
        {
            "revision": number,
            "number": position,
            "kind": instances.KIND,
            "name": row["name"],
            "changes": {k: [None, masked(k, v)] for k, v in row.items()},
            "secrets": {k: [None, v] for k, v in row.items() if k in SECRET_FIELDS},
        }
        for position, row in enumerate(rows)
    ]
    connection.execute(insert(tables.changes), changes)
    for row, each in zip(rows, new, strict=True):
        # A blank has the name of a field of config, and an unknown key has not.
        row["legacy_extra"] = json_of(each.extra | each.blank) or None
        row |= {"created_at": now, "updated_at": now, "revision": number}
    connection.execute(insert(tables.config), rows)
    # One that was removed may have had this name; what it earned is void.
    here = tables.rests.c.instance_name == bindparam("of")
    connection.execute(delete(tables.rests).where(here), [{"of": e.name} for e in new])


def _add_states(
    connection: Connection, tables: _Tables, plan: Plan, result: Result, now: float
) -> None:
    """Adds each old state that was not added before."""
    added, present = _added_states(connection, tables, plan, result)
    if not added:
        return
    # By which workers that run already see that there is something new.
    written = {"legacy_imported_at": now, "write_number": states.next_number(connection)}
    new = [
        {"instance_name": e.name, **written, **_values(e, {})}
        for e in added
        if e.name not in present
    ]
    more = [
        {"of": e.name, **{f"old_{k}": v for k, v in _values(e, present[e.name]).items()}}
        for e in added
        if e.name in present
    ]
    if new:
        connection.execute(insert(tables.state), new)
    if more:
        _add_to_states(connection, tables.state, more, written)
    _add_rests(connection, tables.rests, added, now)


def _added_states(
    connection: Connection, tables: _Tables, plan: Plan, result: Result
) -> tuple[list[Imported], dict[str, Mapping[Any, Any]]]:
    """Those whose old state is to be added, which `result` gets with the others; and the rows
    that are there, by name."""
    rows = connection.execute(select(tables.state)).mappings()
    present: dict[str, Mapping[Any, Any]] = {row["instance_name"]: row for row in rows}
    done = {name for name, row in present.items() if row["legacy_imported_at"] is not None}
    some = [each for each in plan.instances if _has_state(each)]
    added = [each for each in some if each.name not in done]
    result.states = [each.name for each in added]
    result.states_kept = {
        each.name: _only_in_file(each, present[each.name]) for each in some if each.name in done
    }
    return added, present


def _only_in_file(each: Imported, present: Mapping[Any, Any]) -> list[str]:
    """Totals and moments of which the row has none."""
    kept = present["legacy_state"] or {}
    known = {*kept, *(name for name, value in present.items() if value)}
    return sorted(k for k, v in each.state.items() if v and k in COMPARED and k not in known)


def _has_state(each: Imported) -> bool:
    """Without a config, an entry that says nothing is one all the same: it goes back, too."""
    return bool(each.state or each.state_extra or each.state_blank) or each.config is None


def _values(each: Imported, present: Mapping[Any, Any]) -> Row:
    """Columns: counts as they are to be added, the rest as it is to be."""
    old = each.state
    used = [m for m in (old.get("last_used"), present.get("last_used")) if m]
    errors: list[Mapping[Any, Any]] = [
        e for e in (old, present) if e.get("last_error") or e.get("last_error_time")
    ]
    latest = max(errors, key=lambda e: e.get("last_error_time") or 0.0, default=old)
    kept: Row = {k: old[k] for k in KEPT if k in old}
    if each.state_extra:
        kept["extra"] = json_of(each.state_extra)
    if each.state_blank:
        kept["blank"] = each.state_blank
    return {
        **{column: old.get(column, 0) for column in ADDED},
        "latency_total_ms": latency_total_ms(old),
        "last_used": max(used, default=None),
        "last_error": latest.get("last_error"),
        "last_error_time": latest.get("last_error_time"),
        "legacy_state": kept,
    }


def _add_to_states(
    connection: Connection, table: Table, rows: Sequence[Row], written: Row
) -> None:
    """`rows` hold what the file says as `old_<column>`, and the instance's name as `of`."""
    given: dict[str, Any] = {
        column.name: bindparam(f"old_{column.name}", type_=column.type)
        for column in table.columns
        if f"old_{column.name}" in rows[0]
    }
    for name in (*ADDED, "latency_total_ms"):
        # By the database: workers may have added since the rows were read.
        given[name] = table.c[name] + given[name]
    here = table.c.instance_name == bindparam("of")
    statement = update(table).where(here).values(**written, **given)
    connection.execute(statement, rows)


def _add_rests(
    connection: Connection, table: Table, added: Sequence[Imported], now: float
) -> None:
    """Where there is a rest already, the longer one counts."""
    of_whole = table.c.deployment == WHOLE_INSTANCE
    rows = connection.execute(select(table).where(of_whole)).mappings()
    present = {row["instance_name"]: row["rate_limited_until"] for row in rows}
    longer = {
        each.name: until
        for each in added
        if (until := each.state.get("rate_limited_until", 0.0)) > present.get(each.name, 0.0)
    }
    shorter = [{"of": name} for name in longer if name in present]
    if shorter:
        here = of_whole & (table.c.instance_name == bindparam("of"))
        connection.execute(delete(table).where(here), shorter)
    rest = {"deployment": WHOLE_INSTANCE, "rest_reason": REST_REASON, "rest_set_at": now}
    new = [{"instance_name": n, "rate_limited_until": u, **rest} for n, u in longer.items()]
    if new:
        connection.execute(insert(table), new)
