import io
import json
import re

import pytest
from rich.console import Console

from proxy import create_app
from proxy.cli import top
from proxy.context import EXTENSION
from proxy.core import verdict
from proxy.core.attempts import Ending
from proxy.core.types import Usage
from proxy.store import instances
from tests.builders import AUTHOR, call, config, serving
from tests.web.conftest import log_kept

WELL = {"status": "ok", "problem": None, "calls": {"open": 0}}


@pytest.fixture
def app(make_settings, monkeypatch):
    monkeypatch.setattr("proxy.runtime.running.health", lambda *_, **__: WELL)
    monkeypatch.setattr("proxy.runtime.running.in_flight", lambda *_, **__: {"a": 2})
    with log_kept():
        yield create_app(make_settings(port=8123))


@pytest.fixture
def run(app):
    """A function from options to the command's result."""
    return lambda *options: app.test_cli_runner().invoke(args=["top", *options])


@pytest.fixture
def worked(make_settings, database):
    """Two instances, and a worker that asked them."""
    a, b = config("a", max_tpm=1000), config("b", priority=200)
    with database.session() as session:
        instances.add(session, [a, b, config("off", enabled=False)], author=AUTHOR)
    with log_kept():
        worker = create_app(make_settings()).extensions[EXTENSION]
    failed = Ending(verdict.FAILED, error="it broke off its answer")
    throttled = Ending(verdict.Verdict("throttled", rest_seconds=630.0), error="429: slow")
    done = Ending(verdict.SUCCEEDED, Usage(200, 50), latency_ms=900, first_byte_ms=120)
    worker.syncer.sync()
    for asked, ending in ((a, done), (a, failed), (b, throttled)):
        worker.state.finish(worker.state.start(serving(asked), call()), ending)
    worker.syncer.stop()
    worker.database.dispose()


def test_one_look_is_plain_lines(run, worked):
    result = run("--once")
    assert (result.exit_code, result.stderr) == (0, "")
    sentence, gateway, used, empty, *table = result.stdout.splitlines()
    assert sentence == "1 of 2 instances rests."
    assert gateway == "The gateway runs at http://127.0.0.1:8123."
    assert used.startswith("In 15 minutes: 3 requests, 250 tokens, 67 % failed, first byte")
    assert empty == ""
    cells = [re.split(r" {2,}", line) for line in table]
    assert cells[0] == list(top.HEADINGS)
    tried = [row[:4] + row[5:] for row in cells[1:]]  # the rate depends on the second
    # 120 ms count between 100 and 200: of one nobody knows more.
    assert tried == [
        ["a", "100", "healthy", "2", "250 of 1,000 (25 %)", "2", "1 (50 %)", "150 ms", "-"],
        ["off", "100", "disabled", "0", "0 of 240,000 (0 %)", "0", "-", "-", "-"],
        [
            *("b", "200", "rate_limited 10 min", "0", "0 of 240,000 (0 %)", "1", "1 (100 %)"),
            *("-", "gpt-4o: its limit is reached (429)"),
        ],
    ]


def test_without_a_terminal_it_looks_once(run, worked):
    assert len(run().stdout.splitlines()) == 8


def test_machines_get_all_of_it(run, worked):
    shown = json.loads(run("--json").stdout)
    assert shown["gateway"] == {
        "address": "http://127.0.0.1:8123",
        "runs": True,
        "problem": None,
    }
    assert shown["health"] == {"level": "poor", "sentence": "1 of 2 instances rests."}
    a, _, b = shown["instances"]
    assert (a["in_flight"], a["current_tpm"], a["max_tpm"]) == (2, 250, 1000)
    assert (a["usage"]["attempts"], a["usage"]["errors"]["upstream_5xx"]) == (2, 1)
    assert (shown["usage"]["attempts"], shown["usage"]["tokens"]["total"]) == (3, 250)
    assert b["reason"] == "its limit is reached (429)"
    assert 600 < b["seconds_left"] < 630


def test_where_no_gateway_runs_it_says_so_and_what_the_database_knows(run, worked, monkeypatch):
    monkeypatch.setattr("proxy.runtime.running.health", lambda *_, **__: None)
    result = run("--once")
    assert result.exit_code == 0
    assert "No gateway answers at http://127.0.0.1:8123: this is what" in result.stdout
    assert "\na " in result.stdout
    shown = json.loads(run("--json").stdout)
    assert not shown["gateway"]["runs"]
    assert {each["in_flight"] for each in shown["instances"]} == {None}


def test_what_a_worker_says_of_itself_is_told(run, monkeypatch):
    late = WELL | {"problem": "State was last synced 30 s ago."}
    monkeypatch.setattr("proxy.runtime.running.health", lambda *_, **__: late)
    assert "State was last synced 30 s ago." in run("--once").stdout


def test_without_a_database_it_is_a_sentence_and_code_1(run, database_file):
    database_file.unlink()
    result = run("--once")
    assert result.exit_code == 1
    assert "is gone; the gateway that runs at" in result.stderr


@pytest.fixture
def screen(app):
    """A function from what waits between looks to all that a terminal got."""

    def show(wait, width=150):
        out = io.StringIO()
        console = Console(file=out, force_terminal=True, width=width, height=24)
        with app.app_context():
            top.show(top._looks(app.extensions[EXTENSION]), console, wait)
        app.extensions[EXTENSION].database.dispose()
        return out.getvalue()

    return show


def interrupted_after(looks, then=lambda: None):
    seen = []

    def wait(seconds):
        seen.append(seconds)
        then()
        if len(seen) == looks:
            raise KeyboardInterrupt

    return wait


def test_it_looks_once_a_second_until_ctrl_c_and_leaves_the_terminal_as_it_was(screen, worked):
    shown = screen(interrupted_after(3))
    assert shown.count("1 of 2 instances rests.") == 3
    assert shown.startswith("\x1b[?1049h")  # a screen of its own
    assert shown.endswith("\x1b[?25h\x1b[?1049l")  # the cursor, and the old one
    assert "Traceback" not in shown


@pytest.mark.parametrize(
    "width, there, not_there",
    [
        (150, ["PRIO", "250 of 1,000 (25 %)", "1 (50 %)", "its limit is reached (429)"], []),
        (120, ["IN FLIGHT", "██▌        25 %", "its limit is reached"], ["PRIO", "250 of"]),
        (80, ["rate_limited 10 min", "██▌        25 %"], ["IN FLIGHT", "WHY", "its limit"]),
        (60, ["INSTANCE", "rate_limited 10 min", "██▌        25 %"], ["REQ/S", "P50"]),
        (40, ["INSTANCE", "STATUS", "an-instance"], ["REQ/S", "P50"]),
    ],
)
def test_what_a_narrow_terminal_has_no_room_for_is_left_out(
    screen, worked, database, width, there, not_there
):
    if width < 100:
        with database.session() as session:
            instances.add(session, [config("an-instance")], author=AUTHOR)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-z]", "", screen(interrupted_after(1), width))
    assert [text for text in there if text not in shown] == []
    assert [text for text in not_there if text in shown] == []


def test_names_are_shown_as_they_are_and_move_nothing(screen, database):
    with database.session() as session:
        instances.add(session, [config("[red]x[/red] \x1b[2J")], author=AUTHOR)
    shown = screen(interrupted_after(1))
    assert "[red]x[/red]  [2J" in shown
    assert "\x1b[2J" not in shown


def test_what_the_database_does_later_ends_nothing(screen, worked, database_file):
    shown = screen(interrupted_after(2, lambda: database_file.unlink(missing_ok=True)))
    assert "The database cannot be used" in shown
    assert shown.count("1 of 2 instances rests.") == 2  # what was known stays


def test_what_the_gateway_does_is_seen_at_the_next_look(screen, worked, make_settings):
    def add():
        with log_kept():
            other = create_app(make_settings()).extensions[EXTENSION]
        with other.database.session() as session:
            instances.change(session, "a", {"enabled": False}, author=AUTHOR)
        other.database.dispose()

    shown = screen(interrupted_after(2, add))
    assert shown.index("1 of 2 instances rests.") < shown.index("The one instance rests.")


def test_one_that_lacks_a_token_is_not_called_well(run, database, monkeypatch):
    lacking = WELL | {"lacks_token": True}
    monkeypatch.setattr("proxy.runtime.running.health", lambda *_, **__: lacking)
    with database.session() as session:
        instances.add(
            session, [config("a", auth="entra", api_key="NONE"), config("b")], author=AUTHOR
        )
    shown = json.loads(run("--json").stdout)
    assert [each["status"] for each in shown["instances"]] == ["misconfigured", "healthy"]
    assert "well" not in run("--once").stdout
