"""Every change of config makes a revision, in the transaction of the change."""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, select
from sqlalchemy.orm import Session

from proxy.core.config_history import Record, shown_record
from proxy.core.masking import SECRET_FIELDS, masked
from proxy.errors import PreconditionFailed
from proxy.store.models import RevisionChangeRow, RevisionRow
from proxy.store.statements import Prepared

REASON_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Author:
    """Who changes something, why, and with which request."""

    name: str
    reason: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one thing: {field: [old, new]}, as they are. One that is added has only
    new values and None for the old; one that is removed the other way round."""

    kind: str
    name: str
    fields: Mapping[str, list[Any]]


def record(session: Session, author: Author, action: str, changes: Iterable[Change]) -> int:
    """Adds one revision and returns its number. Secrets are kept sealed."""
    row = RevisionRow(
        made_at=time.time(),
        author=author.name,
        action=action,
        reason=author.reason,
        request_id=author.request_id,
    )
    session.add(row)
    session.flush()
    for number, change in enumerate(changes):
        secrets = {f: pair for f, pair in change.fields.items() if f in SECRET_FIELDS}
        session.add(
            RevisionChangeRow(
                revision=row.id,
                number=number,
                kind=change.kind,
                name=change.name,
                changes={f: [masked(f, v) for v in pair] for f, pair in change.fields.items()},
                secrets=secrets or None,
            )
        )
    return row.id


def check_match(what: str, revision: int, if_match: int | None) -> None:
    """Before `what` is changed: it is at the revision that was asked for, if one was. Raises
    PreconditionFailed."""
    if if_match is not None and revision != if_match:
        raise PreconditionFailed(
            f"{what} is at revision {revision}, not {if_match}: somebody changed it. Read it"
            " again, then repeat the change.",
        )


@dataclass(frozen=True, slots=True)
class Revision:
    """One change of config, as it may be shown: secrets in `records` are masked."""

    number: int
    made_at: float
    author: str
    action: str
    reason: str | None
    request_id: str | None
    records: tuple[Record, ...]


def shown_revision(revision: Revision) -> dict[str, Any]:
    """As JSON."""
    return {
        "revision": revision.number,
        "made_at": revision.made_at,
        "author": revision.author,
        "action": revision.action,
        "reason": revision.reason,
        "request_id": revision.request_id,
        "changes": [shown_record(record) for record in revision.records],
    }


def page(
    connection: Connection,
    *,
    limit: int,
    offset: int = 0,
    author: str | None = None,
    kind: str | None = None,
    name: str | None = None,
) -> tuple[list[Revision], int]:
    """Those that match, the newest first, and how many there are in all. `kind` and `name` are
    of one thing that was changed."""
    matching = _matching(select(RevisionRow.id), author, kind, name)
    total = connection.scalar(select(func.count()).select_from(matching.subquery())) or 0
    newest_first = matching.order_by(RevisionRow.id.desc()).limit(limit).offset(offset)
    numbers = list(connection.scalars(newest_first))
    return _revisions(connection, RevisionRow.id.in_(numbers)), total


def one(connection: Connection, number: int) -> Revision | None:
    """None if there is no such revision."""
    found = _revisions(connection, RevisionRow.id == number)
    return found[0] if found else None


def after(connection: Connection, number: int) -> Iterator[Record]:
    """All that was changed since, secrets whole; the newest first."""
    rows = connection.execute(
        select(RevisionRow.action, RevisionChangeRow.__table__)
        .join(RevisionRow, RevisionRow.id == RevisionChangeRow.revision)
        .where(RevisionChangeRow.revision > number)
        .order_by(RevisionChangeRow.revision.desc(), RevisionChangeRow.number.desc())
    )
    for row in rows:
        yield Record(row.kind, row.name, row.changes, row.secrets, row.action)


def _matching(
    statement: Select[tuple[int]], author: str | None, kind: str | None, name: str | None
) -> Select[tuple[int]]:
    if author is not None:
        # Also without the user's name that stands behind it in brackets.
        someones = RevisionRow.author.startswith(f"{author} (", autoescape=True)
        statement = statement.where((RevisionRow.author == author) | someones)
    wanted = {RevisionChangeRow.kind: kind, RevisionChangeRow.name: name}
    conditions = [column == value for column, value in wanted.items() if value is not None]
    if not conditions:
        return statement
    of_it = select(RevisionChangeRow.revision).where(*conditions)
    return statement.where(RevisionRow.id.in_(of_it))


def _revisions(connection: Connection, which: ColumnElement[bool]) -> list[Revision]:
    """The newest first."""
    rows = connection.execute(
        select(RevisionRow.__table__).where(which).order_by(RevisionRow.id.desc())
    ).all()
    columns = RevisionChangeRow
    records: dict[int, list[Record]] = {row.id: [] for row in rows}
    actions = {row.id: row.action for row in rows}
    for change in connection.execute(
        select(columns.revision, columns.kind, columns.name, columns.changes)
        .where(columns.revision.in_(list(records)))
        .order_by(columns.revision, columns.number)
    ):
        record = Record(
            change.kind, change.name, change.changes, None, actions[change.revision]
        )
        records[change.revision].append(record)
    return [
        Revision(
            row.id,
            row.made_at,
            row.author,
            row.action,
            row.reason,
            row.request_id,
            tuple(records[row.id]),
        )
        for row in rows
    ]


_NEWEST = Prepared(select(func.max(RevisionRow.id)))


def newest(connection: Connection) -> int:
    """The number of the last revision; 0 before the first."""
    ((number,),) = _NEWEST.rows(connection)
    return number or 0
