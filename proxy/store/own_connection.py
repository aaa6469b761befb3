"""A connection of one's own, for who asks the database all the time."""

from proxy.store.db import Connection, Cursor, Database, translated


class OwnConnection:
    """Stands until `close`: to take one of the pool for a transaction, and to give it back,
    takes as long as five small statements. Not thread-safe.

    What raises StoreUnavailable is to be closed, and another one made.
    """

    def __init__(self, database: Database) -> None:
        with translated():
            self._connection = database.engine.connect()
            # Not the pool's any more: to one that was disposed of meanwhile it would be given
            # back, and never be closed.
            self._connection.detach()
        self._is_sqlite = self._connection.dialect.name == "sqlite"
        self._version: int | None = None

    @property
    def for_transactions(self) -> Connection | None:
        """For `Database.read` and `write`. None where the pool is to give one: it knows whether
        a server still has it."""
        return self._connection if self._is_sqlite else None

    def others_wrote(self) -> bool:
        """Whether another connection committed something since the last look: True at the first
        one, and always where the database cannot tell. Cheap."""
        if not self._is_sqlite:
            return True
        with translated(), Cursor(self._connection) as cursor:
            # In no transaction, which would be a snapshot that others wait for.
            version: int = cursor.execute("PRAGMA data_version").fetchone()[0]
        before, self._version = self._version, version
        return before != version

    def close(self) -> None:
        with translated():
            self._connection.close()
