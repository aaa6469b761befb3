"""One run: what is started for all rows, the loads made on it, what was found."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchlib.loads import Ask, Load, Upstream, load
from benchlib.places import MODEL, Place
from benchlib.table import Results
from benchlib.tools import Tools

Progress = Callable[[str], None]

PROMPT = "How do you do? Please answer at length, and do not spare the details. "
PROMPT_BYTES = 900
BOUNDARY = "a-line-that-stands-in-no-file"
FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY}"


@dataclass(frozen=True, slots=True)
class Options:
    """`seconds` is of each measurement; `rounds` how often each is made, taking turns.

    `is_quick` makes less of what takes longest; `is_long` makes a million requests too.
    """

    rounds: int = 3
    seconds: float = 5.0
    is_quick: bool = False
    is_long: bool = False


@dataclass(frozen=True, slots=True)
class Made:
    """A load and the CPU time the place's processes took meanwhile."""

    load: Load
    cpu_seconds: float

    @property
    def us_a_request(self) -> float:
        return self.cpu_seconds / max(self.load.finished, 1) * 1e6

    @property
    def us_an_event(self) -> float:
        return self.cpu_seconds / max(self.load.events, 1) * 1e6


@dataclass(slots=True)
class Stage:
    options: Options
    tools: Tools
    upstream: Upstream
    folder: Path
    progress: Progress
    direct: Place
    empty: Place
    gateway: Place
    database: Path  # the gateway's
    peers: Sequence[Place] = ()
    results: Results = field(default_factory=Results)
    _bodies: dict[str, Path] = field(default_factory=dict)

    def make(self, title: str, place: Place, ask: Ask) -> Made:
        """Failures are kept, with the place and the row they happened in."""
        self.progress(f"{title}: {place.name}")
        before = place.cpu_seconds()
        done = load(self.tools.client, place.target, ask)
        cpu_seconds = place.cpu_seconds() - before
        for kind, count in done.failed.items():
            named = f"{title}, {place.name}: {kind}"
            self.results.failures[named] += count
            if done.example:
                self.results.examples.setdefault(named, done.example)
        return Made(done, cpu_seconds)

    def form(self, *, model: str = MODEL, file_bytes: int) -> Path:
        """A file with a form that has a file, for FORM_TYPE."""
        name = f"{model}-{file_bytes}.form"
        if name not in self._bodies:
            part = f"--{BOUNDARY}\r\nContent-Disposition: form-data; name="
            sound = '"file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'
            ends = f"\r\n--{BOUNDARY}--\r\n"
            head = f'{part}"model"\r\n\r\n{model}\r\n{part}{sound}'
            self._bodies[name] = path = self.folder / name
            path.write_bytes(head.encode() + os.urandom(file_bytes) + ends.encode())
        return self._bodies[name]

    def body(
        self, *, stream: bool = False, model: str = MODEL, prompt_bytes: int = PROMPT_BYTES
    ) -> Path:
        """A file with a request's body."""
        name = f"{model}-{'stream' if stream else 'plain'}-{prompt_bytes}.json"
        if name not in self._bodies:
            text = PROMPT * (prompt_bytes // len(PROMPT) + 1)
            body = {
                "model": model,
                **({"stream": True} if stream else {}),
                "max_tokens": 200,
                "messages": [{"role": "user", "content": text[:prompt_bytes]}],
            }
            path = self.folder / name
            path.write_text(json.dumps(body))
            self._bodies[name] = path
        return self._bodies[name]
