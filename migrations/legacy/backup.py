"""A byte copy of every source file, before anything else is done with it."""

import hashlib
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
REJECTED = "rejected.json"
# An SQLite database may have its newest pages in these.
COMPANIONS = ("-wal", "-journal")


class BackupFailed(Exception):
    """One sentence: which file could not be copied, and why."""


def make_backup(files: Sequence[Path], parent: Path, now: datetime | None = None) -> Path:
    """Copies `files` into a new folder in `parent`; returns it. Mode 0700, files 0600.

    The manifest has each file's SHA-256 sum, and each copy is read back and compared.
    Never writes into a folder that exists. Raises BackupFailed.
    """
    folder = _new_folder(parent, now or datetime.now(UTC))
    entries: list[dict[str, Any]] = []
    for number, source in enumerate(_with_companions(files), 1):
        copy = folder / f"{number:03}_{source.name}"
        try:
            content = source.read_bytes()
            write_private(copy, content)
            written = copy.read_bytes()
        except OSError as error:
            raise BackupFailed(f"{source} cannot be copied: {error.strerror}.") from error
        digest = hashlib.sha256(content).hexdigest()
        if hashlib.sha256(written).hexdigest() != digest:
            raise BackupFailed(f"{copy} is not what was written: the disk lies or is full.")
        entries.append(
            {"source": str(source), "copy": copy.name, "bytes": len(content), "sha256": digest}
        )
    write_private(folder / MANIFEST, json.dumps(entries, indent=2).encode())
    return folder


def write_private(path: Path, content: bytes) -> None:
    """A new file only its owner can read: these hold keys."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def new_private_folder(parent: Path, prefix: str, now: datetime) -> Path:
    """`<prefix>_<UTC time>` in `parent`; with a number where that exists."""
    parent.mkdir(parents=True, exist_ok=True)
    stem = f"{prefix}_{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    for suffix in ("", *(f"_{n}" for n in range(2, 1000))):
        try:
            (parent / f"{stem}{suffix}").mkdir(mode=0o700)
        except FileExistsError:
            continue
        return parent / f"{stem}{suffix}"
    raise FileExistsError(f"too many folders named {stem}")


def _new_folder(parent: Path, now: datetime) -> Path:
    try:
        return new_private_folder(parent, "backup", now)
    except OSError as error:
        raise BackupFailed(f"No backup can be made in {parent}: {error}.") from error


def _with_companions(files: Sequence[Path]) -> list[Path]:
    some = []
    for file in files:
        some.append(file)
        some += [c for end in COMPANIONS if (c := file.with_name(file.name + end)).is_file()]
    return some
