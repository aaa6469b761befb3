"""Log lines to stderr and, if asked, a rotating file; written off the requests' threads. So are
the records of requests, of which each has a line."""

import json
import logging
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import orjson
from concurrent_log_handler import ConcurrentRotatingFileHandler

from proxy.core.log_lines import text_of
from proxy.core.record import Record, Seen, fitted, record, text_fields
from proxy.runtime.periodic import Periodic
from proxy.runtime.recent import MAX_BYTES, Recent
from proxy.settings import SettingError, Settings

FORMAT = "%(asctime)s %(levelname)s [%(process)d] %(message)s"
FILE_NAME = "proxy.log"
# Names of clients and models are nobody else's business.
FILE_MODE, FOLDER_MODE = 0o600, 0o700
KEPT_FILES = 7
# A log that nobody takes (a full disk, a stuck pipe) costs lines, never memory or requests.
MAX_WAITING_LINES = 50_000
# Lines wait so long for others to be written with them: a thread that woke for each one would
# take the interpreter from requests as often.
WRITE_SECONDS = 0.1
# Of lines that are written to the file at once, between two looks at its size.
FILE_CHUNK_BYTES = 16_384

LOGGER = logging.getLogger("proxy")


class LogWriter:
    """Owns the handlers of the logger `proxy`. Before `start` lines go to stderr at once.

    Several workers share the file: the handler locks it, and one of them rotates it. `recent`
    takes the records of clients' calls, whatever the level of the log.
    """

    def __init__(self, settings: Settings, recent: Recent | None = None) -> None:
        self._settings = settings
        self._lines = _Lines(recent or Recent(kept=1))
        self._waiting: _Waiting | None = None
        self._periodic: Periodic | None = None
        LOGGER.setLevel(settings.log_level.upper())
        _replace_handlers(_stderr_handler(_FORMATTER))

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

    def start(self) -> None:
        """Once a process, after the fork: the lines are written by a thread."""
        handlers = [_stderr_handler()]
        if self._settings.log_dir is not None:
            handlers.append(_file_handler(self._settings))
        self._waiting = _Waiting(handlers, self._lines)
        self._periodic = Periodic("log", WRITE_SECONDS, self._waiting.write)
        self._periodic.start()
        _replace_handlers(self._waiting)

    def tell_request(self, level: int, seen: Seen) -> None:
        """Its line, and its record. On the request's thread: what takes long is for later."""
        if self._waiting is not None:
            self._waiting.add(Request(level, seen))
            return
        line = self._lines.line(Request(level, seen))
        if line is not None:
            _stderr_handler().handle(logging.makeLogRecord({"msg": line}))

    def stop(self) -> None:
        """Idempotent. What waits is written first."""
        if self._waiting is None or self._periodic is None:
            return
        _replace_handlers(_stderr_handler(_FORMATTER))
        self._periodic.stop()
        self._waiting.write()
        for handler in self._waiting.handlers:
            handler.close()
        self._waiting = self._periodic = None


class Request(NamedTuple):
    """What is to be told of one."""

    level: int
    seen: Seen


class _Waiting(logging.Handler):
    """Takes lines from all threads, for the one that writes them. A line is put into words
    only then."""

    def __init__(self, handlers: Sequence[logging.Handler], lines: "_Lines") -> None:
        super().__init__()
        self.handlers = handlers
        self._lines = lines
        # Adding and taking are atomic.
        self._records: deque[logging.LogRecord | Request] = deque()

    def handle(self, record: logging.LogRecord) -> bool:
        """Without the lock that handlers have."""
        self.add(record)
        return True

    def add(self, record: logging.LogRecord | Request) -> None:
        if len(self._records) < MAX_WAITING_LINES:
            self._records.append(record)

    def write(self) -> None:
        """All that wait now, in chunks."""
        lines: list[str] = []
        size = 0
        for _ in range(len(self._records)):  # what comes meanwhile is the next round's
            line = self._words(self._records.popleft())
            if line is None:
                continue
            lines.append(line)
            size += len(line)
            if size >= FILE_CHUNK_BYTES:
                self._write(lines)
                lines, size = [], 0
        if lines:
            self._write(lines)

    def _words(self, record: logging.LogRecord | Request) -> str | None:
        try:
            return self._lines.line(record)
        except Exception:  # noqa: BLE001  # whatever its arguments raise
            if isinstance(record, Request):
                record = logging.makeLogRecord({"msg": "the line of a request"})
            self.handleError(record)
            return None

    def _write(self, lines: list[str]) -> None:
        chunk = logging.makeLogRecord({"msg": "\n".join(lines)})
        for handler in self.handlers:
            handler.handle(chunk)


class _Lines:
    """Puts lines into words, and records into `recent`."""

    def __init__(self, recent: Recent) -> None:
        self._recent = recent

    def line(self, record: logging.LogRecord | Request) -> str | None:
        """None: below the level."""
        if isinstance(record, logging.LogRecord):
            return _FORMATTER.format(record)
        return self._request(*record)

    def _request(self, level: int, seen: Seen) -> str | None:
        values = record(seen)
        # Of those whose client is known: nobody else is to push them out.
        if seen.endpoint is not None and seen.client is not None:
            self._recent.add(fitted(values, MAX_BYTES, json_bytes), seen.ended_at)
        if not LOGGER.isEnabledFor(level):
            return None
        when, name = _FORMATTER.time(seen.ended_at), logging.getLevelName(level)
        return f"{when} {name} [{os.getpid()}] request {text_of(text_fields(values))}"


def json_bytes(values: Record) -> bytes:
    """In ASCII, so that no reader takes anything in it for the end of a line."""
    try:
        found = orjson.dumps(values)
        if found.isascii():
            return found
    except orjson.JSONEncodeError:
        pass  # half a character, which JSON can spell
    return json.dumps(values, separators=(",", ":")).encode()


class _Formatter(logging.Formatter):
    """Puts a second into words once."""

    _second = -1
    _words = ""

    def formatTime(self, record: logging.LogRecord, _datefmt: str | None = None) -> str:  # noqa: N802
        return self.time(record.created)

    def time(self, moment: float) -> str:
        second = int(moment)
        if second != self._second:
            self._words = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
            self._second = second
        return f"{self._words},{int((moment - second) * 1000):03d}"


_FORMATTER = _Formatter(FORMAT)


def _stderr_handler(formatter: logging.Formatter | None = None) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    return handler


def _file_handler(settings: Settings) -> logging.Handler:
    assert settings.log_dir is not None, "only asked for with a folder"
    return ConcurrentRotatingFileHandler(
        str(settings.log_dir / FILE_NAME),
        maxBytes=settings.log_max_bytes,
        backupCount=KEPT_FILES,
        encoding="utf-8",
        chmod=FILE_MODE,
    )


def _replace_handlers(handler: logging.Handler) -> None:
    for old in LOGGER.handlers[:]:
        LOGGER.removeHandler(old)
    LOGGER.addHandler(handler)
    LOGGER.propagate = False
