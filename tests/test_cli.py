import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from proxy import create_app
from proxy.cli import simulated_resources, wait_for_interrupt
from proxy.settings import ROOT
from proxy.store import keys
from tests.web.conftest import log_kept

KEY = re.compile(r"gw-[\w-]{43}")


@pytest.fixture
def app(make_settings):
    with log_kept():
        yield create_app(make_settings())


@pytest.fixture
def run(app):
    """A function from a command's arguments to its result."""
    return lambda *arguments: app.test_cli_runner().invoke(args=list(arguments))


def hashed(database, key):
    with database.read() as connection:
        return keys.key_hash(keys.pepper(connection), key)


def stored(database):
    with database.read() as connection:
        return {client.name: key for key, client in keys.load_all(connection).items()}


def test_a_new_key_is_all_that_is_printed(run, database):
    result = run("keys", "add", "app")
    assert result.exit_code == 0
    assert KEY.fullmatch(result.stdout.removesuffix("\n"))
    assert "app" in result.stderr
    assert not KEY.search(result.stderr)
    assert stored(database) == {"app": hashed(database, result.stdout.strip())}


def test_only_a_hash_of_a_key_is_kept(run, database_file):
    key = run("keys", "add", "app").stdout.strip()
    files = list(database_file.parent.glob(database_file.name + "*"))
    assert files
    for file in files:
        assert key.encode() not in file.read_bytes()


def test_every_key_is_another(run):
    assert run("keys", "add", "a").stdout != run("keys", "add", "b").stdout


def test_a_client_has_one_key(run, database):
    run("keys", "add", "app")
    before = stored(database)
    result = run("keys", "add", "app")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: A client named 'app' has a key already.\n"
    assert stored(database) == before


def test_the_list_shows_clients_and_the_ends_of_their_keys(run):
    assert run("keys", "list").stdout == ""
    first, second = (run("keys", "add", name).stdout.strip() for name in ("b", "a b"))
    result = run("keys", "list")
    assert result.exit_code == 0
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[:2] for row in rows] == [
        ["a b", f"***{second[-4:]}"],
        ["b", f"***{first[-4:]}"],
    ]
    for row in rows:
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\dZ", row[2])
    assert not KEY.search(result.stdout)


def test_a_removed_client_can_have_a_new_key(run, database):
    old = run("keys", "add", "app").stdout
    result = run("keys", "remove", "app")
    assert (result.exit_code, result.stdout) == (0, "The key of app is removed.\n")
    assert stored(database) == {}
    new = run("keys", "add", "app").stdout
    assert new != old
    assert stored(database) == {"app": hashed(database, new.strip())}


def test_somebody_unknown_cannot_be_removed(run):
    result = run("keys", "remove", "nobody")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: There is no client named 'nobody'.\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("keys", "add"),
        ("keys", "add", "a", "b"),
        ("keys", "add", ""),
        ("keys", "add", "  "),
        ("keys", "add", "a\nb"),
        ("keys", "add", "\x1b[31m"),
        ("keys", "add", "x" * 101),
        ("keys", "add", "--name"),
        ("keys", "remove"),
        ("keys", "list", "a"),
        ("keys", "rotate"),
        ("mock", "--port", "0"),
        ("mock", "--port", "65536"),
        ("mock", "--port", "many"),
        ("mock", "--port", "65534", "--count", "3"),
        ("mock", "--count", "0"),
        ("mock", "--count", "-1"),
        ("mock", "--latency-ms", "-1"),
        ("mock", "--latency-ms", "nan"),
        ("mock", "--event-interval-ms", "inf"),
        ("mock", "9100"),
        ("nonsense",),
    ],
)
def test_wrong_usage_has_a_code_of_its_own_and_changes_nothing(run, database, arguments):
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error: " in result.stderr
    assert stored(database) == {}


def test_no_command_leaves_a_connection_open(app, run):
    for command in (("add", "a"), ("add", "a"), ("list",), ("remove", "a"), ("remove", "a")):
        run("keys", *command)
        assert app.extensions["proxy"].database.engine.pool.checkedin() == 0


@pytest.mark.parametrize("command", [("list",), ("add", "app"), ("remove", "app")])
def test_without_a_database_the_remedy_is_named(make_settings, tmp_path, command):
    path = tmp_path / "none.db"
    with log_kept():
        app = create_app(make_settings(database_url=f"sqlite:///{path}"))
        result = app.test_cli_runner().invoke(args=["keys", *command])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "alembic upgrade head" in result.stderr
    assert not path.exists()


def test_every_command_has_a_help_of_its_own(run):
    for arguments in (
        ["keys"],
        ["keys", "add"],
        ["keys", "list"],
        ["keys", "remove"],
        ["mock"],
    ):
        result = run(*arguments, "--help")
        assert result.exit_code == 0
        assert len(result.stdout.splitlines()) > 4
    assert "9100" in result.stdout
    for option in ("--port", "--count", "--latency-ms", "--event-interval-ms"):
        assert option in result.stdout


def test_a_port_that_is_taken_is_a_sentence(run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = run("mock", "--port", str(taken.getsockname()[1]), "--count", "1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: Cannot listen: Address already in use")


def test_simulated_resources_have_names_and_keys_of_their_own():
    resources = simulated_resources(3, latency_ms=5, event_interval_ms=7)
    assert [r.name for r in resources] == ["sim-1", "sim-2", "sim-3"]
    assert len({r.api_key for r in resources}) == 3
    assert {(r.latency_ms, r.event_interval_ms) for r in resources} == {(5, 7)}


def test_an_interrupt_is_how_waiting_ends():
    def interrupted():
        raise KeyboardInterrupt

    wait_for_interrupt(interrupted)


def test_the_mock_runs_until_it_is_interrupted():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    command = [sys.executable, "-m", "flask", "mock", "--port", str(port), "--count", "1"]
    # Text is kept in a pipe until there is much of it, unless one asks otherwise.
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        # A shell that runs us in the background ignores it, and so would what we start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        try:
            first = process.stdout.readline()
            assert first.split() == [
                "sim-1",
                f"http://127.0.0.1:{port}",
                "key:",
                "simulated-key-1",
            ]
            asked = urllib.request.Request(
                f"http://127.0.0.1:{port}/v1/models", headers={"api-key": "simulated-key-1"}
            )
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(asked, timeout=10) as answer:
                assert b"gpt-4o" in answer.read()
            process.send_signal(signal.SIGINT)
            rest = process.stdout.read()
        finally:
            process.kill()
    assert process.returncode == 0
    assert "fault-NAME" in rest
