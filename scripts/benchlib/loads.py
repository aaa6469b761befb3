"""The upstream and the client as seen from Python: what is asked, and what came of it."""

import http.client
import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"


class Broken(Exception):
    """One of our own two programs did not do what it is for."""


@dataclass(frozen=True, slots=True)
class Target:
    port: int
    path: str
    headers: tuple[str, ...] = field(default=(), repr=False)  # "name: value"; with the key


@dataclass(frozen=True, slots=True)
class Ask:
    """What the client does; client.c says what each means. `events` 0: no streams."""

    bodies: tuple[Path, ...]
    connections: int = 1
    seconds: float = 0.0
    requests: int = 0
    warm_seconds: float = 0.0
    ramp_seconds: float = 0.0
    rate: float = 0.0
    events: int = 0
    timeout_seconds: float = 60.0
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of the client did. `*_in_time` and the percentiles (in µs, by names such
    as "p99.9") are of what was measured; `finished` and `events` of all that was made."""

    seconds: float
    finished: int
    finished_in_time: int
    events: int
    events_in_time: int
    cpu_seconds: float
    total_us: Mapping[str, float]
    first_byte_us: Mapping[str, float]
    delay_us: Mapping[str, float]
    failed: Mapping[str, int]
    example: str
    reconnects: int

    @property
    def per_second(self) -> float:
        return self.finished_in_time / self.seconds


class Upstream:
    """The fake Azure. Not thread-safe."""

    def __init__(self, port: int) -> None:
        self.port = port

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def behave(
        self, *, answer_bytes: int = 1000, events: int = 100, interval_ms: float = 20.0
    ) -> None:
        """From the next answer on; to be asked for between two loads."""
        interval_us = round(interval_ms * 1000)
        connection = http.client.HTTPConnection(HOST, self.port, timeout=10)
        plan = f"answer_bytes={answer_bytes}&events={events}&interval_us={interval_us}"
        try:
            connection.request("POST", f"/control?{plan}")
            connection.getresponse().read()
        finally:
            connection.close()


@contextmanager
def upstream(program: Path) -> Iterator[Upstream]:
    with subprocess.Popen([program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None, "it was asked for"
        try:
            yield Upstream(int(process.stdout.readline()))
        finally:
            process.kill()


def load(program: Path, target: Target, ask: Ask) -> Load:
    """Raises Broken if the client itself fails; what the server did wrong is in `failed`."""
    given: dict[str, Any] = {
        "port": target.port,
        "path": target.path,
        "connections": ask.connections,
        "seconds": ask.seconds,
        "requests": ask.requests,
        "warm-seconds": ask.warm_seconds,
        "ramp-seconds": ask.ramp_seconds,
        "rate": ask.rate,
        "events": ask.events,
        "timeout-seconds": ask.timeout_seconds,
        "type": ask.content_type,
    }
    several = {"body": ask.bodies, "header": target.headers}
    arguments = [f"--{name}={value}" for name, value in given.items()]
    arguments += [f"--{name}={value}" for name, values in several.items() for value in values]
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise Broken(f"The client ended with code {done.returncode}. {done.stderr}")
    return Load(**json.loads(done.stdout))
