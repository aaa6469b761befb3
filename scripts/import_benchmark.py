"""How long moving in takes: an old deployment of many instances, imported as operators do it.

    python scripts/import_benchmark.py
    python scripts/import_benchmark.py --instances 1000 --json

Makes an old deployment as the last release left it, with invented keys, and a database, both
in a temporary folder; runs there what the guide says, each command in a process of its own,
from the start of Python to its end. Prints how long each took, how much of that it had the
CPU, and the most memory it held.
Timings are reported, never judged. Exit code 1 if a command failed, or not all arrived.
"""

import argparse
import json
import os
import platform
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent))

from proxy.settings import ROOT, SETTINGS

INSTANCES = 10_000
WINDOW_SECONDS = 60  # of the sliding windows, as a busy proxy left them
LAST_USED = 1_742_198_400
AIM = f"The aim: {INSTANCES} instances are imported in less than 10 s, where nobody else works."
EXIT_FAILED = 1

FLASK = ("-m", "flask", "legacy")
ALEMBIC = ("-m", "alembic")


@dataclass(frozen=True, slots=True)
class Step:
    """One command. `cpu_seconds` are its own, whatever else the machine did meanwhile;
    `most_mb` is the largest its process was in memory."""

    command: str
    seconds: float
    cpu_seconds: float
    most_mb: float


class Failed(Exception):
    """A sentence, and the end of what the command said."""


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parsed(argv)
    try:
        with tempfile.TemporaryDirectory(prefix="import-benchmark-") as folder:
            facts, steps = run(Path(folder), arguments.instances)
    except Failed as error:
        print(error, file=sys.stderr)
        return EXIT_FAILED
    if arguments.json:
        print(json.dumps({"facts": facts, "steps": [asdict(step) for step in steps]}))
    else:
        print(as_markdown(facts, steps))
    return 0


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--instances", type=_at_least_one, default=INSTANCES, help="default: %(default)s"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser.parse_args(argv)


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError("it must be a whole number of at least 1")
    return int(text)


def run(folder: Path, instances: int) -> tuple[dict[str, Any], list[Step]]:
    """All commands of the guide that read or write the old files. Raises Failed."""
    old, database = folder / "old", folder / "new/proxy.db"
    old.mkdir()
    database.parent.mkdir()
    bytes_ = write_old_deployment(old, instances)
    facts = {
        "instances": instances,
        "megabytes of old files": round(bytes_ / 1e6, 1),
        "cores": len(os.sched_getaffinity(0)),
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
    }
    return facts, list(_steps(old, database, instances))


def _steps(old: Path, database: Path, instances: int) -> Iterator[Step]:
    yield _timed("flask legacy inspect", (*FLASK, "inspect", str(old)), database)
    upgrade = (*ALEMBIC, "-x", f"legacy={old}", "upgrade", "head")
    yield _timed("alembic -x legacy=... upgrade head", upgrade, database)
    _check_arrived(database, instances)
    yield _timed("flask legacy import, again", (*FLASK, "import", str(old)), database)
    yield _timed("alembic downgrade -1", (*ALEMBIC, "downgrade", "-1"), database)


def write_old_deployment(folder: Path, instances: int) -> int:
    """Both files of the split layout; how many bytes they have."""
    names = [f"instance-{number:05}" for number in range(instances)]
    for file, record in (("instance_configs.json", _config), ("instance_states.json", _state)):
        # One by one: what we hold in memory when a command begins is counted as its own.
        with (folder / file).open("w") as stream:
            for number, name in enumerate(names):
                stream.write(",\n" if number else "{\n")
                stream.write(f"{json.dumps(name)}: {json.dumps(record(name), indent=1)}")
            stream.write("\n}\n")
    return sum(path.stat().st_size for path in folder.iterdir())


def _config(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "provider_type": "azure",
        "api_key": f"invented-key-of-{name}",
        "api_base": f"https://{name}.openai.azure.com",
        "api_version": "2024-10-21",
        "proxy_url": "",
        "priority": 100,
        "weight": 100,
        "max_tpm": 240_000,
        "max_input_tokens": 0,
        "supported_models": ["gpt-4o", "gpt-4o-mini", "text-embedding-3-large"],
        "model_deployments": {"gpt-4o": f"{name}-gpt-4o", "gpt-4o-mini": "mini"},
        "enabled": True,
        "timeout_seconds": 60.0,
        "retry_count": 3,
        "rate_limit_enabled": True,
        "tags": ["benchmark"],
    }


def _state(name: str) -> dict[str, Any]:
    window = {str(LAST_USED + second): 1000 for second in range(WINDOW_SECONDS)}
    return {
        "name": name,
        "status": "healthy",
        "error_count": 2,
        "last_error": "500: the server had an error",
        "last_error_time": float(LAST_USED),
        "rate_limited_until": 4_102_444_800.0,
        "total_requests": 1_234_567,
        "successful_requests": 1_234_000,
        "total_tokens_served": 5_000_000_000,
        "last_used": float(LAST_USED),
        "avg_latency_ms": 512.25,
        "current_error_rate": 0.01,
        "total_upstream_429_errors": 500,
        "usage_window": window,
        "request_window": window,
        "upstream_429_window": {},
    }


def _timed(command: str, arguments: Sequence[str], database: Path) -> Step:
    """Raises Failed unless it ends with exit code 0."""
    # Every setting is named, so that nothing of somebody's .env counts.
    ours = {setting.name: "" for setting in SETTINGS}
    places = {
        "PROXY_DATABASE_URL": f"sqlite:///{database}",
        "PROXY_SECRET_KEY_FILE": str(database.with_name("secret.key")),
    }
    environment = os.environ | ours | places
    with tempfile.TemporaryFile() as said:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
        # Not process.wait: only this tells how large it was.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            end = "\n".join(said.read().decode("utf-8", "replace").splitlines()[-5:])
            raise Failed(f"{command} ended with code {process.returncode}. It said:\n{end}")
    cpu_seconds = usage.ru_utime + usage.ru_stime
    most_mb = usage.ru_maxrss / 1024
    return Step(command, round(seconds, 2), round(cpu_seconds, 2), round(most_mb, 1))


def _check_arrived(database: Path, instances: int) -> None:
    with closing(sqlite3.connect(database)) as connection:
        for table in ("instance_config", "instance_state", "deployment_state"):
            counted = f"SELECT count(*) FROM {table}"  # nosec B608  # a table of ours
            (count,) = connection.execute(counted).fetchone()
            if count != instances:
                raise Failed(f"{table} has {count} rows, expected were {instances}.")


def as_markdown(facts: dict[str, Any], steps: Sequence[Step]) -> str:
    lines = [", ".join(f"{name} {value}" for name, value in facts.items()), ""]
    lines.append("| command | seconds | of CPU | most memory, MB |")
    lines.append("| --- | ---: | ---: | ---: |")
    for step in steps:
        times = f"{step.seconds:.2f} | {step.cpu_seconds:.2f}"
        lines.append(f"| `{step.command}` | {times} | {step.most_mb:.1f} |")
    return "\n".join([*lines, "", AIM])


if __name__ == "__main__":
    sys.exit(main())
