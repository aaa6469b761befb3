"""The connection to the database, and the few things dialects disagree about."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy import Connection as Connection  # what transactions give, for all
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError, SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from proxy.errors import Unavailable
from proxy.settings import SettingError
from proxy.store import sealed
from proxy.store.statements import Cursor
from proxy.store.vault import NO_VAULT, Vault, VaultClosed

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
