"""A file to change, and how it is done: replaced whole, or not at all."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self


class Refused(Exception):
    """Nothing was written. One or more lines for the person who asked."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who may do what with a file."""

    mode: int
    uid: int
    gid: int

    @classmethod
    def of(cls, path: Path) -> Self:
        stat = path.stat()
        return cls(stat.st_mode & 0o7777, stat.st_uid, stat.st_gid)


@dataclass(frozen=True, slots=True)
class Change:
    """`path` is relative to the checkout, with slashes. `after` is None if the file goes."""

    path: str
    before: bytes
    after: bytes | None
    access: Access

    def make(self, root: Path) -> None:
        if self.after is None:
            (root / self.path).unlink()
        else:
            replace(root / self.path, self.after, self.access)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a person has to do: `what` is wrong in that line."""

    path: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}"


def replace(path: Path, content: bytes, access: Access) -> None:
    """Write beside, then rename: whoever reads, or a crash, finds the old or the new content.

    Raises OSError and leaves the file alone, also if it could not belong to whom it did:
    a service that may no longer read its `.env` would not start.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".cleanup-", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            own = os.fstat(handle)
            if (own.st_uid, own.st_gid) != (access.uid, access.gid):
                os.fchown(handle, access.uid, access.gid)
            # After chown, which takes the set-id bits away.
            os.fchmod(handle, access.mode)
            os.fsync(handle)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """A file's name is on the disk only when its folder is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
