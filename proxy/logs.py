"""Log lines to stderr and, if asked, a rotating file; written off the requests' threads. So are
the records of requests, of which each has a line."""

import logging
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from proxy.core.alerts import Alert
from proxy.core.events import ALERTS
from proxy.core.record import Record, Seen, fitted, record
from proxy.runtime.log_files import FILE_NAME, KEPT_FILES
from proxy.runtime.log_forms import JSON, Form, form_of_file, form_of_stderr, json_bytes
from proxy.runtime.periodic import Periodic
from proxy.runtime.recent import MAX_BYTES, Recent
from proxy.runtime.tell import EVENT, FIELDS, tell
from proxy.settings import SettingError, Settings

# Names of clients and models are nobody else's business.
FILE_MODE, FOLDER_MODE = 0o600, 0o700
# A log that nobody takes (a full disk, a stuck pipe) costs lines, never memory or requests.
MAX_WAITING_LINES = 50_000
MAX_WAITING_CHARACTERS = 50_000_000
# Lines wait so long for others to be written with them: a thread that woke for each one would
# take the interpreter from requests as often.
WRITE_SECONDS = 0.1
# How often it is tried whether a file that took nothing does now, and what is written then.
LOOK_SECONDS = 1.0
TRIED = {
    "name": "proxy.logs",
    "levelname": "INFO",
    "msg": "It is tried whether the log is written.",
}
# Of records that are kept in a row; then requests have the interpreter for a moment: all of a
# tenth of a second take milliseconds. Where many want it a pause is as long as they like, so
# after a while of pauses the rest is kept at once.
TOGETHER = 16
PAUSE_SECONDS = 0.0005
PAUSES_SECONDS = 0.05
# Of lines that are written to the file at once, between two looks at its size.
FILE_CHUNK_BYTES = 16_384

# Loaded where there is a file, as there mostly is none.
ROTATING = "concurrent_log_handler"

LOGGER = logging.getLogger("proxy")
logger = logging.getLogger(__name__)

# Told of a request that is traced, with what is known of its trace, when it is over.
Traced = Callable[[Any, Record], None]


class LogWriter:
    """Owns the handlers of the logger `proxy`. Before `start` lines go to stderr at once.

    Several workers share the file: the handler locks it, and one of them rotates it. `recent`
    takes the records of clients' calls, whatever the level of the log, `alerts` are told of the
    events that somebody should hear of, and `traced` of the calls that are traced.
    """

    def __init__(
        self,
        settings: Settings,
        recent: Recent | None = None,
        alerts: Callable[[Alert], None] = lambda _alert: None,
        traced: Traced | None = None,
    ) -> None:
        self._settings = settings
        self._recent = recent or Recent(kept=1)
        self._alerts = alerts
        self._traced = traced
        self._waiting: _Waiting | None = None
        self._periodics: Sequence[Periodic] = ()
        LOGGER.setLevel(settings.log_level.upper())
        _replace_handlers(_stderr_handler(form_of_stderr(settings)))

    @property
    def is_started(self) -> bool:
        return self._waiting is not None

    @property
    def problem(self) -> str | None:
        """Why lines are lost now; None if none are."""
        sinks = self._waiting.sinks if self._waiting is not None else ()
        return next((sink.problem for sink in sinks if sink.problem), None)

    def check(self) -> None:
        """Raises SettingError if the folder cannot be written."""
        folder = self._settings.log_dir
        if folder is None:
            return
        try:
            folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()  # as its lock and rotated files
            os.close(os.open(folder / FILE_NAME, os.O_CREAT | os.O_WRONLY, FILE_MODE))
        except OSError as error:
            raise SettingError(
                f"PROXY_LOG_DIR: {str(folder)!r} cannot be written ({error.strerror}); allowed"
                " is a folder in which the proxy's user may make files, or nothing"
            ) from error
        import_module(ROTATING)  # before the fork: workers share it

    def greet(self, text: str) -> None:
        """To stderr, whatever the level of the log."""
        if form_of_stderr(self._settings) is JSON:
            lines = [line for line in text.splitlines() if line]
            text = "".join(map(_starting, lines))
        sys.stderr.write(text)

    def start(self) -> None:
        """Once a process, after the fork: the lines are written by a thread, and by another
        records are kept and alerts told, whether or not somebody takes the lines."""
        self._waiting = self._opened()
        self._periodics = (
            Periodic("records", WRITE_SECONDS, partial(self._waiting.keep, _pause)),
            Periodic("log", WRITE_SECONDS, self._waiting.write),
        )
        for each in self._periodics:
            each.start()
        _replace_handlers(self._waiting)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """For a process that has no such thread, as gunicorn's parent: what is told within is
        written at its end to where the workers' lines go. Raises OSError."""
        waiting = self._opened()
        _replace_handlers(waiting)
        try:
            yield
        finally:
            self._no_longer_waiting()
            _finish(waiting)

    def tell_request(self, level: int, seen: Seen) -> None:
        """Its line, and its record. On the request's thread: what takes long is for later."""
        waiting = self._waiting
        if waiting is not None:
            waiting.add(Request(level, seen))

    def stop(self) -> None:
        """Idempotent. What waits is written first."""
        if self._waiting is None:
            return
        self._no_longer_waiting()
        for each in self._periodics:
            each.stop()
        _finish(self._waiting)
        self._waiting, self._periodics = None, ()

    def _no_longer_waiting(self) -> None:
        _replace_handlers(_stderr_handler(form_of_stderr(self._settings)))

    def _opened(self) -> "_Waiting":
        sinks = [_Sink(_stderr_handler(), form_of_stderr(self._settings))]
        if self._settings.log_dir is not None:
            form, file = form_of_file(self._settings), self._settings.log_dir / FILE_NAME
            sinks.append(_Sink(_file_handler(self._settings), form, file))
        return _Waiting(sinks, self._recent, self._alerts, self._traced)


class Request(NamedTuple):
    """What is to be told of one."""

    level: int
    seen: Seen


# In each of the forms that are asked for.
_Line = tuple[str, ...]
NO_LINE: _Line = ()


class _Sink:
    """Where lines go, and in which form; `file` if that is one. What it does not take is lost;
    that is told when it begins and when it ends, and not line by line where others go."""

    def __init__(self, handler: logging.Handler, form: Form, file: Path | None = None) -> None:
        self.handler = handler
        self.form = form
        self.problem: str | None = None
        self._file = file
        self._name = str(file or "stderr")
        self._tried_at = 0.0  # of a file that took nothing, by the monotonic clock
        self._why: str | None = None  # of the present write
        self._lost = 0
        handler.handleError = self._failed  # type: ignore[method-assign]

    def write(self, text: str) -> None:
        """Some lines, of the one thread that writes."""
        self._why = None
        self.handler.handle(logging.makeLogRecord({"msg": text}))
        if self._why is not None:
            self._lost += text.count("\n") + 1
            self._tried_at = time.monotonic()
        self._note(self._why)

    def look(self) -> None:
        """Whether a file that took nothing does now, by a line of its own: where no other comes
        nobody would find out. As `write`, of the one thread."""
        if self.problem is None or self._file is None:
            return
        if time.monotonic() < self._tried_at + LOOK_SECONDS:
            return
        lost = self._lost
        self.write(self.form.format(logging.makeLogRecord(TRIED)))
        if self.problem is not None:
            self._lost = lost

    def _note(self, why: str | None) -> None:
        before = self.problem
        self.problem = why and f"The log cannot be written to {self._name}: {why}."
        if why is not None and before is None:
            said = "%s Its lines are lost until it can; requests are served."
            tell(logger, "log_failed", said, self.problem, why=why)
        elif why is None and before is not None:
            said = "The log is written to %s again; %d lines were lost."
            tell(logger, "log_recovered", said, self._name, self._lost, lost=self._lost)
            self._lost = 0

    def _failed(self, record: logging.LogRecord) -> None:  # noqa: ARG002
        """The handler's, while it handles what went wrong."""
        error = sys.exc_info()[1]
        self._why = getattr(error, "strerror", None) or type(error).__name__


class _Waiting(logging.Handler):
    """Takes what is told by all threads, for the one that keeps records, tells alerts and puts
    into words what the other one writes."""

    def __init__(
        self,
        sinks: Sequence[_Sink],
        recent: Recent,
        alerts: Callable[[Alert], None],
        traced: Traced | None,
    ) -> None:
        super().__init__()
        self.sinks = sinks
        self._forms = list(dict.fromkeys(sink.form for sink in sinks))
        self._recent = recent
        self._alerts = alerts
        self._traced = traced
        # Adding and taking are atomic.
        self._records: deque[logging.LogRecord | Request] = deque()
        self._lines: deque[_Line] = deque()
        # Of all lines there ever were; each is counted by one thread.
        self._kept_characters = self._written_characters = 0

    def handle(self, record: logging.LogRecord) -> bool:
        """Without the lock that handlers have."""
        self.add(record)
        return True

    def add(self, record: logging.LogRecord | Request) -> None:
        if len(self._records) < MAX_WAITING_LINES:
            self._records.append(record)

    def keep(self, pause: Callable[[], None] = lambda: None) -> None:
        """Records, alerts and lines of all that wait now. Writes nothing: that may take for
        ever."""
        until = time.monotonic() + PAUSES_SECONDS
        for done in range(len(self._records)):  # what comes meanwhile is the next round's
            if done and done % TOGETHER == 0 and time.monotonic() < until:
                pause()
            line = self._kept(self._records.popleft())
            if line:
                self._kept_characters += _size(line)
                self._lines.append(line)

    def write(self) -> None:
        """All that wait for it now, in chunks."""
        lines: list[_Line] = []
        size = 0
        for _ in range(len(self._lines)):
            line = self._lines.popleft()
            self._written_characters += _size(line)
            lines.append(line)
            size += len(line[0])
            if size >= FILE_CHUNK_BYTES:
                self._write(lines)
                lines, size = [], 0
        if lines:
            self._write(lines)
        for sink in self.sinks:
            sink.look()

    def _has_room(self) -> bool:
        return (
            len(self._lines) < MAX_WAITING_LINES
            and self._kept_characters - self._written_characters < MAX_WAITING_CHARACTERS
        )

    def _kept(self, record: logging.LogRecord | Request) -> _Line:
        try:
            if isinstance(record, Request):
                return self._of_request(*record)
            self._alert(record)
            return self._words(record) if self._has_room() else NO_LINE
        except Exception:  # noqa: BLE001  # whatever its arguments raise
            return self._of_failed(record)

    def _of_failed(self, record: logging.LogRecord | Request) -> _Line:
        who = "a request" if isinstance(record, Request) else f"{record.name}:{record.lineno}"
        said = {"msg": f"what {who} told could not be kept", "levelname": "ERROR"}
        try:
            return self._words(logging.makeLogRecord(said | {"exc_info": sys.exc_info()}))
        except Exception:  # noqa: BLE001  # there is no end to what an error can raise
            return self._words(logging.makeLogRecord(said))

    def _words(self, record: logging.LogRecord) -> _Line:
        return tuple(form.format(record) for form in self._forms)

    def _of_request(self, level: int, seen: Seen) -> _Line:
        values = record(seen)
        as_json = json_bytes(values)
        # Of those whose client is known: nobody else is to push them out.
        if seen.endpoint is not None and seen.client is not None:
            self._recent.add(fitted(values, as_json, MAX_BYTES, json_bytes), seen.ended_at)
        if seen.trace is not None and self._traced is not None:
            self._traced(seen.trace, values)
        if not (LOGGER.isEnabledFor(level) and self._has_room()):
            return NO_LINE
        return tuple(form.of_request(level, values, as_json) for form in self._forms)

    def _alert(self, record: logging.LogRecord) -> None:
        event = getattr(record, EVENT, None)
        if event in ALERTS:
            fields = getattr(record, FIELDS, {})
            self._alerts(Alert(event, record.created, record.getMessage(), fields))

    def _write(self, lines: Sequence[_Line]) -> None:
        for number, form in enumerate(self._forms):
            text = "\n".join(line[number] for line in lines)
            for sink in self.sinks:
                if sink.form is form:
                    sink.write(text)


def _pause() -> None:
    time.sleep(PAUSE_SECONDS)


def _size(line: _Line) -> int:
    return sum(map(len, line))


def _starting(line: str) -> str:
    record = {"levelname": "INFO", "msg": line, EVENT: "starting"}
    return JSON.format(logging.makeLogRecord(record)) + "\n"


def _finish(waiting: _Waiting) -> None:
    """Whatever waits is kept and written first."""
    waiting.keep()
    waiting.write()
    for sink in waiting.sinks:
        try:
            sink.handler.close()
        except OSError:
            pass  # what it did not take before; that was told, and keeps nobody from ending


def _stderr_handler(formatter: logging.Formatter | None = None) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    return handler


def _file_handler(settings: Settings) -> logging.Handler:
    assert settings.log_dir is not None, "only asked for with a folder"
    handler: logging.Handler = import_module(ROTATING).ConcurrentRotatingFileHandler(
        str(settings.log_dir / FILE_NAME),
        maxBytes=settings.log_max_bytes,
        backupCount=KEPT_FILES,
        encoding="utf-8",
        chmod=FILE_MODE,
    )
    return handler


def _replace_handlers(handler: logging.Handler) -> None:
    for old in LOGGER.handlers[:]:
        LOGGER.removeHandler(old)
    LOGGER.addHandler(handler)
    LOGGER.propagate = False
