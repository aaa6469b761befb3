"""The checkout: which files are its own, and whether git holds what is in them."""

import os
import re
import subprocess
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from cleanup.backup import NAME as BACKUP
from cleanup.changes import Finding, Refused
from cleanup.imports import REMOVED_FILES, SUCCESSOR_FILE

MARKS = (SUCCESSOR_FILE, *(file for file in REMOVED_FILES if file.startswith("app/")))
NOT_OURS = {".git", ".hg", ".svn", "__pycache__", "node_modules", "site-packages"}
ENVIRONMENT_MARKS = ("pyvenv.cfg", "conda-meta", "bin/activate", "Scripts/activate")
OWN_BACKUP = re.compile(rf"{BACKUP}(_\d+)?")

# Of whoever called us, a hook for example: they would have git look at another repository.
GIT_VARIABLES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")


@dataclass(slots=True)
class Sources:
    """Every `.py` file, as paths relative to the root, and folders nobody can look into."""

    files: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def is_old_checkout(root: Path) -> bool:
    return any((root / mark).is_file() for mark in MARKS)


def sources(root: Path) -> Sources:
    """Folders that are links are left out: what is in them is found where it is."""
    found = Sources()

    def unreadable(error: OSError) -> None:
        path = Path(error.filename).relative_to(root).as_posix()
        found.findings.append(Finding(path, 1, f"cannot be read: {error.strerror}"))

    for name, folders, files in os.walk(root, onerror=unreadable):
        folder = Path(name)
        folders[:] = sorted(each for each in folders if _is_ours(root, folder / each))
        paths = [folder / each for each in sorted(files) if each.endswith(".py")]
        found.files += [p.relative_to(root).as_posix() for p in paths if p.is_file()]
    return found


def is_link(root: Path, path: str) -> bool:
    """Whether the file, or a folder on the way to it, is a link. `root` is resolved."""
    return (root / path).resolve() != root / path


def target(root: Path, path: str) -> str | None:
    """What a link leads to, relative to the root; None if it leads out of it."""
    resolved = (root / path).resolve()
    return resolved.relative_to(root).as_posix() if resolved.is_relative_to(root) else None


def uncommitted(root: Path, touched: Collection[str]) -> list[str]:
    """Files that differ from the last commit, and those to be touched that git does not know.

    Empty if this is no repository: then there is nothing to compare with. Raises Refused
    if it is one that git cannot tell about.
    """
    inside = _git(root, "rev-parse", "--is-inside-work-tree")
    if inside is None or inside.returncode != 0:
        if (root / ".git").exists():
            why = inside.stderr.decode(errors="replace").strip() if inside else "not installed"
            raise Refused(f"git cannot say whether everything is committed: {why}")
        return []
    prefix = os.fsdecode(_answer(root, "rev-parse", "--show-prefix").rstrip(b"\n"))
    status = _answer(
        root,
        "status",
        "--porcelain=v1",
        "-z",
        "--no-renames",
        "--untracked-files=all",
        "--",
        ".",
    )
    lines = [os.fsdecode(line) for line in status.split(b"\0") if line]
    entries = [(line[:2], line[3:].removeprefix(prefix)) for line in lines]
    return [path for state, path in entries if state != "??" or path in touched]


def _is_ours(root: Path, folder: Path) -> bool:
    if folder.name in NOT_OURS or (folder.parent == root and OWN_BACKUP.fullmatch(folder.name)):
        return False
    return not any((folder / mark).exists() for mark in ENVIRONMENT_MARKS)


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[bytes] | None:
    environment = {k: v for k, v in os.environ.items() if k not in GIT_VARIABLES}
    # Without it, `status` writes the index: a dry run would not be one.
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    try:
        return subprocess.run(command, env=environment, capture_output=True, check=False)
    except FileNotFoundError:
        return None


def _answer(root: Path, *arguments: str) -> bytes:
    done = _git(root, *arguments)
    if done is None or done.returncode != 0:
        why = done.stderr.decode(errors="replace").strip() if done else "not installed"
        raise Refused(f"git cannot say whether everything is committed: {why}")
    return done.stdout
