"""The load client: many requests at once in one thread, with the standard library only."""

import asyncio
import json
import resource
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from loadlib.stats import Failure, Load, Outcome
from loadlib.wire import DONE, Answer, Events, NotHttp, request_bytes, status_line

READ_BYTES = 65_536
EXCERPT_BYTES = 200  # of an error's body, for the person who reads the failures
TICK_SECONDS = 0.2
LEAVE_AFTER_EVENTS = 3  # of a stream that is to be left; by then it is under way
SPARE_FILES = 100

ERROR_IN_STREAM = "an error in the stream"
# A server that refuses at once is not to be asked ten thousand times a second.
AFTER_FAILURE_SECONDS = 0.1

# What is shown to who waits: a text, and how far it is, from 0 to 1.
Progress = Callable[[str, float | None], None]


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go, and what they carry there. `headers` holds the key.

    `stream_fields` are in the body of requests for streams only.
    """

    host: str
    port: int
    path: str
    model: str
    headers: dict[str, str] = field(repr=False)
    stream_fields: dict[str, Any] = field(default_factory=dict)

    def request(self, *, stream: bool) -> bytes:
        message = {"role": "user", "content": "Say something that takes a while."}
        fields = {"model": self.model, "stream": stream, "messages": [message]}
        if stream:
            fields |= self.stream_fields
        headers = {
            "Host": f"{self.host}:{self.port}",
            "Content-Type": "application/json",
            **self.headers,
        }
        return request_bytes("POST", self.path, headers, json.dumps(fields).encode())


def gateway_target(url: str, *, key: str, model: str) -> Target:
    """The gateway at `url`, as an OpenAI client uses it. Raises ValueError for a bad URL."""
    host, port, path = split_url(url)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return Target(host, port, f"{path}/v1/chat/completions", model, headers)


def azure_target(url: str, *, key: str, model: str, api_version: str) -> Target:
    """A resource of Azure, asked as the gateway asks it: a stream ends with its usage."""
    host, port, path = split_url(url)
    query = f"api-version={api_version}"
    path = f"{path}/openai/deployments/{model}/chat/completions?{query}"
    usage = {"stream_options": {"include_usage": True}}
    return Target(host, port, path, model, {"api-key": key}, usage)


def split_url(url: str) -> tuple[str, int, str]:
    """Host, port and path without a slash at its end. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme != "http":
        raise ValueError(f"{url!r} does not begin with http://; TLS is not spoken here")
    if not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError(f"{url!r} is not of the form http://HOST:PORT")
    return parts.hostname, parts.port or 80, parts.path.rstrip("/")


@dataclass(frozen=True, slots=True)
class Plan:
    """How much: `concurrency` requests at a time, until `total` are made or time is up.

    What has begun when `seconds` are over is finished. Each of the concurrent ones begins
    its part of `ramp_ms` after the one before it. A request may take `timeout_seconds`.
    """

    concurrency: int
    total: int | None = None
    seconds: float | None = None
    ramp_ms: float = 0.0
    timeout_seconds: float = 120.0

    def __post_init__(self) -> None:
        if self.total is None and self.seconds is None:
            raise ValueError("a plan needs a total or seconds, or it never ends")

    def share(self, done: int, age_seconds: float) -> float:
        """How far it is, from 0 to 1, by whatever ends it first."""
        shares = [0.0]
        if self.total is not None:
            shares.append(done / self.total if self.total else 1.0)
        if self.seconds is not None:
            shares.append(age_seconds / self.seconds)
        return min(max(shares), 1.0)


class Connection:
    """One kept-alive connection, for one request after the other."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.answer = Answer()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def send(self, request: bytes) -> None:
        """Connects if need be. Raises OSError."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(
                self.target.host, self.target.port
            )
        self.answer = Answer()
        self._writer.write(request)

    async def read_some(self) -> bytes:
        """What has arrived of the body, at least a byte; b"" at its end.

        Raises NotHttp or OSError.
        """
        assert self._reader is not None, "there is an answer only after `send`"
        while not self.answer.complete:
            data = await self._reader.read(READ_BYTES)
            if not data:
                self.answer.end()
                break
            body = self.answer.feed(data)
            if body:
                return body
        if not self.answer.keeps_alive:
            self.close()
        return b""

    def close(self) -> None:
        """Idempotent. What the peer still sends finds nobody."""
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None


Asking = Callable[[Connection], Awaitable[Outcome]]


async def plain(connection: Connection) -> Outcome:
    """Asks for an answer in one piece."""
    started = time.perf_counter()
    await connection.send(connection.target.request(stream=False))
    first = await connection.read_some()
    first_byte_ms = _ms_since(started)
    body = first + await _rest(connection)
    status = connection.answer.status
    failure = None if status == 200 else refusal(status, body)
    return Outcome(failure, first_byte_ms, _ms_since(started))


def streaming(*, expected_events: int | None = None, leave_after: int | None = None) -> Asking:
    """Asks for a stream and reads it to its end, or until `leave_after` events have come.

    `expected_events` counts every event of a whole stream, [DONE] too.
    """

    async def ask(connection: Connection) -> Outcome:
        started = time.perf_counter()
        await connection.send(connection.target.request(stream=True))
        chunk = await connection.read_some()
        first_byte_ms = _ms_since(started)
        if connection.answer.status != 200:
            body = chunk + await _rest(connection)
            return Outcome(refusal(connection.answer.status, body))
        events = Events()
        count, last, failure = 0, b"", None
        while chunk:
            for last in events.feed(chunk):
                count += 1
                failure = failure or _error_in(last)
            if failure or (leave_after is not None and count >= leave_after):
                connection.close()  # nothing is to come after an error
                return Outcome(failure, first_byte_ms, _ms_since(started), count)
            chunk = await connection.read_some()
        failure = failure or _wrong_end(count, last, events, expected_events)
        return Outcome(failure, first_byte_ms, _ms_since(started), count)

    return ask


def refusal(status: int, body: bytes) -> Failure:
    """Its kind is the status with the error's code: messages differ, as in "retry in 3 s"."""
    code = _code(body)
    return Failure(status_line(status) + (f", {code}" if code else ""), _excerpt(body))


def _code(body: bytes) -> str:
    """OpenAI's `code`, or else `type`; "" if there is none that can be read."""
    try:
        said = json.loads(body)
    except ValueError:
        return ""
    error = said.get("error") if isinstance(said, dict) else None
    found = (error.get("code"), error.get("type")) if isinstance(error, dict) else ()
    return next((each for each in found if each and isinstance(each, str)), "")


def _error_in(event: bytes) -> Failure | None:
    if not event.startswith(b'{"error"'):
        return None
    return Failure(ERROR_IN_STREAM, _excerpt(event))


def _wrong_end(count: int, last: bytes, events: Events, expected: int | None) -> Failure | None:
    if last != DONE or not events.is_between_events:
        return Failure("the stream ended without [DONE]")
    if expected is not None and count != expected:
        return Failure("a wrong number of events", f"{count} instead of {expected}")
    return None


def _excerpt(body: bytes) -> str:
    return " ".join(body[:EXCERPT_BYTES].decode("utf-8", "replace").split())


async def _rest(connection: Connection) -> bytes:
    parts = []
    while part := await connection.read_some():
        parts.append(part)
    return b"".join(parts)


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1000


def allow_files(connections: int) -> None:
    """Open files for so many, if the hard limit allows it. Child processes inherit it."""
    wanted = connections + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


async def run(ask: Asking, targets: list[Target], plan: Plan, progress: Progress) -> Load:
    """Does what the plan says; the concurrent ones take the targets in turn."""
    return await _Run(ask, targets, plan, progress).run()


async def outcome_of(ask: Asking, connection: Connection, timeout_seconds: float) -> Outcome:
    """Raises nothing: what goes wrong is the outcome's failure."""
    try:
        async with asyncio.timeout(timeout_seconds):
            return await ask(connection)
    except TimeoutError:
        failure = Failure(f"not finished after {timeout_seconds:g} s")
    except NotHttp as problem:
        kind, _, detail = str(problem).partition(": ")
        failure = Failure(kind, detail)
    except OSError as problem:
        failure = Failure(str(problem) or type(problem).__name__)
    connection.close()
    return Outcome(failure)


class _Run:
    """A load under way: what is left to begin, and what came of the rest."""

    def __init__(
        self, ask: Asking, targets: list[Target], plan: Plan, progress: Progress
    ) -> None:
        self._ask = ask
        self._targets = targets
        self._plan = plan
        self._progress = progress
        self._outcomes: list[Outcome] = []
        self._begun = 0
        self._started = 0.0

    async def run(self) -> Load:
        cpu_before = time.process_time()
        self._started = time.perf_counter()
        ticker = asyncio.create_task(self._tick())
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self._plan.concurrency):
                    group.create_task(self._one_after_another(number))
        finally:
            ticker.cancel()
        return Load(
            tuple(self._outcomes),
            time.perf_counter() - self._started,
            time.process_time() - cpu_before,
        )

    async def _one_after_another(self, number: int) -> None:
        await asyncio.sleep(self._plan.ramp_ms / 1000 * number / self._plan.concurrency)
        connection = Connection(self._targets[number % len(self._targets)])
        try:
            while self._may_begin():
                self._begun += 1
                outcome = await outcome_of(self._ask, connection, self._plan.timeout_seconds)
                self._outcomes.append(outcome)
                if outcome.failure is not None:
                    await asyncio.sleep(AFTER_FAILURE_SECONDS)
        finally:
            connection.close()

    def _may_begin(self) -> bool:
        plan = self._plan
        if plan.total is not None and self._begun >= plan.total:
            return False
        age_seconds = time.perf_counter() - self._started
        return plan.seconds is None or age_seconds < plan.seconds

    async def _tick(self) -> None:
        while True:
            done = len(self._outcomes)
            failed = sum(1 for o in self._outcomes if o.failure)
            share = self._plan.share(done, time.perf_counter() - self._started)
            self._progress(f"{self._begun - done} open, {done} done, {failed} failed", share)
            await asyncio.sleep(TICK_SECONDS)
