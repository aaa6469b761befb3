"""Connections to upstreams: opened, kept, and used again."""

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from proxy.runtime.connection import Connection, Origin
from proxy.runtime.dialling import Dialler
from proxy.runtime.line import Line

# Azure's front door closes what is idle for some minutes; better we do than it, just then.
KEPT_SECONDS = 90.0


class Connections:
    """Thread-safe. `kept` is how many idle ones an origin may have; without `allow_private`
    none is opened to where core/addresses.py refuses it."""

    def __init__(
        self,
        *,
        kept: int,
        ca_bundle: Path | None = None,
        allow_private: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kept = kept
        self._clock = clock
        self._dialler = Dialler(ca_bundle=ca_bundle, allow_private=allow_private, clock=clock)
        # Taking from a deque and adding to it is atomic; the newest is used first.
        self._idle: dict[Origin, deque[Connection]] = {}
        self._closed = False

    def take(self, origin: Origin) -> Connection | None:
        """An idle one that still stands; None if there is none."""
        idle = self._idle.get(origin)
        while idle:
            try:
                connection = idle.pop()
            except IndexError:  # another thread was faster
                return None
            if not connection.is_stale():
                return connection
            connection.close()
        return None

    def keep(self, connection: Connection) -> None:
        """For the next request to the same origin."""
        idle = self._idle.get(connection.origin)
        if idle is None:
            idle = self._idle.setdefault(connection.origin, deque())
        if len(idle) >= self._kept or self._closed:
            connection.close()
            return
        connection.note_idle(self._clock())
        idle.append(connection)
        if self._closed:  # just now, by another thread that did not see this one
            self.close()

    def close_idle(self) -> None:
        """Closes those that nobody used for KEPT_SECONDS."""
        before = self._clock() - KEPT_SECONDS
        for idle in list(self._idle.values()):
            while idle:
                try:
                    connection = idle.popleft()
                except IndexError:
                    break
                if connection.idle_since > before:
                    idle.appendleft(connection)
                    break
                connection.close()

    def close(self) -> None:
        """Closes what is idle; what is in use closes when it would be kept."""
        self._closed = True
        for idle in list(self._idle.values()):
            while idle:
                try:
                    idle.pop().close()
                except IndexError:
                    break  # another thread was faster

    def open(self, origin: Origin, *, seconds: float, line: Line) -> Connection:
        """A new one. Raises what Dialler.open does."""
        return self._dialler.open(origin, seconds=seconds, line=line)
