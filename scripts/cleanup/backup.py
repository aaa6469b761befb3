"""Copies of all files that will be touched, and putting them back.

backup_old_implementation/      0700; the second one is backup_old_implementation_2
  manifest.json                 0600; written last: without it, it is no backup of ours
  .gitignore                    everything: `.env` holds keys
  app/main.py, .env, ...        0600; their modes are in the manifest
"""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from cleanup.changes import Access, Change, Refused, replace, sync_folder

NAME = "backup_old_implementation"
NUMBERED = re.compile(rf"{NAME}(?:_([1-9]\d*))?")
MANIFEST = "manifest.json"
FOLDER_MODE, FILE_MODE = 0o700, 0o600


@dataclass(frozen=True, slots=True)
class Entry:
    """One file. `becomes` is the sum of what the cleanup makes of it, None if it goes."""

    path: str
    sha256: str
    becomes: str | None
    mode: int
    uid: int
    gid: int


def make(root: Path, changes: Sequence[Change]) -> Path:
    """A new folder with the files as they are, read back and compared.

    Raises Refused if a file is no longer what the changes were computed from.
    """
    for change in changes:
        if (root / change.path).read_bytes() != change.before:
            raise Refused(f"{change.path} was changed by somebody else just now; try again")
    folder = _new_folder(root)
    access = Access(FILE_MODE, os.geteuid(), os.getegid())
    replace(folder / ".gitignore", b"*\n", access)
    for change in changes:
        copy = folder / change.path
        # Not parents=True: the mode would be for the last one only.
        for parent in reversed(PurePosixPath(change.path).parents):
            (folder / parent).mkdir(mode=FOLDER_MODE, exist_ok=True)
        replace(copy, change.before, access)
    entries = [_entry(change) for change in changes]
    _verify(folder, entries)
    for each in [path for path in folder.rglob("*") if path.is_dir()]:
        sync_folder(each)
    manifest = {
        "version": 1,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": [asdict(entry) for entry in entries],
    }
    replace(folder / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode(), access)
    sync_folder(folder)
    sync_folder(root)
    return folder


def newest(root: Path) -> Path:
    """The complete one with the highest number. Raises Refused if there is none."""
    if not root.is_dir():
        raise Refused(f"there is no folder {root}")
    complete = {number: path for number, path in _numbered(root) if (path / MANIFEST).is_file()}
    if not complete:
        raise Refused(f"there is no backup in {root}")
    return complete[max(complete)]


def restore(root: Path, folder: Path, *, force: bool, dry_run: bool) -> list[str]:
    """Put back what differs; the paths of that. All copies are verified before anything.

    Raises Refused if one is damaged, or, without `force`, if a file is neither what it was
    before the cleanup nor what the cleanup made of it: somebody's work would be lost.
    """
    entries = _read(root, folder)
    _verify(folder, entries)
    edited = [entry.path for entry in entries if _is_edited(root, entry)]
    if edited and not force:
        raise Refused(
            "these files were changed after the cleanup; --force puts them back all the same:"
            + "".join(f"\n  {path}" for path in edited)
        )
    different = [entry for entry in entries if not _is_back(root, entry)]
    if not dry_run:
        for entry in different:
            path = root / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            content = (folder / entry.path).read_bytes()
            replace(path, content, Access(entry.mode, entry.uid, entry.gid))
    return [entry.path for entry in different]


def _numbered(root: Path) -> list[tuple[int, Path]]:
    matches = [(NUMBERED.fullmatch(path.name), path) for path in root.iterdir()]
    return [(int(match[1] or 1), path) for match, path in matches if match]


def _new_folder(root: Path) -> Path:
    number = max((number for number, _ in _numbered(root)), default=0) + 1
    folder = root / (NAME if number == 1 else f"{NAME}_{number}")
    # Fails if somebody else made it meanwhile.
    folder.mkdir(mode=FOLDER_MODE)
    return folder


def _entry(change: Change) -> Entry:
    becomes = None if change.after is None else _sum(change.after)
    return Entry(change.path, _sum(change.before), becomes, **asdict(change.access))


def _read(root: Path, folder: Path) -> list[Entry]:
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        entries = [Entry(**values) for values in manifest["files"]]
    except FileNotFoundError:
        raise Refused(f"{folder} is no complete backup: it has no {MANIFEST}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"{folder / MANIFEST} cannot be read: {error}") from error
    for entry in entries:
        if not (root / entry.path).parent.resolve().is_relative_to(root):
            raise Refused(f"{folder / MANIFEST} names {entry.path!r}, which is not in {root}")
    return entries


def _verify(folder: Path, entries: Sequence[Entry]) -> None:
    for entry in entries:
        copy = folder / entry.path
        if not copy.is_file() or _sum(copy.read_bytes()) != entry.sha256:
            raise Refused(f"the backup is damaged: {copy} is not what the manifest says")


def _is_edited(root: Path, entry: Entry) -> bool:
    path = root / entry.path
    return path.exists() and _sum(path.read_bytes()) not in (entry.sha256, entry.becomes)


def _is_back(root: Path, entry: Entry) -> bool:
    path = root / entry.path
    if path.is_symlink() or not path.is_file():
        return False
    return _sum(path.read_bytes()) == entry.sha256 and Access.of(path).mode == entry.mode


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
