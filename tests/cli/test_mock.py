import os
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from proxy import create_app
from proxy.cli.mock import simulated_resources, wait_for_interrupt
from proxy.settings import ROOT
from tests.web.conftest import log_kept


@pytest.fixture
def run(make_settings):
    """A function from a command's arguments to its result."""
    with log_kept():
        runner = create_app(make_settings()).test_cli_runner()
        yield lambda *arguments: runner.invoke(args=list(arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--port", "0"),
        ("--port", "65536"),
        ("--port", "many"),
        ("--port", "65534", "--count", "3"),
        ("--count", "0"),
        ("--count", "-1"),
        ("--latency-ms", "-1"),
        ("--latency-ms", "nan"),
        ("--event-interval-ms", "inf"),
        ("9100",),
    ],
)
def test_wrong_usage_has_a_code_of_its_own(run, arguments):
    result = run("mock", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error: " in result.stderr


def test_its_help_names_every_option(run):
    result = run("mock", "--help")
    assert result.exit_code == 0
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
