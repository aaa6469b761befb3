"""All config at once: rows in, one document out, and a plan's changes back into the rows."""

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.orm import Session

from proxy.core import config_history
from proxy.core.config_document import OF_KIND, Document, Place, made
from proxy.core.config_history import REMOVED
from proxy.core.config_plan import Change, other_upstreams
from proxy.store import revisions, states
from proxy.store.models import ClientKeyRow, InstanceRow, ModelPriceRow, QuotaGroupRow
from proxy.store.revisions import Author
from proxy.store.states import NAMES_AT_ONCE

# Their columns have the names of a document's fields; test_config.py sees to that.
ROWS: dict[str, type[Any]] = {
    "instance": InstanceRow,
    "quota_group": QuotaGroupRow,
    "client": ClientKeyRow,
    "price": ModelPriceRow,
}


def load(connection: Connection) -> Document:
    """The present config, secrets whole."""
    return made(
        (kind, dict(row))
        for kind, table in ROWS.items()
        for row in connection.execute(select(table.__table__)).mappings()
    )


def as_of(connection: Connection, number: int) -> Document:
    """The config as revision `number` left it. Secrets that were not kept are NotKept."""
    return config_history.before(load(connection), revisions.after(connection, number))


def apply(session: Session, changes: Sequence[Change], *, author: Author, action: str) -> int:
    """Carries out a plan that was made of what is there now: one revision, whose number it
    returns. A client that is added has no key."""
    number = revisions.record(
        session, author, action, [revisions.Change(c.kind, c.name, c.fields) for c in changes]
    )
    now = time.time()
    rows = _rows(session, changes)
    for change in changes:
        _carry_out(session, rows.get((change.kind, change.name)), change, number, now)
    session.flush()
    for name in other_upstreams(changes):
        states.clear_rests(session.connection(), name, now)
    return number


def _rows(session: Session, changes: Sequence[Change]) -> dict[Place, Any]:
    """Those that are there already."""
    found = {}
    for kind, table in ROWS.items():
        key = getattr(table, OF_KIND[kind].key)
        names = [change.name for change in changes if change.kind == kind]
        for first in range(0, len(names), NAMES_AT_ONCE):
            some = key.in_(names[first : first + NAMES_AT_ONCE])
            for row in session.scalars(select(table).where(some)):
                found[kind, getattr(row, key.key)] = row
    return found


def _carry_out(session: Session, row: Any, change: Change, number: int, now: float) -> None:
    if change.effect == REMOVED:
        session.delete(row)
        return
    if row is None:  # a quota group without limits has one, and is none in a document
        row = ROWS[change.kind]()
        if hasattr(row, "created_at"):
            row.created_at = now
        session.add(row)
    for field, (_, value) in change.fields.items():
        setattr(row, field, value)
    row.updated_at, row.revision = now, number
