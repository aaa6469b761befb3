"""The real gateway: gunicorn with two workers, as `python -m proxy` starts it."""

import os
import re
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from proxy.settings import ROOT, SETTINGS, load_settings
from proxy.simulator import Resource, Simulator
from proxy.store import keys
from proxy.store.db import Database
from proxy.store.revisions import Author
from proxy.store.vault import Vault
from tests import planted
from tests.builders import SECRET_KEY

ADMIN_KEY = "planted-admin-key-of-the-tests"
READY_SECONDS = 45.0  # of a machine that is shared; reached only by a bug
SYNC_MS = 100
PORTS = range(20_000, 32_000)


@dataclass
class Gateway:
    """One running gateway. `stop` ends it as a supervisor would, and waits for it."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] = field(init=False)
    client_key: str = ""
    settings: dict[str, str] = field(default_factory=dict)  # of it and its commands
    workers: int = field(init=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def database(self) -> Path:
        return self.folder / "proxy.db"

    @property
    def log(self) -> str:
        return (self.folder / "stderr.log").read_text()

    def environment(self, **more: str) -> dict[str, str]:
        ours = {s.name for s in SETTINGS}
        clean = {k: v for k, v in os.environ.items() if k not in ours}
        return clean | {
            "ADMIN_API_KEY": ADMIN_KEY,
            "PORT": str(self.port),
            "PROXY_DATABASE_URL": f"sqlite:///{self.database}",
            "PROXY_SECRET_KEY": SECRET_KEY,
            "PROXY_WORKERS": "2",
            "PROXY_SYNC_INTERVAL_MS": str(SYNC_MS),
            "PROXY_DRAIN_SECONDS": "0",  # no load balancer has to notice
            **self.settings,
            **more,
        }

    def command(self, *arguments: str) -> str:
        """Standard output of a `flask` command."""
        done = subprocess.run(
            [sys.executable, "-m", "flask", *arguments],
            cwd=ROOT,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def start(self, **settings: str) -> None:
        self.workers = int(self.environment(**settings)["PROXY_WORKERS"])
        with (self.folder / "stderr.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "proxy"],
                cwd=ROOT,
                env=self.environment(**settings),
                stdout=log,
                stderr=log,
            )
        until(self.answers, "the gateway answers")
        if not self.client_key:
            self.client_key = self._add_client("team-a")
            until(self.is_settled, "all workers know the client's key")

    def _add_client(self, name: str) -> str:
        """As `flask keys add` does, without its process, which takes a second of a core."""
        settings = load_settings(environ=self.environment(), env_file=None)
        vault = Vault(settings.secret_key, settings.secret_key_file)
        database = Database(settings.database_url, vault)
        with database.session() as session:
            key = keys.add(session, name, author=Author("tests"))
        database.dispose()
        return key

    def answers(self) -> bool:
        assert self.process.poll() is None, self.log
        try:
            return requests.get(f"{self.url}/health", timeout=5).ok
        except requests.ConnectionError:
            return False

    def agreed(self, question: Callable[[], Any], answer: Any, times: int = 12) -> bool:
        """Each worker says so: the kernel spreads new connections over them."""
        return all(question() == answer for _ in range(times))

    def admin(self, method: str, path: str = "", **options: Any) -> requests.Response:
        return requests.request(
            method,
            f"{self.url}/admin/instances{path}",
            headers={"X-Admin-API-Key": ADMIN_KEY, **options.pop("headers", {})},
            timeout=10,
            **options,
        )

    def change(self, name: str, **fields: Any) -> None:
        """A change of config that every worker knows when this returns."""
        answer = self.admin("PUT", f"/{name}/config", json=fields)
        assert answer.ok, answer.text
        until(self.is_settled, "all workers know the change")

    def is_settled(self) -> bool:
        """All workers have the config that is in the database now. To ask it often is no way
        to find out: who answers is the kernel's choice, and it may always choose the same."""
        told = requests.get(f"{self.url}/metrics", timeout=5).text
        known = re.findall(r"^gateway_config_revision\{.*\} (\S+)$", told, re.MULTILINE)
        ((newest,),) = self.rows("SELECT max(id) FROM config_revision")
        # One that begins may have read the one before, and not have told of it yet.
        is_told = len(known) >= self.workers
        return is_told and {float(each) for each in known} == {newest}

    def chat(self, **body: Any) -> requests.Response:
        stream = body.get("stream", False)
        return requests.post(
            f"{self.url}/v1/chat/completions",
            json={"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]} | body,
            headers={"Authorization": f"Bearer {self.client_key}"},
            timeout=30,
            stream=stream,
        )

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(query).fetchall()

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(40)


def until(condition: Callable[[], Any], what: str, seconds: float = READY_SECONDS) -> None:
    """Asks again until it is so: another process does it in its own time."""
    deadline = time.monotonic() + seconds
    while not _is_so(condition):
        assert time.monotonic() < deadline, f"waited {seconds} s until {what}"
        time.sleep(0.02)


def _is_so(condition: Callable[[], Any]) -> bool:
    """Where an answer does not come in time, it is not known yet."""
    try:
        return bool(condition())
    except requests.Timeout:
        return False


def free_port() -> int:
    """Below those that the kernel gives away: what asks it for one before the gateway has
    started, in this process or another, is not given the same."""
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    resources = [
        Resource(name=n, api_key=f"planted-key-of-{n}", tokens=10) for n in ("east", "west")
    ]
    with Simulator(resources) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def stopped_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path_factory.mktemp("gateway"), free_port())
    end_watch = planted.watch_requests()
    yield gateway
    end_watch()
    gateway.stop(signal.SIGKILL)
    # Nothing of a secret in its log, nor in the file in which they are encrypted.
    for path in sorted(p for p in gateway.folder.rglob("*") if p.is_file()):
        is_database = path.name.startswith(gateway.database.name)
        planted.look_at_file(path, planted.OF_DATABASES if is_database else planted.PATTERNS)
    assert planted.taken() == []


@pytest.fixture(scope="module")
def gateway(stopped_gateway: Gateway, simulator: Simulator) -> Gateway:
    """Two workers in front of the simulated instances `east` and `west`."""
    stopped_gateway.start()
    for resource in simulator.resources.values():
        add_instance(stopped_gateway, resource)
    return stopped_gateway


def add_instance(gateway: Gateway, resource: Resource, **config: Any) -> None:
    response = gateway.admin(
        "POST",
        json={
            "name": resource.name,
            "api_base": resource.url,
            "api_key": resource.api_key,
            "supported_models": ["gpt-4o", "gpt-35-turbo-instruct", "text-embedding-3-small"],
            "max_tpm": 0,
        }
        | config,
    )
    assert response.status_code == 201, response.text
    until(gateway.is_settled, "all workers know the instance")


@pytest.fixture(autouse=True)
def well(simulator: Simulator) -> None:
    for resource in simulator.resources.values():
        resource.reset()
