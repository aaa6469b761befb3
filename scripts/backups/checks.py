"""Whether a file is whole: an SQLite database passes its check, JSON can be parsed."""

import hashlib
import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from backups import shelf
from backups.problems import RESTORE_ANOTHER, Damaged, Missing, Problem, told

SQLITE_HEADER = b"SQLite format 3\0"  # https://sqlite.org/fileformat.html, 1.3
SIDE_FILES = ("-wal", "-shm", "-journal")
# What a database without one of these does not hold: commits, or the undoing of half ones.
NEEDED_SIDE_FILES = ("-wal", "-journal")
CHUNK_BYTES = 1 << 20
STEPS_BETWEEN_SIGNALS = 100_000  # of SQLite's virtual machine, some milliseconds

DATABASE, JSON = "sqlite", "json"


@dataclass(frozen=True, slots=True)
class Facts:
    """About a file that is whole. `revision` is a database's schema; None if it has none."""

    kind: str
    bytes: int
    sha256: str
    revision: str | None = None
    has_named_checksum: bool = False


def examined(path: Path) -> Facts:
    """Facts of a file nobody writes, such as a backup. Raises Problem if it is not whole.

    Neither locks nor changes anything, and makes no files beside it.
    """
    with told(path):
        bytes_ = size(path)
        found = hash_of(path)
        named = shelf.digest_in_name(path)
        if named is not None and not found.startswith(named):
            raise Damaged(
                f"{path} is damaged: its SHA-256 begins with {found[: len(named)]}, its name"
                f" was given for {named}. {RESTORE_ANOTHER}."
            )
        if not is_database(path):
            check_json(path, path.read_bytes())
            return Facts(JSON, bytes_, found, None, named is not None)
        _refuse_side_files(path)
        # immutable: no locks and no -wal or -shm made, which a folder may not allow.
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?immutable=1", uri=True)) as db:
            revision = check_database(path, db)
    return Facts(DATABASE, bytes_, found, revision, named is not None)


def opened(path: Path, timeout_seconds: float) -> sqlite3.Connection:
    """A database in use, in a transaction that sees one moment of it and only reads.

    In WAL mode writers do not notice; else they wait for its end. Raises Problem.
    """
    with told(path):
        size(path)
        if not is_database(path):
            raise Damaged(
                f"{path} is not an SQLite database, is encrypted, or its start is damaged."
                f" {RESTORE_ANOTHER}; an old JSON file is named with --file."
            )
        # Not mode=ro: the last to leave would not clear -wal and -shm away.
        uri = f"{path.resolve().as_uri()}?mode=rw"
        connection = sqlite3.connect(
            uri, uri=True, timeout=timeout_seconds, isolation_level=None
        )
        try:
            connection.execute("BEGIN")
            # The first to read decides the moment.
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except BaseException:
            connection.close()
            raise
    return connection


def check_database(path: Path, connection: sqlite3.Connection) -> str | None:
    """The schema's revision. Raises Damaged; what SQLite itself raises is the caller's."""
    connection.set_progress_handler(pause_for_signals, STEPS_BETWEEN_SIGNALS)
    first = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if first != "ok":
        raise Damaged(f"{path} is damaged: {' '.join(first.split())}. {RESTORE_ANOTHER}.")
    table = "SELECT count(*) FROM sqlite_master WHERE name = 'alembic_version'"
    if not connection.execute(table).fetchone()[0]:
        return None
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return row[0] if row else None


def pause_for_signals() -> bool:
    """Returning to Python now and then is what lets Ctrl-C and SIGTERM through."""
    return False  # go on


def check_json(path: Path, data: bytes) -> None:
    """Raises Damaged unless it is JSON, in any of its encodings."""
    try:
        json.loads(data)
    except (ValueError, RecursionError) as error:
        if data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
            reason = f"it is not JSON: {error}"
        else:
            reason = (
                "it is neither an SQLite database nor JSON, is encrypted, or lacks its start"
            )
        raise Damaged(
            f"{path} is damaged: {reason}. If a program was just writing it, try again; else"
            " restore the newest backup."
        ) from error


def is_database(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(SQLITE_HEADER)) == SQLITE_HEADER


def size(path: Path) -> int:
    """In bytes. Raises Problem for what is no file, and for an empty one."""
    if not path.exists():
        raise Missing(f"{path} does not exist; check the name.")
    if not path.is_file():
        raise Problem(f"{path} is not a file; check the name.")
    if not (bytes_ := path.stat().st_size):
        raise Damaged(f"{path} is damaged: it is empty. {RESTORE_ANOTHER}.")
    return bytes_


def with_side_files(path: Path) -> list[Path]:
    """The names a database can consist of, its own first."""
    return [path, *(path.with_name(path.name + suffix) for suffix in SIDE_FILES)]


def hash_of(path: Path) -> str:
    """SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _refuse_side_files(path: Path) -> None:
    for suffix in NEEDED_SIDE_FILES:
        beside = path.with_name(path.name + suffix)
        if beside.exists() and beside.stat().st_size:
            raise Problem(
                f"{path} is not complete without {beside.name}: it is a database in use, or one"
                f" that was moved aside. Take a backup of it with `backup --database {path}`,"
                " and use that."
            )
