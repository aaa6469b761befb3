"""Every change of config makes a revision, in the transaction of the change."""

import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, func, select
from sqlalchemy.orm import Session

from proxy.store.db import Prepared
from proxy.store.models import RevisionRow


def record(
    session: Session, *, author: str, action: str, subject: str, changes: Mapping[str, Any]
) -> int:
    """Adds one and returns its number. `changes` must not hold a secret."""
    row = RevisionRow(
        made_at=time.time(),
        author=author,
        action=action,
        subject=subject,
        changes=dict(changes),
    )
    session.add(row)
    session.flush()
    return row.id


_NEWEST = Prepared(select(func.max(RevisionRow.id)))


def newest(connection: Connection) -> int:
    """The number of the last revision; 0 before the first."""
    ((number,),) = _NEWEST.rows(connection)
    return number or 0
