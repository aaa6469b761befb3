"""The folder of backups: names, order, and which are to go.

    proxy.20250131T235959.123456Z.3f2a91c4.9c56cc51b374c3ba.db

is the source's name with the UTC time, eight digits that stand for the source's path, and
the first sixteen of the content's SHA-256. The structure check of SQLite does not see a
changed byte within a value; this does.
"""

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

from backups.problems import Problem, told

FOLDER_MODE, FILE_MODE = 0o700, 0o600
LOCK_NAME = ".lock"
LOCK_POLL_SECONDS = 0.05
DIGEST_DIGITS = 16
STAMP_FORMAT = "%Y%m%dT%H%M%S.%fZ"
STAMP = r"\d{8}T\d{6}\.\d{6}Z"
NAME = re.compile(
    rf"(?P<stem>.+)\.(?P<stamp>{STAMP})\.(?P<key>[0-9a-f]{{8}})"
    rf"\.(?P<digest>[0-9a-f]{{{DIGEST_DIGITS}}})(?P<suffix>(\.[^.]+)?)"
)
PART = re.compile(rf"\..+\.{STAMP}\.part(-wal|-shm|-journal)?")


@dataclass(frozen=True, slots=True)
class Source:
    """What is backed up. `path` is absolute and without symbolic links."""

    path: Path
    is_database: bool

    @property
    def key(self) -> str:
        """Tells sources of one name in different folders apart."""
        return hashlib.sha256(bytes(self.path)).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class Backup:
    """A file of ours, by its name."""

    path: Path
    source_name: str
    key: str
    made_at: datetime

    def is_of(self, source: Source) -> bool:
        return (self.source_name, self.key) == (source.path.name, source.key)


def stamp(moment: datetime) -> str:
    return moment.strftime(STAMP_FORMAT)


def now() -> datetime:
    return datetime.now(UTC)


def name_of(source: Source, moment: datetime, sha256: str) -> str:
    path = source.path
    digest = sha256[:DIGEST_DIGITS]
    return f"{path.stem}.{stamp(moment)}.{source.key}.{digest}{path.suffix}"


def part_name(name: str) -> str:
    """Of a file that is being written: hidden, and never taken for a backup."""
    return f".{name}.{stamp(now())}.part"


def digest_in_name(path: Path) -> str | None:
    match = NAME.fullmatch(path.name)
    return match["digest"] if match else None


def listed(folder: Path) -> list[Backup]:
    """Our files in the folder, oldest first; none if there is no folder. Raises Problem."""
    with told(folder):
        try:
            paths = list(folder.iterdir())
        except FileNotFoundError:
            return []
        found = [backup for path in paths if (backup := _of_file(path)) is not None]
    return sorted(found, key=lambda b: (b.made_at, b.path.name))


def newest(backups: Iterable[Backup], source: Source) -> Backup | None:
    return max((b for b in backups if b.is_of(source)), key=lambda b: b.made_at, default=None)


def prune(folder: Path, source: Source, keep: int, made: Path) -> list[Path]:
    """Deletes the source's oldest backups but for `keep`, of which `made` is one.

    Whatever a clock that was set back says: the one just made stays. Raises Problem.
    """
    others = [b for b in listed(folder) if b.is_of(source) and b.path != made]
    gone = [b.path for b in others[: max(len(others) - (keep - 1), 0)]]
    for path in gone:
        with told(path):
            path.unlink()
    return gone


@contextmanager
def held(folder: Path, timeout_seconds: float) -> Iterator[None]:
    """The folder is there and only we write backups into it. Raises Problem.

    What killed programs left half written is cleared away.
    """
    with told(folder):
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        lock = os.open(folder / LOCK_NAME, os.O_CREAT | os.O_RDWR, FILE_MODE)
    try:
        _lock(folder, lock, time.monotonic() + timeout_seconds)
        with told(folder):
            for path in folder.iterdir():
                if PART.fullmatch(path.name):
                    path.unlink()
        yield
    finally:
        os.close(lock)


def _lock(folder: Path, descriptor: int, deadline: float) -> None:
    never = Event()
    while True:
        with told(folder):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                pass  # held by another backup: ask again until the deadline
        if time.monotonic() > deadline:
            raise Problem(f"Another backup is being written to {folder}; try again after it.")
        never.wait(LOCK_POLL_SECONDS)


def _of_file(path: Path) -> Backup | None:
    match = NAME.fullmatch(path.name)
    if match is None or not path.is_file():
        return None
    try:
        made_at = datetime.strptime(match["stamp"], STAMP_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None  # no such day: not a name we gave
    return Backup(path, match["stem"] + match["suffix"], match["key"], made_at)
