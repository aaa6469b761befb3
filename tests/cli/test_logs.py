import json

import pytest

from proxy import create_app
from tests.web.conftest import log_kept

LINE = {
    "event": "request",
    "id": "mine",
    "method": "GET",
    "path": "/no",
    "status": 404,
    "ms": 1,
}
LOG = json.dumps(LINE, separators=(",", ":")) + "\n"
STORY = "GET /no: 404 after 1 ms.\n"


@pytest.fixture
def run(make_settings, tmp_path):
    """A function from a command's arguments to its result; the log is in tmp_path."""

    def run(*arguments, stdin=None, log_dir=tmp_path):
        with log_kept():
            runner = create_app(make_settings(log_dir=log_dir)).test_cli_runner()
            return runner.invoke(args=["logs", "explain", *arguments], input=stdin)

    return run


def test_a_requests_story_is_told_from_the_logs_files(run, tmp_path):
    (tmp_path / "proxy.log").write_text("")
    (tmp_path / "proxy.log.1").write_text(LOG)
    result = run("mine")
    assert (result.exit_code, result.output) == (0, STORY)


@pytest.mark.parametrize("how", [["-"], ["--file", "-"]])
def test_a_log_may_come_on_standard_input(run, how):
    result = run("mine", *how, stdin=f"Jan 31 host gw[7]: {LOG}", log_dir=None)
    assert (result.exit_code, result.output) == (0, STORY)


def test_another_file_may_be_named_and_json_be_asked_for(run, tmp_path):
    (tmp_path / "other").write_text(LOG)
    result = run("mine", "--file", str(tmp_path / "other"), "--json", log_dir=None)
    assert json.loads(result.output) == LINE | {"story": [STORY.strip()]}


@pytest.mark.parametrize(
    "log, said",
    [
        ("", ") has no request with the id 'mine'.\n"),
        ("x INFO [7] request id=mine ms=1\n", "set PROXY_LOG_FORMAT=json"),
    ],
)
def test_what_cannot_be_told_is_said(run, tmp_path, log, said):
    (tmp_path / "proxy.log").write_text(log)
    result = run("mine")
    assert result.exit_code == 1
    assert said in result.output


def test_where_there_is_no_log_it_was_not_looked_into(run, tmp_path):
    result = run("mine", log_dir=tmp_path / "elsewhere")
    assert result.exit_code == 1
    assert "There is no log in " in result.output
    assert "elsewhere (PROXY_LOG_DIR)." in result.output


def test_without_a_file_it_is_said_how_to_give_one(run):
    result = run("mine", log_dir=None)
    assert result.exit_code == 1
    assert "PROXY_LOG_DIR is not set" in result.output
