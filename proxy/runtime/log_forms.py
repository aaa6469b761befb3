"""The two forms of the log's lines: text for people, and JSON for programs."""

import json
import logging
import os
import sys
import time
from collections.abc import Callable

import orjson

from proxy.core.log_lines import text_of
from proxy.core.record import Record, text_fields
from proxy.runtime.tell import EVENT, FIELDS
from proxy.settings import Settings

FORMAT = "%(asctime)s %(levelname)s [%(process)d] %(message)s"


class Form(logging.Formatter):
    """A line for people: text."""

    def __init__(self) -> None:
        super().__init__(FORMAT)
        self._moment = _Moment("%Y-%m-%d %H:%M:%S", time.localtime, ",")

    def formatTime(self, record: logging.LogRecord, _datefmt: str | None = None) -> str:  # noqa: N802
        return self._moment.words(record.created)

    def of_request(self, level: int, record: Record, as_json: bytes) -> str:  # noqa: ARG002
        """`as_json` is the whole record, which is put into JSON once for all who take it."""
        when, name = self._moment.words(record["ended_at"]), logging.getLevelName(level)
        return f"{when} {name} [{os.getpid()}] request {text_of(text_fields(record))}"


class _JsonForm(Form):
    """A line for programs: one JSON object."""

    def __init__(self) -> None:
        super().__init__()
        self._moment = _Moment("%Y-%m-%dT%H:%M:%S", time.gmtime, ".", "Z")

    def format(self, record: logging.LogRecord) -> str:
        values = self._head(record.created, record.levelname, record.getMessage())
        event = getattr(record, EVENT, None)
        if event is not None:
            values[EVENT] = event
            values |= getattr(record, FIELDS, {})
        if record.exc_info:
            values["traceback"] = self.formatException(record.exc_info)
        return json_bytes(values).decode()

    def of_request(self, level: int, record: Record, as_json: bytes) -> str:
        said = f"{record['method']} {record['path']} {record['status']}"
        head = self._head(record["ended_at"], logging.getLevelName(level), said)
        head[EVENT] = "request"
        return f"{json_bytes(head)[:-1].decode()},{as_json[1:].decode()}"

    def _head(self, moment: float, level: str, message: str) -> Record:
        when = self._moment.words(moment)
        return {"time": when, "level": level, "pid": os.getpid(), "message": message}


class _Moment:
    """Puts a second into words once."""

    def __init__(
        self, form: str, of: Callable[[float], time.struct_time], mark: str, zone: str = ""
    ) -> None:
        self._form, self._of, self._mark, self._zone = form, of, mark, zone
        self._known = (-1, "")

    def words(self, moment: float) -> str:
        second = int(moment)
        known, words = self._known
        if known != second:
            words = time.strftime(self._form, self._of(second))
            self._known = (second, words)
        return f"{words}{self._mark}{int((moment - second) * 1000):03d}{self._zone}"


TEXT = Form()
JSON = _JsonForm()


def form_of_stderr(settings: Settings) -> Form:
    """People look at a terminal; what goes anywhere else is for programs."""
    if settings.log_format == "auto":
        return TEXT if sys.stderr.isatty() else JSON
    return form_of_file(settings)


def form_of_file(settings: Settings) -> Form:
    return TEXT if settings.log_format == "text" else JSON


def json_bytes(values: Record) -> bytes:
    """In ASCII, so that no reader takes anything in it for the end of a line."""
    try:
        found = orjson.dumps(values, default=str)
        if found.isascii():
            return found
    except orjson.JSONEncodeError:
        pass  # half a character, which JSON can spell
    return json.dumps(values, separators=(",", ":"), default=str).encode()
