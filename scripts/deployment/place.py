"""Where the gateway will run, and as whom."""

import grp
import os
import pwd
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from proxy.settings import ROOT, SettingError, Settings, load_settings
from proxy.store import schema
from proxy.store.db import Database

# What needs no escaping anywhere but `%`: quotes, `$`, `*` and the like mean something else
# in each of the files.
PLAIN_PATH = re.compile(r"/[\w ./+@:,%=~-]*")
# systemd.exec(5), User=: what it takes without a warning.
PLAIN_USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}")


# systemd.exec(5), PrivateTmp=: the service has its own of these.
PRIVATE = (Path("/tmp"), Path("/var/tmp"))  # nosec B108  # nothing is written there


class Refused(Exception):
    """A sentence about what cannot be done. Nothing was written."""


@dataclass(frozen=True, slots=True)
class Place:
    """`folders` are all that the gateway writes to; `database` is None if it is no file."""

    user: str
    group: str
    root: Path
    python: Path
    settings: Settings
    database: Path | None
    folders: tuple[Path, ...]

    @classmethod
    def of(cls, user: str | None, root: Path, python: Path | None) -> Self:
        """With the settings in the `.env` there: a service sees no others. Raises Refused."""
        user = user or _present_user()
        if not PLAIN_USER.fullmatch(user) or user == "root":
            raise Refused(f"--user: {user!r} cannot be used; name an ordinary user for it.")
        root = root.absolute()
        python = (python or root / ".venv/bin/python").absolute()
        try:
            settings = load_settings(environ={}, env_file=root / ".env")
            database = _database(settings.database_url)
        except SettingError as error:
            raise Refused(f"{error}.") from error
        instance = root / "instance"
        key_folder = None if settings.secret_key else settings.secret_key_file.parent
        written = [instance, database and database.parent, settings.log_dir, key_folder]
        folders = tuple(dict.fromkeys(_moved(path, root) for path in written if path))
        for path in (root, python, *folders):
            if not PLAIN_PATH.fullmatch(str(path)):
                raise Refused(
                    f"{str(path)!r} cannot be written to a unit; use a path of letters,"
                    " digits, spaces and . _ - + @ : , % = ~"
                )
        return cls(user, _group_of(user), root, python, settings, database, folders)

    @property
    def stderr_log(self) -> Path:
        """Where stderr may go instead of the journal."""
        log_dir = self.settings.log_dir
        folder = _moved(log_dir, self.root) if log_dir else self.root / "instance"
        return folder / "stderr.log"


def hindrances(place: Place) -> list[str]:
    """Why the service would not start there, though its files are right. Of a user who is not
    known on this host nothing can be said."""
    try:
        account = pwd.getpwnam(place.user)
    except KeyError:
        return []
    groups = os.getgrouplist(place.user, account.pw_gid)
    # A venv's python is a link to the interpreter, which may be in somebody's home.
    needed = [place.root, place.python, *_behind_links(place.root, place.python)]
    ways = [place.root, *(parent for path in needed for parent in path.parents)]
    found = [
        f"{folder} may not be entered by {place.user}."
        for folder in dict.fromkeys(ways)
        if not _may_enter(folder, account.pw_uid, groups)
    ]
    hidden = [t for t in PRIVATE if any(path.is_relative_to(t) for path in needed)]
    return found + [
        f"What is below {t} is hidden from the service (PrivateTmp)." for t in hidden
    ]


def _behind_links(*paths: Path) -> list[Path]:
    try:
        return [path.resolve() for path in paths]
    except (OSError, RuntimeError):  # of a loop: then there is nothing behind it
        return []


def _may_enter(folder: Path, uid: int, groups: list[int]) -> bool:
    try:
        status = folder.stat()
    except OSError:
        return True  # it is not there yet, or not ours to see
    if status.st_uid == uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid in groups:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def _database(url: str) -> Path | None:
    # Of another kind the driver need not be here, only where the gateway runs.
    return schema.sqlite_path(Database(url)) if url.startswith("sqlite") else None


def _moved(path: Path, root: Path) -> Path:
    """Settings begin relative paths at this checkout; the other begins them at its own."""
    return root / path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def _present_user() -> str:
    if os.geteuid() == 0:
        raise Refused("Name the user that the gateway is to run as: --user NAME. Not root.")
    return pwd.getpwuid(os.geteuid()).pw_name


def _group_of(user: str) -> str:
    try:
        return grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name
    except KeyError:
        return user  # made later, or on another host: `useradd` names the group so
