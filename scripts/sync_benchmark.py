"""What it costs that workers tell each other: two of them, on one database, at full load.

    python scripts/sync_benchmark.py
    python scripts/sync_benchmark.py --instances 3 --busy 3 --seconds 20 --json

Simulates requests of one client with limits that begin, are answered and end in two workers,
on a clock of its own, so that it takes no longer than it must; after each sync interval the
syncers have their round.
Prints what share of one core the rounds of both take, in CPU time of the thread, once all
windows are full: with few instances, with many that nobody asks, and with many that all are
asked. Figures are reported, never judged.
"""

import argparse
import json
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

from cryptography.fernet import Fernet

from proxy.core import verdict as verdicts
from proxy.core.attempts import Ending, Reservation
from proxy.core.days import DAY_SECONDS
from proxy.core.limiter import COUNTED_SECONDS, Peers
from proxy.core.refusal import Refusal
from proxy.core.types import Call, Client, InstanceConfig, Serving, Usage
from proxy.core.usage import Kept
from proxy.runtime.clients import ClientState, Ticket
from proxy.runtime.snapshot import Snapshots
from proxy.runtime.state import State
from proxy.runtime.syncer import Syncer
from proxy.store import instances, schema
from proxy.store.db import Database
from proxy.store.revisions import Author
from proxy.store.vault import Vault

WORKERS = 2
REQUESTS_PER_SECOND = 2000  # of both workers together
INTERVAL_SECONDS = 0.2
ANSWER_SECONDS = 1.0  # from a request's beginning to its end
SECONDS = 20.0
CASES = ((3, 3), (1000, 3), (1000, 1000))  # (instances, of which so many are asked)
MODEL = "gpt-4o"
BEGAN_AT = 1_700_000_000.0
CLIENT = Client("benchmark", 1, max_tpm=10**9, max_rpm=10**9, max_tokens_per_day=10**15)
CALL = Call("chat/completions", MODEL, b"", CLIENT, reserved_tokens=900)
DONE = Ending(verdicts.SUCCEEDED, Usage(400, 100), latency_ms=1000, was_answered=True)
AIM = "The aim: less than 1 % of a core, however many instances nobody asks."


@dataclass(frozen=True, slots=True)
class Found:
    """`share` is of one core, all workers together; a round is one worker's."""

    instances: int
    busy: int
    share: float
    median_ms: float
    slowest_ms: float


class Clock:
    def __init__(self) -> None:
        self.now = BEGAN_AT

    def __call__(self) -> float:
        return self.now


class Worker:
    """What one process of the gateway has of it. `round` gives the seconds of CPU it took."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._state = State(clock, peers=Peers(WORKERS - 1, INTERVAL_SECONDS))
        self._snapshots = Snapshots(database)
        self._clients = ClientState(clock=clock)
        self._syncer = Syncer(
            database,
            self._state,
            self._snapshots,
            self._clients,
            interval_seconds=INTERVAL_SECONDS,
            kept=Kept(minutes=DAY_SECONDS, hours=DAY_SECONDS, days=DAY_SECONDS),
            clock=clock,
        )
        self._clock = clock
        self._open: deque[tuple[float, Reservation, Ticket]] = deque()
        self._turn = 0

    def begin(self, busy: int) -> None:
        """Asks the next of the first `busy` instances in turn."""
        pool = self._snapshots.current.catalog.serving(MODEL)
        self._start(pool[self._turn % busy])
        self._turn += 1

    def _start(self, serving: Serving) -> None:
        ticket = self._clients.start(CALL.client, CALL.reserved_tokens)
        reservation = self._state.start(serving, CALL)
        assert isinstance(ticket, Ticket)  # its limits are never reached
        assert not isinstance(reservation, Refusal)  # there are no limits
        self._open.append((self._clock.now + ANSWER_SECONDS, reservation, ticket))

    def end(self) -> None:
        """All whose answer is over."""
        while self._open and self._open[0][0] <= self._clock.now:
            _, reservation, ticket = self._open.popleft()
            self._state.answered(reservation, 500.0, streams=True)
            self._state.finish(reservation, DONE)
            ticket.settle(DONE.usage)

    def round(self) -> float:
        before = time.thread_time()
        self._syncer.sync()
        took = time.thread_time() - before
        if self._syncer.problem:
            raise RuntimeError(self._syncer.problem)
        return took

    def stop(self) -> None:
        self._syncer.stop()


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parsed(argv)
    cases = CASES
    if arguments.instances:
        cases = ((arguments.instances, arguments.busy or arguments.instances),)
    found = [run(*case, arguments.seconds) for case in cases]
    if arguments.json:
        print(json.dumps([asdict(each) for each in found]))
    else:
        print(as_markdown(found))
    return 0


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--instances", type=_at_least_one, help="instead of the usual cases")
    parser.add_argument("--busy", type=_at_least_one, help="of these; default: all")
    parser.add_argument(
        "--seconds", type=_at_least_one, default=SECONDS, help="measured; default: %(default)g"
    )
    parser.add_argument("--json", action="store_true", help="one JSON list on stdout")
    return parser.parse_args(argv)


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError("it must be a whole number of at least 1")
    return int(text)


def run(number: int, busy: int, seconds: float) -> Found:
    """One case, in a database of its own."""
    clock, took = Clock(), []
    with tempfile.TemporaryDirectory(prefix="sync-benchmark-") as folder, ExitStack() as stack:
        url = f"sqlite:///{folder}/proxy.db"
        vault = Vault([Fernet.generate_key().decode()])
        databases = [Database(url, vault) for _ in range(WORKERS)]
        for database in databases:
            stack.callback(database.dispose)
        _fill(databases[0], number, clock)
        workers = [Worker(database, clock) for database in databases]
        for worker in workers:
            stack.callback(worker.stop)
            worker.round()
        measured_from = BEGAN_AT + COUNTED_SECONDS + ANSWER_SECONDS
        while clock.now < measured_from + seconds:
            for worker in workers:  # they do not write at the same moment, as workers do not
                _work(workers, busy, clock, INTERVAL_SECONDS / WORKERS)
                cpu_seconds = worker.round()
                if clock.now >= measured_from:
                    took.append(cpu_seconds)
    share = sum(took) / len(took) * WORKERS / INTERVAL_SECONDS
    median, slowest = statistics.median(took), max(took)
    return Found(number, busy, share, median * 1000, slowest * 1000)


def _fill(database: Database, number: int, clock: Clock) -> None:
    schema.upgrade(database)
    configs = [
        InstanceConfig(
            name=f"instance-{each:05}",
            api_key=f"invented-key-of-{each}",
            api_base=f"https://instance-{each}.openai.azure.com",
            max_tpm=0,
        )
        for each in range(number)
    ]
    with database.session() as session:
        instances.add(session, configs, author=Author("benchmark"))


def _work(workers: Sequence[Worker], busy: int, clock: Clock, seconds: float) -> None:
    """What all do meanwhile."""
    requests = round(REQUESTS_PER_SECOND * seconds / len(workers))
    for _ in range(requests):
        clock.now += seconds / requests
        for worker in workers:
            worker.end()
            worker.begin(busy)


def as_markdown(found: Sequence[Found]) -> str:
    facts = {
        "requests/s": REQUESTS_PER_SECOND,
        "workers": WORKERS,
        "interval, ms": round(INTERVAL_SECONDS * 1000),
        "cores": len(os.sched_getaffinity(0)),
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
    }
    lines = [", ".join(f"{name} {value}" for name, value in facts.items()), ""]
    lines.append(
        "| instances | of them asked | of a core, % | median round, ms | slowest, ms |"
    )
    lines.append("| ---: | ---: | ---: | ---: | ---: |")
    for each in found:
        times = f"{each.share:.2%} | {each.median_ms:.2f} | {each.slowest_ms:.2f}".replace(
            "%", ""
        )
        lines.append(f"| {each.instances} | {each.busy} | {times} |")
    return "\n".join([*lines, "", AIM])


if __name__ == "__main__":
    sys.exit(main())
