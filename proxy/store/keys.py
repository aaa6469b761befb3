"""Client keys. Only a hash is kept: a key of 256 random bits needs no slow one."""

import hashlib
import secrets
import time

from sqlalchemy import Connection, select
from sqlalchemy.orm import Session

from proxy.core.types import Client
from proxy.errors import Conflict, NotFound
from proxy.store import revisions
from proxy.store.models import ClientKeyRow

PREFIX = "gw-"


def key_hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def load_all(connection: Connection) -> dict[str, Client]:
    """Clients by the hash of their key."""
    rows = connection.execute(select(ClientKeyRow.key_hash, ClientKeyRow.name))
    return {row.key_hash: Client(name=row.name) for row in rows}


def add(session: Session, name: str, *, author: str) -> str:
    """Makes a key for a new client and returns it, this once. Raises Conflict."""
    if session.scalar(select(ClientKeyRow.id).where(ClientKeyRow.name == name)) is not None:
        raise Conflict(f"A client named {name!r} has a key already.", param="name")
    key = PREFIX + secrets.token_urlsafe(32)
    session.add(
        ClientKeyRow(
            name=name, key_hash=key_hash(key), key_hint=key[-4:], created_at=time.time()
        )
    )
    revisions.record(session, author=author, action="key added", subject=name, changes={})
    return key


def remove(session: Session, name: str, *, author: str) -> None:
    """The client's key is worth nothing from now on. Raises NotFound."""
    row = session.scalar(select(ClientKeyRow).where(ClientKeyRow.name == name))
    if row is None:
        raise NotFound(f"There is no client named {name!r}.")
    session.delete(row)
    revisions.record(session, author=author, action="key removed", subject=name, changes={})


def listed(connection: Connection) -> list[tuple[str, str, float]]:
    """(name, last characters of the key, moment it was made), by name."""
    rows = connection.execute(
        select(ClientKeyRow.name, ClientKeyRow.key_hint, ClientKeyRow.created_at).order_by(
            ClientKeyRow.name
        )
    )
    return [(row.name, row.key_hint, row.created_at) for row in rows]
