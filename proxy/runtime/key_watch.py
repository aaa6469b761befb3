"""Who comes to this worker with wrong keys."""

import time
from threading import Lock

from proxy.core.wrong_keys import Refused, WrongKeys, source_group


class KeyWatch:
    """Thread-safe, with a clock. Each worker has its own: who guesses is turned away by each
    after as many mistakes as it made there."""

    def __init__(self, wrong_keys: WrongKeys) -> None:
        self._wrong_keys = wrong_keys
        self._lock = Lock()

    def wrong(self, address: str) -> Refused:
        """A wrong key came from there."""
        source = source_group(address)
        with self._lock:
            return self._wrong_keys.came(source, time.monotonic())

    def forgive(self, address: str) -> None:
        """What came from there before were mistakes."""
        if not self._wrong_keys:
            return
        source = source_group(address)
        with self._lock:
            self._wrong_keys.forget(source)
