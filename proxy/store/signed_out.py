"""Sessions of the console that somebody ended before their time. A cookie that was copied is
worth nothing then, in any worker and after a restart."""

import hashlib

from sqlalchemy import Connection, delete, select
from sqlalchemy.orm import Session

from proxy.store.models import SecretRow
from proxy.store.sealed import Unreadable

# Rows of `secret` begin so, and have the moment until which their cookie would hold.
PREFIX = "session:"
HASH_CHARACTERS = 32


def add(session: Session, token: str, ends_at: float, now: float) -> None:
    """And forgets those that would be over by now."""
    rows = select(SecretRow.name, SecretRow.value).where(SecretRow.name.startswith(PREFIX))
    over = [name for name, until in session.execute(rows) if _is_over(until, now)]
    if over:
        session.execute(delete(SecretRow).where(SecretRow.name.in_(over)))
    session.merge(SecretRow(name=_name(token), value=str(ends_at)))


def has(connection: Connection, token: str) -> bool:
    statement = select(SecretRow.name).where(SecretRow.name == _name(token))
    return connection.execute(statement).first() is not None


def _name(token: str) -> str:
    return PREFIX + hashlib.sha256(token.encode()).hexdigest()[:HASH_CHARACTERS]


def _is_over(until: str, now: float) -> bool:
    """One that cannot be decrypted is left for the key that can."""
    return not isinstance(until, Unreadable) and float(until) < now
