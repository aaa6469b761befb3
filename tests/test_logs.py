import errno
import io
import json
import logging
import os
import re
import shutil
import stat
import sys
import threading
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import pytest

from proxy import logs
from proxy.core.record import Seen
from proxy.logs import KEPT_FILES, LOGGER, PAUSES_SECONDS, TOGETHER, LogWriter, Request
from proxy.runtime.recent import Recent
from proxy.runtime.tell import tell
from proxy.settings import SettingError

LINE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} %s \[\d+\] %s\n"
WAIT_SECONDS = 5  # for what another thread does at once; it is reached only by a bug

logger = logging.getLogger("proxy.anything")
NOTHING = MappingProxyType({})  # of what a LogWriter is given besides


@pytest.fixture
def make_writer(make_settings):
    """A function that makes a LogWriter. At the end all stop and the logger is as before."""
    before = LOGGER.handlers[:], LOGGER.level, LOGGER.propagate
    made = []

    def make(more=NOTHING, **settings):
        made.append(LogWriter(make_settings(**{"log_format": "text"} | settings), **more))
        return made[-1]

    yield make
    for writer in made:
        writer.stop()
    LOGGER.handlers[:], LOGGER.level, LOGGER.propagate = before


def threads():
    """Those that write lines."""
    return [t for t in threading.enumerate() if t.name == "log"]


def test_before_it_is_started_lines_go_to_stderr_at_once(make_writer, capsys):
    make_writer()
    logger.info("a %s", "line")
    assert re.fullmatch(LINE % ("INFO", "a line"), capsys.readouterr().err)
    assert threads() == []


def test_a_process_without_the_thread_writes_at_once_to_file_and_stderr_and_alerts(
    make_writer, capsys, tmp_path
):
    alerts = []
    writer = make_writer({"alerts": alerts.append}, log_dir=tmp_path)
    with writer.at_once():
        tell(logger, "worker_killed", "a worker is gone", worker_pid=7, why="killed", calls=3)
    assert "a worker is gone" in capsys.readouterr().err
    assert "a worker is gone" in (tmp_path / "proxy.log").read_text()
    assert [alert.event for alert in alerts] == ["worker_killed"]
    assert threads() == []
    logger.info("as before")
    assert "as before" in capsys.readouterr().err


def test_once_started_lines_still_go_to_stderr(make_writer, capsys):
    writer = make_writer()
    writer.start()
    logger.warning("a %s", "line")
    writer.stop()
    assert re.fullmatch(LINE % ("WARNING", "a line"), capsys.readouterr().err)


def test_no_line_is_put_into_words_by_a_requests_thread(make_writer, capsys):
    class Said:
        by = None
        told = threading.Event()

        def __str__(self):
            Said.by = threading.current_thread().name
            Said.told.set()
            return "words"

    writer = make_writer()
    writer.start()
    logger.info("in %s", Said())
    assert Said.told.wait(WAIT_SECONDS)
    writer.stop()
    assert "in words\n" in capsys.readouterr().err
    assert Said.by == "records"


def test_stdout_is_left_alone(make_writer, capsys):
    writer = make_writer()
    writer.start()
    logger.info("a line")
    writer.stop()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "level, written", [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)]
)
def test_what_is_below_the_level_is_not_written(level, written, make_writer, capsys):
    make_writer(log_level=level)
    for write in (logger.debug, logger.info, logger.warning, logger.error):
        write("a line")
    assert capsys.readouterr().err.count("a line") == written


def test_other_programs_loggers_are_not_ours(make_writer, capsys):
    make_writer()
    logging.getLogger("urllib3").info("not a line of ours")
    assert capsys.readouterr().err == ""


def test_a_line_is_written_once_whatever_the_root_logger_does(make_writer, capsys, caplog):
    make_writer()
    logger.info("a line")
    assert capsys.readouterr().err.count("a line") == 1
    assert caplog.records == []


def test_a_second_app_in_the_process_does_not_write_lines_twice(make_writer, capsys):
    make_writer()
    make_writer()
    logger.info("a line")
    assert capsys.readouterr().err.count("a line") == 1


def test_a_traceback_comes_with_its_line(make_writer, capsys):
    writer = make_writer()
    writer.start()
    try:
        raise LookupError("the cause")
    except LookupError:
        logger.exception("what failed")
    writer.stop()
    error = capsys.readouterr().err
    assert "ERROR" in error
    assert "what failed\nTraceback" in error
    assert "LookupError: the cause" in error


# The file.


def test_with_a_folder_lines_go_to_its_file_too(make_writer, tmp_path, capsys):
    writer = make_writer(log_dir=tmp_path / "not" / "yet")
    writer.check()
    writer.start()
    logger.info("a line, \u00e9")
    writer.stop()
    file = tmp_path / "not" / "yet" / "proxy.log"
    assert re.fullmatch(LINE % ("INFO", "a line, \u00e9"), file.read_text("utf-8"))
    assert "a line" in capsys.readouterr().err


def test_without_a_folder_there_is_nothing_to_check(make_writer):
    make_writer().check()


def unusable(tmp_path):
    """Folders in which no log can be kept."""
    (tmp_path / "file").write_text("no folder")
    yield tmp_path / "file"
    yield tmp_path / "file" / "below"
    (tmp_path / "taken" / "proxy.log").mkdir(parents=True)
    yield tmp_path / "taken"
    yield Path("/proc")  # where not even root makes files


def test_a_folder_that_cannot_be_used_is_found_before_anything_is_logged(make_writer, tmp_path):
    for folder in unusable(tmp_path):
        with pytest.raises(SettingError, match=rf"PROXY_LOG_DIR: '{folder}' cannot be written"):
            make_writer(log_dir=folder).check()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_needs_room_for_more_than_the_file(make_writer, tmp_path):
    (tmp_path / "proxy.log").touch()
    tmp_path.chmod(0o500)
    with pytest.raises(SettingError):
        make_writer(log_dir=tmp_path).check()


def test_checking_leaves_what_is_there(make_writer, tmp_path):
    (tmp_path / "proxy.log").write_text("before\n")
    make_writer(log_dir=tmp_path).check()
    assert [p.name for p in tmp_path.glob("*.log*")] == ["proxy.log"]
    assert (tmp_path / "proxy.log").read_text() == "before\n"


def test_a_folder_that_vanishes_costs_lines_of_the_file_only(make_writer, tmp_path, capsys):
    folder = tmp_path / "logs"
    writer = make_writer(log_dir=folder)
    writer.check()
    writer.start()
    shutil.rmtree(folder)
    logger.info("a line")
    writer.stop()
    assert re.match(LINE % ("INFO", "a line"), capsys.readouterr().err)


@pytest.mark.parametrize("is_checked", [True, False])
def test_nobody_else_may_read_the_file(is_checked, make_writer, tmp_path):
    writer = make_writer(log_dir=tmp_path)
    if is_checked:
        writer.check()
        assert stat.S_IMODE((tmp_path / "proxy.log").stat().st_mode) == 0o600
    writer.start()
    logger.info("a line")
    writer.stop()
    assert stat.S_IMODE((tmp_path / "proxy.log").stat().st_mode) == 0o600


def test_an_old_file_is_continued(make_writer, tmp_path):
    (tmp_path / "proxy.log").write_text("before\n")
    writer = make_writer(log_dir=tmp_path)
    writer.start()
    logger.info("a line")
    writer.stop()
    assert (tmp_path / "proxy.log").read_text().startswith("before\n")


def test_a_large_file_is_rotated_and_seven_older_ones_are_kept(
    make_writer, tmp_path, monkeypatch
):
    monkeypatch.setattr(logs, "FILE_CHUNK_BYTES", 500)
    writer = make_writer(log_dir=tmp_path, log_max_bytes=1000)
    writer.start()
    for number in range(100):
        logger.info("line %d %s", number, "x" * 100)
    writer.stop()
    files = sorted(p.name for p in tmp_path.glob("proxy.log*"))
    assert files == ["proxy.log", *(f"proxy.log.{n}" for n in range(1, KEPT_FILES + 1))]
    # Rotated before the chunk that comes after a thousand bytes.
    assert all(1000 <= (tmp_path / name).stat().st_size < 1700 for name in files[1:])
    assert "line 99 " in (tmp_path / "proxy.log").read_text()


def test_two_workers_share_the_file(make_settings, tmp_path):
    records = [
        logging.makeLogRecord({"msg": f"line {n}", "levelname": "INFO"}) for n in range(50)
    ]
    settings = make_settings(log_dir=tmp_path, log_max_bytes=700)
    workers = [logs._file_handler(settings) for _ in range(2)]
    for record in records:
        for worker in workers:
            worker.handle(record)
    for worker in workers:
        worker.close()
    newest = (tmp_path / "proxy.log").read_text() + (tmp_path / "proxy.log.1").read_text()
    assert newest.count("line 49\n") == 2
    assert newest.count("line 48\n") == 2


def test_lines_are_written_together(make_writer, monkeypatch):
    class Pipe:
        def __init__(self):
            self.texts = []

        def write(self, text):
            self.texts.append(text)

        def flush(self):
            pass

    pipe = Pipe()
    monkeypatch.setattr(sys, "stderr", pipe)
    monkeypatch.setattr(logs, "WRITE_SECONDS", 3600.0)
    writer = make_writer()
    writer.start()
    for number in range(100):
        logger.info("line %d", number)
    writer.stop()
    assert [text.count("line") for text in pipe.texts if "line" in text] == [100]


# Lines nobody takes.


class Stuck:
    """A pipe that nobody reads, until it is opened."""

    def __init__(self):
        self.reached = threading.Event()
        self.opened = threading.Event()
        self.text = ""

    def write(self, text):
        self.reached.set()
        assert self.opened.wait(WAIT_SECONDS)
        self.text += text

    def flush(self):
        pass


def test_a_pipe_nobody_reads_costs_lines_and_stops_nobody(make_writer, monkeypatch):
    pipe = Stuck()
    monkeypatch.setattr(logs, "MAX_WAITING_LINES", 3)
    monkeypatch.setattr(sys, "stderr", pipe)
    writer = make_writer()
    writer.start()
    logger.info("line 0")
    assert pipe.reached.wait(WAIT_SECONDS)
    for number in range(1, 10):
        logger.info("line %d", number)
    pipe.opened.set()
    writer.stop()
    assert re.findall(r"line \d+", pipe.text) == ["line 0", "line 1", "line 2", "line 3"]
    assert threads() == []


@pytest.mark.parametrize(
    "bound, most, more, kept",
    [("MAX_WAITING_LINES", 3, "", 3), ("MAX_WAITING_CHARACTERS", 500, "x" * 300, 2)],
)
def test_of_lines_that_wait_the_first_are_kept_until_there_is_room_again(
    bound, most, more, kept, make_writer, monkeypatch, capsys
):
    monkeypatch.setattr(logs, bound, most)
    waiting = make_writer()._opened()
    for number in range(9):
        waiting.add(logging.makeLogRecord({"msg": f"line {number} {more}"}))
        waiting.keep()
    waiting.write()
    found = re.findall(r"line \d", capsys.readouterr().err)
    assert found == [f"line {number}" for number in range(kept)]
    waiting.add(logging.makeLogRecord({"msg": "line 9"}))
    waiting.keep()
    waiting.write()
    assert "line 9" in capsys.readouterr().err


@pytest.mark.parametrize(
    "number, paused_after",
    [
        (0, []),
        (TOGETHER, []),
        (2 * TOGETHER + 1, [TOGETHER, 2 * TOGETHER]),
        (9 * TOGETHER, [TOGETHER * n for n in range(1, 5)]),
    ],
)
def test_while_many_records_are_kept_requests_have_the_interpreter_for_a_while(
    number, paused_after, make_writer, monkeypatch
):
    """Each time they take a quarter of that while."""
    waiting, found, now = make_writer()._opened(), [], [0.0]
    monkeypatch.setattr(logs, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def pause():
        found.append(len(waiting._lines))
        now[0] += PAUSES_SECONDS / 4

    for _ in range(number):
        waiting.add(Request(logging.INFO, SEEN))
    waiting.keep(pause)
    assert found == paused_after
    assert len(waiting._lines) == number


def test_a_pipe_nobody_reads_keeps_no_record_and_no_alert_back(make_writer, monkeypatch):
    pipe, recent, heard = Stuck(), Recent(kept=9), threading.Event()
    monkeypatch.setattr(sys, "stderr", pipe)
    writer = make_writer({"recent": recent, "alerts": lambda _: heard.set()})
    writer.start()
    logger.info("line 0")
    assert pipe.reached.wait(WAIT_SECONDS)
    writer.tell_request(logging.INFO, SEEN)
    tell(logger, "disk_full", "there is no room", why="x")
    assert heard.wait(WAIT_SECONDS)
    assert recent.find("mine") is not None
    pipe.opened.set()


def test_what_waits_is_written_before_it_stops(make_writer, capsys):
    writer = make_writer()
    writer.start()
    for number in range(1000):
        logger.info("line %d", number)
    writer.stop()
    found = re.findall(r"line (\d+)", capsys.readouterr().err)
    assert found == [str(n) for n in range(1000)]


def test_stopping_twice_is_stopping_once(make_writer, capsys):
    writer = make_writer()
    writer.stop()
    writer.start()
    writer.stop()
    writer.stop()
    assert threads() == []
    logger.info("a line after it")
    assert "a line after it" in capsys.readouterr().err


@pytest.mark.tells_secrets("the name of a file of ours is in the traceback: planted.py")
def test_a_line_that_cannot_be_made_stops_nobody(make_writer, capsys):
    writer = make_writer()
    writer.start()
    logger.info("%d", "no number")
    logger.info("the next")
    writer.stop()
    error = capsys.readouterr().err
    said = r"what proxy\.anything:\d+ told could not be kept"
    assert re.match(LINE % ("ERROR", said), error)
    assert "TypeError" in error
    assert "INFO" in error.splitlines()[-1]
    assert error.endswith("the next\n")


def test_an_error_that_cannot_even_be_told_stops_nobody(make_writer, capsys):
    class Odd(Exception):
        def __str__(self):
            raise Odd

        @property
        def __notes__(self):
            raise Odd

    class Said:
        def __str__(self):
            raise Odd

    writer = make_writer()
    writer.start()
    logger.info("%s", Said())
    logger.info("the next")
    writer.stop()
    error = capsys.readouterr().err
    said = r"what proxy\.anything:\d+ told could not be kept"
    assert re.match(LINE % ("ERROR", said), error)
    assert error.endswith("the next\n")


# The two forms.


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    "log_format, is_terminal, stderr_is_json, file_is_json",
    [
        ("auto", True, False, True),
        ("auto", False, True, True),
        ("json", True, True, True),
        ("text", False, False, False),
    ],
)
def test_a_terminal_shows_text_and_programs_get_json(
    make_writer, tmp_path, monkeypatch, log_format, is_terminal, stderr_is_json, file_is_json
):
    stderr = Terminal() if is_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    writer = make_writer(log_dir=tmp_path, log_format=log_format)
    logger.info("before it is started")
    writer.start()
    logger.info("once started")
    writer.stop()
    written = (tmp_path / "proxy.log").read_text()
    assert [line.startswith("{") for line in stderr.getvalue().splitlines()] == [
        stderr_is_json
    ] * 2
    assert [line.startswith("{") for line in written.splitlines()] == [file_is_json]


def test_an_event_has_its_name_and_fields_in_json_and_a_sentence_in_text(make_writer, tmp_path):
    writer = make_writer(log_dir=tmp_path, log_format="json")
    writer.start()
    tell(logger, "breaker_closed", "%s answers again", "east", instance="east")
    writer.stop()
    line = json.loads((tmp_path / "proxy.log").read_text())
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "WARNING",
        "pid": os.getpid(),
        "message": "east answers again",
        "event": "breaker_closed",
        "instance": "east",
    }


SEEN = Seen(5.0, 1.0, 3, "mine", "POST", "/v1/embeddings", 200, "app", "m", "embeddings")


@pytest.mark.parametrize("level", ["info", "error"])
def test_of_a_call_that_is_traced_its_record_is_told_whatever_the_level(make_writer, level):
    told, trace = [], object()
    writer = make_writer({"traced": lambda *given: told.append(given)}, log_level=level)
    writer.start()
    writer.tell_request(logging.INFO, SEEN)
    writer.tell_request(logging.INFO, SEEN._replace(trace=trace))
    writer.stop()
    ((given, values),) = told
    assert given is trace
    assert values["id"] == "mine"


@pytest.mark.parametrize("level, lines", [("info", 1), ("warning", 0)])
def test_a_requests_record_is_kept_whether_or_not_it_has_a_line(
    make_writer, capsys, level, lines
):
    recent = Recent(kept=2)
    writer = make_writer({"recent": recent}, log_level=level)
    writer.start()
    writer.tell_request(logging.INFO, SEEN)
    writer.stop()
    assert capsys.readouterr().err.count("request id=mine") == lines
    assert [each["id"] for each in recent.newest()] == ["mine"]


def test_of_what_is_no_call_of_a_known_client_no_record_is_kept(make_writer):
    recent = Recent(kept=2)
    writer = make_writer({"recent": recent})
    writer.start()
    writer.tell_request(logging.INFO, SEEN._replace(client=None))
    writer.tell_request(logging.INFO, SEEN._replace(endpoint=None))
    writer.stop()
    assert recent.newest() == []


def test_only_events_that_somebody_should_hear_of_become_alerts(make_writer):
    heard = []
    writer = make_writer({"alerts": heard.append}, log_level="info")
    writer.start()
    logger.error("no event")
    tell(logger, "config_changed", "config is at revision 1")
    tell(logger, "breaker_opened", "%s fails", "east", instance="east")
    writer.stop()
    assert [(a.event, a.message, a.fields) for a in heard] == [
        ("breaker_opened", "east fails", {"instance": "east"})
    ]


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_the_greeting_is_said_at_any_level(make_writer, capsys, log_format):
    writer = make_writer(log_level="error", log_format=log_format)
    writer.greet("Starting.\nThere is more to do.\n")
    said = capsys.readouterr().err
    if log_format == "json":
        lines = [json.loads(line) for line in said.splitlines()]
        assert [(line["event"], line["message"]) for line in lines] == [
            ("starting", "Starting."),
            ("starting", "There is more to do."),
        ]
    else:
        assert said == "Starting.\nThere is more to do.\n"


def test_a_file_that_takes_no_lines_is_told_of_once_and_when_it_does_again(
    make_writer, capsys, tmp_path, monkeypatch
):
    """In place of a traceback for each tenth of a second, and of silence in `/health`."""
    alerts = []
    writer = make_writer({"alerts": alerts.append}, log_dir=tmp_path)
    monkeypatch.setattr(logs, "WRITE_SECONDS", 3600)  # only when it is told to
    writer.start()

    def written(*lines):
        for line in lines:
            logger.info(line)
        for _ in range(2):  # also what that was worth a word
            writer._waiting.keep()
            writer._waiting.write()
        return capsys.readouterr().err

    def full(_text):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(writer._waiting.sinks[1].handler, "do_write", full)
        said = written("first", "second")
        assert [said.count(line) for line in ("first", "second", "Traceback")] == [1, 1, 0]
        problem = f"The log cannot be written to {tmp_path}/proxy.log: No space left on device."
        assert said.count(problem) == 1
        assert writer.problem == problem
        assert problem not in written("third")
    said = written("fourth")
    assert f"The log is written to {tmp_path}/proxy.log again; 4 lines were lost." in said
    assert writer.problem is None
    assert [alert.event for alert in alerts] == ["log_failed", "log_recovered"]
    assert "fourth" in (tmp_path / "proxy.log").read_text()


def test_that_it_takes_lines_again_is_found_out_though_none_comes(
    make_writer, tmp_path, monkeypatch, capsys
):
    """Or `/health` would tell of a full disk for as long as nobody asks for anything."""
    alerts = []
    writer = make_writer({"alerts": alerts.append}, log_dir=tmp_path, log_level="info")
    monkeypatch.setattr(logs, "WRITE_SECONDS", 3600)
    writer.start()

    def failing(words):
        def fail(_text):
            raise OSError(1, words)

        return fail

    def look():
        writer._waiting.keep()
        writer._waiting.write()
        return writer.problem

    with monkeypatch.context() as patch:
        handler = writer._waiting.sinks[1].handler
        patch.setattr(handler, "do_write", failing("no space"))
        logger.error("lost")
        assert "no space" in look()
        patch.setattr(handler, "do_write", failing("no folder"))
        assert "no folder" in look()  # what was to be told of it
        patch.setattr(handler, "do_write", failing("no lock"))
        assert "no folder" in look()  # a moment later it is not tried again
        monkeypatch.setattr(logs, "LOOK_SECONDS", 0.0)
        for _ in range(3):
            assert "no lock" in look()
    assert look() is None
    look()
    assert [alert.event for alert in alerts] == ["log_failed", "log_recovered"]
    assert "again; 2 lines were lost." in capsys.readouterr().err
    assert "It is tried whether the log is written." in (tmp_path / "proxy.log").read_text()


def test_a_file_that_cannot_even_be_closed_keeps_no_worker_from_ending(
    make_writer, tmp_path, monkeypatch
):
    """Or it would be taken for one that was killed."""

    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = make_writer(log_dir=tmp_path)
    writer.start()
    file = writer._waiting.sinks[1].handler
    with monkeypatch.context() as patch:
        patch.setattr(file, "close", full)
        writer.stop()
    assert not writer.is_started
    file.close()
