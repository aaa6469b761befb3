"""A thread that does one thing again and again, between its owner's start and stop."""

import logging
from collections.abc import Callable
from threading import Event, Thread

from proxy.runtime.tell import tell

logger = logging.getLogger(__name__)


class Periodic:
    """Calls `act` every `interval_seconds`. What `act` raises is logged, once until it raises
    nothing again, and does not keep it from being called the next time."""

    def __init__(self, name: str, interval_seconds: float, act: Callable[[], None]) -> None:
        self._name = name
        self._interval_seconds = interval_seconds
        self._act = act
        self._stopping = Event()
        self._thread: Thread | None = None

    def start(self) -> None:
        """Once a process, after the fork. It can be started again after `stop`."""
        self._stopping.clear()
        self._thread = Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Waits for the present call to end. Idempotent."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        was_well = True
        while not self._stopping.wait(self._interval_seconds):
            try:
                self._act()
                was_well = True
            except Exception:  # noqa: BLE001  # a bug must not end what goes on for months
                if was_well:
                    said = "The thread %r made a mistake, and goes on."
                    tell(logger, "unexpected_error", said, self._name, with_traceback=True)
                was_well = False
