"""Which processes use a database, and keeping them away for a moment.

Two ways, because each alone misses some. A process that has the file open shows in /proc,
unless it is another user's or another container's. A connection in WAL mode, as the proxy's
workers hold one all the time, keeps a shared lock on the file, whoever it is.
"""

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backups.checks import with_side_files
from backups.problems import Problem, told
from proxy.store.lock_holder import described as described

PROC = Path("/proc")
# Where SQLite locks (https://sqlite.org/src/file/src/os.h, PENDING_BYTE and so on). The lock
# on all of it is what SQLite calls EXCLUSIVE.
LOCK_START = 0x40000000
LOCK_BYTES = 512
# struct flock of Linux: type, whence, start, length, pid.
FLOCK = "hhqqi"


class InUse(Problem):
    kind = "in_use"


@contextmanager
def alone(database: Path) -> Iterator[None]:
    """Nobody uses the database, and whoever begins to has to wait for our end.

    SQLite itself is not asked: on a damaged file it could make things worse. Whoever is
    within may not open the file: closing it would end the lock. Raises Problem.
    """
    if not database.exists():
        _refuse(database, users_of(database))
        yield
        return
    with told(database):
        file = database.open("r+b")
    with file:
        lock_holder = _locked(file.fileno())
        _refuse(database, users_of(database))
        if lock_holder is not None:
            raise InUse(_sentence(database, lock_holder))
        yield


def users_of(database: Path) -> list[int]:
    """Processes other than this that have it or a file beside it open, as far as we see."""
    wanted = set()
    for path in with_side_files(database):
        if path.exists():
            status = path.stat()
            wanted.add((status.st_dev, status.st_ino))
    others = (int(p.name) for p in PROC.glob("[0-9]*") if p.name != str(os.getpid()))
    return sorted(pid for pid in others if wanted & _open_files(pid))


def _refuse(database: Path, pids: list[int]) -> None:
    if pids:
        raise InUse(_sentence(database, f"process {described(pids)}"))


def _sentence(database: Path, who: str) -> str:
    return f"{database} is in use by {who}. Stop the proxy first; nothing was changed."


def _locked(descriptor: int) -> str | None:
    """Takes SQLite's exclusive lock until the file is closed; else says who is in the way."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, LOCK_BYTES, LOCK_START)
    except (BlockingIOError, PermissionError):  # POSIX allows either errno for "is locked"
        asked = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, LOCK_START, LOCK_BYTES, 0)
        pid = struct.unpack(FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))[-1]
        if pid > 0:
            return f"process {described([pid])}"
        return "a process of another container or host, which holds a lock on it"
    return None


def _open_files(pid: int) -> set[tuple[int, int]]:
    """Device and inode of each; none where we may not look or the process has ended."""
    folder = PROC / str(pid) / "fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return set()
    found = set()
    for name in names:
        try:
            status = os.stat(folder / name)
        except OSError:
            continue  # closed meanwhile
        found.add((status.st_dev, status.st_ino))
    return found
