"""Configs of instances: rows in, frozen values out; each change is a revision."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Connection, RowMapping, select
from sqlalchemy.orm import Session

from proxy.core.types import UPSTREAM_FIELDS, InstanceConfig
from proxy.errors import Conflict, NotFound
from proxy.store import revisions, states
from proxy.store.models import InstanceRow
from proxy.store.revisions import Author

KIND = "instance"
CONFIG_FIELDS = tuple(f.name for f in fields(InstanceConfig))
_COLUMNS = (*CONFIG_FIELDS, "revision", "created_at", "updated_at")
_ALL = select(*(InstanceRow.__table__.c[c] for c in _COLUMNS)).order_by(InstanceRow.name)


@dataclass(frozen=True, slots=True)
class Change:
    """What `change` did. `is_another_upstream`: rests of the old one are void."""

    stored: "StoredInstance"
    is_another_upstream: bool


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """A config as it was written, with references and what cannot be decrypted in it, and what
    the table knows about it. `revision` is its version for If-Match."""

    config: InstanceConfig
    revision: int
    created_at: float
    updated_at: float


def load_all(connection: Connection) -> list[StoredInstance]:
    """All instances, by name."""
    # Not `legacy_extra`: nobody asks for it, and to decrypt it takes longer than all else.
    rows = connection.execute(_ALL)
    return [_stored(row) for row in rows.mappings()]


def is_any(connection: Connection) -> bool:
    """Without a look at all of them: there may be thousands, whose secrets are encrypted."""
    return connection.execute(select(InstanceRow.name).limit(1)).first() is not None


def add(session: Session, configs: Iterable[InstanceConfig], *, author: Author) -> int:
    """Adds all or, raising Conflict for the first name that exists, none. One revision, whose
    number it returns."""
    rows: dict[str, dict[str, Any]] = {}
    for config in configs:
        if config.name in rows:
            raise Conflict(
                f"The list names {config.name!r} twice; none of it was added.",
                param="name",
                code="name_exists",
            )
        if session.get(InstanceRow, config.name) is not None:
            raise Conflict(
                f"An instance named {config.name!r} exists; change it with PUT, or remove it.",
                param="name",
                code="name_exists",
            )
        rows[config.name] = _columns(config)
    changes = [
        revisions.Change(KIND, name, {k: [None, v] for k, v in row.items()})
        for name, row in rows.items()
    ]
    number = revisions.record(session, author, "instance added", changes)
    now = time.time()
    for name, row in rows.items():
        session.add(InstanceRow(**row, created_at=now, updated_at=now, revision=number))
        session.flush()
        # One that was removed may have had this name; what it earned is void.
        states.clear_rests(session.connection(), name, now)
    return number


def change(
    session: Session,
    name: str,
    values: Mapping[str, Any],
    *,
    author: Author,
    if_match: int | None = None,
) -> Change:
    """Merges `values`, checked fields of a config, into the row.

    Raises NotFound, and PreconditionFailed if `if_match` is not the row's revision.
    What is equal already makes no revision.
    """
    row = _row(session, name, if_match)
    changed = {k: v for k, v in values.items() if getattr(row, k) != v}
    if changed:
        both = {k: [getattr(row, k), v] for k, v in changed.items()}
        row.revision = revisions.record(
            session, author, "instance changed", [revisions.Change(KIND, name, both)]
        )
        row.updated_at = time.time()
        for key, value in changed.items():
            setattr(row, key, value)
        session.flush()
    is_another = not changed.keys().isdisjoint(UPSTREAM_FIELDS)
    if is_another:
        states.clear_rests(session.connection(), name, row.updated_at)
    columns = {c: getattr(row, c) for c in _COLUMNS}
    return Change(_stored(columns), is_another)


def remove(session: Session, name: str, *, author: Author, if_match: int | None = None) -> None:
    """Removes the config; state and usage stay. Raises as `change` does."""
    row = _row(session, name, if_match)
    lost = {k: [getattr(row, k), None] for k in CONFIG_FIELDS}
    revisions.record(session, author, "instance removed", [revisions.Change(KIND, name, lost)])
    session.delete(row)
    session.flush()


def _row(session: Session, name: str, if_match: int | None) -> InstanceRow:
    row = session.get(InstanceRow, name)
    if row is None:
        raise NotFound(f"There is no instance named {name!r}.", code="instance_not_found")
    revisions.check_match(f"Instance {name!r}", row.revision, if_match)
    return row


def _columns(config: InstanceConfig) -> dict[str, Any]:
    values = {name: getattr(config, name) for name in CONFIG_FIELDS}
    values["supported_models"] = list(config.supported_models)
    values["model_deployments"] = dict(config.model_deployments)
    values["model_limits"] = {m: dict(limits) for m, limits in config.model_limits.items()}
    return values


def _stored(columns: RowMapping | dict[str, Any]) -> StoredInstance:
    """Columns and fields have the same names; test_instances.py sees to that."""
    values = {name: columns[name] for name in CONFIG_FIELDS}
    values["supported_models"] = tuple(values["supported_models"])
    return StoredInstance(
        InstanceConfig(**values),
        revision=columns["revision"],
        created_at=columns["created_at"],
        updated_at=columns["updated_at"],
    )
