"""What many consoles ask for each second is made once a second."""

import hashlib
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeVar

FRESH_SECONDS = 1.0
# Who asks with ever other filters must not fill the memory.
MAX_KEPT = 100

Values = TypeVar("Values")


@dataclass(frozen=True, slots=True)
class Fragment:
    """Part of a page, or what a chart shows. `etag` is another one when `body` is."""

    body: bytes
    etag: str


class Fragments:
    """Thread-safe. While one is made anew, others get the one before."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._kept: dict[Hashable, Fragment] = {}
        self._made_at: dict[Hashable, float] = {}
        self._said: dict[Hashable, tuple[Any, bytes]] = {}
        self._forgotten = 0  # times

    def get(
        self,
        key: Hashable,
        make: Callable[[], bytes],
        fresh_seconds: float = FRESH_SECONDS,
    ) -> Fragment:
        """The one that is kept under `key`, or a new one if that is too old."""
        now = self._clock()
        with self._lock:
            found = self._kept.get(key)
            if found is not None and now - self._made_at[key] < fresh_seconds:
                return found
            self._made_at[key] = now  # whoever comes now takes the one before
            forgotten = self._forgotten
        try:
            body = make()
        except BaseException:
            with self._lock:
                if self._kept.get(key) is found:  # else another one was made meanwhile
                    self._kept.pop(key, None)
                    self._made_at.pop(key, None)
            raise
        made = Fragment(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
        with self._lock:
            if forgotten != self._forgotten:
                return made  # what was changed since may not be in it
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
                self._made_at = {key: now}
            self._kept[key] = made
            self._made_at.setdefault(key, now)
        return made

    def worded(self, key: Hashable, values: Values, words: Callable[[Values], bytes]) -> bytes:
        """`values` in words, which say nothing else and so are the same as long as the values
        are: to find them takes most of the time."""
        with self._lock:
            said = self._said.get(key)
        if said is not None and said[0] == values:
            return said[1]
        body = words(values)
        with self._lock:
            if len(self._said) >= MAX_KEPT:
                self._said.clear()
            self._said[key] = values, body
        return body

    def fresh(self, key: Hashable) -> Fragment | None:
        """The one that is kept under `key`, if it need not be made anew."""
        now = self._clock()
        with self._lock:
            found = self._kept.get(key)
            return found if found and now - self._made_at[key] < FRESH_SECONDS else None

    def forget(self) -> None:
        """Something was changed, and is to be seen at once."""
        with self._lock:
            self._forgotten += 1
            self._kept.clear()
            self._made_at.clear()
            self._said.clear()
