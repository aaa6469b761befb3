"""Who keeps others from writing to an SQLite database, as far as the system tells."""

import os
from pathlib import Path

PROC = Path("/proc")
# The byte of the shared memory's file that a writer locks (https://sqlite.org/walformat.html,
# 2.3.3, WAL_WRITE_LOCK).
WRITE_LOCK_BYTE = 120


def holders(database: Path) -> list[int]:
    """Processes that hold its write lock now; none where the system does not tell, or they are
    of another container. No file of the database is opened for it: to close it would end the
    locks that this process has on it (https://sqlite.org/howtocorrupt.html, 2.2)."""
    try:
        inode = os.stat(f"{database}-shm").st_ino
        lines = (PROC / "locks").read_text().splitlines()
    except OSError:
        return []
    found = {pid for pid, where in map(_writer, lines) if where == inode}
    return sorted(found - {0, os.getpid()})


def described(pids: list[int]) -> str:
    return ", ".join(f"{pid} ({_name(pid)})" for pid in pids)


def _writer(line: str) -> tuple[int, int | None]:
    """Of a line of /proc/locks (proc_locks(5)): a process and the inode in which it has the
    write lock; None if it is another lock.

    `3: POSIX  ADVISORY  WRITE 16427 fe:00:2304378 120 120`
    """
    words = line.split()
    if len(words) != 8 or (words[1], words[3]) != ("POSIX", "WRITE"):
        return 0, None
    _, _, _, _, pid, file, first, last = words
    if int(first) > WRITE_LOCK_BYTE or (last != "EOF" and int(last) < WRITE_LOCK_BYTE):
        return 0, None
    return max(int(pid), 0), int(file.rpartition(":")[2])


def _name(pid: int) -> str:
    try:
        return (PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return "unknown"
