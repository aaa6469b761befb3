"""What only shows with real processes: workers that share, signals, clients that leave."""

import json
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import dropwhile
from pathlib import Path

import pytest
import requests

from proxy.settings import ROOT
from proxy.simulator import Simulator, expected_usage
from tests.e2e.conftest import ADMIN_KEY, Gateway, add_instance, free_port, until

WITHIN_SECONDS = 1.0  # a change of config is live in every worker

MESSAGES = [{"role": "user", "content": "Hi"}]
TOKENS = expected_usage({"messages": MESSAGES}, 10)["total_tokens"]


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway of the test's own, to be stopped by it."""
    gateway = Gateway(tmp_path, free_port())
    yield gateway
    gateway.stop(signal.SIGKILL)


class TestConfigIsLive:
    def test_a_rotated_key_is_used_by_every_worker_within_a_second(
        self, gateway: Gateway, simulator: Simulator
    ):
        simulator["east"].api_key, old = None, simulator["east"].api_key
        gateway.change("west", enabled=False)
        gateway.admin("PUT", "/east/config", json={"api_key": "planted-rotated-key"})

        def keys_in_use() -> set[str]:
            simulator["east"].reset()
            for _ in range(12):
                assert gateway.chat().ok
            return {r.headers["api-key"] for r in simulator["east"].requests}

        until(
            lambda: keys_in_use() == {"planted-rotated-key"}, "only the new key", WITHIN_SECONDS
        )
        gateway.change("east", api_key=old)
        simulator["east"].api_key = old
        gateway.change("west", enabled=True)

    def test_a_worker_that_is_refused_with_the_old_key_spoils_nothing(
        self, gateway: Gateway, simulator: Simulator
    ):
        """The upstream knows only the new key before any worker does."""
        old = simulator["east"].api_key
        gateway.change("west", enabled=False)
        simulator["east"].api_key = "planted-rotated-key"
        assert gateway.chat().status_code == 502
        gateway.change("east", api_key="planted-rotated-key")
        assert gateway.agreed(lambda: gateway.chat().status_code, 200)
        simulator["east"].api_key = old
        gateway.change("east", api_key=old)
        gateway.change("west", enabled=True)

    def test_a_disabled_instance_gets_no_more_from_any_worker(
        self, gateway: Gateway, simulator: Simulator
    ):
        gateway.admin("PUT", "/east/config", json={"enabled": False})

        def asked_east() -> int:
            simulator["east"].reset()
            for _ in range(12):
                assert gateway.chat().ok
            return len(simulator["east"].requests)

        until(lambda: asked_east() == 0, "nobody asks it any more", WITHIN_SECONDS)
        gateway.change("east", enabled=True)


class TestCounts:
    def test_two_workers_count_what_the_client_counted_exactly(
        self, fresh: Gateway, simulator: Simulator
    ):
        fresh.start()
        for resource in simulator.resources.values():
            add_instance(fresh, resource)
        with ThreadPoolExecutor(16) as pool:
            answers = list(
                pool.map(lambda n: fresh.chat(stream=n % 2 == 0).content, range(300))
            )
        assert all(answers)
        assert fresh.stop() == 0

        assert fresh.rows(
            "select sum(total_requests), sum(successful_requests), sum(total_tokens_served)"
            " from instance_state"
        ) == [(300, 300, 300 * TOKENS)]
        assert fresh.rows(
            "select sum(requests), sum(attempts), sum(succeeded),"
            " sum(prompt_tokens + completion_tokens) from usage_minute"
        ) == [(300, 300, 300, 300 * TOKENS)]
        workers = set(re.findall(r'"pid":(\d+),"message":"POST /v1/chat', fresh.log))
        assert len(workers) == 2, "both workers took part"

    def test_each_worker_shows_everyones_counts(self, gateway: Gateway, simulator: Simulator):
        before = self._total(gateway)
        for _ in range(20):
            assert gateway.chat().ok
        until(
            lambda: gateway.agreed(lambda: self._total(gateway), before + 20),
            "all workers know all counts",
        )

    @staticmethod
    def _total(gateway: Gateway) -> int:
        listed = gateway.admin("GET").json()["instances"]
        return sum(i["state"]["total_requests"] for i in listed)

    def test_a_stream_that_is_open_at_sigterm_is_finished_and_counted(
        self, fresh: Gateway, simulator: Simulator
    ):
        fresh.start()
        add_instance(fresh, simulator["east"])
        simulator["east"].event_interval_ms = 50
        try:
            with fresh.chat(stream=True) as response:
                lines = response.iter_lines()
                next(lines)
                fresh.process.send_signal(signal.SIGTERM)
                assert b"data: [DONE]" in list(lines)
        finally:
            simulator["east"].event_interval_ms = 0
        assert fresh.stop() == 0
        assert fresh.rows(
            "select successful_requests, total_tokens_served from instance_state"
        ) == [(1, TOKENS)]

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_stream_that_does_not_end_in_time_is_counted_as_far_as_it_came(
        self, fresh: Gateway, simulator: Simulator, number: signal.Signals
    ):
        fresh.start(PROXY_GRACEFUL_TIMEOUT_SECONDS="1")
        add_instance(fresh, simulator["east"])
        simulator["east"].faults["*"] = "stall-in-middle"
        with fresh.chat(stream=True) as response:
            pieces = response.iter_content(None)
            next(pieces)
            begun = time.monotonic()
            assert fresh.stop(number) == 0
            assert time.monotonic() - begun < 5
            # Its client is told, and cannot take what it has for the whole answer.
            rest = next(pieces)
            with pytest.raises(requests.exceptions.ChunkedEncodingError):
                next(pieces)
        assert b"the gateway is being stopped or restarted" in rest
        assert b"[DONE]" not in rest
        ((requests_, lost, tokens),) = fresh.rows(
            "select requests, lost, completion_tokens from usage_minute"
        )
        assert (requests_, lost) == (1, 1)
        assert tokens > 0
        assert "was still answering when the worker ended" in fresh.log
        assert '"outcome":"expired"' in fresh.log

    def test_a_call_that_is_not_answered_in_time_is_told_so_and_logged(
        self, fresh: Gateway, simulator: Simulator
    ):
        fresh.start(PROXY_GRACEFUL_TIMEOUT_SECONDS="1")
        add_instance(fresh, simulator["east"])
        simulator["east"].faults["*"] = "hang"
        with ThreadPoolExecutor(2) as pool:
            calls = [pool.submit(fresh.chat), pool.submit(fresh.chat, stream=True)]
            assert simulator["east"].wait_for(lambda r: len(r.requests) == 2)
            assert fresh.stop() == 0
            answers = [call.result(10) for call in calls]
        for answer in answers:
            assert answer.status_code == 503
            assert "is being stopped or restarted" in answer.json()["error"]["message"]
        counted = fresh.rows("select sum(requests), sum(lost), sum(expired) from usage_minute")
        assert counted == [(2, 2, 2)]
        lines = [line for line in fresh.log.splitlines() if '"status":503' in line]
        assert ['"outcome":"expired"' in line for line in lines] == [True, True]


class TestBodies:
    def test_a_chunked_body_above_the_limit_is_413_and_not_cut(
        self, fresh: Gateway, simulator: Simulator
    ):
        fresh.start(PROXY_MAX_BODY_BYTES="2000")
        add_instance(fresh, simulator["east"])
        body = b'{"model": "gpt-4o", "messages": []}'.ljust(2000) + b"x" * 7000

        def pieces() -> Iterator[bytes]:
            yield body

        answer = requests.post(
            f"{fresh.url}/v1/chat/completions",
            data=pieces(),
            headers={"api-key": fresh.client_key},
            timeout=10,
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (
            413,
            "request_too_large",
        )
        assert simulator["east"].requests == []

    def test_broken_chunks_are_the_clients_mistake_and_not_quoted(self, gateway: Gateway):
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
            connection.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\napi-key: %s\r\n"
                b"transfer-encoding: chunked\r\n\r\nZZ-my-secret-prompt\r\n"
                % gateway.client_key.encode()
            )
            received = b""
            while b"}}" not in received:
                piece = connection.recv(65536)
                assert piece, received
                received += piece
        assert received.startswith(b"HTTP/1.1 400 ")
        assert b'"invalid_request_error"' in received
        until(lambda: '"status":400' in gateway.log, "its line is written")
        assert "my-secret-prompt" not in gateway.log

    def test_one_that_comes_too_late_is_told_so(self, gateway: Gateway):
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
            connection.sendall(_upload(gateway, b"x-request-timeout-ms: 300\r\n") + b"{")
            received = b"".join(iter(lambda: connection.recv(65536), b""))
        head, _, body = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert b"\r\nConnection: close" in head
        assert json.loads(body)["error"]["code"] == "request_timeout"
        until(lambda: '"status":408' in gateway.log, "its line is written")

    def test_one_that_comes_in_pieces_in_time_is_served(self, gateway: Gateway):
        body = json.dumps({"model": "gpt-4o", "messages": MESSAGES}).encode()
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(_upload(gateway, b"x-request-timeout-ms: 9000\r\n", len(body)))
            for at in range(0, len(body), 8):
                connection.sendall(body[at : at + 8])
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")

    def test_who_resets_the_connection_in_the_middle_of_one_has_left(self, gateway: Gateway):
        before = gateway.log.count('"status":499')
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
            connection.sendall(_upload(gateway) + b"{")
            until(lambda: _open_calls(gateway) == 1, "it is waited for")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        until(lambda: gateway.log.count('"status":499') > before, "its line is written")


def _open_calls(gateway: Gateway) -> int:
    found: int = requests.get(f"{gateway.url}/health", timeout=5).json()["calls"]["open"]
    return found


def _upload(gateway: Gateway, more: bytes = b"", length: int = 100) -> bytes:
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\napi-key: %s\r\n%s"
        b"content-length: %d\r\n\r\n" % (gateway.client_key.encode(), more, length)
    )


class TestStreams:
    def test_bytes_arrive_while_the_upstream_still_sends(
        self, gateway: Gateway, simulator: Simulator
    ):
        for resource in simulator.resources.values():
            resource.faults["*"] = "stall-in-middle"
        with gateway.chat(stream=True) as response:
            assert next(response.iter_content(None)).startswith(b"data: ")
        until(lambda: sum(r.aborted for r in simulator.resources.values()) == 1, "it is over")

    def test_a_client_that_leaves_closes_the_upstreams_connection(
        self, gateway: Gateway, simulator: Simulator
    ):
        for resource in simulator.resources.values():
            resource.event_interval_ms = 20
            resource.tokens = 1000
        with gateway.chat(stream=True) as response:
            next(response.iter_content(None))
        until(
            lambda: sum(r.aborted for r in simulator.resources.values()) == 1,
            "the upstream sees us go",
            seconds=5,
        )
        for resource in simulator.resources.values():
            resource.event_interval_ms, resource.tokens = 0, 10

    def test_a_client_that_leaves_while_the_upstream_is_silent_closes_it_too(
        self, gateway: Gateway, simulator: Simulator
    ):
        for resource in simulator.resources.values():
            resource.faults["*"] = "stall-in-middle"
        with gateway.chat(stream=True) as response:
            next(response.iter_content(None))
        until(
            lambda: sum(r.aborted for r in simulator.resources.values()) == 1,
            "the upstream sees us go",
            seconds=2,
        )
        until(lambda: '"outcome":"aborted"' in gateway.log, "it is no failure of the instance")

    def test_a_broken_stream_has_no_proper_end_on_the_wire(
        self, gateway: Gateway, simulator: Simulator
    ):
        for resource in simulator.resources.values():
            resource.faults["*"] = "break-in-middle"
        body = json.dumps({"model": "gpt-4o", "stream": True, "messages": MESSAGES}).encode()
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
            connection.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
                b"api-key: %s\r\ncontent-length: %d\r\n\r\n%s"
                % (gateway.client_key.encode(), len(body), body)
            )
            received = b"".join(iter(lambda: connection.recv(65536), b""))
        assert b'"code": "stream_interrupted"' in received
        assert b"[DONE]" not in received
        assert not received.endswith(b"0\r\n\r\n")
        assert "Traceback" not in gateway.log


class TestStart:
    @pytest.mark.parametrize(
        "settings, said",
        [
            ({"PROXY_THREDS": "3"}, "PROXY_THREDS: there is no such setting"),
            ({"PROXY_THREADS": "many"}, "PROXY_THREADS: 'many' cannot be used"),
            ({"PROXY_DATABASE_URL": "sqlite:////dev/null/x.db"}, "cannot be"),
        ],
    )
    def test_what_cannot_work_is_one_line_and_exit_code_1(
        self, settings: dict[str, str], said: str, tmp_path: Path
    ):
        gateway = Gateway(tmp_path, free_port())
        done = subprocess.run(
            [sys.executable, "-m", "proxy"],
            cwd=ROOT,
            env=gateway.environment(**settings),
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 1
        assert said in done.stderr
        assert "Traceback" not in done.stderr

    def test_gunicorn_without_a_database_refuses_to_start(self, tmp_path: Path):
        gateway = Gateway(tmp_path, free_port())
        command = ["-m", "gunicorn", "-c", "python:proxy.gunicorn_conf", "wsgi:app"]
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=gateway.environment(),
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 1
        assert "alembic upgrade head" in done.stderr
        assert not gateway.database.exists()

    def test_without_instances_it_serves_and_says_how_to_add_one(self, fresh: Gateway):
        fresh.start()
        assert "curl -X POST" in fresh.log
        # Nobody looks at it, so it is for programs, gunicorn's own lines too; but before it
        # begins, what the migration says.
        lines = dropwhile(lambda line: line[:1] != "{", fresh.log.splitlines())
        assert all(json.loads(line)["message"] for line in lines)
        assert fresh.chat().json()["error"]["code"] == "model_not_found"
        assert requests.get(f"{fresh.url}/ready", timeout=5).status_code == 503
        assert ADMIN_KEY not in fresh.log
        assert fresh.client_key not in fresh.log


@pytest.mark.skipif(not shutil.which("curl"), reason="the demo prints lines for curl")
def test_the_demo_prints_lines_that_work_and_stops_all_it_started(tmp_path: Path):
    port = free_port()
    environment = Gateway(tmp_path, port).environment()
    demo = subprocess.Popen(
        [sys.executable, "-m", "proxy", "--demo"],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell that runs us in the background ignores it, and so would what we start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert demo.stderr is not None
        printed = ""
        while "Stop with Ctrl-C" not in printed:
            line = demo.stderr.readline()
            assert line, f"it ended, and said only: {printed}"
            printed += line
        commands = re.findall(r"^  (curl .*?[^\\])\n\n", printed, flags=re.S | re.M)
        streamed, listed = (_shell(c) for c in commands)
        assert "data: [DONE]" in streamed
        assert [i["config"]["name"] for i in json.loads(listed)["instances"]] == [
            "sim-1",
            "sim-2",
            "sim-3",
        ]
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=30)
        assert demo.returncode == 0
        with pytest.raises(requests.ConnectionError):
            requests.get(f"http://127.0.0.1:{port}/health", timeout=5)
    finally:
        if demo.poll() is None:
            demo.kill()
            demo.communicate()


def _shell(command: str) -> str:
    done = subprocess.run(
        ["bash", "-c", f"{command} --silent --retry 10 --retry-connrefused"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return done.stdout
