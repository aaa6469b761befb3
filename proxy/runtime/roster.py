"""What each worker is at, for whoever asks any of them: in memory that all of them share.

Each writes its own row once a second, whatever its requests do; nothing is on their way. The
rows of the dead are cleared by their parent.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from proxy.runtime.board import Board
from proxy.runtime.open_calls import OpenCalls
from proxy.runtime.periodic import Periodic
from proxy.runtime.snapshot import Snapshots
from proxy.runtime.state import State
from proxy.runtime.syncer import Syncer
from proxy.runtime.threads import ThreadPool
from proxy.runtime.waiting import WaitingRoom

WRITE_SECONDS = 1.0
# Names of instances have up to 100 characters: those of 1,000 that are asked at once. What
# nobody touched takes no memory.
ROW_BYTES = 524_288


@dataclass(frozen=True, slots=True)
class Entry:
    """One worker, as it wrote itself down. `threads` are those of its pool: how many are busy,
    and how many there may be; None where no pool is. `in_flight` are open attempts by instance;
    empty where they were too many to be written down."""

    calls_open: int
    calls_limit: int
    calls_waiting: int
    synced_at: float
    sync_failed: bool
    revision: int
    in_flight: Mapping[str, int]
    threads_busy: int | None = None
    threads_limit: int | None = None


class Roster:
    """Made before the fork. `use_row` and `free_row` are called by the workers' parent, `start`
    once a process after the fork."""

    def __init__(
        self,
        rows: int,
        *,
        calls: OpenCalls,
        waiting: WaitingRoom,
        syncer: Syncer,
        snapshots: Snapshots,
        state: State,
    ) -> None:
        self._board = Board(rows, ROW_BYTES)
        self._calls = calls
        self._waiting = waiting
        self._syncer = syncer
        self._snapshots = snapshots
        self._state = state
        self._periodic = Periodic("roster", WRITE_SECONDS, self.write)
        self.threads: ThreadPool | None = None  # the server's, when it has made them
        self.use_row = self._board.use_row

    def free_row(self, row: int) -> Entry | None:
        """Its worker is dead. What it wrote last, if it did not say that it ends."""
        data = dict(self._board.all()).get(row)
        self._board.clear(row)
        return None if data is None else _read(data)

    def start(self) -> None:
        self.write()
        self._periodic.start()

    def stop(self) -> None:
        """Idempotent."""
        self._periodic.stop()
        self._board.write(b"", 0.0)

    def write(self) -> None:
        """Writes down how this worker is."""
        data = self._packed(self._entry())
        self._board.write(data, 0.0)

    def read(self) -> dict[int, Entry]:
        """Each worker by its row: this one as it is now, the others as of the last second."""
        self.write()
        return {row: _read(data) for row, data in self._board.all()}

    def _entry(self) -> Entry:
        threads = self.threads
        return Entry(
            calls_open=self._calls.count,
            calls_limit=self._calls.ceiling,
            calls_waiting=self._waiting.count,
            synced_at=self._syncer.synced_at,
            sync_failed=self._syncer.problem is not None,
            revision=self._snapshots.current.revision,
            in_flight=self._state.in_flight(),
            threads_busy=threads.busy if threads else None,
            threads_limit=threads.size if threads else None,
        )

    def _packed(self, entry: Entry) -> bytes:
        values = asdict(entry)
        data = json.dumps(values).encode()
        if len(data) > self._board.max_bytes:
            data = json.dumps(values | {"in_flight": {}}).encode()
        return data


def _read(data: bytes) -> Entry:
    return Entry(**json.loads(data))
