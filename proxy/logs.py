"""Log lines to stderr and, if asked, a rotating file; written off the requests' threads."""

import logging
import os
import queue
import sys
import tempfile
from logging.handlers import QueueHandler, QueueListener

from concurrent_log_handler import ConcurrentRotatingFileHandler

from proxy.settings import SettingError, Settings

FORMAT = "%(asctime)s %(levelname)s [%(process)d] %(message)s"
FILE_NAME = "proxy.log"
FILE_MODE = 0o600  # names of clients and models are nobody else's business
KEPT_FILES = 7
# A log that nobody takes (a full disk, a stuck pipe) costs lines, never memory or requests.
MAX_WAITING_LINES = 50_000

LOGGER = logging.getLogger("proxy")


class LogWriter:
    """Owns the handlers of the logger `proxy`. Before `start` lines go to stderr at once.

    Several workers share the file: the handler locks it, and one of them rotates it.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._listener: QueueListener | None = None
        LOGGER.setLevel(settings.log_level.upper())
        _replace_handlers(_stderr_handler())

    def check(self) -> None:
        """Raises SettingError if the folder cannot be written."""
        folder = self._settings.log_dir
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()  # as its lock and rotated files
            os.close(os.open(folder / FILE_NAME, os.O_CREAT | os.O_WRONLY, FILE_MODE))
        except OSError as error:
            raise SettingError(
                f"PROXY_LOG_DIR: {str(folder)!r} cannot be written ({error.strerror}); allowed"
                " is a folder in which the proxy's user may make files, or nothing"
            ) from error

    def start(self) -> None:
        """Once a process, after the fork: the listener is a thread."""
        waiting: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
        handlers: list[logging.Handler] = [_stderr_handler()]
        if self._settings.log_dir is not None:
            handlers.append(_file_handler(self._settings))
        self._listener = QueueListener(waiting, *handlers)
        self._listener.start()
        _replace_handlers(_DroppingQueueHandler(waiting))

    def stop(self) -> None:
        """Idempotent. What waits is written first."""
        if self._listener is None:
            return
        _replace_handlers(_stderr_handler())
        self._listener.stop()
        for handler in self._listener.handlers:
            handler.close()
        self._listener = None


class _DroppingQueueHandler(QueueHandler):
    """A SimpleQueue takes a tenth of the time a Queue with a bound does; this is the bound."""

    queue: queue.SimpleQueue[logging.LogRecord]

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Left as it is: it stays in this process, and is put into words by the thread that
        writes it."""
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        if self.queue.qsize() < MAX_WAITING_LINES:
            self.queue.put(record)


def _stderr_handler() -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(FORMAT))
    return handler


def _file_handler(settings: Settings) -> logging.Handler:
    assert settings.log_dir is not None, "only asked for with a folder"
    handler = ConcurrentRotatingFileHandler(
        str(settings.log_dir / FILE_NAME),
        maxBytes=settings.log_max_bytes,
        backupCount=KEPT_FILES,
        encoding="utf-8",
        chmod=FILE_MODE,
    )
    handler.setFormatter(logging.Formatter(FORMAT))
    return handler


def _replace_handlers(handler: logging.Handler) -> None:
    for old in LOGGER.handlers[:]:
        LOGGER.removeHandler(old)
    LOGGER.addHandler(handler)
    LOGGER.propagate = False
