import http.server
import re
import shlex
import socket
import threading

import pytest

from proxy import create_app, demo
from proxy.cli.mock import simulated_resources
from proxy.demo import MODELS, TRY_IT, _fill
from proxy.simulator import Simulator
from tests.web.conftest import ADMIN_KEY, log_kept


@pytest.fixture
def simulator():
    with Simulator(simulated_resources(3, latency_ms=0, event_interval_ms=0)) as simulator:
        yield simulator


@pytest.fixture
def app(make_settings):
    with log_kept():
        app = create_app(make_settings(admin_api_key=ADMIN_KEY))
        yield app
        app.extensions["proxy"].stop()


@pytest.fixture
def parts(app):
    return app.extensions["proxy"]


def ask(app, key, model):
    path = "/v1/embeddings" if "embedding" in model else "/v1/chat/completions"
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "input": "Hi"}
    headers = {"Authorization": f"Bearer {key}"}
    return app.test_client().post(path, json=body, headers=headers).status_code


@pytest.mark.parametrize("model", MODELS)
def test_its_instances_serve_its_models(app, parts, simulator, model):
    key = _fill(parts, simulator)
    parts.start()
    assert ask(app, key, model) == 200
    assert list(parts.snapshots.current.instances) == ["sim-1", "sim-2", "sim-3"]


def test_the_next_time_it_has_other_ports_and_another_key(app, parts, simulator):
    old = _fill(parts, simulator)
    parts.start()
    resources = simulated_resources(3, latency_ms=0, event_interval_ms=0)
    with Simulator(resources) as later:
        new = _fill(parts, later)
        parts.syncer.sync()
        shown = parts.snapshots.current.instances
        assert {i.config.api_base for i in shown.values()} == {r.url for r in resources}
        assert (ask(app, old, MODELS[0]), ask(app, new, MODELS[0])) == (401, 200)
        assert sum(len(r.requests) for r in resources) == 1


def test_the_lines_to_try_it_with_do_what_they_say(app, parts, simulator):
    key = _fill(parts, simulator)
    parts.start()
    text = TRY_IT.format(
        address="http://localhost",
        client_key=key,
        admin_key=ADMIN_KEY,
        database_url="sqlite:////x/demo.db",
        secret_key_file="/x/demo.key",
        bind="127.0.0.1",
        port=8123,
    )
    commands = re.findall(r"curl .*?(?=\n\n)", text, re.DOTALL)
    assert len(commands) == 2
    answers = [_run(app, shlex.split(command.replace("\\\n", ""))) for command in commands]
    assert [a.status_code for a in answers] == [200, 200]
    assert answers[0].mimetype == "text/event-stream"
    assert answers[0].data.endswith(b"data: [DONE]\n\n")
    assert answers[1].get_json()["total"] == 3
    assert (
        "export PROXY_DATABASE_URL=sqlite:////x/demo.db PROXY_SECRET_KEY_FILE=/x/demo.key\n"
        f"  export ADMIN_API_KEY={ADMIN_KEY} PROXY_BIND=127.0.0.1 PORT=8123\n"
    ) in text
    page = re.search(r"(http\S+/admin/docs)\b", text)[1]
    assert app.test_client().get(page, follow_redirects=True).status_code == 200


class Process:
    """One that ends when it was looked at so often."""

    def __init__(self, looks):
        self.looks = looks

    def poll(self):
        self.looks -= 1
        return None if self.looks >= 0 else 1


@pytest.mark.parametrize("statuses, looks", [([], 1), ([503, 503], 3)])
def test_the_lines_to_try_it_with_are_told_when_it_answers(statuses, looks, monkeypatch):
    asked = []

    class Ready(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(statuses.pop() if statuses else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    monkeypatch.setattr(demo, "LOOK_SECONDS", 0)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ready) as server:
        threading.Thread(target=server.serve_forever).start()
        demo._wait_until_ready(Process(1_000_000), *server.server_address)
        server.shutdown()
    assert asked == ["/ready"] * looks


def test_nor_is_one_waited_for_that_has_ended_or_never_answers(monkeypatch):
    monkeypatch.setattr(demo, "LOOK_SECONDS", 0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = taken.getsockname()
    process = Process(3)
    demo._wait_until_ready(process, *nobody)
    assert process.looks == -1
    monkeypatch.setattr(demo, "READY_SECONDS", 0)
    process = Process(3)
    demo._wait_until_ready(process, *nobody)
    assert process.looks == 2


def _run(app, words):
    """curl's arguments as a request of the test client."""
    url = next(word for word in words if word.startswith("http"))
    headers = [words[i + 1].split(": ", 1) for i, word in enumerate(words) if word == "-H"]
    data = next((words[i + 1] for i, word in enumerate(words) if word == "-d"), None)
    method = "POST" if data else "GET"
    # Buffered: a stream that nobody reads to its end is open until somebody collects it.
    return app.test_client().open(url, method=method, headers=headers, data=data, buffered=True)
