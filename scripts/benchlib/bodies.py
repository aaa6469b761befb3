"""Large requests and answers: what is added to them, and the memory they take."""

from dataclasses import dataclass, replace
from pathlib import Path

from loadlib.gateway import PROC, children

from benchlib.loads import Ask
from benchlib.places import DIRECT, MODEL, our_gateway, through
from benchlib.stage import FORM_TYPE, Stage
from benchlib.table import Measure

MB = 1_000_000
REQUEST_MB, ANSWER_MB = 20, 50
WARM_REQUESTS = 200
REQUESTS = 3  # one after the other
# The body has to name the deployment: what is passed on is not what came.
RENAMED = {"provider_type": "azure_v1", "model_deployments": {MODEL: "east"}}
PEAK_RESET = "5"  # proc(5), clear_refs: VmHWM begins anew


@dataclass(frozen=True, slots=True)
class Case:
    """`megabytes` are those of what is large in it, the request's body or the answer's."""

    title: str
    body: Path
    megabytes: int
    path: str = "/v1/chat/completions"
    content_type: str = "application/json"
    answer_bytes: int = 1000


def large(stage: Stage) -> None:
    cases = (
        Case(
            f"request of {REQUEST_MB} MB", stage.body(prompt_bytes=REQUEST_MB * MB), REQUEST_MB
        ),
        Case(
            f"form of {REQUEST_MB} MB",
            stage.form(file_bytes=REQUEST_MB * MB),
            REQUEST_MB,
            path="/v1/audio/transcriptions",
            content_type=FORM_TYPE,
        ),
        Case(f"answer of {ANSWER_MB} MB", stage.body(), ANSWER_MB, answer_bytes=ANSWER_MB * MB),
    )
    with our_gateway(stage.folder / "bodies", stage.upstream.url, fields=RENAMED) as started:
        place = through(started)
        for _ in range(stage.options.rounds):
            for case in cases:
                stage.upstream.behave()
                stage.make("warm", place, Ask((stage.body(),), 4, requests=WARM_REQUESTS))
                stage.upstream.behave(answer_bytes=case.answer_bytes)
                ask = Ask((case.body,), requests=REQUESTS, content_type=case.content_type)
                base = stage.make("bodies", stage.direct, ask).load.total_us["p50"] / 1000
                there = replace(place, target=replace(place.target, path=case.path))
                with Peaks(started.process.pid) as peaks:
                    took = stage.make("bodies", there, ask).load.total_us["p50"] / 1000
                time = Measure(f"{case.title}: time", "ms", DIRECT)
                stage.results.note(time, DIRECT, base)
                stage.results.note(time, place.name, took)
                growth = Measure(f"{case.title}: peak memory of a worker", "times the body")
                stage.results.note(growth, place.name, peaks.grown_mb / case.megabytes)


class Peaks:
    """`grown_mb`: how far the worker that grew most did so at its highest, from the entry."""

    def __init__(self, pid: int) -> None:
        self._pids = children(pid)
        self._before: dict[int, float] = {}
        self.grown_mb = 0.0

    def __enter__(self) -> "Peaks":
        for pid in self._pids:
            (PROC / str(pid) / "clear_refs").write_text(PEAK_RESET)
            self._before[pid] = status_mb(PROC / str(pid) / "status", "VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        self.grown_mb = max(
            status_mb(PROC / str(pid) / "status", "VmHWM") - self._before[pid]
            for pid in self._pids
        )


def status_mb(path: Path, name: str) -> float:
    """A line such as "VmRSS:  1234 kB", in millions of bytes as bodies are."""
    lines = path.read_text().splitlines()
    line = next(line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024 / MB
