"""Records in the old program's SQLite database: the layout D1."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from migrations.legacy.json_files import decoded, listed, of_whole_characters, reading_of
from migrations.legacy.records import Problem, Reading

MAGIC = b"SQLite format 3\x00"
WAL_FORMAT = b"\x02\x02"  # bytes 18 and 19: https://sqlite.org/fileformat2.html
BUSY_SECONDS = 2.0  # a write of the old program takes far less
EMPTY_VERSION = "initial"  # before the old program's first save

# The latest row, should there be two of one version.
CURRENT = """
    SELECT current_version.version_id, instance_versions.id, instance_versions.data
    FROM current_version
    LEFT JOIN instance_versions
        ON instance_versions.version_id = current_version.version_id
    ORDER BY instance_versions.id DESC LIMIT 1
"""

# By SQLite's primary result code. Its own messages are not passed on: they quote values.
FAULTS = {
    sqlite3.SQLITE_BUSY: ("Another program holds the database.", "Stop the old program."),
    sqlite3.SQLITE_LOCKED: ("Another program holds the database.", "Stop the old program."),
    sqlite3.SQLITE_NOTADB: ("This is no SQLite database.", "Bring the right file."),
    sqlite3.SQLITE_CORRUPT: ("The database is damaged.", "Bring an undamaged copy of it."),
    sqlite3.SQLITE_CANTOPEN: ("The database cannot be opened.", "Check its permissions."),
    sqlite3.SQLITE_READONLY: (
        "The database was left in the middle of a write, and reading it would change it.",
        "Open it once in a copy (`sqlite3 copy.db .tables`, with the -journal file beside"
        " it), and give the copy.",
    ),
    sqlite3.SQLITE_ERROR: (
        "The database lacks the tables current_version and instance_versions, or their"
        " columns.",
        "Check that it is the file of INSTANCE_MANAGER_DB_PATH.",
    ),
}


def read(file: Path) -> Reading:
    """The records of the current version; the file and what lies beside it stay as they are.

    The table `instances` is not read: it keeps deleted instances as active.
    """
    try:
        with _reader(file) as connection:
            current = connection.execute(CURRENT).fetchone()
            versions = connection.execute("SELECT count(*) FROM instance_versions").fetchone()
    except sqlite3.Error as error:
        # Not from SQLite itself (a path with a NUL, ...): no code.
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        unknown = ("The database cannot be read.", "Bring an undamaged copy of it.")
        return _nothing(file, *FAULTS.get(code, unknown))
    except UnicodeDecodeError:
        # SQLite's message quoted a schema that is no text any more.
        return _nothing(file, *FAULTS[sqlite3.SQLITE_CORRUPT])
    except OSError as error:
        return _nothing(file, f"The database cannot be read: {error.strerror}.", "Mend that.")
    if current is None:
        return _without_current(file, versions[0])
    return _of_version(file, *current)


@contextmanager
def _reader(file: Path) -> Iterator[sqlite3.Connection]:
    """A connection that changes neither the database nor its folder.

    Reading a database in WAL mode makes `-wal` and `-shm` beside it where they are missing.
    Without a `-wal`, no program has it open and nothing is outside the file: `immutable`
    then needs neither. A `-wal` without `-shm` was left or copied there, and is read in a
    copy. With both, the old program may be running, and the locks count.
    """
    real = Path(os.path.realpath(file))
    wal, shm = (real.with_name(real.name + end) for end in ("-wal", "-shm"))
    with TemporaryDirectory() as folder:
        options = "mode=ro"
        if wal.exists() and not shm.exists():
            real = Path(shutil.copyfile(real, Path(folder, real.name)))
            shutil.copyfile(wal, Path(folder, wal.name))
        elif not wal.exists() and _is_wal(real):
            options += "&immutable=1"
        uri = f"{real.as_uri()}?{options}"
        with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as connection:
            # As text, a value that is not UTF-8 would be quoted in an exception.
            connection.text_factory = bytes
            yield connection


def _is_wal(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(20)[18:] == WAL_FORMAT


def _of_version(file: Path, version_id: object, row_id: int | None, data: object) -> Reading:
    version = _text(version_id)
    if row_id is None:
        if version == EMPTY_VERSION:
            return Reading(file, "D1")
        message = f"The current version is {version!r}, and there is no such version."
        return _nothing(file, message, "Bring a copy from before it was lost.")
    place = f"version {version!r}"
    if not isinstance(data, bytes):
        return _nothing(file, "It holds no text.", "Bring another copy.", place)
    try:
        text = data.decode()
        items = decoded(text)
    except UnicodeDecodeError as error:
        message = f"The text is not UTF-8 (byte {error.start})."
        return _nothing(file, message, "Bring an undamaged copy.", place)
    except ValueError as error:
        return _nothing(file, str(error), "Bring an undamaged copy.", place)
    if not isinstance(items, list):
        return _nothing(file, "It holds no list of records.", "Bring another copy.", place)
    reading = reading_of(file, "D1", listed(items, f"{place}, instances"))
    return replace(reading, notes=of_whole_characters(text)[1])


def _without_current(file: Path, versions: int) -> Reading:
    if not versions:
        return Reading(file, "D1")  # as the old program made it at its first start
    message = f"None of the {versions} versions is the current one."
    return _nothing(file, message, "Bring a copy from before the mark was lost.")


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _nothing(file: Path, message: str, remedy: str, record: str = "") -> Reading:
    return Reading(file, "D1", problems=(Problem(file, record, "", "", remedy, message),))
