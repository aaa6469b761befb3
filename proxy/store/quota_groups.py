"""Limits of quota groups: rows in, frozen values out; each change is a revision."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.orm import Session

from proxy.core.types import QuotaGroup
from proxy.errors import Conflict, NotFound, PreconditionFailed
from proxy.store import revisions
from proxy.store.models import InstanceRow, QuotaGroupRow
from proxy.store.revisions import Author

KIND = "quota_group"
FIELDS = tuple(f.name for f in fields(QuotaGroup))
NO_LIMITS: dict[str, Any] = {"max_tpm": 0, "max_rpm": 0, "model_limits": {}}


@dataclass(frozen=True, slots=True)
class StoredGroup:
    """Limits and what the table knows about them. `revision` is their version for If-Match."""

    group: QuotaGroup
    revision: int
    created_at: float
    updated_at: float


def load_all(connection: Connection) -> list[StoredGroup]:
    """All that have limits, by name."""
    rows = connection.execute(select(QuotaGroupRow.__table__).order_by(QuotaGroupRow.name))
    return [
        StoredGroup(
            QuotaGroup(**{f: row[f] for f in FIELDS}),
            row["revision"],
            row["created_at"],
            row["updated_at"],
        )
        for row in rows.mappings()
    ]


def put(
    session: Session,
    name: str,
    values: Mapping[str, Any],
    *,
    author: Author,
    if_match: int | None = None,
) -> None:
    """Sets limits of the group; what is not in `values` stays, or is the default.

    Raises Conflict if no instance is in a group of this name: it would bound nobody.
    Raises PreconditionFailed if `if_match` is not the row's revision. What is equal already
    makes no revision.
    """
    if session.scalar(select(InstanceRow.name).where(InstanceRow.quota_group == name)) is None:
        raise Conflict(
            f"quota_group: no instance is in a group named {name!r}. Give instances this"
            " quota_group first.",
            param="quota_group",
            code="quota_group_unknown",
        )
    row = _row(session, name, if_match)
    before = {f: getattr(row, f) for f in FIELDS} if row else NO_LIMITS | {"name": name}
    after = before | dict(values)
    if row is None:
        changes = {f: [None, after[f]] for f in FIELDS}
    else:
        changes = {f: [before[f], after[f]] for f in FIELDS if before[f] != after[f]}
        if not changes:
            return
    number = revisions.record(
        session, author, "quota group changed", [revisions.Change(KIND, name, changes)]
    )
    now = time.time()
    if row is None:
        row = QuotaGroupRow(name=name, created_at=now)
        session.add(row)
    for field in FIELDS:
        setattr(row, field, after[field])
    row.updated_at, row.revision = now, number
    session.flush()


def remove(session: Session, name: str, *, author: Author, if_match: int | None = None) -> None:
    """The group has no limits of its own any more. Raises NotFound, PreconditionFailed."""
    row = _row(session, name, if_match)
    if row is None:
        raise NotFound(f"No quota group named {name!r} has limits.", code="quota_group_unknown")
    lost = {f: [getattr(row, f), None] for f in FIELDS}
    revisions.record(
        session, author, "quota group removed", [revisions.Change(KIND, name, lost)]
    )
    session.delete(row)
    session.flush()


def _row(session: Session, name: str, if_match: int | None) -> QuotaGroupRow | None:
    row = session.get(QuotaGroupRow, name)
    if row is not None and if_match is not None and row.revision != if_match:
        raise PreconditionFailed(
            f"Quota group {name!r} is at revision {row.revision}, not {if_match}: somebody"
            " changed it. Read it again, then repeat the change.",
        )
    return row
