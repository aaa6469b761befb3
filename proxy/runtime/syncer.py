"""One thread a worker: deltas out to SQLite, everyone's sums and new config back."""

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from proxy.core.client_deltas import ClientDeltas
from proxy.core.clock_jumps import ClockJumps
from proxy.core.deltas import Deltas
from proxy.core.limiter import COUNTED_SECONDS
from proxy.core.usage import Kept
from proxy.runtime.clients import ClientState
from proxy.runtime.large_memory import Heap
from proxy.runtime.periodic import Periodic
from proxy.runtime.snapshot import NO_CONFIG, Snapshots
from proxy.runtime.state import ASKED_AGAIN, EVENT_WORDS, State
from proxy.runtime.tell import tell
from proxy.store import client_states, held, states, usage
from proxy.store.db import Connection, Database, StoreUnavailable
from proxy.store.file_watch import FileWatch
from proxy.store.held import Held
from proxy.store.model_names import ModelNames
from proxy.store.own_connection import OwnConnection

logger = logging.getLogger(__name__)

HOUSEKEEPING_SECONDS = 60.0
# A syncer that has not finished a round for so long is stuck, whatever the reason.
LATE_SECONDS = 10.0
FULL_DISK = re.compile("disk is full|no space left", re.IGNORECASE)
# So SQLite opens it where it may not write. As long as one of a process' connections is open
# that was made then, those made later may not write either.
READ_ONLY = "readonly database"


def _uptime_seconds() -> float:
    """Of the host, also while it sleeps; nobody sets that clock."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Syncer:
    """`start` once a process, after the fork; `stop` writes what is left.

    The proxy goes on serving while the database is away: counts wait in memory, and
    `problem` says what is wrong. Nothing on a request's path waits for this thread.
    """

    def __init__(
        self,
        database: Database,
        state: State,
        snapshots: Snapshots,
        clients: ClientState | None = None,
        *,
        interval_seconds: float,
        kept: Kept,
        clock: Callable[[], float] = time.time,
        uptime: Callable[[], float] = _uptime_seconds,
    ) -> None:
        self._database = database
        self._state = state
        self._snapshots = snapshots
        self._clients = clients or ClientState()
        self._kept = kept
        self._clock = clock
        self._connection: OwnConnection | None = None
        self._has_written = False  # in the last round that asked the database
        self._file = FileWatch(database)
        self._names = ModelNames()
        self._held = Held()
        # Of the last read: the number with which the next begins (None: it reads all), and when
        # a round last began.
        self._number: int | None = None
        self._began_at = 0.0
        self._reads_all_until = 0.0
        self._periodic = Periodic("syncer", interval_seconds, self._round)
        self.late_seconds = max(LATE_SECONDS, 3 * interval_seconds)
        self._is_late = False
        self._watching = Periodic("sync-watch", LATE_SECONDS / 2, self.watch)
        self._kept_house_at = 0.0
        self._heap = Heap()
        self._uptime = uptime
        self._jumps = ClockJumps(clock(), uptime())
        self.problem: str | None = None
        self.synced_at = 0.0

    def start(self) -> None:
        """Reads config and state, so that the first request finds them, then goes on alone."""
        self._held.begin()
        self.sync()
        self._periodic.start()
        self._watching.start()

    def stop(self) -> None:
        """Idempotent. After this, everything counted is in the database if it can be."""
        self._watching.stop()
        self._periodic.stop()
        self._held.end()
        self.sync()
        while (self._held or self._state.has_usage()) and not self.problem:
            self.sync()
        self._close_connection()

    def age_seconds(self) -> float | None:
        """Since the last round that succeeded; None while that is not too long ago."""
        age_seconds = self._clock() - self.synced_at
        return age_seconds if self.synced_at and age_seconds > self.late_seconds else None

    def watch(self) -> None:
        """Of another thread: one that is stuck cannot say so itself."""
        age_seconds = self.age_seconds()
        if age_seconds is not None and not (self.problem or self._is_late):
            self._is_late = True
            said = f"State was last synced %d s ago. {self._meanwhile()}"
            tell(logger, "sync_late", said, age_seconds, seconds=int(age_seconds))

    def catch_up(self) -> bool:
        """Of a thread that is about to show the config: it is the database's newest, which
        another worker may have made a moment ago. True if it became another.

        Raises nothing: while the database is away, what is known is shown, and once that is
        known, nobody waits for it."""
        before = self._snapshots.current
        if self.problem or self.age_seconds() is not None:
            return False
        try:
            with self._database.read() as connection:
                return self._snapshots.load(connection) is not before
        except StoreUnavailable:
            return False

    def sync(self) -> None:
        """One round. Raises nothing: what failed is noted in `problem` and tried again."""
        try:
            self._exchange()
            self._tell_asked_again()
            self._keep_house()
        except StoreUnavailable as error:
            self._close_connection()
            if READ_ONLY in error.message:
                self._database.dispose()
            self._note(error.message)
        else:
            self.synced_at = self._clock()
            self._note(None)

    def _round(self) -> None:
        try:
            self.sync()
        except Exception:  # noqa: BLE001  # a bug in one round must not end all later ones
            if not self.problem:
                tell(
                    logger,
                    "unexpected_error",
                    "State could not be synced.",
                    with_traceback=True,
                )
            self.problem = "State could not be synced; the log has the details."

    def _exchange(self) -> None:
        """All in one transaction: what is read back holds what was just written, a failure
        leaves neither, and the config cannot move in between."""
        moved = self._follow_references()
        self._follow_the_file()
        now = self._now()
        deltas, of_clients = self._state.take(), self._clients.take()
        try:
            writes = bool(deltas or of_clients or moved or self._held.is_due(now))
            if not writes and not self._is_something_new():
                self._give_back(deltas, of_clients)
                return
            with self._transaction(writes=writes) as connection:
                snapshot = self._snapshots.load(connection)
                deltas.drop_stale(snapshot.configs)
                # First, as in `_add_abandoned`: who has its number waits for no such row.
                added = self._held.exchange(connection, deltas, now)
                for name in moved:
                    states.clear_rests(connection, name, now)
                number = self._add(connection, added)
                client_states.add(connection, of_clients, number)
                shared = states.read(connection, now, self._number, number)
                since = None if shared.is_whole else self._number
                clients = client_states.read(connection, now, shared.number, since)
                waiting = self._held.waiting(connection)
        except BaseException:  # whatever it was, no count is lost
            self._give_back(deltas, of_clients)
            raise
        self._snapshots.settled(moved)
        self._number = None  # should merging fail
        own = self._held.settled(waiting)
        self._state.merge(shared, snapshot.configs, own)
        self._clients.merge(clients)
        self._number = shared.number

    def _tell_asked_again(self) -> None:
        for name in self._state.asked_again():
            tell(logger, ASKED_AGAIN, "%s %s", name, EVENT_WORDS[ASKED_AGAIN], instance=name)

    @contextmanager
    def _transaction(self, *, writes: bool) -> Iterator[Connection]:
        transaction = self._database.write if writes else self._database.read
        with transaction(on=self._own().for_transactions) as connection:
            yield connection
        self._has_written = writes

    def _add(self, connection: Connection, deltas: Deltas) -> int | None:
        """The number of this write; None if nothing was to be added."""
        number = states.add(connection, deltas)
        names = self._names.kept(connection, deltas.usage, self._snapshots.current.spelling)
        usage.add(connection, deltas, names)
        return number

    def _give_back(self, deltas: Deltas, of_clients: ClientDeltas) -> None:
        self._state.give_back(deltas)
        self._clients.give_back(of_clients)

    def _follow_the_file(self) -> None:
        """Connections keep a file open that was replaced: a restored backup has to be opened,
        and its config taken though its revision may be an older one."""
        self._file.check(self._clock())
        if self._file.was_replaced():
            tell(
                logger,
                "database_replaced",
                "The database's file was replaced; it is opened anew.",
            )
            self._close_connection()
            self._database.dispose()
            self._snapshots.forget()
            self._names.forget()
            self._number = None

    def _follow_references(self) -> frozenset[str]:
        """The instances that have another key or address without a change of config."""
        self._snapshots.follow()
        moved = self._snapshots.moved()
        for name in moved:
            self._state.clear_rests(name)
        return moved

    def _is_something_new(self) -> bool:
        """Also that others have read what was written here: once that is known, this worker may
        use more of what is left."""
        return self._snapshots.is_outdated or self._own().others_wrote() or self._has_written

    def _now(self) -> float:
        """Where the clock was set back, seconds count again that were over: all is read."""
        now = self._clock()
        if now < self._began_at:
            self._reads_all_until = self._began_at + COUNTED_SECONDS
        if now < self._reads_all_until:
            self._number = None
        self._began_at = now
        return now

    def _own(self) -> OwnConnection:
        if self._connection is None:
            self._connection = OwnConnection(self._database)
        return self._connection

    def _keep_house(self) -> None:
        now = self._clock()
        # Before that: the clock was set back since.
        if self._kept_house_at <= now < self._kept_house_at + HOUSEKEEPING_SECONDS:
            return
        self._kept_house_at = now
        # What a driver remembers of a large statement, for as long as its connection stands, is
        # 100 KB.
        with closing(OwnConnection(self._database)) as own:
            self._tidy(own.for_transactions, now)
        self._heap.trim()  # its statements, and whatever was asked since, as a large report

    def _tidy(self, on: Connection | None, now: float) -> None:
        self._add_abandoned(on, now)
        self._roll_up(on, now)
        believes = self._believes_the_clock(now)
        with self._database.write(on=on) as connection:
            states.forget_old(connection, now)
            states.forget_future(connection, now)
            client_states.forget_old_seconds(connection, now)
            if believes:
                client_states.forget_old_days(connection, now)
                usage.forget_old(connection, now, self._kept)

    def _believes_the_clock(self, now: float) -> bool:
        """What it says of the past cannot be deleted by a mistake of an hour."""
        uptime_seconds = self._uptime()
        jumped = self._jumps.look(now, uptime_seconds)
        if jumped is not None:
            said = "The clock jumped by %d s. No usage is deleted until it is steady for a day."
            tell(logger, "clock_jumped", said, jumped, seconds=int(jumped))
        return self._jumps.is_believed(uptime_seconds)

    def _add_abandoned(self, on: Connection | None, now: float) -> None:
        """Of workers that were killed. In transactions as those of `_roll_up`."""
        is_behind = True
        while is_behind:
            with self._database.write(on=on) as connection:
                deltas = held.fold_abandoned(connection, now)
                is_behind = bool(deltas)
                self._add(connection, deltas)

    def _roll_up(self, on: Connection | None, now: float) -> None:
        """In transactions of its own, which are short: others may write in between."""
        is_behind = True
        while is_behind:
            with self._database.write(on=on) as connection:
                is_behind = usage.is_to_be_rolled_up(connection, now)
                if is_behind:
                    # Keeps others from adding, and from rolling up the same, until it is over.
                    states.next_number(connection)
                    is_behind = usage.roll_up(connection, now)

    def _note(self, problem: str | None) -> None:
        """Logs a change once, not each round."""
        if problem and not self.problem:
            event = "disk_full" if FULL_DISK.search(problem) else "sync_failed"
            said = f"%s {self._meanwhile()}"
            tell(logger, event, said, problem, why=problem)
        elif (self.problem or self._is_late) and not problem:
            said = "The database works again; what waited is written."
            tell(logger, "sync_recovered", said)
            self._is_late = False
        self.problem = problem

    def _meanwhile(self) -> str:
        if self._snapshots.is_read:
            return "Requests are served; counts wait in memory."
        return NO_CONFIG

    def _close_connection(self) -> None:
        """The next round opens another."""
        own, self._connection = self._connection, None
        if own is None:
            return
        try:
            own.close()
        except StoreUnavailable:
            pass  # it is closed because it is broken; what broke it is known already
