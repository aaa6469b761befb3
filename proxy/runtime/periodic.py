"""A thread that does one thing again and again, between its owner's start and stop."""

from collections.abc import Callable
from threading import Event, Thread


class Periodic:
    """Calls `act` every `interval_seconds`. What `act` raises ends the thread."""

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
        while not self._stopping.wait(self._interval_seconds):
            self._act()
