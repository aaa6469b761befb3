"""All that is encrypted in the database: looked at, and encrypted anew."""

import json
import secrets as random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from sqlalchemy import Connection, String, Table, column, delete, select, table, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.expression import TableClause, bindparam

from proxy.core.masking import SECRET_FIELDS
from proxy.store import keys
from proxy.store.admin_keys import KIND as ADMIN_KIND
from proxy.store.models import AdminKeyRow, Base, ClientKeyRow, InstanceRow, SecretRow
from proxy.store.revisions import Author, Change, record
from proxy.store.sealed import STILL_SEALED, Sealed, SealedJson
from proxy.store.vault import MARK, CannotOpen, Vault

NEW = "new_value"
PEPPER_BYTES = 32


@dataclass(frozen=True, slots=True)
class Unopened:
    """One that no key opens. `row` names it as its table does."""

    table: str
    row: str
    column: str
    reason: str


@dataclass(slots=True)
class Survey:
    """`sealed`: how many values are encrypted; `behind`: how many of these not with the first
    key; `unopened`: those that cannot be decrypted."""

    sealed: int = 0
    behind: int = 0
    unopened: list[Unopened] = field(default_factory=list)


def survey(connection: Connection, vault: Vault) -> Survey:
    """Looks at each. Changes nothing."""
    found = Survey()
    for each in _columns():
        for key, value in _values(connection, each):
            _looked_at(found, each, key, value, vault)
    return found


def reseal(connection: Connection, vault: Vault) -> Survey:
    """Encrypts with the first key what is not, in the caller's transaction; `behind` is how
    many that were. What cannot be decrypted stays as it is."""
    found = Survey()
    for each in _columns():
        rows = []
        for key, value in _values(connection, each):
            new = _looked_at(found, each, key, value, vault)
            if new is not None:
                rows.append({**{f"key_{k}": v for k, v in key.items()}, NEW: new})
        if rows:
            connection.execute(each.statement, rows)
    return found


@dataclass(frozen=True, slots=True)
class Loss:
    """What a reset took: names of clients that wait for a key, and of admins that have none any
    more; `to_set`: instances with the secrets of theirs that have to be set anew."""

    clients: tuple[str, ...] = ()
    admins: tuple[str, ...] = ()
    to_set: dict[str, list[str]] = field(default_factory=dict)


def loss(connection: Connection, vault: Vault) -> Loss:
    """What `reset` would take now. Changes nothing."""
    to_set: dict[str, list[str]] = {}
    for each in survey(connection, vault).unopened:
        if each.table == InstanceRow.__tablename__ and each.column in SECRET_FIELDS:
            to_set.setdefault(each.row, []).append(each.column)
    if keys.pepper(connection) is not None:
        return Loss(to_set=to_set)
    with_key = ClientKeyRow.key_hash.is_not(None)
    clients = select(ClientKeyRow.name).where(with_key).order_by(ClientKeyRow.name)
    admins = select(AdminKeyRow.name).order_by(AdminKeyRow.name)
    return Loss(tuple(connection.scalars(clients)), tuple(connection.scalars(admins)), to_set)


def reset(session: Session, vault: Vault, *, author: Author) -> Loss:
    """Goes on without what no key opens any more. Instances' secrets stay as they are, so that
    these are out of service until they are set; what revisions kept of them is forgotten. If
    keys cannot be checked, there are none from now on. Raises VaultClosed."""
    connection = session.connection()
    found = loss(connection, vault)
    for each in filter(lambda c: c.is_json, _columns()):
        rows = [
            {**{f"key_{k}": v for k, v in key.items()}, NEW: None}
            for key, value in _values(connection, each)
            if not _opens(vault, value)
        ]
        if rows:
            connection.execute(each.statement, rows)
    if keys.pepper(connection) is None:
        _begin_anew(session, found, author)
    return found


def _begin_anew(session: Session, found: Loss, author: Author) -> None:
    """With another secret to hash keys with."""
    fresh = random.token_bytes(PEPPER_BYTES).hex()
    session.merge(SecretRow(name=keys.PEPPER, value=fresh))
    lost = {"key": ["lost", None]}
    changes = [
        *(Change(keys.KIND, name, lost) for name in found.clients),
        *(Change(ADMIN_KIND, name, lost) for name in found.admins),
    ]
    number = record(session, author, "secrets reset", changes)
    session.execute(
        update(ClientKeyRow)
        .where(ClientKeyRow.name.in_(found.clients))
        .values(key_hash=None, key_hint=None, former_keys=[], revision=number)
    )
    session.execute(delete(AdminKeyRow))


def _opens(vault: Vault, value: str) -> bool:
    try:
        vault.open(value)
    except CannotOpen:
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Column:
    """One whose values are encrypted; `plain` is its table with columns that tell what is
    stored."""

    plain: TableClause
    keys: tuple[str, ...]
    name: str
    is_json: bool

    @property
    def statement(self) -> Any:
        here = [self.plain.c[k] == bindparam(f"key_{k}") for k in self.keys]
        return update(self.plain).where(*here).values({self.name: bindparam(NEW)})


def _columns() -> Iterator[_Column]:
    for each in map(_table, Base.metadata.sorted_tables):
        keys = tuple(c.name for c in each.primary_key)
        for one in each.columns:
            if isinstance(one.type, Sealed | SealedJson):
                names = [column(k, each.c[k].type) for k in keys]
                plain = table(each.name, *names, column(one.name, String))
                yield _Column(plain, keys, one.name, isinstance(one.type, SealedJson))


def _table(found: Any) -> Table:
    return cast(Table, found)


def _values(connection: Connection, each: _Column) -> list[tuple[dict[str, Any], str]]:
    """Those that are encrypted, each with its row's key. All at once: they are changed next."""
    value = each.plain.c[each.name]
    query = select(*(each.plain.c[k] for k in each.keys), value).where(value.like(f"{MARK}%"))
    return [
        (dict(zip(each.keys, row[:-1], strict=True)), row[-1])
        for row in connection.execute(query)
    ]


def _looked_at(
    found: Survey, each: _Column, key: dict[str, Any], value: str, vault: Vault
) -> str | None:
    """The value as it is with the first key, if that is another one."""
    found.sealed += 1
    try:
        new = _resealed_json(vault, value) if each.is_json else vault.resealed(value)
    except CannotOpen as error:
        row = " ".join(str(v) for v in key.values())
        found.unopened.append(Unopened(each.plain.name, row, each.name, str(error)))
        return None
    found.behind += new is not None
    return new


def _resealed_json(vault: Vault, value: str) -> str | None:
    """Also what was in it when it could not be decrypted, if it can now."""
    was = json.loads(vault.open(value))
    now = _within(vault, was)
    return vault.resealed(value) if now == was else vault.seal(json.dumps(now))


def _within(vault: Vault, value: Any) -> Any:
    if isinstance(value, list):
        return [_within(vault, v) for v in value]
    if not isinstance(value, dict):
        return value
    stored = value.get(STILL_SEALED)
    if len(value) != 1 or not isinstance(stored, str) or not stored.startswith(MARK):
        return {k: _within(vault, v) for k, v in value.items()}
    try:
        return {STILL_SEALED: vault.resealed(stored) or stored}
    except CannotOpen:
        return value
