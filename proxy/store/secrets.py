"""All that is encrypted in the database: looked at, and encrypted anew."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from sqlalchemy import Connection, String, Table, column, select, table, update
from sqlalchemy.sql.expression import TableClause, bindparam

from proxy.store.models import Base
from proxy.store.sealed import STILL_SEALED, Sealed, SealedJson
from proxy.store.vault import MARK, CannotOpen, Vault

NEW = "new_value"


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
