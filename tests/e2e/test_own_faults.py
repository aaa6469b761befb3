"""What goes wrong on our own side: workers that die, a database that is away, reloads, too many
calls. Through gunicorn with two workers."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from proxy.runtime.cpu_affinity import share
from proxy.settings import ROOT
from proxy.simulator import Simulator
from tests.e2e.conftest import Gateway, add_instance, free_port, until

CONNECTIONS = 16
PAUSE_SECONDS = 0.02  # of each: who asks at full load takes what the others need
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway of the test's own, to be stopped by it."""
    gateway = Gateway(tmp_path, free_port())
    yield gateway
    gateway.stop(signal.SIGKILL)


def workers(gateway: Gateway) -> list[int]:
    children = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children")
    return [int(pid) for pid in children.read_text().split()]


def cores(gateway: Gateway) -> list[list[int]]:
    return sorted(sorted(os.sched_getaffinity(pid)) for pid in workers(gateway))


def cores_of_threads(pid: int) -> set[frozenset[int]]:
    return {frozenset(os.sched_getaffinity(int(t))) for t in os.listdir(f"/proc/{pid}/task")}


@contextmanager
def load(gateway: Gateway, connections: int = CONNECTIONS) -> Iterator[Counter[str]]:
    """Requests on so many kept connections until the end of the block, counted by what came of
    them: a status, or what went wrong."""
    outcomes: Counter[str] = Counter()
    over, lock = threading.Event(), threading.Lock()

    def ask() -> None:
        session = requests.Session()
        session.headers["api-key"] = gateway.client_key
        while not over.wait(PAUSE_SECONDS):
            try:
                answer = session.post(
                    f"{gateway.url}/v1/chat/completions", json=CHAT, timeout=30
                )
                outcome = str(answer.status_code)
            except requests.RequestException as error:
                outcome = type(error).__name__
            with lock:
                outcomes[outcome] += 1
        session.close()

    with ThreadPoolExecutor(connections) as pool:
        running = [pool.submit(ask) for _ in range(connections)]
        try:
            yield outcomes
        finally:
            over.set()
        for each in running:
            each.result()


def served(outcomes: Counter[str], number: int) -> bool:
    return sum(outcomes.values()) >= number


def health(gateway: Gateway) -> dict[str, object]:
    found: dict[str, object] = requests.get(f"{gateway.url}/health", timeout=5).json()
    return found


def requests_in_database(gateway: Gateway) -> int:
    count: int = gateway.rows("select coalesce(sum(requests), 0) from usage_minute")[0][0]
    return count


def told(gateway: Gateway, name: str) -> list[float]:
    """What /metrics says of it, of whatever labels."""
    text = requests.get(f"{gateway.url}/metrics", timeout=5).text
    families = text_string_to_metric_families(text)
    return [s.value for f in families for s in f.samples if s.name == name]


def killed(gateway: Gateway) -> dict[int, int]:
    """Workers of which the log's file says so, and how many calls it says went with each."""
    lines = map(json.loads, (gateway.folder / "logs" / "proxy.log").read_text().splitlines())
    return {x["worker_pid"]: x["calls"] for x in lines if x.get("event") == "worker_killed"}


class TestWorkers:
    def test_a_killed_worker_takes_only_its_own_with_it_and_is_replaced(
        self, fresh: Gateway, simulator: Simulator
    ):
        fresh.start(PROXY_LOG_DIR=str(fresh.folder / "logs"))
        for resource in simulator.resources.values():
            add_instance(fresh, resource)
        until(lambda: len(workers(fresh)) == 2, "both are there")
        other, victim = workers(fresh)
        cores_before = cores(fresh)
        counted: list[float] = []

        def served_and_counted(number: int) -> bool:
            counted.append(sum(told(fresh, "gateway_requests_total")))
            return served(outcomes, number)

        with load(fresh) as outcomes:
            until(lambda: served_and_counted(200), "load")
            os.kill(victim, signal.SIGKILL)
            until(lambda: set(killed(fresh)) == {victim}, "it is told")
            until(lambda: served(outcomes, 300), "more load")
            until(lambda: served_and_counted(600), "even more load")
        # Whichever worker is asked, counters never fall.
        assert counted == sorted(counted)
        assert counted[-1] > 300
        until(lambda: len(workers(fresh)) == 2, "it is replaced")
        until(lambda: cores(fresh) == cores_before, "the new one has the cores of the old one")
        until(lambda: len(told(fresh, "gateway_threads_busy")) == 2, "the new one is told of")
        assert other in workers(fresh)
        lost = sum(n for outcome, n in outcomes.items() if outcome != "200")
        assert lost <= CONNECTIONS, outcomes  # at most what it was just at
        for name in simulator.resources:
            until(
                lambda n=name: fresh.admin("GET", f"/{n}/state").json()["current_rpm"] > 0,
                "what others used is known to the new one",
            )
        assert fresh.stop() == 0
        ((pid, calls),) = killed(fresh).items()  # the others were told to end
        assert pid == victim
        assert 0 <= calls <= CONNECTIONS  # as of a moment before; between calls it has none
        # What the killed one counted and had not written yet: one sync interval.
        assert requests_in_database(fresh) >= outcomes["200"] - lost - 200

    def test_a_reload_loses_no_request(self, fresh: Gateway, simulator: Simulator):
        fresh.start()
        for resource in simulator.resources.values():
            add_instance(fresh, resource)
        shares = sorted(sorted(share(os.sched_getaffinity(0), n, 2)) for n in range(2))
        until(lambda: cores(fresh) == shares, "each has its cores")
        for pid in workers(fresh):  # and one thread has all
            until(
                lambda p=pid: frozenset(os.sched_getaffinity(0)) in cores_of_threads(p),
                "events are passed on wherever there is room",
            )
        with load(fresh) as outcomes:
            for number in range(1, 4):
                old = set(workers(fresh))
                until(lambda n=number: served(outcomes, n * 300), "load")
                fresh.process.send_signal(signal.SIGHUP)
                until(
                    lambda o=old: len(workers(fresh)) == 2 and not o & set(workers(fresh)),
                    "the workers are new",
                )
            until(lambda: served(outcomes, 1200), "load after it")
        assert set(outcomes) == {"200"}
        until(lambda: cores(fresh) == shares, "the new ones have the cores of the old ones")
        assert fresh.stop() == 0
        assert requests_in_database(fresh) == outcomes["200"]

    def test_before_it_stops_it_says_so_and_only_then_refuses(
        self, fresh: Gateway, simulator: Simulator
    ):
        fresh.start(PROXY_DRAIN_SECONDS="2")
        add_instance(fresh, simulator["east"])
        assert requests.get(f"{fresh.url}/ready", timeout=5).status_code == 200
        fresh.process.send_signal(signal.SIGTERM)
        until(
            lambda: requests.get(f"{fresh.url}/ready", timeout=5).status_code == 503,
            "it is not ready",
            1,
        )
        assert requests.get(f"{fresh.url}/ready", timeout=5).json()["problem"] == (
            "the gateway is stopping"
        )
        assert fresh.chat().ok, "those who come all the same are served"
        assert fresh.process.wait(20) == 0
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{fresh.url}/health", timeout=5)


class TestDatabase:
    def test_while_it_is_locked_everybody_is_served_and_nothing_is_lost(
        self, fresh: Gateway, simulator: Simulator
    ):
        fresh.start()
        add_instance(fresh, simulator["east"])
        with closing(sqlite3.connect(fresh.database, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            with load(fresh) as outcomes:
                until(lambda: "locked" in str(health(fresh)["problem"]), "it is noticed")
            other.execute("ROLLBACK")
        assert set(outcomes) == {"200"}
        until(lambda: fresh.agreed(lambda: health(fresh)["status"], "ok"), "it is over")
        until(lambda: "The database works again; what waited is written." in fresh.log, "told")
        assert fresh.stop() == 0
        assert requests_in_database(fresh) == outcomes["200"]

    def test_while_its_file_is_gone_everybody_is_served_and_nothing_is_lost(
        self, fresh: Gateway, simulator: Simulator
    ):
        fresh.start()
        add_instance(fresh, simulator["east"])
        aside = fresh.database.with_name("aside")
        os.rename(fresh.database, aside)
        with load(fresh) as outcomes:
            until(lambda: served(outcomes, 100), "load")
            until(lambda: "is gone" in str(health(fresh)["problem"]), "it is noticed")
            running = set(workers(fresh))
            fresh.process.send_signal(signal.SIGHUP)
            until(lambda: "SIGHUP: no worker is replaced" in fresh.log, "it is told")
            assert set(workers(fresh)) == running
        assert fresh.admin("PUT", "/east/config", json={"weight": 5}).status_code == 503
        assert not fresh.database.exists(), "no empty one is made"
        os.rename(aside, fresh.database)
        assert set(outcomes) == {"200"}
        until(lambda: fresh.agreed(lambda: health(fresh)["status"], "ok"), "it is over")
        fresh.process.send_signal(signal.SIGHUP)
        until(lambda: not running & set(workers(fresh)), "now they are replaced")
        assert fresh.stop() == 0
        assert requests_in_database(fresh) == outcomes["200"]

    def test_one_that_is_damaged_serves_on_and_is_set_aside_at_the_next_start(
        self, fresh: Gateway, simulator: Simulator
    ):
        fresh.start()
        add_instance(fresh, simulator["east"])
        backups = fresh.folder / "backups"
        self.backup_monitor(fresh, "backup", "--folder", str(backups))
        self.spoil(fresh.database)
        with load(fresh) as outcomes:  # who is asked nothing may have read it all before
            until(lambda: health(fresh)["status"] == "degraded", "it is noticed")
            noticed_after = sum(outcomes.values())
            until(lambda: served(outcomes, noticed_after + 50), "load after it")
        assert set(outcomes) == {"200"}
        fresh.stop()
        for _ in range(2):  # and a supervisor's second try makes no empty one
            refused = self.started(fresh)
            assert refused.returncode == 1
            assert "restore --newest" in refused.stderr
            assert "Traceback" not in refused.stderr
            assert not fresh.database.exists()
        assert list(fresh.folder.glob("proxy.db.damaged-*"))
        self.backup_monitor(fresh, "restore", "--newest", "--folder", str(backups))
        fresh.start()
        assert ask(fresh, 20) == {200: 20}

    @staticmethod
    def spoil(path: Path) -> None:
        """What a broken disk does, to a few pages in the middle and to the log of changes."""
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (path.stat().st_size - 8192))

    @staticmethod
    def backup_monitor(gateway: Gateway, *arguments: str) -> None:
        subprocess.run(
            [sys.executable, str(ROOT / "scripts" / "backup_monitor.py"), *arguments],
            env=gateway.environment(),
            check=True,
            capture_output=True,
            timeout=60,
        )

    @staticmethod
    def started(gateway: Gateway) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "proxy"],
            cwd=ROOT,
            env=gateway.environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )


def ask(gateway: Gateway, count: int) -> Counter[int]:
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return Counter(pool.map(lambda _: gateway.chat().status_code, range(count)))


class TestSaturation:
    def test_beyond_what_it_can_hold_the_next_is_told_at_once_and_health_answers(
        self, fresh: Gateway, simulator: Simulator
    ):
        fresh.start(PROXY_THREADS="4", PROXY_WORKERS="1")
        add_instance(fresh, simulator["east"])
        simulator["east"].faults["*"] = "hang"
        body = json.dumps(CHAT).encode()
        held = [socket.create_connection(("127.0.0.1", fresh.port)) for _ in range(4)]
        for client in held:
            client.sendall(_head(fresh, len(body)) + body)
        until(lambda: health(fresh)["calls"]["open"] == 4, "it is full")  # type: ignore[index]
        started = time.monotonic()
        answers = [fresh.chat() for _ in range(20)]
        assert time.monotonic() - started < 3
        assert {a.status_code for a in answers} == {503}
        assert {a.headers["retry-after"] for a in answers} == {"1"}
        assert answers[0].json()["error"]["code"] == "saturated"
        assert health(fresh)["calls"] == {"open": 4, "waiting": 0, "ceiling": 4}
        assert fresh.admin("GET").status_code == 200
        for client in held:
            client.close()
        simulator["east"].reset()
        until(lambda: fresh.chat().ok, "there is room again")

    def test_a_client_that_stays_and_does_nothing_holds_a_place_no_longer_than_its_call(
        self, fresh: Gateway, simulator: Simulator
    ):
        """One stops in the middle of its request, one does not read its answer."""
        fresh.start(PROXY_THREADS="2", PROXY_WORKERS="1", PROXY_DEADLINE_SECONDS="1")
        add_instance(fresh, simulator["east"])
        half = _head(fresh, 1000) + b"{"
        body = json.dumps({**CHAT, "stream": True}).encode()
        simulator["east"].tokens = 200_000
        with (
            socket.create_connection(("127.0.0.1", fresh.port)) as sender,
            socket.create_connection(("127.0.0.1", fresh.port)) as reader,
        ):
            sender.sendall(half)
            reader.sendall(_head(fresh, len(body)) + body)
            until(lambda: health(fresh)["calls"]["open"] == 2, "it is full")  # type: ignore[index]
            until(lambda: health(fresh)["calls"]["open"] == 0, "both are over")  # type: ignore[index]
        assert "Traceback" not in fresh.log


def _head(gateway: Gateway, length: int) -> bytes:
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\napi-key: %s\r\n"
        b"content-length: %d\r\n\r\n" % (gateway.client_key.encode(), length)
    )


def test_nothing_of_all_that_is_a_traceback(fresh: Gateway, simulator: Simulator):
    """A client that sends half a request, one that leaves in the middle of a large answer."""
    fresh.start()
    add_instance(fresh, simulator["east"])
    with socket.create_connection(("127.0.0.1", fresh.port)) as client:
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 9\r\n")
    simulator["east"].tokens = 2000
    simulator["east"].event_interval_ms = 1
    try:
        with fresh.chat(stream=True) as response:
            next(response.iter_content(None))
    finally:
        simulator["east"].tokens, simulator["east"].event_interval_ms = 10, 0
    until(lambda: '"outcome":"aborted"' in fresh.log, "it is over")
    assert "Traceback" not in fresh.log
