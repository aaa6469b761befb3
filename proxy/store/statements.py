"""Statements that are executed often: compiled once, and rows that are made or changed."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import Any, cast

from sqlalchemy import ClauseElement, Connection, Executable, Table
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.schema import ScalarElementColumnDefault as Scalar

from proxy.store.models import Base

NO_VALUES: Mapping[str, Any] = MappingProxyType({})


def upsert(
    connection: Connection,
    model: type[Base],
    rows: Sequence[dict[str, Any]],
    merge: Callable[[Table, Any], dict[str, Any]],
    columns: tuple[str, ...] | None = None,
) -> None:
    """Insert rows, or where the primary key exists change the row that is there.

    `merge(present, given)` names each changed column's new value as an expression, so that
    the database adds and compares, and workers never overwrite each other. All rows have
    the same keys, or at least `columns`: others have their defaults then.
    """
    if rows:
        columns = columns or tuple(rows[0])
        statement = upsert_statement(connection.dialect.name, model, merge, columns)
        statement.many(connection, rows)


def _insert(dialect: str) -> Any:
    """PostgreSQL's dialect, with all its drivers, is loaded where it is used."""
    is_other = dialect == "postgresql"
    return (import_module("sqlalchemy.dialects.postgresql") if is_other else sqlite).insert


@cache
def upsert_statement(
    dialect: str,
    model: type[Base],
    merge: Callable[[Table, Any], dict[str, Any]],
    columns: tuple[str, ...],
    returning: str | None = None,
) -> "Prepared":
    """Made once; so `merge` has to be a function that is there once, too."""
    table = cast(Table, model.__table__)
    defaults = {c.name: c.default.arg for c in table.columns if isinstance(c.default, Scalar)}
    statement = _insert(dialect)(table)
    upsert = statement.on_conflict_do_update(
        index_elements=[c.name for c in table.primary_key],
        set_=merge(table, statement.excluded),
    )
    names = list(dict.fromkeys((*defaults, *columns)))
    return Prepared(
        upsert.returning(table.c[returning]) if returning else upsert, names, defaults
    )


class Prepared:
    """A statement that is compiled once, and executed by the driver's cursor: with SQLAlchemy's
    own execution a small statement takes twenty times as long.

    For what is executed in every round; values go as they are, so not for types that SQLAlchemy
    converts, such as JSON. `columns` are those an INSERT sets; `defaults` stand for values that
    are not given. Raises what SQLAlchemy would.
    """

    def __init__(
        self,
        statement: Executable,
        columns: Sequence[str] | None = None,
        defaults: Mapping[str, Any] = NO_VALUES,
    ) -> None:
        self._statement = cast(ClauseElement, statement)
        self._columns = columns
        self._defaults = defaults
        self._compiled: dict[str, Compiled] = {}

    def rows(self, connection: Connection, **values: Any) -> list[Any]:
        """All it finds or returns, as tuples."""
        _begin(connection)
        with Cursor(connection) as cursor:
            compiled = self.compiled(connection)
            cursor.execute(compiled.sql, compiled.given(values))
            return cast(list[Any], cursor.fetchall())

    def run(self, connection: Connection, **values: Any) -> None:
        """What returns nothing."""
        _begin(connection)
        with Cursor(connection) as cursor:
            compiled = self.compiled(connection)
            cursor.execute(compiled.sql, compiled.given(values))

    def many(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Once with each row's values."""
        _begin(connection)
        with Cursor(connection) as cursor:
            compiled = self.compiled(connection)
            cursor.executemany(compiled.sql, list(map(compiled.given, rows)))

    def compiled(self, connection: Connection) -> "Compiled":
        """For the driver of this connection; made once."""
        dialect = connection.dialect
        found = self._compiled.get(dialect.name)
        if found is None:
            compiled = cast(
                SQLCompiler,
                self._statement.compile(dialect=dialect, column_keys=self._columns),
            )
            defaults = {**compiled.params, **self._defaults}
            found = Compiled(compiled.string, compiled.positiontup, defaults)
            self._compiled[dialect.name] = found
        return found


class Compiled:
    """The text for a driver, and how it has its values: by position or by name."""

    def __init__(
        self, sql: str, names: Sequence[str] | None, defaults: Mapping[str, Any]
    ) -> None:
        self.sql = sql
        self._defaults = defaults
        self.given = self._by_name
        if names is not None:
            self._names = names
            self._instead = [defaults.get(name) for name in names]
            self._places = {name: place for place, name in enumerate(names)}
            is_once = len(self._places) == len(names)
            self.given = self._by_place if is_once else self._by_place_again

    def _by_name(self, row: Mapping[str, Any]) -> Mapping[str, Any] | tuple[Any, ...]:
        return {**self._defaults, **row}

    def _by_place(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        """Its values in these places, and the others as they are: of many columns a row has
        few."""
        values, places = self._instead[:], self._places
        for name, value in row.items():
            if name in places:
                values[places[name]] = value
        return tuple(values)

    def _by_place_again(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        """Where some value is asked for twice."""
        return tuple(map(row.get, self._names, self._instead))


def _begin(connection: Connection) -> None:
    """As SQLAlchemy's own execution does, where nothing was executed yet."""
    if not connection.in_transaction():
        connection.begin()


class Cursor:
    """The driver's, for a `with`. It begins no transaction. What it raises is as SQLAlchemy
    raises it."""

    __slots__ = ("_connection", "_cursor")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __enter__(self) -> Any:
        self._cursor = self._connection.connection.cursor()
        return self._cursor

    def __exit__(self, _kind: Any, error: BaseException | None, _traceback: Any) -> None:
        self._cursor.close()
        if error is None:
            return
        if isinstance(error, self._connection.dialect.loaded_dbapi.Error):
            raise DBAPIError(None, None, error) from error
