"""The connection to the database, and the few things dialects disagree about."""

import math
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast
from urllib.parse import quote

import orjson
from sqlalchemy import (
    URL,
    ClauseElement,
    Engine,
    Executable,
    Table,
    create_engine,
    event,
    select,
)
from sqlalchemy import Connection as Connection  # what transactions give, for all
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError, SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.schema import ScalarElementColumnDefault as Scalar

from proxy.errors import Unavailable
from proxy.settings import SettingError
from proxy.store import sealed
from proxy.store.models import Base, RevisionRow
from proxy.store.vault import NO_VAULT, Vault, VaultClosed

NO_VALUES: Mapping[str, Any] = MappingProxyType({})

LOOK_SECONDS = 5.0  # after which a file is looked into anew
# What SQLite says of a file that was written over.
DAMAGED = ("malformed", "not a database", "no such table")
BUSY_TIMEOUT_MS = 5000  # how long a writer waits for another process' write


class StoreUnavailable(Unavailable):
    """The database did not do what was asked; nothing was written."""

    code = "database_unavailable"


def as_json(text: str, table: str) -> Any:
    """What a row of ours says. Raises StoreUnavailable if it is damaged."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise StoreUnavailable(
            f"A row of the table {table} is damaged. Stop the gateway and delete what is in it:"
            " counts of some seconds are lost, and nothing else."
        ) from error


class Database:
    """One engine. `read` and `write` are short transactions; thread-safe.

    Made without connecting; raises SettingError for a URL of which no engine can be made.
    Secrets in it are the vault's to encrypt. `dispose` closes the pooled connections, which
    must not cross a fork.
    """

    def __init__(self, url: str, vault: Vault = NO_VAULT) -> None:
        self.vault = vault
        try:
            self.url = make_url(url)
            self.engine = make_engine(url)
            sealed.use(self.engine, vault)
        except (ArgumentError, ImportError) as error:
            # They name the dialect or the driver's module, never the URL and its password.
            raise SettingError(f"PROXY_DATABASE_URL: it cannot be used: {error}") from None

    @property
    def file(self) -> Path | None:
        """Of an SQLite database; None for another kind, or one without a plain path."""
        name = sqlite_file(self.url)
        return None if name is None else Path(name)

    @contextmanager
    def read(self, *, on: Connection | None = None) -> Iterator[Connection]:
        """A transaction that only reads, `on` a connection that the caller has, or on one of
        the pool. Raises StoreUnavailable."""
        with translated():
            if on is not None:
                with _begun(on, writes=False):
                    yield on
                return
            with self.engine.connect() as connection:
                yield connection

    @contextmanager
    def write(self, *, on: Connection | None = None) -> Iterator[Connection]:
        """A transaction that holds the write lock from its first statement; `on` as in `read`.
        Raises StoreUnavailable."""
        with translated():
            if on is not None:
                with _begun(on, writes=True):
                    yield on
                return
            with self.engine.connect() as connection, _begun(connection, writes=True):
                yield connection

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A write transaction with ORM objects, for config."""
        with self.write() as connection, Session(connection) as session:
            yield session
            session.flush()

    def dispose(self) -> None:
        """Closes all connections of the pool; those in use (of SQLite) when they are not."""
        self.engine.dispose()


@contextmanager
def _begun(connection: Connection, *, writes: bool) -> Iterator[None]:
    if connection.get_execution_options().get("writes", False) != writes:
        connection.execution_options(writes=writes)
    with connection.begin():
        yield


_LOOK = str(select(RevisionRow.__table__).compile(dialect=sqlite.dialect()))


class FileWatch:
    """Whether the database's file is still the one it was at the last look. Of a database that
    is no plain file nothing is watched."""

    def __init__(self, database: Database) -> None:
        self._path = sqlite_file(database.url)
        self._known: tuple[int, int] | None = None
        self._looked_at = -math.inf
        self._damage: str | None = None

    def was_replaced(self) -> bool:
        """True once after another file took its place. Raises StoreUnavailable while there is
        none."""
        if self._path is None:
            return False
        found = file_identity(self._path)
        if found is None:
            raise StoreUnavailable(
                f"The database's file {self._path} {_why_unseen(self._path)}"
            )
        before, self._known = self._known, found
        return before not in (None, found)

    def check(self, now: float) -> None:
        """Raises StoreUnavailable while the file is damaged, which a connection that has been
        open for long may not notice: it works with what it read before."""
        is_known = self._looked_at <= now < self._looked_at + LOOK_SECONDS
        if self._path is not None and (self._damage or not is_known):
            self._looked_at, self._damage = now, damage(self._path)
        if self._damage is not None:
            raise StoreUnavailable(
                f"The database's file {self._path} is damaged ({self._damage}); restore a"
                " backup."
            )


def damage(path: str) -> str | None:
    """What a connection that knows nothing of an SQLite file finds wrong with its beginning:
    the schema, and a table of ours. None also where it cannot look: then others say why.

    By SQLite: to open the file and close it again would end the locks that this process has
    on it (sqlite.org/howtocorrupt.html, 2.2).
    """
    uri = f"file:{quote(path)}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=0)) as connection:
            connection.execute(_LOOK).fetchone()
    except sqlite3.DatabaseError as error:
        return str(error) if any(sign in str(error) for sign in DAMAGED) else None
    return None


def _why_unseen(path: str) -> str:
    """To put back what is only locked away would cost all that was written since."""
    try:
        os.stat(path)
    except PermissionError as error:
        return f"cannot be reached ({error.strerror}); give its user the right to its folder."
    except OSError:
        pass
    return "is gone; put it back, or restore a backup."


def sqlite_file(url: URL) -> str | None:
    """The path of an SQLite database; None for another kind, or one without a plain path."""
    name = url.database or ""
    if url.get_backend_name() != "sqlite" or not name:
        return None
    return None if name.startswith(("file:", ":memory:")) else name


def file_identity(path: str) -> tuple[int, int] | None:
    """None if there is no file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextmanager
def translated() -> Iterator[None]:
    """SQLAlchemy's errors end here. The message has no statement and no parameters."""
    try:
        yield
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None)
        if isinstance(cause, VaultClosed):  # a value could not even be given to the database
            raise cause from None
        message = str(cause or type(error).__name__).splitlines()[0]
        raise StoreUnavailable(f"The database cannot be used: {message}.") from error


def make_engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True, hide_parameters=True)
    timeout_seconds = BUSY_TIMEOUT_MS / 1000
    engine = create_engine(
        url,
        connect_args={"timeout": timeout_seconds},
        poolclass=QueuePool,
        pool_timeout=timeout_seconds,
        pool_use_lifo=True,  # the one that knows the statements which were asked last
        hide_parameters=True,  # in errors, which somebody may log: there are keys among them
    )

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: Any) -> None:
        # None: the driver begins no transactions of its own; `begin` below does.
        connection.isolation_level = None
        try:
            # Durable against a crash of the process; a power cut may lose the last commits.
            connection.execute("PRAGMA synchronous = NORMAL").close()
        except BaseException:
            connection.close()  # the pool has not taken it yet, so nobody else would
            raise

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        with Cursor(connection) as cursor:
            if not connection.get_execution_options().get("writes"):
                cursor.execute("BEGIN")
                return
            if not connection.info.get("is_wal"):
                # WAL: readers do not wait for the writer, and the writer not for readers. It is
                # kept in the file, so not where we only look: that may be another program's.
                cursor.execute("PRAGMA journal_mode = WAL")
                connection.info["is_wal"] = True
            # IMMEDIATE: a transaction that reads first and writes later could not be granted
            # the lock any more if another process wrote in between.
            cursor.execute("BEGIN IMMEDIATE")

    path = sqlite_file(engine.url)
    if path is not None:
        _open_only_the_file(engine, path)
    return engine


def _open_only_the_file(engine: Engine, path: str) -> None:
    """Connections stay open to a file that is deleted or replaced: all would seem well, and
    be lost. A new one would make the file anew, and empty."""

    @event.listens_for(engine, "do_connect")
    def open_(_dialect: Any, _record: Any, arguments: list[Any], named: Any) -> None:
        arguments[0] = f"file:{quote(path)}?mode=rw"
        named["uri"] = True

    @event.listens_for(engine, "connect")
    def note(_connection: Any, record: Any) -> None:
        record.info["file"] = file_identity(path)
        record.info["pool"] = engine.pool

    @event.listens_for(engine, "checkin")
    def close(_connection: Any, record: Any) -> None:
        # To one that was disposed of it would be given back, and stay open.
        if record.info.get("pool") is not engine.pool:
            record.invalidate()

    @event.listens_for(engine, "checkout")
    def check(_connection: Any, record: Any, _proxy: Any) -> None:
        if record.info["file"] != file_identity(path):
            raise DisconnectionError  # the pool opens another


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
