"""What went wrong: a sentence that names the file and what to do about it."""

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NO_RIGHT = "run this as the owner of the file and its folder, or give that right"
MAKE_ROOM = "make room, or name a folder on another disk"
CHECK_NAME = "check the name"

OS_REMEDIES = {
    errno.ENOSPC: MAKE_ROOM,
    errno.EDQUOT: MAKE_ROOM,
    errno.EFBIG: MAKE_ROOM,
    errno.EACCES: NO_RIGHT,
    errno.EPERM: NO_RIGHT,
    errno.EROFS: "name a folder that can be written",
    errno.ENOENT: CHECK_NAME,
    errno.ENOTDIR: CHECK_NAME,
    errno.EISDIR: CHECK_NAME,
    errno.ENAMETOOLONG: "give the file a shorter name",
}
SQLITE_REMEDIES = {
    sqlite3.SQLITE_BUSY: (
        "another program holds it: end that one's transaction, or wait longer with"
        " --timeout-seconds"
    ),
    sqlite3.SQLITE_FULL: MAKE_ROOM,
    sqlite3.SQLITE_IOERR: "see whether the disk is full or broken, then try again",
    sqlite3.SQLITE_CANTOPEN: NO_RIGHT,
    sqlite3.SQLITE_READONLY: NO_RIGHT,
    sqlite3.SQLITE_PERM: NO_RIGHT,
}
DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
RESTORE_ANOTHER = (
    "Keep the file for examination and restore the newest backup that `verify` likes"
)


class Problem(Exception):
    """Something was not done. `kind` names it for machines."""

    exit_code = 1
    kind = "unreadable"


class Missing(Problem):
    kind = "missing"


class Damaged(Problem):
    kind = "damaged"


class WrongUsage(Problem):
    exit_code = 2
    kind = "usage"


@contextmanager
def told(path: Path) -> Iterator[None]:
    """What the system and SQLite say about `path` becomes a Problem."""
    try:
        yield
    except FileNotFoundError as error:
        raise Missing(f"{path} does not exist; {CHECK_NAME}.") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        remedy = OS_REMEDIES.get(error.errno or 0, "see to that, then try again")
        raise Problem(f"{path} cannot be used: {reason}; {remedy}.") from error
    except sqlite3.Error as error:
        raise _of_sqlite(path, error) from error


def _of_sqlite(path: Path, error: sqlite3.Error) -> BaseException:
    # Extended codes have the kind in their low byte (https://sqlite.org/rescode.html).
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_INTERRUPT:
        # Only our own progress handler ends a statement, when a signal raised inside it:
        # sqlite3 swallows that exception.
        return KeyboardInterrupt()
    if code in DAMAGE:
        return Damaged(f"{path} is damaged: {error}. {RESTORE_ANOTHER}.")
    remedy = SQLITE_REMEDIES.get(code, "see to that, then try again")
    return Problem(f"{path} cannot be used: {error}; {remedy}.")
