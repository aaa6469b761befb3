"""The two programs in C, built for this run."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).resolve().parent
FLAGS = ("-O2", "-Wall", "-Wextra")


class NotBuilt(Exception):
    """There is no C compiler, or it could not build them; the text says which."""


@dataclass(frozen=True, slots=True)
class Tools:
    upstream: Path
    client: Path


def built(folder: Path) -> Tools:
    """Raises NotBuilt."""
    return Tools(_built("upstream", folder), _built("client", folder))


def compiler() -> str | None:
    """The command in CC, or else the first that is installed; None if none is."""
    return next(filter(shutil.which, (os.environ.get("CC", ""), "gcc", "cc", "clang")), None)


def _built(name: str, folder: Path) -> Path:
    command = compiler()
    if command is None:
        raise NotBuilt(
            "The benchmark's client and upstream are written in C, and there is no C compiler:"
            " install gcc (apt-get install gcc libc6-dev), or set CC to another's command."
        )
    program = folder / name
    done = subprocess.run(
        [command, *FLAGS, "-o", str(program), str(SOURCES / f"{name}.c")],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise NotBuilt(f"{command} could not build {name}.c:\n{done.stderr}")
    return program
