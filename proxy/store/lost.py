"""What tells that a database which is gone was there, and the way back to it."""

import glob
import hashlib
import re
from pathlib import Path

from proxy.settings import INSTANCE_FOLDER
from proxy.store.db import Database

BACKUP_FOLDER = "backups"
# As scripts/backups/shelf.py names them: the source's name, when, which source, its content.
_NAME = r"{stem}\.(?P<stamp>\d{{8}}T\d{{6}}\.\d{{6}}Z)\.{key}\.[0-9a-f]{{16}}{suffix}"

WAY_BACK = (
    "Put the file back; or stop the gateway, and `.venv/bin/python scripts/backup_monitor.py"
    " restore --newest` puts the newest good backup in its place."
)
BEGIN_ANEW = (
    "Only to begin anew, without any client or instance: `.venv/bin/alembic upgrade head`."
)


def key_beside(database: Database) -> Path | None:
    """The key of its secrets, where a first start makes it. It may be another's in this folder
    (the demo's, say), and one that lies elsewhere may have been put there for a first start."""
    path, key = database.file, database.vault.path
    if path is None or key is None or key.parent.resolve() != path.parent.resolve():
        return None
    return key if key.exists() else None


def newest_backup(path: Path) -> Path | None:
    """Of those in the folder where they are made, and of one beside the file."""
    path = path.resolve()
    key = hashlib.sha256(bytes(path)).hexdigest()[:8]
    stem, suffix = re.escape(path.stem), re.escape(path.suffix)
    name = re.compile(_NAME.format(stem=stem, key=key, suffix=suffix))
    some = f"{glob.escape(path.stem)}.*"
    found = {
        match["stamp"]: file
        for folder in (INSTANCE_FOLDER, path.parent)
        for file in (folder / BACKUP_FOLDER).glob(some)
        if (match := name.fullmatch(file.name))
    }
    return found[max(found)] if found else None
