"""Whether an SQLite database's file is still there, the same, and not written over."""

import math
import os
import sqlite3
from contextlib import closing
from urllib.parse import quote

from sqlalchemy import select
from sqlalchemy.dialects import sqlite

from proxy.store.db import Database, StoreUnavailable, file_identity, sqlite_file
from proxy.store.models import RevisionRow

LOOK_SECONDS = 5.0  # after which a file is looked into anew
# What SQLite says of a file that was written over.
DAMAGED = ("malformed", "not a database", "no such table")

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
