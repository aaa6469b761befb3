"""What all workers of a host tell together: the last requests, and alerts."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from proxy.simulator import Simulator
from tests.e2e.conftest import ADMIN_KEY, Gateway, add_instance, free_port, until

CALLS = 40


class Receiver(BaseHTTPRequestHandler):
    received: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.received.append(json.loads(body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[ThreadingHTTPServer]:
    Receiver.received = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_two_workers_show_the_same_requests_and_send_one_alert(
    tmp_path: Path, simulator: Simulator, receiver: ThreadingHTTPServer
) -> None:
    url = f"http://127.0.0.1:{receiver.server_port}/planted-hook"
    settings = {"PROXY_ALERT_WEBHOOK_URL": url, "PROXY_LOG_DIR": str(tmp_path / "logs")}
    gateway = Gateway(tmp_path, free_port(), settings=settings)
    try:
        gateway.start()
        add_instance(gateway, simulator["east"], priority=1)
        add_instance(gateway, simulator["west"], priority=2)
        simulator["east"].faults["*"] = "401"
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: gateway.chat(), range(CALLS)))
        ids = {answer.headers["x-request-id"] for answer in answers}

        def shown() -> set[str]:
            return {each["id"] for each in _shown(gateway)["requests"]}

        # Whichever worker is asked, of whichever had them.
        until(lambda: all(shown() == ids for _ in range(4)), "all are shown")
        assert any("east" in str(_story(gateway, each)) for each in ids)
        log = tmp_path / "logs" / "proxy.log"
        until(lambda: all(f'"id":"{i}"' in log.read_text() for i in ids), "all are logged")

        until(lambda: bool(Receiver.received), "the alert arrives")
        ((alert,),) = [message["alerts"] for message in Receiver.received]
        assert alert["event"] == "misconfigured"
        assert alert["fields"]["instance"] == "east"
        assert gateway.stop() == 0
        assert len(Receiver.received) == 1
        assert "planted-hook" not in gateway.log
    finally:
        gateway.stop(9)
        simulator["east"].reset()


def _shown(gateway: Gateway, path: str = "") -> Any:
    headers = {"X-Admin-API-Key": ADMIN_KEY}
    return requests.get(
        f"{gateway.url}/admin/requests{path}", headers=headers, timeout=5
    ).json()


def _story(gateway: Gateway, request_id: str) -> list[str]:
    story: list[str] = _shown(gateway, f"/{request_id}")["story"]
    return story
