"""Where the gateway will run, and as whom."""

import grp
import os
import pwd
import re
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
