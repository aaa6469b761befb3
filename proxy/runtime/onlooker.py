"""What another process sees of the gateway: the config, and what all workers told of."""

import time
from collections.abc import Callable

from proxy.runtime.snapshot import Snapshots
from proxy.runtime.state import State
from proxy.store import states
from proxy.store.db import Database


class Onlooker:
    """Reads as a worker's syncer does, and writes nothing. What only a worker's memory has
    (calls in flight, latencies of single answers) is not to be seen from here."""

    def __init__(
        self,
        database: Database,
        snapshots: Snapshots,
        state: State,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._snapshots = snapshots
        self._state = state
        self._clock = clock
        self._number: int | None = None

    def look(self) -> None:
        """Snapshots and state are as of now. Raises StoreUnavailable."""
        with self._database.read() as connection:
            snapshot = self._snapshots.load(connection)
            shared = states.read(connection, self._clock(), self._number)
        self._number = None  # should merging fail
        self._state.merge(shared, snapshot.configs)
        self._number = shared.number
