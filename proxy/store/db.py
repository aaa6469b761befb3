"""The connection to the database, and the few things dialects disagree about."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from sqlalchemy import Connection as Connection  # what transactions give, for all
from sqlalchemy import Engine, Table, create_engine, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from proxy.errors import Unavailable
from proxy.settings import SettingError
from proxy.store.models import Base

BUSY_TIMEOUT_MS = 5000  # how long a writer waits for another process' write


class StoreUnavailable(Unavailable):
    """The database did not do what was asked; nothing was written."""

    code = "database_unavailable"


class Database:
    """One engine. `read` and `write` are short transactions; thread-safe.

    Made without connecting; raises SettingError for a URL of which no engine can be made.
    `dispose` closes the pooled connections, which must not cross a fork.
    """

    def __init__(self, url: str) -> None:
        try:
            self.url = make_url(url)
            self.engine = make_engine(url)
        except (ArgumentError, ImportError) as error:
            # They name the dialect or the driver's module, never the URL and its password.
            raise SettingError(f"PROXY_DATABASE_URL: it cannot be used: {error}") from None

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads. Raises StoreUnavailable."""
        with translated(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that holds the write lock from its first statement."""
        with translated(), self.engine.connect() as connection:
            connection = connection.execution_options(writes=True)
            with connection.begin():
                yield connection

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A write transaction with ORM objects, for config."""
        with self.write() as connection, Session(connection) as session:
            yield session
            session.flush()

    def dispose(self) -> None:
        self.engine.dispose()


@contextmanager
def translated() -> Iterator[None]:
    """SQLAlchemy's errors end here. The message has no statement and no parameters."""
    try:
        yield
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None)
        message = str(cause or type(error).__name__).splitlines()[0]
        raise StoreUnavailable(f"The database cannot be used: {message}.") from error


def make_engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True)
    timeout_seconds = BUSY_TIMEOUT_MS / 1000
    engine = create_engine(
        url,
        connect_args={"timeout": timeout_seconds},
        poolclass=QueuePool,
        pool_timeout=timeout_seconds,
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
        if not connection.get_execution_options().get("writes"):
            connection.exec_driver_sql("BEGIN")
            return
        # WAL: readers do not wait for the writer, and the writer not for readers. It is kept
        # in the file, so not where we only look: that may be another program's.
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        # IMMEDIATE: a transaction that reads first and writes later could not be granted
        # the lock any more if another process wrote in between.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def upsert(
    connection: Connection,
    model: type[Base],
    rows: Sequence[dict[str, Any]],
    merge: Callable[[Table, Any], dict[str, Any]],
) -> None:
    """Insert rows, or where the primary key exists change the row that is there.

    `merge(present, given)` names each changed column's new value as an expression, so that
    the database adds and compares, and workers never overwrite each other. All rows have
    the same keys.
    """
    if not rows:
        return
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    table = cast(Table, model.__table__)
    statement = insert(table)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[c.name for c in table.primary_key],
            set_=merge(table, statement.excluded),
        ),
        list(rows),
    )


class ChangeDetector:
    """Whether another connection committed something since the last look. Cheap.

    Holds one connection until `close`. Not thread-safe.
    """

    def __init__(self, database: Database) -> None:
        with translated():
            self._connection = database.engine.connect()
            # Not the pool's any more: to one that was disposed of meanwhile it would be given
            # back, and never be closed.
            self._connection.detach()
        self._last: int | None = None

    def changed(self) -> bool:
        """True at the first look, and always where the database cannot tell."""
        if self._connection.dialect.name != "sqlite":
            return True
        with translated():
            version: int = self._connection.execute(text("PRAGMA data_version")).scalar_one()
            self._connection.rollback()
        changed = version != self._last
        self._last = version
        return changed

    def close(self) -> None:
        with translated():
            self._connection.close()
