"""Client keys. Only a keyed hash is kept: a key of 256 random bits needs no slow one, and who
steals the database alone cannot even check whether a key is in it."""

import hashlib
import hmac
import secrets
import time
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.orm import Session

from proxy.core.types import Client
from proxy.errors import Conflict, NotFound, Unavailable
from proxy.store import revisions
from proxy.store.models import ClientKeyRow, SecretRow
from proxy.store.revisions import Author
from proxy.store.sealed import Unreadable

KIND = "client"
PREFIX = "gw-"
PEPPER = "key_pepper"  # the row of `secret` with what hashes are keyed with


class KeysClosed(Unavailable):
    """The secret that keys are hashed with cannot be decrypted."""

    code = "keys_unreadable"

    def __init__(
        self,
        message: str = "Keys cannot be checked: the secret that they are hashed with cannot be"
        " decrypted. Put the right PROXY_SECRET_KEY, or its file, back.",
        **more: Any,
    ) -> None:
        super().__init__(message, **more)


def digest(key: str) -> str:
    """What of a key is hashed with the pepper; alone it was stored before there was one."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def key_hash(pepper: bytes, key: str) -> str:
    return peppered(pepper, digest(key))


def peppered(pepper: bytes, digest: str) -> str:
    return hmac.digest(pepper, digest.encode(), "sha256").hex()


def pepper(connection: Connection) -> bytes | None:
    """What hashes are keyed with; None if it cannot be decrypted, and no key can be checked."""
    statement = select(SecretRow.value).where(SecretRow.name == PEPPER)
    found = connection.execute(statement).scalar_one_or_none()
    if found is None or isinstance(found, Unreadable):
        return None
    return bytes.fromhex(found)


def load_all(connection: Connection) -> dict[str, Client]:
    """Clients by the hash of their key."""
    rows = connection.execute(select(ClientKeyRow.key_hash, ClientKeyRow.name))
    return {row.key_hash: Client(name=row.name) for row in rows}


def add(session: Session, name: str, *, author: Author) -> str:
    """Makes a key for a new client and returns it, this once. Raises Conflict, and KeysClosed
    while keys cannot be hashed."""
    if session.scalar(select(ClientKeyRow.id).where(ClientKeyRow.name == name)) is not None:
        raise Conflict(f"A client named {name!r} has a key already.", param="name")
    found = pepper(session.connection())
    if found is None:
        raise KeysClosed
    key = PREFIX + secrets.token_urlsafe(32)
    now = time.time()
    number = revisions.record(
        session, author, "key added", [revisions.Change(KIND, name, {"enabled": [None, True]})]
    )
    session.add(
        ClientKeyRow(
            name=name,
            key_hash=key_hash(found, key),
            key_hint=key[-4:],
            created_at=now,
            updated_at=now,
            revision=number,
        )
    )
    return key


def remove(session: Session, name: str, *, author: Author) -> None:
    """The client's key is worth nothing from now on. Raises NotFound."""
    row = session.scalar(select(ClientKeyRow).where(ClientKeyRow.name == name))
    if row is None:
        raise NotFound(f"There is no client named {name!r}.")
    lost = {"enabled": [row.enabled, None]}
    revisions.record(session, author, "key removed", [revisions.Change(KIND, name, lost)])
    session.delete(row)


def listed(connection: Connection) -> list[tuple[str, str, float]]:
    """(name, last characters of the key, moment it was made), by name."""
    rows = connection.execute(
        select(ClientKeyRow.name, ClientKeyRow.key_hint, ClientKeyRow.created_at).order_by(
            ClientKeyRow.name
        )
    )
    return [(row.name, row.key_hint, row.created_at) for row in rows]
