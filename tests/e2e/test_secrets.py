"""Secrets of a gateway that runs: references that change, keys that follow one another."""

import signal
import sqlite3
import threading
from contextlib import closing

import pytest
import requests

from tests import planted
from tests.e2e.conftest import Gateway, add_instance, free_port, until

WITHIN_SECONDS = 8.0  # one by design; the rest is for a machine that does other things


@pytest.fixture
def own_gateway(tmp_path, simulator):
    """With a key in a file, and the instance `east`."""
    gateway = Gateway(tmp_path, free_port())
    gateway.settings = {
        "PROXY_SECRET_KEY": "",
        "PROXY_SECRET_KEY_FILE": str(tmp_path / "secret.key"),
        "PROXY_LOG_DIR": str(tmp_path / "logs"),
    }
    end_watch = planted.watch_requests()
    gateway.start()
    add_instance(gateway, simulator["east"])
    yield gateway
    end_watch()
    gateway.stop(signal.SIGKILL)


def test_a_key_in_a_file_is_used_by_every_worker_when_it_changes(
    own_gateway, simulator, tmp_path
):
    path = tmp_path / "azure-key"
    path.write_text("planted-first-key")
    simulator["east"].api_key = None
    own_gateway.change("east", api_key=f"file:{path}")

    def keys_in_use():
        simulator["east"].reset()
        for _ in range(12):
            assert own_gateway.chat().ok
        return {r.headers["api-key"] for r in simulator["east"].requests}

    try:
        assert keys_in_use() == {"planted-first-key"}
        path.write_text("planted-second-key")
        until(
            lambda: keys_in_use() == {"planted-second-key"}, "only the new key", WITHIN_SECONDS
        )
    finally:
        simulator["east"].api_key = "planted-key-of-east"


def test_a_rotation_fails_no_request_and_needs_no_start(own_gateway, simulator, tmp_path):
    """While clients ask and config changes, so that workers read it again and again."""
    failed, stop = [], threading.Event()

    def ask():
        while not stop.wait(0.02):  # the commands need a processor, too
            answer = own_gateway.chat()
            if not answer.ok:
                failed.append(answer.text)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for weight in range(1, 4):
            own_gateway.command("secrets", "rotate")
            own_gateway.change("east", weight=weight)
        own_gateway.command("secrets", "rotate", "--forget-old")
        own_gateway.change("east", weight=5)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failed == []
    assert len((tmp_path / "secret.key").read_text().split()) == 1
    own_gateway.command("secrets", "check")
    health = requests.get(f"{own_gateway.url}/health", timeout=5).json()
    assert health["problem"] is None


def test_nothing_of_a_secret_is_in_what_it_wrote(own_gateway, simulator, tmp_path):
    own_gateway.change("east", proxy_url="http://user:planted-password@127.0.0.1:1")
    assert own_gateway.chat().status_code >= 500
    own_gateway.change("east", proxy_url=None)
    own_gateway.stop()
    for path in sorted(p for p in tmp_path.rglob("*") if p.is_file()):
        if path.name != "secret.key":
            is_database = path.name.startswith("proxy.db")
            planted.look_at_file(
                path, planted.OF_DATABASES if is_database else planted.PATTERNS
            )
    assert planted.taken() == []
    with closing(sqlite3.connect(own_gateway.database)) as connection:
        (stored,) = connection.execute("SELECT api_key FROM instance_config").fetchone()
    assert stored.startswith("fernet:")
