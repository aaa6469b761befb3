"""What a scrape of /metrics costs: with many instances, models and clients, all of them used.

    python scripts/metrics_benchmark.py
    python scripts/metrics_benchmark.py --instances 3 --models 2 --clients 5 --scrapes 5 --json

Each client has used each model on each instance, and has limits. Prints how long a scrape
takes, what CPU time of it is the process's, how much it answers, and how long another thread
of the worker, that has something to do meanwhile, waits for the interpreter, in a hundred cases
but one. Figures are reported, never judged.
"""

import argparse
import json
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

from cryptography.fernet import Fernet
from flask import Flask

from proxy import create_app
from proxy.context import EXTENSION, Parts
from proxy.core.deltas import Deltas
from proxy.core.types import InstanceConfig
from proxy.core.usage import COUNTERS
from proxy.settings import load_settings
from proxy.store import instances, keys, schema, usage
from proxy.store.revisions import Author

AUTHOR = Author("benchmark")
LIMITS = {"max_tpm": 10**6, "max_tokens_per_day": 10**9, "max_cost_per_month": 1000.0}
MINUTE_AT = 1_700_000_040
LOOK_SECONDS = 0.001
# As the workers have it (proxy/gunicorn_conf.py).
SWITCH_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Found:
    """Medians of all scrapes; `waits_ms` is the 99th percentile."""

    instances: int
    models: int
    clients: int
    scrape_ms: float
    cpu_ms: float
    lines: int
    size_bytes: int
    waits_ms: float


class Waiter:
    """Looks again and again how long it waits for the interpreter, as requests' threads do."""

    def __init__(self) -> None:
        self._waits: list[float] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Waiter":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    @property
    def seconds(self) -> float:
        """That 99 of a hundred times took, or less."""
        return sorted(self._waits)[len(self._waits) * 99 // 100]

    def _look(self) -> None:
        while not (self._stopping.is_set() and self._waits):
            before = time.monotonic()
            time.sleep(LOOK_SECONDS)
            self._waits.append(time.monotonic() - before - LOOK_SECONDS)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parsed(argv)
    shape = (arguments.instances, arguments.models, arguments.clients)
    found = run(*shape, arguments.scrapes)
    print(json.dumps(asdict(found)) if arguments.json else as_markdown(found))
    return 0


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("instances", 40), ("models", 10), ("clients", 50), ("scrapes", 20)):
        parser.add_argument(
            f"--{name}", type=_at_least_one, default=default, help="default: %(default)d"
        )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser.parse_args(argv)


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError("it must be a whole number of at least 1")
    return int(text)


def run(number: int, models: int, clients: int, scrapes: int) -> Found:
    """In a database of its own."""
    with tempfile.TemporaryDirectory(prefix="metrics-benchmark-") as folder:
        settings = replace(
            load_settings(environ={}, env_file=None),
            database_url=f"sqlite:///{folder}/proxy.db",
            secret_key=(Fernet.generate_key().decode(),),
            log_level="warning",
        )
        app = create_app(settings)
        parts: Parts = app.extensions[EXTENSION]
        schema.upgrade(parts.database)
        _fill(parts, number, models, clients)
        switch_seconds = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_SECONDS)
        parts.start()
        try:
            return _measured(app, (number, models, clients), scrapes)
        finally:
            parts.stop()
            sys.setswitchinterval(switch_seconds)


def _fill(parts: Parts, number: int, models: int, clients: int) -> None:
    named = tuple(f"model-{each}" for each in range(models))
    configs = [
        InstanceConfig(
            name=f"instance-{each:03}",
            api_key=f"invented-key-of-{each}",
            api_base=f"https://instance-{each}.openai.azure.com",
            supported_models=named,
            model_limits={model: {"max_tpm": 100_000} for model in named},
        )
        for each in range(number)
    ]
    callers = [f"client-{each:03}" for each in range(clients)]
    with parts.database.session() as session:
        instances.add(session, configs, author=AUTHOR)
        for client in callers:
            keys.add(session, client, LIMITS, author=AUTHOR)
    used = Deltas(usage={
        (MINUTE_AT, config.name, model, client): dict.fromkeys(COUNTERS, 1)
        for config in configs
        for model in named
        for client in callers
    })  # fmt: skip
    with parts.database.write() as connection:
        usage.add(connection, used)
    with parts.database.write() as connection:
        usage.roll_up(connection, MINUTE_AT + 600)


def _measured(app: Flask, shape: tuple[int, int, int], scrapes: int) -> Found:
    client = app.test_client()
    body = client.get("/metrics").data  # what is made once is made
    took, cpu = [], []
    with Waiter() as waiter:
        for _ in range(scrapes):
            began, cpu_began = time.monotonic(), time.process_time()
            answer = client.get("/metrics")
            assert answer.status_code == 200
            took.append(time.monotonic() - began)
            cpu.append(time.process_time() - cpu_began)
    return Found(
        *shape,
        scrape_ms=statistics.median(took) * 1000,
        cpu_ms=statistics.median(cpu) * 1000,
        lines=body.count(b"\n"),
        size_bytes=len(body),
        waits_ms=waiter.seconds * 1000,
    )


def as_markdown(found: Found) -> str:
    facts = {
        "cores": len(os.sched_getaffinity(0)),
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
    }
    names = ("instances", "models", "clients", "lines", "MB", "a scrape, ms", "CPU, ms")
    names += ("another thread waits, p99, ms",)
    values = (
        *(str(n) for n in (found.instances, found.models, found.clients, found.lines)),
        f"{found.size_bytes / 1e6:.2f}",
        *(f"{ms:.0f}" for ms in (found.scrape_ms, found.cpu_ms, found.waits_ms)),
    )
    return "\n".join(
        [
            ", ".join(f"{name} {value}" for name, value in facts.items()),
            "",
            f"| {' | '.join(names)} |",
            f"|{' ---: |' * len(names)}",
            f"| {' | '.join(values)} |",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
