"""Clients and their keys. Of a key only a keyed hash is kept: one of 256 random bits needs no
slow one, and who steals the database alone cannot even check whether a key is in it."""

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, RowMapping, select
from sqlalchemy.orm import Session

from proxy.core.key_format import RANDOM_BYTES, key_of
from proxy.core.spelling import did_you_mean
from proxy.core.types import Client
from proxy.errors import Conflict, NotFound, Unavailable
from proxy.store import revisions
from proxy.store.models import ClientKeyRow, ClientStateRow, InstanceRow, SecretRow
from proxy.store.revisions import Author
from proxy.store.sealed import Unreadable
from proxy.store.statements import Prepared

KIND = "client"
PEPPER = "key_pepper"  # the row of `secret` with what hashes are keyed with

# What an operator sets of a client: columns and fields have the same names.
FIELDS = tuple(name for name in Client._fields if name != "number")
_LISTS = ("allowed_models", "allowed_instances", "allowed_networks")
# Who comes with a key that was followed by another is told so, for a while: of a client's those
# that ended last.
REMEMBERED_SECONDS = 90 * 86_400.0
MOST_REMEMBERED = 5
_DEFAULTS = Client(name="")
# As most have it, in a column of JSON, which is text to SQLite's driver.
EMPTY = "[]"
# There may be thousands, and each change of config reads all: without what SQLAlchemy does for
# each row and column it takes half the time. The type's fields come in its order.
_COLUMNS = {"number": "id"}
_ALL = Prepared(
    select(
        ClientKeyRow.key_hash,
        ClientKeyRow.former_keys,
        *(getattr(ClientKeyRow, _COLUMNS.get(name, name)) for name in Client._fields),
    )
)


# Where they are in the type.
_ENABLED = Client._fields.index("enabled")
_LISTS_AT = slice(Client._fields.index(_LISTS[0]), Client._fields.index(_LISTS[-1]) + 1)
_NO_LISTS = [EMPTY] * len(_LISTS)
_NOTHING: tuple[tuple[str, ...], ...] = ((),) * len(_LISTS)


class KeysClosed(Unavailable):
    """The secret that keys are hashed with cannot be decrypted."""

    code = "keys_unreadable"
    is_worth_retrying = False

    def __init__(
        self,
        message: str = "Keys cannot be checked: the secret that they are hashed with cannot be"
        " decrypted. Put the right PROXY_SECRET_KEY, or its file, back; if it is lost for good,"
        " `flask secrets reset` goes on without it.",
        **more: Any,
    ) -> None:
        super().__init__(message, **more)


@dataclass(frozen=True, slots=True)
class FormerKey:
    """One that was followed by another: its last characters, and when its grace ends."""

    key_hint: str
    valid_until: float


@dataclass(frozen=True, slots=True)
class StoredClient:
    """A client and what the tables know about it. `revision` is its version for If-Match;
    without a key `key_hint` is None."""

    client: Client
    key_hint: str | None
    former_keys: tuple[FormerKey, ...]
    created_at: float
    updated_at: float
    revision: int
    last_used_at: float | None = None


def digest(key: str) -> str:
    """What of a key is hashed with the pepper; alone it was stored before there was one."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def key_hash(pepper: bytes, key: str) -> str:
    return peppered(pepper, digest(key))


def peppered(pepper: bytes, digest: str) -> str:
    """HMAC-SHA256 (RFC 2104), of a state that has taken the pepper: `hmac.digest` would begin
    anew, and give up the interpreter's lock each time, for which every call would queue."""
    mac = _keyed(pepper).copy()
    mac.update(digest.encode())
    return mac.hexdigest()


@lru_cache(maxsize=4)  # there is one; a second while it changes
def _keyed(pepper: bytes) -> hmac.HMAC:
    return hmac.new(pepper, digestmod="sha256")


def pepper(connection: Connection) -> bytes | None:
    """What hashes are keyed with; None if it cannot be decrypted, and no key can be checked."""
    statement = select(SecretRow.value).where(SecretRow.name == PEPPER)
    found = connection.execute(statement).scalar_one_or_none()
    if found is None or isinstance(found, Unreadable):
        return None
    return bytes.fromhex(found)


def load_all(connection: Connection) -> dict[str, tuple[Client, float | None]]:
    """Clients by the hash of their key, and of former ones with the end of their grace."""
    found: dict[str, tuple[Client, float | None]] = {}
    for hashed, former, *values in _ALL.rows(connection):
        client = _client_of(values)
        if former != EMPTY:
            for key in _decoded(former):
                found[key["key_hash"]] = client, key["valid_until"]
        if hashed is not None:
            found[hashed] = client, None
    return found


def _client_of(values: list[Any]) -> Client:
    """Of a row, in the order of the type's fields. Mostly a list holds nothing: to find that
    out first takes half of asking for it."""
    values[_ENABLED] = bool(values[_ENABLED])
    lists = values[_LISTS_AT]
    values[_LISTS_AT] = _NOTHING if lists == _NO_LISTS else map(_names, lists)
    values[-1] = _DEFAULTS.labels if values[-1] == "{}" else _decoded(values[-1])
    return Client._make(values)


def is_any(connection: Connection) -> bool:
    """Some client is there, whatever its key opens."""
    return connection.execute(select(ClientKeyRow.id).limit(1)).first() is not None


def listed(connection: Connection) -> list[StoredClient]:
    """All, by name."""
    return _read(connection)


def stored(connection: Connection, name: str) -> StoredClient:
    """Raises NotFound."""
    found = _read(connection, name)
    if not found:
        raise _unknown(name)
    return found[0]


def add(
    session: Session, name: str, values: Mapping[str, Any] | None = None, *, author: Author
) -> str:
    """Makes a key for a new client and returns it, this once. `values`: checked fields.

    Raises Conflict, also for an instance that is not there, and KeysClosed while keys cannot be
    hashed.
    """
    if session.scalar(select(ClientKeyRow.id).where(ClientKeyRow.name == name)) is not None:
        raise Conflict(
            f"A client named {name!r} has a key already; change it, or give it another with"
            " rotate.",
            param="name",
            code="name_exists",
        )
    columns = _columns(_DEFAULTS) | dict(values or {}) | {"name": name}
    _check_instances(session, columns["allowed_instances"])
    key, hashed = _new_key(session)
    made = {f: [None, v] for f, v in columns.items()} | {"key_hint": [None, key[-4:]]}
    number = revisions.record(
        session, author, "key added", [revisions.Change(KIND, name, made)]
    )
    now = time.time()
    session.add(
        ClientKeyRow(
            **columns,
            key_hash=hashed,
            key_hint=key[-4:],
            former_keys=[],
            created_at=now,
            updated_at=now,
            revision=number,
        )
    )
    session.flush()
    return key


def change(
    session: Session,
    name: str,
    values: Mapping[str, Any],
    *,
    author: Author,
    if_match: int | None = None,
) -> None:
    """Merges `values`, checked fields of a client, into the row.

    Raises NotFound, Conflict for an instance that is not there, and PreconditionFailed if
    `if_match` is not the row's revision. What is equal already makes no revision.
    """
    row = _row(session, name, if_match)
    changed = {k: v for k, v in values.items() if getattr(row, k) != v}
    if not changed:
        return
    added = set(changed.get("allowed_instances", ())) - set(row.allowed_instances)
    _check_instances(session, added)
    both = {k: [getattr(row, k), v] for k, v in changed.items()}
    now = time.time()
    for key, value in changed.items():
        setattr(row, key, value)
    row.former_keys = _remembered(row.former_keys, now)
    row.updated_at = now
    row.revision = revisions.record(
        session, author, "key changed", [revisions.Change(KIND, name, both)]
    )
    session.flush()


def rotate(
    session: Session,
    name: str,
    *,
    grace_seconds: float,
    author: Author,
    if_match: int | None = None,
) -> str:
    """Makes another key for the client and returns it, this once. The present one, and those
    before it whose grace is not over, stay valid for as long as they were told; without grace
    all of them end now.

    Raises as `change` does, and KeysClosed.
    """
    row = _row(session, name, if_match)
    key, hashed = _new_key(session)
    hints = {"key_hint": [row.key_hint, key[-4:]]}
    now = time.time()
    former = list(row.former_keys)
    if row.key_hash is not None:
        before = {"key_hash": row.key_hash, "key_hint": row.key_hint}
        former.append(before | {"valid_until": now + grace_seconds})
    if grace_seconds <= 0:
        # Who gives no grace fears that a key got about, and it may be any of them.
        former = [k | {"valid_until": min(k["valid_until"], now)} for k in former]
    row.key_hash, row.key_hint, row.former_keys = hashed, key[-4:], _remembered(former, now)
    row.updated_at = now
    row.revision = revisions.record(
        session, author, "key rotated", [revisions.Change(KIND, name, hints)]
    )
    session.flush()
    return key


def remove(session: Session, name: str, *, author: Author, if_match: int | None = None) -> None:
    """The client's keys are worth nothing from now on. Raises NotFound, PreconditionFailed."""
    row = _row(session, name, if_match)
    lost = {f: [getattr(row, f), None] for f in (*FIELDS, "key_hint")}
    revisions.record(session, author, "key removed", [revisions.Change(KIND, name, lost)])
    session.delete(row)
    session.flush()


def _new_key(session: Session) -> tuple[str, str]:
    """A key and its hash."""
    found = pepper(session.connection())
    if found is None:
        raise KeysClosed
    key = key_of(secrets.token_bytes(RANDOM_BYTES))
    return key, key_hash(found, key)


def _remembered(former: Iterable[dict[str, Any]], now: float) -> list[dict[str, Any]]:
    """Those in their grace, and the last of those whose grace is over."""
    kept = [k for k in former if k["valid_until"] > now - REMEMBERED_SECONDS]
    over = sorted((k for k in kept if k["valid_until"] <= now), key=itemgetter("valid_until"))
    return [*over[-MOST_REMEMBERED:], *_in_grace(kept, now)]


def _in_grace(former: Iterable[dict[str, Any]], now: float) -> list[dict[str, Any]]:
    return [key for key in former if key["valid_until"] > now]


def _check_instances(session: Session, names: Collection[str]) -> None:
    """A misspelt one would shut its client out, or give it less than was meant."""
    if not names:
        return
    known = set(session.scalars(select(InstanceRow.name).where(InstanceRow.name.in_(names))))
    for name in names:
        if name not in known:
            raise Conflict(
                f"allowed_instances: there is no instance named {name!r}."
                f"{did_you_mean(name, session.scalars(select(InstanceRow.name)))} Add it first,"
                " or leave it out.",
                param="allowed_instances",
                code="instance_not_found",
            )


def _row(session: Session, name: str, if_match: int | None) -> ClientKeyRow:
    row = session.scalar(select(ClientKeyRow).where(ClientKeyRow.name == name))
    if row is None:
        raise _unknown(name)
    revisions.check_match(f"Client {name!r}", row.revision, if_match)
    return row


def _unknown(name: str) -> NotFound:
    return NotFound(f"There is no client named {name!r}.", code="client_not_found")


def _read(connection: Connection, name: str | None = None) -> list[StoredClient]:
    state = ClientStateRow.__table__
    statement = (
        select(ClientKeyRow.__table__, state.c.last_used_at)
        .outerjoin(state, state.c.client_name == ClientKeyRow.name)
        .order_by(ClientKeyRow.name)
    )
    if name is not None:
        statement = statement.where(ClientKeyRow.name == name)
    return [_stored(row) for row in connection.execute(statement).mappings()]


def _stored(row: RowMapping) -> StoredClient:
    used = row["last_used_at"]
    former = _in_grace(row["former_keys"], time.time())
    return StoredClient(
        client=_client(row["id"], {name: row[name] for name in FIELDS}),
        key_hint=row["key_hint"],
        former_keys=tuple(FormerKey(k["key_hint"], k["valid_until"]) for k in former),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        revision=row["revision"],
        # One that was removed may have had this name.
        last_used_at=used if used is not None and used >= row["created_at"] else None,
    )


def _client(number: int, values: dict[str, Any]) -> Client:
    """Columns and fields have the same names; test_keys.py sees to that."""
    for name in _LISTS:
        values[name] = tuple(values[name])
    values["enabled"] = bool(values["enabled"])
    return Client(**values, number=number)


def _decoded(value: Any) -> Any:
    """A column of JSON, which is text to SQLite's driver."""
    return json.loads(value) if isinstance(value, str) else value


def _names(value: Any) -> tuple[str, ...]:
    return tuple(_decoded(value))


def _columns(client: Client) -> dict[str, Any]:
    values = {name: getattr(client, name) for name in FIELDS}
    return (
        values | {name: list(values[name]) for name in _LISTS} | {"labels": dict(client.labels)}
    )
