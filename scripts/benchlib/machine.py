"""What the figures of a run depend on besides the code."""

import os
import platform
import sqlite3
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchlib.places import WORKERS
from proxy.settings import SETTINGS

CPU_INFO = Path("/proc/cpuinfo")
LIBRARIES = ("gunicorn", "flask", "requests")


def facts(rounds: int, seconds: float) -> dict[str, str | int]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "CPU": cpu_model(CPU_INFO.read_text()),
        "cores": len(os.sched_getaffinity(0)),
        "Linux": platform.release(),
        "Python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
        "SQLite": sqlite3.sqlite_version,
        "workers": WORKERS,
        "rounds": rounds,
        "seconds each": f"{seconds:g}",
        **changed_settings(),
    }


def changed_settings() -> dict[str, str]:
    """Those that the environment sets: the gateway is measured with them."""
    return {s.name: os.environ[s.name] for s in SETTINGS if _is_shown(s.name)}


def _is_shown(name: str) -> bool:
    return name.startswith("PROXY_") and bool(os.environ.get(name))


def cpu_model(text: str) -> str:
    """From /proc/cpuinfo; the architecture where that names none, as on ARM."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return " ".join(value.split())
    return platform.machine()
