"""A gateway of our own: started as ./scripts/run does, with a database that is thrown away."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from loadlib.azure import Started
from loadlib.health import asked
from proxy import create_app
from proxy.context import EXTENSION, Parts
from proxy.core.types import InstanceConfig
from proxy.settings import ROOT, SETTINGS, Settings, load_settings
from proxy.store import instances, keys, schema
from proxy.store.models import ClientKeyRow
from proxy.store.revisions import Author

CLIENT = "load test"
AUTHOR = Author(CLIENT)
START_SECONDS = 30.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.05
LOG_LINES = 20  # of a gateway that does not start

NOTHING: Mapping[str, Any] = MappingProxyType({})

PROC = Path("/proc")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class GatewayGone(Exception):
    """It did not start, or ended before its time; the message ends with what it logged."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process holds at this moment."""

    pid: int
    pss_mb: float
    threads: int
    files: int
    sockets: int


@dataclass(frozen=True, slots=True)
class Gateway:
    """One that was started. `key` is a client's, `keys` those of clients with names."""

    settings: Settings
    process: subprocess.Popen[bytes]
    log: Path
    key: str = field(repr=False)
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def url(self) -> str:
        return self.settings.address

    def usage(self) -> tuple[Usage, list[Usage]]:
        """Of the main process, and of its workers, oldest first. Raises GatewayGone."""
        self.check()
        pid = self.process.pid
        return usage_of(pid), [usage_of(child) for child in children(pid)]

    def cpu_seconds(self) -> float:
        """Of all its processes, so far. Raises GatewayGone."""
        self.check()
        pid = self.process.pid
        return sum(cpu_seconds(each) for each in (pid, *children(pid)))

    def check(self) -> None:
        """Raises GatewayGone if it has ended."""
        code = self.process.poll()
        if code is not None:
            raise GatewayGone(f"The gateway ended with code {code}. {self._last_words()}")

    def wait_until_healthy(self) -> None:
        """Raises GatewayGone."""
        ends_at = time.monotonic() + START_SECONDS
        while not asked(self.settings, "/health"):
            self.check()
            if time.monotonic() > ends_at:
                raise GatewayGone(f"The gateway does not answer. {self._last_words()}")
            time.sleep(POLL_SECONDS)

    def _last_words(self) -> str:
        lines = self.log.read_text("utf-8", "replace").splitlines()[-LOG_LINES:]
        return "\n".join(["It said:", *lines])


@contextmanager
def gateway(
    folder: Path,
    resources: Sequence[Started],
    model: str,
    *,
    settings: Mapping[str, str] = NOTHING,
    fields: Mapping[str, Any] = NOTHING,
    clients: int = 1,
    client: Mapping[str, Any] = NOTHING,
    named: Sequence[str] = (),
) -> Iterator[Gateway]:
    """Raises GatewayGone. Settings that are not given are the defaults, or what the
    environment says; `fields` are of each instance's config; `clients` is how many have a
    key, besides those `named`, `client` what the one may do whose key it is."""
    environment = {**_environment(folder), **settings}
    loaded = load_settings(environment, env_file=None)
    fields = {"supported_models": (model,), **fields}
    key, keys_of = _filled_database(loaded, resources, fields, clients, client, named)
    log = folder / "gateway.log"
    with log.open("wb") as output:
        # A session of its own: Ctrl-C reaches us alone, and we stop it in order.
        process = subprocess.Popen(
            [sys.executable, "-m", "proxy"],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    started = Gateway(loaded, process, log, key, keys_of)
    try:
        started.wait_until_healthy()
        yield started
    finally:
        _stop(process)


def _environment(folder: Path) -> dict[str, str]:
    """Every setting is named, so that nothing of somebody's .env is in what we measure."""
    given = {s.name: os.environ.get(s.name, "") for s in SETTINGS}
    aliases = {s.alias: os.environ.get(s.alias, "") for s in SETTINGS if s.alias}
    return {
        **given,
        **aliases,
        "ADMIN_API_KEY": "",
        "PORT": str(free_port()),
        "PROXY_BIND": "127.0.0.1",
        "PROXY_DATABASE_URL": f"sqlite:///{folder / 'proxy.db'}",
        "PROXY_SECRET_KEY_FILE": str(folder / "secret.key"),
    }


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def _filled_database(
    settings: Settings,
    resources: Sequence[Started],
    fields: Mapping[str, Any],
    clients: int,
    client: Mapping[str, Any],
    named: Sequence[str],
) -> tuple[str, dict[str, str]]:
    """The schema, the resources as instances without limits, clients; returns one's key, and
    those of the named."""
    parts: Parts = create_app(settings).extensions[EXTENSION]
    try:
        schema.upgrade(parts.database)
        with parts.database.session() as session:
            configs = [
                InstanceConfig(
                    name=resource.name,
                    api_base=resource.url,
                    api_key=resource.api_key,
                    **{"max_tpm": 0, **fields},
                )
                for resource in resources
            ]
            instances.add(session, configs, author=AUTHOR)
            # Not by keys.add, which asks and writes a revision for each of thousands.
            pepper = keys.pepper(session.connection()) or b""
            session.add_all(_other_client(n, pepper) for n in range(1, clients))
            keys_of = {name: keys.add(session, name, {}, author=AUTHOR) for name in named}
            return keys.add(session, CLIENT, client, author=AUTHOR), keys_of
    finally:
        parts.database.dispose()


def _other_client(number: int, pepper: bytes) -> ClientKeyRow:
    name, now = f"client-{number}", time.time()
    return ClientKeyRow(
        name=name,
        key_hash=keys.key_hash(pepper, name),
        key_hint=name[-4:],
        created_at=now,
        updated_at=now,
        revision=1,
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        # The whole of its session, because workers outlive a main process that is killed.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def children(pid: int) -> list[int]:
    """Processes whose parent it is, the oldest first."""
    stats = ((int(path.name), stat(int(path.name))) for path in PROC.glob("[0-9]*"))
    return sorted(child for child, fields in stats if fields and int(fields[1]) == pid)


def cpu_seconds(pid: int) -> float:
    """User and system time so far; to the clock tick, mostly 10 ms."""
    fields = stat(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND if fields else 0.0


def usage_of(pid: int) -> Usage:
    folder = PROC / str(pid)
    files = list((folder / "fd").iterdir())
    lines = (folder / "smaps_rollup").read_text().splitlines()
    return Usage(
        pid=pid,
        pss_mb=pss_mb(lines),
        threads=len(list((folder / "task").iterdir())),
        files=len(files),
        sockets=sum(1 for file in files if _is_socket(file)),
    )


def _is_socket(file: Path) -> bool:
    try:
        return os.readlink(file).startswith("socket:")
    except FileNotFoundError:
        return False  # closed meanwhile


def pss_mb(lines: Iterable[str]) -> float:
    """From /proc/PID/smaps_rollup. PSS shares what is shared, so it can be added up."""
    kilobytes = next(line.split()[1] for line in lines if line.startswith("Pss:"))
    return int(kilobytes) / 1024


def stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name, from `state`; empty if it has gone."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    # The name may hold spaces and parentheses; the last ")" ends it.
    return text.rpartition(")")[2].split()
