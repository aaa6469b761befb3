"""A byte copy of every source file, before anything else is done with it."""

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PREFIX = "backup"
MANIFEST = "manifest.json"
REJECTED = "rejected.json"
# An SQLite database may have its newest pages in these.
COMPANIONS = ("-wal", "-journal")


class BackupFailed(Exception):
    """One sentence: which file could not be copied, and why."""


def make_backup(files: Sequence[Path], parent: Path, now: datetime | None = None) -> Path:
    """Copies `files` into a new folder in `parent`; returns it. Mode 0700, files 0600.

    The manifest has each file's SHA-256 sum, and each copy is read back and compared.
    Where an earlier backup holds the same files as they are now, that is read back, and
    returned: a service that fails and is started again would fill the disk with copies.
    Never writes into a folder that exists. What is no file, or not there, is passed over.
    Raises BackupFailed, and leaves nothing half done.
    """
    sources = _with_companions(files)
    earlier = _earlier(sources, parent)
    if earlier is not None:
        return earlier
    folder = _new_folder(parent, now or datetime.now(UTC))
    try:
        entries = [
            _copied(source, folder / f"{number:03}_{source.name}")
            for number, source in enumerate(sources, 1)
        ]
        write_copy(folder / MANIFEST, json.dumps(entries, indent=2).encode())
    except BackupFailed:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def changed_since(folder: Path) -> list[str]:
    """The sources of the backup in `folder` that are not any more what was copied."""
    entries = json.loads((folder / MANIFEST).read_bytes())
    return [e["source"] for e in entries if _sum_of(Path(e["source"])) != e["sha256"]]


def write_copy(path: Path, content: bytes) -> None:
    """As `write_private`. Raises BackupFailed."""
    try:
        write_private(path, content)
    except OSError as error:
        raise BackupFailed(f"{path} cannot be written: {error.strerror}.") from error


def write_beside(folder: Path, name: str, content: bytes) -> None:
    """A file of the backup that is no copy; over none that is there, and not twice the same.

    Raises BackupFailed.
    """
    stem, end = os.path.splitext(name)
    numbers = itertools.count(2)
    path = folder / name
    while path.exists():
        if path.read_bytes() == content:
            return
        path = folder / f"{stem}_{next(numbers)}{end}"
    write_copy(path, content)


def write_private(path: Path, content: bytes) -> None:
    """A new file only its owner can read: these hold keys."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def new_private_folder(parent: Path, prefix: str, now: datetime) -> Path:
    """`<prefix>_<UTC time>` in `parent`; with a number where that exists."""
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    stem = f"{prefix}_{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    for suffix in ("", *(f"_{n}" for n in range(2, 1000))):
        try:
            (parent / f"{stem}{suffix}").mkdir(mode=0o700)
        except FileExistsError:
            continue
        return parent / f"{stem}{suffix}"
    raise FileExistsError(f"too many folders named {stem}")


def _earlier(sources: Sequence[Path], parent: Path) -> Path | None:
    """The newest backup in `parent` of these very files as they are now, whole and private."""
    wanted = [(os.path.abspath(source), _sum_of(source)) for source in sources]
    try:
        folders = sorted(parent.glob(f"{PREFIX}_*"), reverse=True)
        return next((each for each in folders if _holds(each, wanted)), None)
    except OSError:
        return None  # a new one is tried, and says what is wrong


def _holds(folder: Path, wanted: Sequence[tuple[str, str | None]]) -> bool:
    try:
        entries = json.loads((folder / MANIFEST).read_bytes())
        found = [(entry["source"], entry["sha256"]) for entry in entries]
        copies = [(folder / entry["copy"], entry["sha256"]) for entry in entries]
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return False  # interrupted, or somebody else's
    return (
        found == wanted
        and all(_is_private(path) for path in (folder, *(copy for copy, _ in copies)))
        and all(_sum_of(copy) == sum_ for copy, sum_ in copies)
    )


def _is_private(path: Path) -> bool:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    return status.st_uid == os.geteuid() and not status.st_mode & 0o077


def _copied(source: Path, copy: Path) -> dict[str, Any]:
    try:
        content = source.read_bytes()
    except OSError as error:
        raise BackupFailed(f"{source} cannot be copied: {error.strerror}.") from error
    write_copy(copy, content)
    digest = hashlib.sha256(content).hexdigest()
    if _sum_of(copy) != digest:
        raise BackupFailed(f"{copy} is not what was written: the disk lies or is full.")
    name = os.path.abspath(source)
    return {"source": name, "copy": copy.name, "bytes": len(content), "sha256": digest}


def _sum_of(file: Path) -> str | None:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return None


def _new_folder(parent: Path, now: datetime) -> Path:
    try:
        return new_private_folder(parent, PREFIX, now)
    except OSError as error:
        raise BackupFailed(f"No backup can be made in {parent}: {error}.") from error


def _with_companions(files: Sequence[Path]) -> list[Path]:
    # Of a pipe there would be no end; what is wrong with the others, their reader says.
    present = [file for file in files if os.path.isfile(file)]
    some = []
    for file in present:
        # SQLite looks beside the file itself, not beside a link to it.
        real = os.path.realpath(file)
        companions = (Path(real + end) for end in COMPANIONS)
        some += [file, *(c for c in companions if os.path.isfile(c))]
    return some
