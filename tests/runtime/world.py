"""A gateway without network and without time: fake instances, a clock that is told."""

import json
import math
import time
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

from requests.structures import CaseInsensitiveDict

from proxy.core import limiter
from proxy.core import verdict as verdicts
from proxy.core.attempts import Ending
from proxy.core.catalog import Catalog
from proxy.core.record import Trail
from proxy.core.types import Usage
from proxy.runtime.attempt import Attempt
from proxy.runtime.forward import Forward
from proxy.runtime.line import Line
from proxy.runtime.snapshot import Snapshot
from proxy.runtime.state import State
from proxy.runtime.upstream import UpstreamError
from tests.builders import call

# Prompt and completion of `ok`; together less than a call of tests/builders.py reserves.
PROMPT, COMPLETION, CACHED = 9, 3, 2
USAGE = {
    "prompt_tokens": PROMPT,
    "completion_tokens": COMPLETION,
    "total_tokens": PROMPT + COMPLETION,
    "prompt_tokens_details": {"cached_tokens": CACHED},
}
REAL = Usage(PROMPT, COMPLETION, CACHED)  # as USAGE says
A_NUMBER = 7  # of a file that nobody looks at
OPENED_AT = 1_800_000_000.0  # the start of a second and of a minute


@dataclass
class Clock:
    now: float = OPENED_AT

    def __call__(self):
        return self.now


@dataclass
class FakeAnswer:
    """`pieces` are read one by one; an error among them is raised in its place."""

    status: int = 200
    pieces: tuple = (b"{}",)
    given: dict = field(default_factory=dict)
    is_delimited: bool = True
    token: str = ""  # with which it was asked for

    def __post_init__(self):
        self.headers = CaseInsensitiveDict(self.given)
        self.left = deque(self.pieces)
        self.closed = 0
        self.line = Line()
        self.silences = []
        self.ends = []

    def header_items(self):
        return list(self.given.items())

    def read_some(self):
        if self.line.is_cut:
            raise UpstreamError("it broke off its answer")
        if self.ends and time.monotonic() >= self.ends[-1]:
            raise UpstreamError("it timed out", timed_out=True)
        piece = self.left.popleft() if self.left else b""
        if isinstance(piece, Exception):
            raise piece
        return piece

    def watched(self):
        return A_NUMBER

    @property
    def has_ended(self):
        return not self.left

    def arrived(self):
        """A None among the pieces: nothing has, this time."""
        if self.left and self.left[0] is None:
            self.left.popleft()
            raise BlockingIOError
        return self.read_some()

    def read_all(self):
        read = []
        while piece := self.read_some():
            read.append(piece)
        return b"".join(read)

    def allow_silence(self, seconds):
        self.silences.append(seconds)

    def end_by(self, at):
        self.ends.append(at)

    def close(self):
        self.closed += 1


class FakeUpstream:
    """Instance to what it answers each time; an error is raised, a function is called."""

    def __init__(self, **answers):
        self.answers = answers
        self.asked = []
        self.sent = []
        self.opened = []

    def forget_failures(self):
        """As Upstream's."""

    def send(self, config, url, *, headers, body, method="POST", line=None, ends_at=math.inf):
        self.asked.append(config.name)
        self.sent.append(
            SimpleNamespace(
                url=url,
                headers=headers,
                body=body,
                method=method,
                ends_at=ends_at,
            )
        )
        answer = self.answers[config.name]
        answer = answer() if callable(answer) else answer
        if isinstance(answer, Exception):
            raise answer
        self.opened.append(replace(answer))
        self.opened[-1].line = line or Line()
        return self.opened[-1]


class World:
    """Configs, and by name what each instance answers: `ok()` unless given."""

    def __init__(
        self, *configs, policy="failover", clock=None, settings=None, groups=None, **answers
    ):
        self.clock = clock or Clock()
        self.state = State(self.clock, chance=lambda: 0.0)
        self.snapshots = SimpleNamespace(current=None, changes=0)
        self.configure(*configs, groups=groups)
        self.upstream = FakeUpstream(**({c.name: ok() for c in configs} | answers))
        self.gateway = Forward(
            self.snapshots,
            self.state,
            self.upstream,
            policy=policy,
            **({"pause_seconds": (0.0, 0.0)} | (settings or {})),
        )
        self.trail = Trail()

    def configure(self, *configs, groups=None):
        """They are the config from now on."""
        self.configs = configs
        enabled = Catalog((c for c in configs if c.enabled), groups or {})
        disabled = Catalog(c for c in configs if not c.enabled)
        self.snapshots.current = Snapshot(catalog=enabled, disabled=disabled)
        self.snapshots.changes += 1

    @property
    def tried(self):
        """Whom all calls were sent to, with the status, or what came instead of one."""
        return [f"{t.instance}:{t.status or t.outcome}" for t in self.trail.attempts]

    def forward(self, line=None, **changes):
        """(status, body) of a call whose answer is plain."""
        attempt = self.gateway.forward(call(**changes), self.trail, line)
        attempt.close()
        return attempt.answer.status, attempt.body

    def attempt(self, line=None, **changes):
        """A stream's attempt, open: to iterate and to close."""
        return self.gateway.forward(call(**changes), self.trail, line)

    def answered(self, first_byte_ms):
        """The first instance answered a call before, after so long."""
        asked = call()
        serving = limiter.serving(self.configs[0], asked.model)
        reservation = self.state.start(serving, asked)
        self.state.answered(reservation, first_byte_ms, streams=True)
        self.state.finish(reservation, Ending(verdicts.SUCCEEDED))

    def alone(self, **changes):
        """An attempt at the first instance, with nobody who could try another."""
        asked = call(**changes)
        serving = limiter.serving(self.configs[0], asked.model)
        reservation = self.state.start(serving, asked)
        attempt = Attempt(
            self.state,
            reservation,
            asked,
            serving,
            line=Line(),
            stream_idle_seconds=60.0,
            on_close=lambda _: None,
            is_made_up=lambda: False,
            cost_nano=lambda _model, _usage: 0,
            charge=lambda _usage, _cost_nano: None,
        )
        attempt.open(self.upstream)
        return attempt

    def usage(self, name):
        """What is counted at an instance, all minutes, models and clients together."""
        deltas = self.state.take()
        self.state.give_back(deltas)
        counts = [
            Counter(c) for (_, instance, _, _), c in deltas.usage.items() if instance == name
        ]
        return +sum(counts, Counter())

    def in_flight(self):
        """Open attempts at all instances."""
        return sum(
            c.in_flight for c in self.state.look([limiter.serving(c, "") for c in self.configs])
        )


def ok(**fields):
    """A plain answer with `USAGE`."""
    body = json.dumps({"choices": [], "usage": USAGE} | fields).encode()
    return FakeAnswer(200, (body,), {"Content-Type": "application/json"})


def failed(status, body=b"", **headers):
    """An error answer; `retry_after="7"` is the header Retry-After."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return FakeAnswer(status, (body,), given)


def stream(*pieces):
    return FakeAnswer(200, pieces, {"Content-Type": "text/event-stream; charset=utf-8"})


def unreachable(message="the connection was refused", **more):
    return UpstreamError(message, **more)


def event(**fields):
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def token(text="hello"):
    return event(choices=[{"delta": {"content": text}}], usage=None)


WANTS_USAGE = {"stream": True, "stream_options": {"include_usage": True}}  # a call
BROKEN = unreachable("it broke off its answer")
ROLE = event(choices=[{"delta": {"role": "assistant", "content": ""}}])  # says nothing yet
ERROR = event(error={"message": "out of order", "type": "server_error"})
END = event(choices=[{"delta": {}, "finish_reason": "stop"}])
USAGE_EVENT = event(choices=[], usage=USAGE)
DONE = b"data: [DONE]\n\n"
