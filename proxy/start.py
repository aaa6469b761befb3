"""Bringing the database up to date, starting gunicorn, and greeting the operator."""

import errno
import logging
import os
import runpy
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from proxy import make_parts
from proxy.context import Parts
from proxy.core import findings
from proxy.runtime import open_files
from proxy.settings import INSTANCE_FOLDER, ROOT, SettingError, Settings
from proxy.store import admin_keys, damage, instances, keys, lost, schema
from proxy.store.checkup import OTHERS
from proxy.store.vault import PRIVATE_FOLDER, Vault

RELEASE_SECONDS = 5.0  # for which a port is waited for
LOOK_SECONDS = 0.25
# Where systemd, or the gunicorn that is replaced, hands its open socket on.
GIVEN_SOCKETS = {"LISTEN_FDS", "GUNICORN_FD"}

ADD_AN_INSTANCE = """\
No instance is configured yet. Add one:

  curl -X POST {address}/admin/instances -H "X-Admin-API-Key: YOUR-ADMIN-API-KEY" \\
    -H "Content-Type: application/json" -d '{{"name": "east-us",
      "api_base": "https://YOUR-RESOURCE.openai.azure.com", "api_key": "ITS-KEY",
      "supported_models": ["gpt-4o"], "model_deployments": {{"gpt-4o": "YOUR-DEPLOYMENT"}}}}'
"""
NO_ADMIN_KEY = """\
The admin API is closed: set ADMIN_API_KEY (in .env, or in the environment), or make a key:
.venv/bin/flask admins add NAME --role admin
"""
WEAK_ADMIN_KEY = """\
ADMIN_API_KEY can be guessed: it is short, or the one of the documentation. Choose a long random
one: openssl rand -hex 32
"""
NO_CLIENT_KEY = "No client has a key yet. Make one: .venv/bin/flask keys add NAME\n"
KEY_IS_SHARED = """\
Others can read {path}, which holds the key that secrets are encrypted with: chmod 600 {path}
"""
VAULT_IS_CLOSED = """\
Secrets can be neither read nor stored: {problem}.
Put the key back from where you keep its copy; `.venv/bin/flask secrets check` tells the rest.
"""
FEW_FILES = """\
A worker may open {files} files; for PROXY_THREADS={threads} it may need {needed}. Raise the
limit (ulimit -Hn, or LimitNOFILE= in systemd), or lower PROXY_THREADS.
"""
AUTH_IS_OFF = """\
********************************************************************************
PROXY_CLIENT_AUTH=off: everybody who reaches {address} may use your
instances at your cost. Only for networks in which you trust everyone.
********************************************************************************
"""


def serve(settings: Settings) -> int:
    """Returns when gunicorn ends, which takes this process over: signals reach it, and what is
    loaded is not loaded again."""
    if not GIVEN_SOCKETS & os.environ.keys():
        await_port(settings)
    parts = make_parts(settings)  # without the app, which gunicorn makes
    prepare(parts)
    parts.database.dispose()
    logging.shutdown()
    os.chdir(ROOT)
    _, _, module, *sys.argv[1:] = gunicorn_command()
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


def await_port(
    settings: Settings,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """As `check_port`, but one that is in use is waited for: who is just ending may have it
    still, as the workers of one that was killed, which notice that within a second or two."""
    until, is_told = clock() + RELEASE_SECONDS, False
    while True:
        try:
            return check_port(settings)
        except SettingError as error:
            is_in_use = getattr(error.__cause__, "errno", None) == errno.EADDRINUSE
            if not is_in_use or clock() >= until:
                raise
            if not is_told:
                sys.stderr.write(f"{error}; waiting {RELEASE_SECONDS:.0f} s for it ...\n")
            is_told = True
        sleep(LOOK_SECONDS)


def check_port(settings: Settings) -> None:
    """Before anything is changed: another gateway may be running, with the same database.
    Raises SettingError."""
    family = socket.AF_INET6 if ":" in settings.bind else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.bind, settings.port))
        except (OSError, UnicodeError) as error:
            code, why = getattr(error, "errno", None), getattr(error, "strerror", None)
            which, remedy = (
                "PROXY_BIND",
                "set PROXY_BIND to an address of this host, without []",
            )
            if code in (errno.EADDRINUSE, errno.EACCES):
                which, remedy = "PORT", "set PORT to a free one"
            raise SettingError(
                f"{which}: {settings.bind}:{settings.port} cannot be used ({why or error});"
                f" {remedy}"
            ) from error


def prepare(parts: Parts) -> None:
    """The database exists, has our schema and can be written. Raises SchemaProblem."""
    damage.set_aside_if_damaged(parts.database)
    file = parts.database.file
    if file is not None and file.parent == INSTANCE_FOLDER:
        _keep_to_ourselves(INSTANCE_FOLDER)
    try:
        schema.check(parts.database)
    except schema.SchemaOutdated as problem:
        is_new = isinstance(problem, schema.DatabaseMissing)
        what = f"Making the database {file}" if is_new else f"{problem}\nMigrating"
        if is_new and lost.key_beside(parts.database) is not None:
            what = f"{problem}\n{what}, an empty one"
        sys.stderr.write(f"{what} ...\n")
        schema.upgrade(parts.database)
        schema.check(parts.database)


def _keep_to_ourselves(folder: Path) -> None:
    """It came with the checkout, whose folders all may read."""
    try:
        status = folder.stat()
        if status.st_mode & OTHERS and status.st_uid == os.geteuid():
            folder.chmod(PRIVATE_FOLDER)
    except OSError:
        pass  # somebody mounted it so; what is in it is private by itself


def greeting(parts: Parts) -> str:
    """Where it listens, and what a newcomer still has to do."""
    settings = parts.settings
    with parts.database.read() as connection:
        has_instance = instances.is_any(connection)
        has_key = keys.is_any(connection)
        has_admin = bool(settings.admin_api_key or admin_keys.load_all(connection))
    text = (
        f"Starting on {settings.address} with {settings.workers} workers of up to"
        f" {settings.threads} threads.\n"
    )
    files = open_files.allow_all()
    if files < open_files.needed(settings.threads):
        text += FEW_FILES.format(
            files=files, threads=settings.threads, needed=open_files.needed(settings.threads)
        )
    text += _of_the_vault(parts.database.vault)
    if settings.client_auth == "off":
        text += AUTH_IS_OFF.format(address=settings.address)
    elif not has_key:
        text += NO_CLIENT_KEY
    if not has_admin:
        text += NO_ADMIN_KEY
    elif findings.can_be_guessed(settings.admin_api_key):
        text += WEAK_ADMIN_KEY
    if not has_instance:
        text += ADD_AN_INSTANCE.format(address=settings.address)
    return text


def _of_the_vault(vault: Vault) -> str:
    """It is no reason not to start: what is wrong can be seen and mended by the admin API. Nor
    to refuse a file that others can read: containers mount it so."""
    if vault.problem:
        return VAULT_IS_CLOSED.format(problem=vault.problem)
    return KEY_IS_SHARED.format(path=vault.path) if vault.is_exposed else ""


def gunicorn_command() -> list[str]:
    """No secret is in it: settings travel in the environment and .env."""
    return [sys.executable, "-m", "gunicorn", "-c", "python:proxy.gunicorn_conf", "wsgi:app"]
