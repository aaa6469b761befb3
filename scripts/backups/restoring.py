"""From a backup to the place of its source; what is there is kept aside."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from backups import checks, shelf, users
from backups.checks import Facts
from backups.problems import Problem, WrongUsage, told
from backups.shelf import Source
from backups.taking import half_written, synced

ASIDE = ".before-restore-"


@dataclass(frozen=True, slots=True)
class Restored:
    """`aside` is where the file that was there is now; None if there was none.

    `latecomers` are processes that opened it just before it went.
    """

    path: Path
    aside: Path | None
    facts: Facts
    latecomers: list[int]


def newest_whole(folder: Path, target: Source, skipped: list[str]) -> Path:
    """The newest backup of the target that passes its check. `skipped` takes a line for each
    newer one that does not. Raises Problem if there is none."""
    mine = [b for b in shelf.listed(folder) if b.is_of(target)]
    for backup in reversed(mine):
        try:
            checks.examined(backup.path)
        except Problem as problem:
            skipped.append(str(problem))
        else:
            return backup.path
    none = "is whole" if mine else "is there"
    raise Problem(f"No backup of {target.path} {none} in {folder}. {' '.join(skipped)}".strip())


def restore(backup: Path, target: Source, *, needs_revision: bool) -> Restored:
    """Raises Problem, and then `target` is as it was.

    `needs_revision`: only a database with the proxy's schema will do.
    """
    facts = checks.examined(backup)
    _check_kind(backup, facts, target, needs_revision)
    path = target.path
    with told(path.parent):
        path.parent.mkdir(mode=shelf.FOLDER_MODE, parents=True, exist_ok=True)
    _check_place(backup, path)
    with half_written(path.parent, path.name) as part:
        with told(path.parent):
            shutil.copyfile(backup, part)
            _keep_owner(part, path)
            synced(part)
            if checks.hash_of(part) != facts.sha256:
                raise Problem(f"{backup} changed, or {path.parent} did not keep the copy.")
        with users.alone(path):
            aside = _exchange(part, path)
    with told(path):
        if checks.hash_of(path) != facts.sha256:
            raise Problem(f"{path} is not what was restored: another program wrote it.")
        return Restored(path, aside, facts, users.users_of(aside) if aside else [])


def _check_kind(backup: Path, facts: Facts, target: Source, needs_revision: bool) -> None:
    if target.is_database and facts.kind != checks.DATABASE:
        raise WrongUsage(f"{backup} is JSON; say with --file where it belongs.")
    if not target.is_database and facts.kind != checks.JSON:
        raise WrongUsage(f"{backup} is a database; name its place with --database.")
    if needs_revision and facts.revision is None:
        raise Problem(
            f"{backup} is not of the proxy's database: it has no schema revision. Name the"
            " database it belongs to with --database."
        )


def _check_place(backup: Path, path: Path) -> None:
    if path.exists() and not path.is_file():
        raise Problem(f"{path} is not a file; check the name.")
    if path.exists() and path.samefile(backup):
        raise WrongUsage(f"{backup} is in its place already.")


def _keep_owner(part: Path, path: Path) -> None:
    """What root puts back must still be the proxy's, whose file or folder it was."""
    if os.geteuid() == 0:
        status = (path if path.exists() else path.parent).stat()
        os.chown(part, status.st_uid, status.st_gid)


def _exchange(part: Path, path: Path) -> Path | None:
    """All or nothing. Raises Problem.

    The file itself stays until the new one takes its place in one step, so that a proxy
    that is started right now does not find none and make one. Side files go before that:
    SQLite would apply those of the old database to the new one.
    """
    aside = path.with_name(f"{path.name}{ASIDE}{shelf.stamp(shelf.now())}")
    was_there = path.exists()
    pairs = zip(checks.with_side_files(path), checks.with_side_files(aside), strict=True)
    _, *side_files = pairs
    with _signals_later(), told(path), ExitStack() as undo:
        if was_there:
            _link_or_move(path, aside)
            undo.callback(_move_back, aside, path)
        for present, moved in side_files:
            if present.exists():
                os.rename(present, moved)
                undo.callback(_move_back, moved, present)
        os.rename(part, path)
        undo.pop_all()
        synced(path.parent)
    return aside if was_there else None


@contextmanager
def _signals_later() -> Iterator[None]:
    """Between a step and the note of how to undo it nothing may come."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _link_or_move(path: Path, aside: Path) -> None:
    try:
        os.link(path, aside)  # unlike a rename, never over a file that is there
    except FileExistsError:
        raise
    except OSError:
        os.rename(path, aside)  # a file system without links


def _move_back(aside: Path, path: Path) -> None:
    os.replace(aside, path)
    # A link to the same file is not moved, and is one too many.
    aside.unlink(missing_ok=True)
