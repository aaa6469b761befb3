"""What is measured: something that listens, and the processes that are its."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadlib.azure import Started
from loadlib.gateway import Gateway, children, cpu_seconds, free_port, gateway

from benchlib.loads import HOST, Target
from proxy.settings import ROOT

MODEL = "gpt-4o"
UPSTREAM_KEY = "bench-upstream-key"
API_VERSION = "2024-10-21"
# As other settings, of the environment if it says so.
WORKERS = int(os.environ.get("PROXY_WORKERS", "2"))
INSTANCES = 3

# As large as what the upstream's headers say: all is counted, and nothing is refused.
LIMITS: Mapping[str, Any] = {"max_tpm": 1_000_000_000, "max_rpm": 100_000_000}

DIRECT, EMPTY, GATEWAY = "direct", "empty Flask view", "gateway"

SCRIPTS = ROOT / "scripts"
POLL_SECONDS = 0.05
STOP_SECONDS = 10.0
LOG_LINES = 20


class DidNotStart(Exception):
    """A server that is to be measured does not listen; the text has its last words."""


@dataclass(frozen=True, slots=True)
class Place:
    """`pid` is of its first process; None: it is the upstream itself, and costs nothing."""

    name: str
    target: Target
    pid: int | None = None

    def cpu_seconds(self) -> float:
        """Of all its processes that live, so far."""
        return sum(cpu_seconds(pid) for pid in family(self.pid)) if self.pid else 0.0


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    return [pid, *(found for child in children(pid) for found in family(child))]


def direct(upstream_port: int) -> Place:
    path = f"/openai/deployments/{MODEL}/chat/completions?api-version={API_VERSION}"
    return Place(DIRECT, Target(upstream_port, path, (f"api-key: {UPSTREAM_KEY}",)))


def through(started: Gateway, name: str = GATEWAY) -> Place:
    headers = (f"Authorization: Bearer {started.key}",)
    target = Target(started.settings.port, "/v1/chat/completions", headers)
    return Place(name, target, started.process.pid)


@contextmanager
def our_gateway(
    folder: Path,
    upstream_url: str,
    *,
    instances: int = INSTANCES,
    clients: int = INSTANCES,
    models: Sequence[str] = (MODEL,),
    settings: Mapping[str, str] | None = None,
    fields: Mapping[str, Any] | None = None,
) -> Iterator[Gateway]:
    """With the settings it has by itself but for the number of workers. Raises GatewayGone."""
    folder.mkdir()
    resources = [
        Started(f"instance-{number:04}", upstream_url, UPSTREAM_KEY)
        for number in range(instances)
    ]
    with gateway(
        folder,
        resources,
        MODEL,
        settings={"PROXY_WORKERS": str(WORKERS), **(settings or {})},
        fields={**LIMITS, "supported_models": tuple(models), **(fields or {})},
        clients=clients,
    ) as started:
        yield started


@contextmanager
def empty_view(folder: Path) -> Iterator[Place]:
    """A Flask view that does nothing, on the gateway's own gunicorn settings."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "-c", "python:benchlib.empty_conf"]
    environment = {
        "PYTHONPATH": f"{SCRIPTS}{os.pathsep}{ROOT}",
        "PORT": str(port),
        "PROXY_BIND": HOST,
        "PROXY_WORKERS": str(WORKERS),
    }
    with served([*command, "benchlib.empty:app"], environment, port, folder / "empty.log") as p:
        yield Place(EMPTY, Target(port, "/v1/chat/completions"), p.pid)


@contextmanager
def served(
    command: Sequence[str],
    environment: Mapping[str, str],
    port: int,
    log: Path,
    *,
    start_seconds: float = 30.0,
) -> Iterator[subprocess.Popen[bytes]]:
    """A server while it listens on `port`. Raises DidNotStart."""
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=log.parent,  # not ours: some look for modules around it
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
    except OSError as error:
        raise DidNotStart(f"{command[0]}: {error.strerror}") from error
    try:
        _wait_until_it_listens(process, port, log, start_seconds)
        yield process
    finally:
        _stop(process)


def _wait_until_it_listens(
    process: subprocess.Popen[bytes], port: int, log: Path, seconds: float
) -> None:
    ends_at = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
            return
        except OSError:
            pass  # not yet
        if process.poll() is not None or time.monotonic() > ends_at:
            words = log.read_text("utf-8", "replace").splitlines()[-LOG_LINES:]
            raise DidNotStart("\n".join(["It does not listen. It said:", *words]))
        time.sleep(POLL_SECONDS)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        pass  # killed below, with whatever it left behind
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # all of it has gone
    process.wait()
