"""One instance is sick, and no client has a problem: through gunicorn with two workers."""

import json
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from proxy.simulator import Simulator
from tests.e2e.conftest import ADMIN_KEY, Gateway, add_instance, free_port, until

CONNECTIONS = 16
IDLE_SECONDS = 1
WELL = ("healthy", None)  # status and last error


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, simulator: Simulator) -> Iterator[Gateway]:
    """Two workers; `east` is asked first and may be sick, `west` is well."""
    gateway = Gateway(tmp_path_factory.mktemp("pair"), free_port())
    gateway.start(PROXY_STREAM_IDLE_SECONDS=str(IDLE_SECONDS))
    add_instance(gateway, simulator["east"], priority=1, timeout_seconds=1.5)
    add_instance(gateway, simulator["west"], priority=2)
    yield gateway
    gateway.stop(signal.SIGKILL)


@pytest.fixture(autouse=True)
def healthy(pair: Gateway, simulator: Simulator) -> Iterator[None]:
    """What the test before left behind is over, in both workers."""
    yield
    simulator["east"].reset()
    simulator["west"].reset()
    address = simulator["east"].url
    pair.change("east", api_base=address, api_key=simulator["east"].api_key, enabled=True)
    for name in ("east", "west"):
        pair.admin("PUT", f"/{name}/state", json={"status": "healthy"})
    for name in ("east", "west"):
        until(
            lambda n=name: pair.agreed(lambda: (status(pair, n), error_of(pair, n)), WELL),
            "it is well, in both",
        )


def status(gateway: Gateway, name: str) -> str:
    found: str = gateway.admin("GET", f"/{name}/state").json()["status"]
    return found


def ask(gateway: Gateway, count: int, **body: Any) -> Counter[str]:
    """So many requests, sixteen at a time: how often which status, or a stream without end."""
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return Counter(pool.map(lambda n: outcome(gateway, n, body), range(count)))


def outcome(gateway: Gateway, number: int, body: dict[str, Any]) -> str:
    answer = gateway.chat(**({"stream": number % 2 == 0} | body))
    is_stream = answer.headers["content-type"].startswith("text/event-stream")
    whole = answer.content.endswith(b"data: [DONE]\n\n") if is_stream else answer.json()
    return str(answer.status_code) if whole else "cut short"


def dead_address() -> str:
    return f"http://127.0.0.1:{free_port()}"


class TestOneInstance:
    def test_refuses_connections_and_0_of_1000_requests_fail(
        self, pair: Gateway, simulator: Simulator
    ):
        pair.change("east", api_base=dead_address())
        assert ask(pair, 1000) == {"200": 1000}
        assert len(simulator["west"].requests) == 1000
        until(lambda: pair.agreed(lambda: status(pair, "east"), "error"), "all know", 1)
        state = pair.admin("GET", "/east/state").json()
        assert state["breaker"] in ("open", "half_open")
        assert state["last_error"] == "the connection was refused"
        # Three open it; those that were under way meanwhile come on top, and trials.
        assert 3 <= state["total_upstream_other_errors"] < 100
        until(lambda: "east fails, and is left alone for a while" in pair.log, "it is told")

    @pytest.mark.parametrize(
        "address", ["http://no-such-host.invalid", "https://127.0.0.1:{tls}"]
    )
    def test_has_no_name_or_no_tls(self, address: str, pair: Gateway, simulator: Simulator):
        port = simulator["west"].url.rpartition(":")[2]  # which speaks plain HTTP
        pair.change("east", api_base=address.format(tls=port))
        assert ask(pair, 100) == {"200": 100}

    @pytest.mark.parametrize("fault", ["500", "502-html", "504", "408", "503-text"])
    def test_answers_with_an_error(self, fault: str, pair: Gateway, simulator: Simulator):
        simulator["east"].faults["*"] = fault
        assert ask(pair, 100) == {"200": 100}
        assert len(simulator["east"].requests) < 60
        until(lambda: status(pair, "east") == "error", "its breaker is open")

    @pytest.mark.parametrize("fault", ["404", "401", "403"])
    def test_is_misconfigured(self, fault: str, pair: Gateway, simulator: Simulator):
        simulator["east"].faults["*"] = fault
        assert ask(pair, 50) == {"200": 50}
        until(lambda: status(pair, "east") == "misconfigured", "it says so")
        until(
            lambda: "east refuses the gateway; a person has to mend its config" in pair.log,
            "it is told",
        )
        simulator["west"].faults["*"] = fault
        answer = pair.chat()
        assert (answer.status_code, answer.json()["error"]["code"]) == (
            502,
            "upstream_misconfigured",
        )

    @pytest.mark.parametrize("fault", ["429", "429-ms", "429-reset"])
    def test_is_at_its_limit(self, fault: str, pair: Gateway, simulator: Simulator):
        simulator["east"].faults["*"] = fault
        assert ask(pair, 30) == {"200": 30}
        until(lambda: status(pair, "east") == "rate_limited", "it rests")
        rested_until = pair.admin("GET", "/east/state").json()["rate_limited_until"]
        simulator["east"].reset()
        while time.time() < rested_until - 0.1:
            assert pair.chat().ok
        assert simulator["east"].requests == [], "not before its time"

    @pytest.mark.parametrize(
        "fault",
        [
            "break-before-head",
            "break-before-first-event",
            "break-before-content",
            "error-before-content",
            "stall-before-content",
            "hang",
        ],
    )
    def test_fails_before_it_said_anything(
        self, fault: str, pair: Gateway, simulator: Simulator
    ):
        simulator["east"].faults["*"] = fault
        slow = fault in ("hang", "stall-before-content")
        assert ask(pair, 20, stream=True) == {"200": 20}
        assert simulator["east"].requests
        assert len(simulator["west"].requests) == 20
        until(lambda: pair.agreed(lambda: bool(error_of(pair, "east")), True), "all know")
        assert ("timed out" in str(error_of(pair, "east"))) is slow

    @pytest.mark.parametrize("fault", ["break-in-middle", "stall-in-middle"])
    def test_breaks_or_stalls_in_the_middle(
        self, fault: str, pair: Gateway, simulator: Simulator
    ):
        simulator["east"].faults["*"] = f"{fault}*1"
        started = time.monotonic()
        with pair.chat(stream=True) as response:
            pieces: list[bytes] = []
            with pytest.raises(requests.RequestException):
                pieces.extend(response.iter_content(None))
        got = b"".join(pieces)
        took_seconds = time.monotonic() - started
        assert (IDLE_SECONDS <= took_seconds < 5) is (fault == "stall-in-middle")
        *events, last, nothing = got.split(b"\n\n")
        assert nothing == b""
        assert any(b'"content":"Hello' in event for event in events)
        error = json.loads(last.removeprefix(b"data: "))["error"]
        assert (error["type"], error["code"]) == ("server_error", "stream_interrupted")
        assert b"[DONE]" not in got
        until(lambda: tokens_of(pair, "failed") > 0, "the tokens so far are charged")

    def test_reports_an_error_in_the_middle(self, pair: Gateway, simulator: Simulator):
        simulator["east"].faults["*"] = "error-event*1"
        answer = pair.chat(stream=True)
        assert b"The server had an error while processing your request." in answer.content
        assert b"stream_interrupted" not in answer.content
        until(lambda: "an error inside" in (error_of(pair, "east") or ""), "it is its failure")

    def test_is_slow_to_its_first_byte(self, pair: Gateway, simulator: Simulator):
        simulator["east"].faults["*"] = "slow-head"
        started = time.monotonic()
        assert pair.chat().ok
        assert 1.5 <= time.monotonic() - started < 4
        assert len(simulator["west"].requests) == 1

    @pytest.mark.parametrize("fault", ["content-filter", "context-length", "bad-request"])
    def test_gets_the_clients_own_mistake(
        self, fault: str, pair: Gateway, simulator: Simulator
    ):
        simulator["east"].faults["*"] = fault
        answer = pair.chat()
        direct = requests.post(
            f"{simulator['east'].url}/openai/deployments/gpt-4o/chat/completions",
            json={"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]},
            headers={"api-key": simulator["east"].api_key or ""},
            timeout=5,
        )
        assert (answer.status_code, answer.content) == (400, direct.content)
        assert simulator["west"].requests == []
        assert (status(pair, "east"), error_of(pair, "east")) == WELL


class TestTheCall:
    def test_waits_if_somebody_is_back_soon(self, pair: Gateway, simulator: Simulator):
        for resource in simulator.resources.values():
            resource.faults["*"] = "429-ms*1"
        started = time.monotonic()
        assert pair.chat().ok
        assert 1.4 < time.monotonic() - started < 4

    def test_is_told_at_once_when_to_come_back_if_nobody_is(
        self, pair: Gateway, simulator: Simulator
    ):
        for name in simulator.resources:
            pair.admin("PUT", f"/{name}/state", json={"rate_limited_until": time.time() + 9})
        for name in simulator.resources:  # each was told to whichever worker took it
            until(
                lambda n=name: pair.agreed(lambda: status(pair, n), "rate_limited"), "it rests"
            )
        started = time.monotonic()
        answer = pair.chat()
        assert (answer.status_code, time.monotonic() - started < 1) == (429, True)
        assert 4000 < int(answer.headers["retry-after-ms"]) <= 9000
        assert answer.headers["retry-after"] == str(
            -(-int(answer.headers["retry-after-ms"]) // 1000)
        )

    def test_ends_when_the_client_wants_it_no_longer(self, pair: Gateway, simulator: Simulator):
        for resource in simulator.resources.values():
            resource.faults["*"] = "hang"
        started = time.monotonic()
        answer = requests.post(
            f"{pair.url}/v1/chat/completions",
            json={"model": "gpt-4o", "messages": []},
            headers={"api-key": pair.client_key, "x-request-timeout-ms": "300"},
            timeout=10,
        )
        assert answer.status_code == 504
        assert 0.3 <= time.monotonic() - started < 1.4
        assert status(pair, "east") == "healthy"

    @pytest.mark.parametrize("fault", ["hang", "stall-before-content", "stall-in-middle"])
    def test_ends_upstream_within_a_second_when_its_client_leaves(
        self, fault: str, pair: Gateway, simulator: Simulator
    ):
        east = simulator["east"]
        east.faults["*"] = fault
        errors = pair.admin("GET", "/east/state").json()["error_count"]
        body = json.dumps({"model": "gpt-4o", "stream": True, "messages": [{}]}).encode()
        with socket.create_connection(("127.0.0.1", pair.port), timeout=5) as client:
            client.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\napi-key: %s\r\n"
                b"content-length: %d\r\n\r\n%s" % (pair.client_key.encode(), len(body), body)
            )
            assert east.wait_for(lambda r: len(r.requests) == 1)
        left_at = time.monotonic()
        assert east.wait_for(lambda r: r.aborted == 1, 3)
        assert time.monotonic() - left_at < 1
        assert simulator["west"].requests == []
        until(lambda: '"outcome":"aborted"' in pair.log, "it is counted as the client's doing")
        assert pair.admin("GET", "/east/state").json()["error_count"] == errors

    def test_is_explained_without_asking_anybody(self, pair: Gateway, simulator: Simulator):
        answer = requests.post(
            f"{pair.url}/admin/explain",
            json={"model": "gpt-4o", "messages": []},
            headers={"X-Admin-API-Key": ADMIN_KEY},
            timeout=5,
        )
        assert answer.json()["order"] == ["east", "west"]
        assert simulator["east"].requests == simulator["west"].requests == []


def error_of(gateway: Gateway, name: str) -> str | None:
    error: str | None = gateway.admin("GET", f"/{name}/state").json()["last_error"]
    return error


def tokens_of(gateway: Gateway, outcome: str) -> int:
    rows = gateway.rows(
        f"select coalesce(sum(completion_tokens), 0) from usage_minute where {outcome} > 0"
    )
    tokens: int = rows[0][0]
    return tokens
