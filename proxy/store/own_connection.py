"""A connection of one's own, for who asks the database all the time."""

import sqlite3
from contextlib import suppress
from typing import cast

from proxy.store.db import Connection, Database, translated
from proxy.store.statements import Cursor


class OwnConnection:
    """Stands until `close`: to take one of the pool for a transaction, and to give it back,
    takes as long as five small statements. Not thread-safe.

    What raises StoreUnavailable is to be closed, and another one made. Of a server there is
    none: the pool knows whether it still has its connections.
    """

    def __init__(self, database: Database) -> None:
        self._connection: Connection | None = None
        self._version: int | None = None
        if database.engine.dialect.name != "sqlite":
            return
        # Besides the pool's, which knows the statements that are asked again, and keeps the log
        # of changes: the last one to be closed would delete it, and on a full disk nobody could
        # make it anew.
        with translated(), database.engine.connect():
            self._connection = database.engine.connect()
            # Not the pool's any more: to one that was disposed of meanwhile it would be given
            # back, and never be closed.
            self._connection.detach()
            # Of SQLite, as there is no other here.
            self._driver = cast(
                sqlite3.Connection, self._connection.connection.dbapi_connection
            )

    @property
    def for_transactions(self) -> Connection | None:
        """For `Database.read` and `write`. None: the pool is to give one."""
        return self._connection

    def others_wrote(self) -> bool:
        """Whether another connection committed something since the last look: True at the first
        one, and always where the database cannot tell. Cheap."""
        if self._connection is None:
            return True
        with translated(), Cursor(self._connection) as cursor:
            # In no transaction, which would be a snapshot that others wait for.
            version: int = cursor.execute("PRAGMA data_version").fetchone()[0]
        before, self._version = self._version, version
        return before != version

    def close(self) -> None:
        if self._connection is None:
            return
        try:
            with translated():
                self._connection.close()
        finally:  # also one that cannot even be rolled back: it would hold the lock
            with suppress(sqlite3.Error):
                self._driver.close()
