"""Every change of config makes a revision, in the transaction of the change."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select
from sqlalchemy.orm import Session

from proxy.core.masking import SECRET_FIELDS, masked
from proxy.store.db import Prepared
from proxy.store.models import RevisionChangeRow, RevisionRow

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


_NEWEST = Prepared(select(func.max(RevisionRow.id)))


def newest(connection: Connection) -> int:
    """The number of the last revision; 0 before the first."""
    ((number,),) = _NEWEST.rows(connection)
    return number or 0
