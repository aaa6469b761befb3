import contextlib
import json
import os
import shutil
import sqlite3
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from types import SimpleNamespace

import pytest
from sqlalchemy import event, select
from sqlalchemy.exc import OperationalError

from proxy.core import verdict as verdicts
from proxy.core.attempts import Ending, Reservation
from proxy.core.days import DAY_SECONDS
from proxy.core.deltas import Deltas
from proxy.core.limiter import Lately, Peers
from proxy.core.live import ALONE
from proxy.core.refusal import Refusal
from proxy.core.types import Client, Usage
from proxy.core.verdict import Verdict
from proxy.runtime import state as state_module
from proxy.runtime import syncer
from proxy.runtime.clients import ClientState
from proxy.runtime.references import References
from proxy.runtime.snapshot import Snapshots
from proxy.runtime.state import State
from proxy.runtime.syncer import HOUSEKEEPING_SECONDS, LATE_SECONDS, Syncer
from proxy.store import client_states, db, held, instances, states, usage
from proxy.store.db import Database, StoreUnavailable
from proxy.store.file_watch import LOOK_SECONDS
from proxy.store.held import Held
from proxy.store.models import (
    ClientSpendingRow,
    ClientWindowRow,
    DeploymentStateRow,
    HeldCountsRow,
    InstanceStateRow,
    StateJournalRow,
    UsageRow,
)
from proxy.store.vault import Vault, new_key
from tests.builders import AUTHOR, KEPT, MODEL, VAULT, call, config, serving
from tests.runtime.world import Clock, World, failed, ok

WAIT_SECONDS = 5  # for what another thread does at once; it is reached only by a bug
A = config("a")
APP = Client("app", 1, max_tpm=100)
DONE = Ending(verdicts.SUCCEEDED, Usage(4, 3))
THROTTLED = Ending(Verdict("throttled", rest_seconds=30.0), error="429: slow")
LOCKED = "The database cannot be used: database is locked."


class Worker:
    """What one process has of it, all on one database."""

    def __init__(self, database, clock, interval_seconds=0.001, peers=ALONE, uptime=None):
        self.database = database
        self.state = State(clock, peers=peers)
        self.snapshots = Snapshots(database, References({}), clock=clock)
        self.clients = ClientState(clock=clock)
        self.syncer = Syncer(
            database,
            self.state,
            self.snapshots,
            self.clients,
            interval_seconds=interval_seconds,
            kept=KEPT,
            clock=clock,
            uptime=uptime or clock,
        )

    def measure(self, *endings, of=A):
        """`of` one instance, or of each ending's."""
        each = of if isinstance(of, list) else [of] * len(endings)
        reservations = [self.state.start(serving(config), call()) for config in each]
        for reservation, ending in zip(reservations, endings, strict=True):
            self.state.finish(reservation, ending)

    def used(self, tokens, cost_nano=0):
        """One call of the client "app"."""
        self.clients.start(APP, tokens).settle(Usage(tokens), cost_nano)

    def requests(self, name="a"):
        return self.state.view(name).totals["total_requests"]


class Faulty:
    """A database that fails while it has a `fault`, and tells of each transaction."""

    def __init__(self, database):
        self._database = database
        self.vault = database.vault
        self.fault = None
        self.failed = threading.Event()
        self.done = []
        self.written = threading.Event()

    @property
    def url(self):
        return self._database.url

    @property
    def engine(self):
        self._fail()
        return self._database.engine

    @contextmanager
    def read(self, *, on=None):
        self._fail()
        with self._database.read(on=on) as connection:
            yield connection
        self.done.append("read")

    @contextmanager
    def write(self, *, on=None):
        self._fail()
        with self._database.write(on=on) as connection:
            yield connection
        self.done.append("write")
        self.written.set()

    def _fail(self):
        if self.fault is not None:
            self.failed.set()
            raise self.fault


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make_worker(database_file, clock):
    """A function that makes a worker with an engine of its own, as processes have."""
    made = []

    def make(**options):
        made.append(Worker(Database(f"sqlite:///{database_file}", VAULT), clock, **options))
        return made[-1]

    yield make
    for worker in made:
        worker.syncer.stop()
        worker.database.dispose()


@pytest.fixture
def faulty(database, clock):
    """A worker whose database can fail."""
    worker = Worker(Faulty(database), clock)
    yield worker
    worker.database.fault = None
    worker.syncer.stop()


def rows(database, table):
    with database.read() as connection:
        return list(connection.execute(select(table.__table__)).mappings())


def added(database):
    """To seconds: tokens and requests."""
    written = [json.loads(row["added"]) for row in rows(database, StateJournalRow)]
    return [(tokens, requests) for each in written for *_, tokens, requests in each]


def add(database, *configs):
    with database.session() as session:
        instances.add(session, configs, author=AUTHOR)


# Two workers.


def test_each_worker_sees_the_others_counts_within_one_round(make_worker):
    one, two = make_worker(), make_worker()
    one.measure(DONE, DONE)
    two.measure(DONE)
    one.syncer.sync()
    assert (one.requests(), two.requests()) == (2, 1)
    two.syncer.sync()
    assert (one.requests(), two.requests()) == (2, 3)
    one.syncer.sync()
    assert (one.requests(), two.requests()) == (3, 3)
    for worker in (one, two):
        view = worker.state.view("a")
        assert (view.current_tpm, view.current_rpm) == (21, 3)
        assert view.totals["total_tokens_served"] == 21


@pytest.mark.parametrize("bounds", [{"max_tpm": 1000}, {"max_tpm": 0, "max_rpm": 600}])
@pytest.mark.parametrize("shares", [(1, 1), (1, 3), (1, 0)])
def test_workers_together_keep_a_limit_and_use_it_up(shares, bounds, make_worker):
    """A hundred calls fit; workers get more than that, in the proportion of `shares`."""
    workers = [make_worker(peers=Peers(others=1, sync_seconds=0.2)) for _ in shares]
    of = config("a", **bounds)
    taken = 0
    for _ in range(30):
        for _ in range(100):
            for worker, share in zip(workers, shares, strict=True):
                for _ in range(share):
                    found = worker.state.start(serving(of), call(reserved_tokens=10))
                    taken += isinstance(found, Reservation)
        for worker in workers:
            worker.syncer.sync()
    assert taken == 100


def test_rounds_in_which_nothing_happened_change_nothing(make_worker):
    one, two = make_worker(), make_worker()
    one.measure(DONE)
    for _ in range(3):
        for worker in (one, two):
            worker.syncer.sync()
    assert (one.requests(), two.requests()) == (1, 1)


def test_another_workers_rest_is_kept(make_worker, clock):
    one, two = make_worker(), make_worker()
    two.syncer.sync()
    one.measure(THROTTLED)
    one.syncer.sync()
    two.syncer.sync()
    (refused,) = two.state.refusals([serving(A)], call())
    assert (refused.reason, refused.wait_seconds) == ("throttled", 30.0)
    assert two.state.view("a").last_error == "429: slow"
    clock.now += 30
    assert two.state.view("a").status == "healthy"


def test_each_worker_says_that_a_person_had_an_instance_asked_again(make_worker, clock, logged):
    one, two = make_worker(), make_worker()
    two.syncer.sync()
    refused = Verdict("misconfigured", rest_seconds=300.0, whole_instance=True)
    one.measure(Ending(refused, error="401: no"))
    one.syncer.sync()
    two.syncer.sync()
    clock.now += 1
    with one.database.write() as connection:  # as a command does
        states.clear_errors(connection, "a", clock.now)
    for worker in (one, two, one, two):
        worker.syncer.sync()
        assert worker.state.view("a").status == "healthy"
    said = "a is asked again: it was verified, changed or set healthy"
    assert logged == [("WARNING", said)] * 2


def test_room_is_shared(make_worker):
    small = config("a", max_tpm=call().reserved_tokens)
    one, two = make_worker(), make_worker()
    assert one.state.start(serving(small), call()) is not None
    one.syncer.sync()
    two.syncer.sync()
    assert isinstance(two.state.start(serving(small), call()), Refusal)


def test_a_new_worker_begins_with_what_the_old_ones_left(make_worker):
    one, two = make_worker(), make_worker()
    add(one.database, A)
    one.measure(DONE, THROTTLED)
    one.syncer.stop()
    two.syncer.start()
    assert two.requests() == 2
    assert two.state.view("a").status == "rate_limited"
    assert list(two.snapshots.current.instances) == ["a"]


def test_usage_of_all_workers_is_added(make_worker, database):
    one, two = make_worker(), make_worker()
    for worker in (one, two, one):
        worker.measure(DONE)
        worker.syncer.sync()
    (row,) = rows(database, UsageRow)
    assert (row["instance_name"], row["model"], row["client_name"]) == ("a", MODEL, "app")
    assert (row["requests"], row["attempts"], row["prompt_tokens"]) == (3, 3, 12)


@pytest.mark.parametrize("is_busy", [False, True])
def test_a_change_of_config_is_seen_by_the_others(is_busy, make_worker):
    one, two = make_worker(), make_worker()
    two.syncer.sync()
    add(one.database, A)
    if is_busy:  # a round that writes sees it too
        two.measure(DONE)
    two.syncer.sync()
    assert list(two.snapshots.current.instances) == ["a"]
    with one.database.session() as session:
        instances.change(session, "a", {"priority": 5}, author=AUTHOR)
    if is_busy:
        two.measure(DONE)
    two.syncer.sync()
    assert two.snapshots.current.instances["a"].config.priority == 5


def test_who_looks_at_the_config_sees_the_newest_without_a_round(make_worker):
    one, two = make_worker(), make_worker()
    two.syncer.sync()
    add(one.database, A)
    assert two.syncer.catch_up()
    assert list(two.snapshots.current.instances) == ["a"]
    assert not two.syncer.catch_up()


def test_while_the_database_is_away_nobody_who_looks_waits_for_it(faulty):
    add(faulty.database._database, A)
    faulty.syncer.sync()
    faulty.database.fault = StoreUnavailable(LOCKED)
    assert not faulty.syncer.catch_up()
    faulty.measure(DONE)
    faulty.syncer.sync()
    faulty.database.failed.clear()
    assert not faulty.syncer.catch_up()
    assert not faulty.database.failed.is_set()


def test_a_worker_that_still_uses_an_old_key_lets_nobody_rest(make_worker):
    one, two = make_worker(), make_worker()
    add(one.database, A)
    for worker in (one, two):
        worker.syncer.sync()
    with one.database.session() as session:
        instances.change(session, "a", {"api_key": "new-key-0123456789"}, author=AUTHOR)
    two.measure(THROTTLED)  # with the old one
    for worker in (two, one):
        worker.syncer.sync()
        assert worker.state.view("a").status == "healthy"


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        ("state_journal", "(number, newest_at, added) VALUES (9, 9, '[[')"),
        ("held_counts", "(owner, number, written_at, added) VALUES ('x', 1, 0.0, '{')"),
    ],
)
def test_a_damaged_row_is_told_of_and_keeps_no_worker_from_its_work(
    table, columns, make_worker, database
):
    with database.write() as connection:
        connection.exec_driver_sql(f"INSERT INTO {table} {columns}")
        connection.exec_driver_sql("INSERT OR REPLACE INTO state_write VALUES (1, 9)")
    worker = make_worker()
    worker.syncer.sync()
    assert f"A row of the table {table} is damaged." in worker.syncer.problem
    worker.measure(DONE)
    with database.write() as connection:
        connection.exec_driver_sql(f"DELETE FROM {table}")
    worker.syncer.sync()
    assert worker.syncer.problem is None
    assert worker.requests() == 1


def test_a_quiet_round_asks_the_database_for_nothing(faulty):
    faulty.syncer.sync()
    faulty.syncer.sync()
    faulty.database.done.clear()
    faulty.syncer.sync()
    assert faulty.database.done == []


def test_a_round_reads_if_only_others_wrote(faulty, make_worker):
    for _ in range(2):
        faulty.syncer.sync()
    other = make_worker()
    other.measure(DONE)
    other.syncer.sync()
    faulty.database.done.clear()
    faulty.syncer.sync()
    assert faulty.database.done == ["read"]
    assert faulty.requests() == 1


# Clients.


def test_what_clients_use_is_known_to_all_within_one_round(make_worker):
    one, two = make_worker(), make_worker()
    one.used(40, cost_nano=9)
    two.used(20)
    for worker in (one, two, one):
        worker.syncer.sync()
    for worker in (one, two):
        view = worker.clients.view(APP)
        assert (view.current_tpm, view.current_rpm) == (60, 2)
        assert (view.tokens_today, view.cost_this_month) == (60, 9 / 10**9)
        assert worker.clients.denial(APP, 41).limit == "max_tpm"


def test_a_new_worker_knows_what_clients_used_before(make_worker):
    one, two = make_worker(), make_worker()
    one.used(40)
    one.syncer.stop()
    two.syncer.start()
    assert two.clients.view(APP).current_tpm == 40


def test_what_clients_used_waits_while_the_database_is_away(faulty, database):
    faulty.database.fault = StoreUnavailable(LOCKED)
    faulty.used(40)
    faulty.syncer.sync()
    faulty.used(20)
    faulty.database.fault = None
    faulty.syncer.sync()
    faulty.syncer.sync()
    (row,) = rows(database, ClientWindowRow)
    assert (row["tokens"], row["requests"]) == (60, 2)
    assert faulty.clients.view(APP).current_tpm == 60


def test_clients_and_instances_are_written_together(make_worker, database):
    worker = make_worker()
    worker.measure(DONE)
    worker.used(40)
    worker.syncer.sync()
    (journal,) = rows(database, StateJournalRow)
    numbers = {
        row["write_number"]
        for table in (ClientWindowRow, ClientSpendingRow)
        for row in rows(database, table)
    }
    assert (journal["number"], numbers) == (1, {1})


def test_what_is_over_of_clients_is_forgotten_too(make_worker, clock, database):
    worker = make_worker()
    worker.used(40)
    worker.syncer.sync()
    clock.now += 63 * DAY_SECONDS
    worker.syncer.sync()
    assert rows(database, ClientWindowRow) == rows(database, ClientSpendingRow) == []


# What a round costs.


def busy(make_worker, others):
    """A worker, and another that measured of "a", among so many that were used before."""
    one, two = make_worker(), make_worker()
    add(one.database, A, *[config(f"other-{n}") for n in range(others)])
    for worker in (one, two):
        worker.syncer.sync()
    one.measure(*[DONE] * others, of=[config(f"other-{n}") for n in range(others)])
    for _ in range(2):
        for worker in (one, two):
            worker.measure(DONE)
            worker.syncer.sync()
    return one, two


@pytest.mark.parametrize("is_idle", [True, False])
def test_a_round_costs_the_same_however_many_instances_nobody_asks(
    is_idle, make_worker, tmp_path, migrated_file, clock, statements, monkeypatch
):
    found = []

    def read(*arguments):
        found.append(read_all(*arguments))
        return found[-1]

    monkeypatch.setattr(held, "FEW_ROWS", 100)
    read_all = states.read
    monkeypatch.setattr(states, "read", read)
    costs = []
    for others in (0, 50):
        one, two = busy(make_worker_on(tmp_path / f"{others}.db", migrated_file, clock), others)
        two.measure(DONE)
        two.syncer.sync()
        if not is_idle:
            one.measure(DONE)
        asked = statements(one.database)
        one.syncer.sync()
        shared = found[-1]
        costs.append((len(asked), len(shared.instances), len(shared.windows)))
        for worker in (one, two):
            worker.syncer.stop()
            worker.database.dispose()
    assert costs[0] == costs[1]
    assert costs[0][0] <= (10 if is_idle else 15)
    assert costs[0][1:] == (1, 2)  # the other one wrote twice


def make_worker_on(path, migrated_file, clock):
    shutil.copy(migrated_file, path)
    return lambda: Worker(Database(f"sqlite:///{path}", VAULT), clock)


# A database that does not do what it is asked.


def test_while_the_database_is_away_counts_wait(faulty, database):
    faulty.database.fault = StoreUnavailable(LOCKED)
    for _ in range(3):
        faulty.measure(DONE)
        faulty.syncer.sync()
    assert faulty.requests() == 3
    assert faulty.state.view("a").current_rpm == 3
    faulty.database.fault = None
    faulty.syncer.sync()
    assert faulty.requests() == 3
    (row,) = rows(database, UsageRow)
    assert (row["attempts"], row["requests"]) == (3, 3)
    assert added(database) == [(21, 3)]


def test_a_rest_lasts_while_the_database_is_away(faulty):
    faulty.database.fault = StoreUnavailable(LOCKED)
    faulty.measure(THROTTLED)
    for _ in range(2):
        faulty.syncer.sync()
        assert faulty.state.view("a").status == "rate_limited"


def test_a_problem_is_noted_and_logged_once(faulty, logged):
    faulty.syncer.sync()
    assert faulty.syncer.problem is None
    faulty.database.fault = StoreUnavailable(LOCKED)
    for _ in range(3):
        faulty.measure(DONE)
        faulty.syncer.sync()
        assert faulty.syncer.problem == LOCKED
    faulty.database.fault = None
    for _ in range(3):
        faulty.syncer.sync()
        assert faulty.syncer.problem is None
    assert logged == [
        ("ERROR", f"{LOCKED} Requests are served; counts wait in memory."),
        ("WARNING", "The database works again; what waited is written."),
    ]


def test_who_could_read_no_config_does_not_say_that_requests_are_served(faulty, logged):
    faulty.database.fault = StoreUnavailable(LOCKED)
    faulty.measure(DONE)
    faulty.syncer.sync()
    assert logged == [
        (
            "ERROR",
            f"{LOCKED} This worker began after that, and has no config yet: it answers 503.",
        )
    ]


def test_a_round_that_does_not_end_is_told_once_and_so_is_its_end(faulty, logged):
    faulty.syncer.sync()
    faulty.syncer.synced_at -= LATE_SECONDS + 1
    for _ in range(2):
        faulty.syncer.watch()
    faulty.syncer.sync()
    faulty.syncer.watch()
    assert logged == [
        (
            "WARNING",
            "State was last synced 11 s ago. Requests are served; counts wait in memory.",
        ),
        ("WARNING", "The database works again; what waited is written."),
    ]


def test_a_problem_that_is_known_is_not_told_as_lateness_too(faulty, logged):
    faulty.syncer.sync()
    faulty.database.fault = StoreUnavailable(LOCKED)
    faulty.measure(DONE)
    faulty.syncer.sync()
    faulty.syncer.synced_at -= LATE_SECONDS + 1
    faulty.syncer.watch()
    assert [level for level, _ in logged] == ["ERROR"]


@pytest.mark.parametrize(
    "message, event",
    [
        ("The database cannot be used: database or disk is full.", "disk_full"),
        ("The database cannot be used: No space left on device.", "disk_full"),
        (LOCKED, "sync_failed"),
    ],
)
def test_a_full_disk_has_a_name_of_its_own(faulty, monkeypatch, message, event):
    told = []
    monkeypatch.setattr(syncer, "tell", lambda _logger, name, *_, **fields: told.append(name))
    faulty.database.fault = StoreUnavailable(message)
    faulty.syncer.sync()
    assert told == [event]


def test_a_database_that_fails_while_nothing_is_to_be_written_is_a_problem_too(faulty):
    faulty.syncer.sync()
    faulty.syncer._close_connection()
    faulty.database.fault = StoreUnavailable(LOCKED)
    faulty.syncer.sync()
    assert faulty.syncer.problem == LOCKED


def test_when_it_last_worked_is_known(faulty, clock):
    assert faulty.syncer.synced_at == 0.0
    faulty.syncer.sync()
    worked_at = clock.now
    clock.now += 10
    faulty.measure(DONE)
    faulty.database.fault = StoreUnavailable(LOCKED)
    faulty.syncer.sync()
    assert faulty.syncer.synced_at == worked_at
    faulty.database.fault = None
    faulty.syncer.sync()
    assert faulty.syncer.synced_at == clock.now


def test_a_database_locked_by_somebody_else(make_worker, database_file, monkeypatch):
    monkeypatch.setattr(db, "BUSY_TIMEOUT_MS", 1)
    worker = make_worker()
    somebody = sqlite3.connect(database_file, isolation_level=None)
    somebody.execute("BEGIN IMMEDIATE")
    worker.measure(DONE)
    worker.syncer.sync()
    assert worker.syncer.problem == LOCKED
    somebody.execute("ROLLBACK")
    somebody.close()
    worker.syncer.sync()
    assert (worker.syncer.problem, worker.requests()) == (None, 1)
    assert not worker.state.take()


def test_what_was_written_before_a_failure_in_the_same_round_is_written_once(
    faulty, database, monkeypatch
):
    def full(*_):
        raise StoreUnavailable("The database cannot be used: disk is full.")

    faulty.measure(DONE)
    with monkeypatch.context() as patch:
        patch.setattr(usage, "add", full)  # state was added already
        faulty.syncer.sync()
    faulty.syncer.sync()
    assert faulty.requests() == 1
    assert [requests for _, requests in added(database)] == [1]


def test_a_change_of_others_that_could_not_be_read_is_read_later(faulty, make_worker):
    faulty.syncer.sync()
    add(make_worker().database, A)
    faulty.database.fault = StoreUnavailable(LOCKED)
    faulty.syncer.sync()
    faulty.database.fault = None
    faulty.syncer.sync()
    assert list(faulty.snapshots.current.instances) == ["a"]


class BrokenDriver:
    def close(self):
        raise sqlite3.OperationalError("disk I/O error")


class BrokenEngine:
    """Connects, and then nothing works: not even closing."""

    def __init__(self, dialect):
        self.dialect = dialect
        self.connection = self
        self.dbapi_connection = BrokenDriver()

    def connect(self):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def detach(self):
        pass

    def cursor(self):
        raise OperationalError("", {}, Exception("disk I/O error"))

    def close(self):
        raise OperationalError("", {}, Exception("disk I/O error"))


def test_a_connection_that_cannot_even_be_closed_is_a_problem_like_others(faulty, database):
    faulty.syncer.sync()
    faulty.syncer._close_connection()
    faulty.database._database = SimpleNamespace(engine=BrokenEngine(database.engine.dialect))
    faulty.syncer.sync()
    assert faulty.syncer.problem == "The database cannot be used: disk I/O error."
    faulty.database._database = database
    faulty.syncer.sync()
    assert faulty.syncer.problem is None


def test_an_error_nobody_foresaw_loses_no_count(faulty):
    faulty.measure(DONE)
    faulty.database.fault = RuntimeError("a bug")
    with pytest.raises(RuntimeError):
        faulty.syncer.sync()
    faulty.database.fault = None
    faulty.syncer.sync()
    assert faulty.requests() == 1
    assert not faulty.state.take()


@pytest.mark.parametrize(
    "answer",
    [
        failed(500, b'{"error": {"message": "half a character: \\ud800"}}'),
        failed(500, b"\x00\xff"),
        ok(usage={"prompt_tokens": 10**30, "completion_tokens": 10**30}),
        ok(usage={"prompt_tokens": -5, "completion_tokens": True}),
    ],
)
def test_nothing_an_upstream_says_keeps_counts_from_being_written(answer, faulty):
    world = World(A, a=answer)
    faulty.syncer._state = world.state
    world.forward()
    faulty.syncer.sync()
    assert faulty.syncer.problem is None
    assert world.state.view("a").totals["total_requests"] >= 1
    assert not world.state.take()


# A file that goes away, or becomes another.


def written(database):
    return sum(row["total_requests"] for row in rows(database, InstanceStateRow))


def test_counts_wait_while_the_file_is_gone_and_are_written_when_it_is_back(
    make_worker, database_file
):
    worker = make_worker()
    worker.measure(DONE)
    worker.syncer.sync()
    os.rename(database_file, aside := f"{database_file}.aside")
    worker.measure(DONE)
    worker.syncer.sync()
    assert "is gone; put it back, or restore a backup" in worker.syncer.problem
    worker.measure(DONE)
    os.rename(aside, database_file)
    worker.syncer.sync()
    assert worker.syncer.problem is None
    assert written(worker.database) == 3


def test_counts_wait_while_the_file_is_damaged_and_are_written_when_it_is_restored(
    make_worker, database_file, clock
):
    worker = make_worker()
    worker.measure(DONE)
    worker.syncer.sync()
    shutil.copy(database_file, copy := f"{database_file}.copy")
    with open(database_file, "r+b") as file:
        file.write(b"\xa5" * 16_384)
    worker.measure(DONE)
    clock.now += LOOK_SECONDS
    worker.syncer.sync()
    assert "is damaged" in worker.syncer.problem
    worker.syncer.sync()
    assert "is damaged" in worker.syncer.problem
    os.replace(copy, database_file)
    worker.syncer.sync()
    assert worker.syncer.problem is None
    assert written(worker.database) == 2


@pytest.mark.parametrize(
    "why, kept", [("attempt to write a readonly database", 0), ("full", 2)]
)
def test_where_it_may_only_be_read_no_connection_stays_open(
    make_worker, monkeypatch, why, kept
):
    def fails(*_):
        raise StoreUnavailable(f"The database cannot be used: {why}.")

    worker = make_worker()
    worker.syncer.sync()
    worker.measure(DONE)
    with monkeypatch.context() as patch:
        patch.setattr(states, "add", fails)
        worker.syncer.sync()
    assert worker.database.engine.pool.checkedin() == kept
    worker.syncer.sync()
    assert worker.syncer.problem is None
    assert written(worker.database) == 1


def test_a_restored_database_is_followed_though_its_revision_is_older(
    make_worker, database_file, migrated_file
):
    worker = make_worker()
    add(worker.database, config("a"), config("b"))
    worker.syncer.sync()
    assert set(worker.snapshots.current.instances) == {"a", "b"}
    restored = shutil.copy(migrated_file, f"{database_file}.backup")
    other = Database(f"sqlite:///{restored}", VAULT)
    add(other, config("c"))
    other.dispose()
    for side in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.remove(f"{database_file}{side}")
    os.replace(restored, database_file)
    worker.syncer.sync()
    assert set(worker.snapshots.current.instances) == {"c"}
    worker.measure(DONE)
    worker.syncer.sync()
    assert written(worker.database) == 1


def test_a_database_that_is_replaced_while_files_of_secrets_are_read_is_followed(
    make_worker, database_file, migrated_file, monkeypatch
):
    worker = make_worker()
    worker.syncer.sync()
    worker.measure(DONE)

    def replaced():
        for side in ("-wal", "-shm"):
            os.remove(f"{database_file}{side}")
        os.replace(shutil.copy(migrated_file, f"{database_file}.backup"), database_file)

    with monkeypatch.context() as patch:
        patch.setattr(worker.snapshots, "follow", replaced)
        worker.syncer.sync()
    assert written(worker.database) == 1


# The thread.


def syncers():
    return [t for t in threading.enumerate() if t.name == "syncer"]


def test_starting_reads_what_the_first_request_needs(faulty):
    add(faulty.database._database, A)
    faulty.syncer.start()
    assert list(faulty.snapshots.current.instances) == ["a"]
    assert len(syncers()) == 1


def test_it_goes_on_alone(faulty):
    faulty.syncer.start()
    faulty.database.written.clear()
    faulty.measure(DONE)
    assert faulty.database.written.wait(WAIT_SECONDS)


def test_it_goes_on_after_the_database_was_away(faulty):
    faulty.database.fault = StoreUnavailable(LOCKED)
    faulty.syncer.start()
    faulty.measure(DONE)
    faulty.database.written.clear()
    faulty.database.fault = None
    assert faulty.database.written.wait(WAIT_SECONDS)


def test_it_goes_on_after_an_error_nobody_foresaw(faulty):
    faulty.syncer.start()
    faulty.database.fault = RuntimeError("a bug")
    faulty.measure(DONE)
    assert faulty.database.failed.wait(WAIT_SECONDS)
    faulty.database.written.clear()
    faulty.database.fault = None
    assert faulty.database.written.wait(WAIT_SECONDS)
    assert faulty.requests() == 1


def test_stopping_writes_what_is_left_and_leaves_no_thread(make_worker, database):
    worker = make_worker(interval_seconds=3600)
    worker.syncer.start()
    worker.measure(DONE)
    worker.syncer.stop()
    assert syncers() == []
    (row,) = rows(database, UsageRow)
    assert row["attempts"] == 1
    worker.syncer.stop()
    (row,) = rows(database, UsageRow)
    assert row["attempts"] == 1


def test_stopping_releases_its_connection(make_worker):
    worker = make_worker(interval_seconds=3600)
    worker.syncer.start()
    worker.syncer.stop()
    assert worker.database.engine.pool.checkedout() == 0


def test_what_was_never_started_can_be_stopped(make_worker, database):
    worker = make_worker()
    worker.measure(DONE)
    worker.syncer.stop()
    assert len(rows(database, UsageRow)) == 1


def test_stopping_while_the_database_is_away_raises_nothing(faulty):
    faulty.syncer.start()
    faulty.database.fault = StoreUnavailable(LOCKED)
    faulty.measure(DONE)
    faulty.syncer.stop()
    assert syncers() == []
    assert faulty.syncer.problem == LOCKED


def test_it_can_be_started_again(faulty):
    for _ in range(2):
        faulty.syncer.start()
        faulty.database.written.clear()
        faulty.measure(DONE)
        assert faulty.database.written.wait(WAIT_SECONDS)
        faulty.syncer.stop()


def test_requests_and_rounds_at_once_lose_nothing(make_worker, database):
    workers, threads, each = [make_worker(), make_worker()], 8, 25
    for worker in workers:
        worker.syncer.start()
    asking = [
        threading.Thread(target=lambda w=w: [w.measure(DONE) for _ in range(each)])
        for w in workers
        for _ in range(threads)
    ]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    for worker in workers:
        worker.syncer.stop()
    expected = len(workers) * threads * each
    workers[0].syncer.sync()
    assert workers[0].requests() == expected
    assert sum(r["attempts"] for r in rows(database, UsageRow)) == expected
    assert sum(requests for _, requests in added(database)) == expected


# Housekeeping.


def old_rows(database, now):
    """A second and a minute that are just to be kept, and each one older."""
    for older in (0, 1):
        deltas = Deltas()
        second = int(now) - states.KEPT_WINDOW_SECONDS - older
        deltas.add_window((second, "a", MODEL), 1, 1)
        minute = int(now) - 30 * DAY_SECONDS - 60 * older
        deltas.add_usage((minute, "a", MODEL, "app"), {"requests": 1})
        with database.write() as connection:
            states.add(connection, deltas)
            usage.add(connection, deltas)


def count(database):
    return len(added(database)), len(rows(database, UsageRow))


def test_what_is_too_old_is_deleted(make_worker, database, clock):
    old_rows(database, clock.now)
    assert count(database) == (2, 2)
    make_worker().syncer.sync()
    assert count(database) == (1, 1)


def test_housekeeping_is_done_now_and_then(make_worker, database, clock):
    worker = make_worker()
    worker.syncer.sync()
    old_rows(database, clock.now)
    clock.now += HOUSEKEEPING_SECONDS - 1
    worker.syncer.sync()
    assert count(database) == (2, 2)
    clock.now += 1
    worker.syncer.sync()
    assert count(database) == (0, 0)


def test_memory_that_nobody_uses_is_given_back_with_the_housekeeping(
    make_worker, clock, monkeypatch
):
    trimmed = []
    monkeypatch.setattr(syncer.Heap, "trim", lambda _: trimmed.append(clock.now))
    worker = make_worker()
    for _ in range(3):
        worker.syncer.sync()
    clock.now += HOUSEKEEPING_SECONDS
    worker.syncer.sync()
    assert trimmed == [clock.now - HOUSEKEEPING_SECONDS, clock.now]


def test_what_housekeeping_needs_is_not_kept_until_the_next(make_worker, clock):
    """Its statements take a megabyte where a connection remembers them."""
    worker = make_worker()
    made = []  # each connection, with what it was asked

    @event.listens_for(worker.database.engine, "connect")
    def note(connection, _record):
        made.append((connection, []))
        connection.set_trace_callback(made[-1][1].append)

    worker.measure(DONE)
    worker.syncer.sync()
    (tidied,) = [c for c, asked in made if any(sql.startswith("DELETE") for sql in asked)]
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        tidied.execute("SELECT 1")
    made.clear()
    for _ in range(3):
        clock.now += 1
        worker.measure(DONE)
        worker.syncer.sync()
    assert made == []


def test_housekeeping_goes_on_where_the_clock_was_set_back(make_worker, database, clock):
    worker = make_worker()
    clock.now += 10 * DAY_SECONDS
    worker.syncer.sync()
    clock.now -= 10 * DAY_SECONDS
    old_rows(database, clock.now)
    worker.syncer.sync()
    assert count(database)[0] == 1


def test_a_clock_that_is_set_forward_deletes_no_usage(make_worker, database, clock, logged):
    worker = make_worker(uptime=lambda: 1000.0)
    worker.used(40)
    worker.syncer.sync()
    old_rows(database, clock.now)
    clock.now += 91 * DAY_SECONDS
    worker.syncer.sync()
    assert count(database) == (0, 2)
    assert len(rows(database, ClientSpendingRow)) == 1
    clock.now += HOUSEKEEPING_SECONDS
    worker.syncer.sync()
    assert [said.split(".")[0] for _, said in logged] == ["The clock jumped by 7862400 s"]


def test_usage_that_waited_long_is_written_in_rounds(make_worker, database, clock, monkeypatch):
    monkeypatch.setattr(state_module, "MOST_USAGE_ROWS", 2)
    worker = make_worker()
    for _ in range(5):
        clock.now += 60
        worker.measure(DONE)
    written = []
    for _ in range(3):
        worker.syncer.sync()
        written.append(len(rows(database, UsageRow)))
    assert written == [2, 4, 5]
    for _ in range(5):
        clock.now += 60
        worker.measure(DONE)
    worker.syncer.stop()
    assert len(rows(database, UsageRow)) == 10


# Where many are asked.

MANY = [config(f"{number:03}") for number in range(20)]


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(held, "FEW_ROWS", 2)


def attempts(database):
    return sum(row["attempts"] for row in rows(database, UsageRow))


def test_where_many_are_asked_usage_and_totals_wait_and_limits_do_not(
    few, make_worker, database, clock
):
    one, two = make_worker(), make_worker()
    one.measure(*[DONE] * len(MANY), of=MANY)
    one.syncer.sync()
    assert rows(database, UsageRow) == rows(database, InstanceStateRow) == []
    assert len(rows(database, HeldCountsRow)) == 1
    two.syncer.sync()
    assert two.state.view("019").current_rpm == 1
    assert (one.requests("019"), two.requests("019")) == (1, 0)
    clock.now += held.HELD_SECONDS
    for worker in (one, two):
        worker.syncer.sync()
        assert (worker.requests("000"), worker.requests("019")) == (1, 1)
    assert attempts(database) == written(database) == len(MANY)
    assert rows(database, HeldCountsRow) == []


def test_where_few_are_asked_nothing_waits(few, make_worker, database):
    worker = make_worker()
    for _ in range(30):
        worker.measure(DONE, DONE, DONE, of=[*MANY[:2], MANY[0]])
        worker.syncer.sync()
        assert rows(database, HeldCountsRow) == []
    assert attempts(database) == written(database) == 90


def test_what_still_waits_is_written_at_the_end(few, faulty, database):
    for _ in range(2):
        faulty.measure(*[DONE] * len(MANY), of=MANY)
        faulty.syncer.sync()
    faulty.measure(*[DONE] * len(MANY), of=MANY)
    faulty.database.done.clear()
    faulty.syncer.stop()
    assert faulty.database.done == ["write"]
    assert attempts(database) == written(database) == 3 * len(MANY)
    assert rows(database, HeldCountsRow) == []


def test_after_another_start_many_wait_again(few, make_worker, database):
    worker = make_worker(interval_seconds=3600)
    worker.syncer.stop()
    worker.syncer.start()
    worker.measure(*[DONE] * len(MANY), of=MANY)
    worker.syncer.sync()
    assert len(rows(database, HeldCountsRow)) == 1


def test_very_much_that_still_waits_is_written_at_the_end_in_rounds(
    few, faulty, database, monkeypatch
):
    monkeypatch.setattr(held, "MOST_ROWS", 1)
    for _ in range(3):
        faulty.measure(*[DONE] * len(MANY), of=MANY)
        faulty.syncer.sync()
    faulty.database.done.clear()
    faulty.syncer.stop()
    assert faulty.database.done == ["write"] * 3
    assert attempts(database) == written(database) == 3 * len(MANY)


def test_nobody_who_has_the_number_of_the_write_waits_for_what_waited(
    few, make_worker, database, clock, statements, tmp_path
):
    """Who adds what was abandoned takes the one after the other, too: nobody waits for who
    waits for him, where rows are locked one by one."""
    path = tmp_path / "key"
    path.write_text("old")
    worker = make_worker()
    add(database, config("a", api_key=f"file:{path}"))
    worker.measure(*[DONE] * len(MANY), of=MANY)
    worker.syncer.sync()
    path.write_text("new-key")
    clock.now += held.HELD_SECONDS
    asked = statements(worker.database)
    worker.syncer.sync()
    changes = [s.split("(")[0].split() for s in asked if s.startswith(("DELETE", "INSERT"))]
    tables = [words[2] for words in changes]
    assert tables.index("held_counts") < tables.index("state_write")
    assert tables.count("state_write") == 2  # the old key's rests are void, and a write


def test_a_failure_is_told_at_once_however_many_are_asked(few, make_worker):
    one, two = make_worker(), make_worker()
    one.measure(*[DONE] * 19, FAILED, of=MANY)
    for worker in (one, two):
        worker.syncer.sync()
    assert two.state.view("019").last_error == FAILED.error
    assert two.requests("019") == 1


def test_of_a_killed_worker_all_that_was_written_is_counted_once(
    few, make_worker, database, clock
):
    killed, other = make_worker(), make_worker()
    for _ in range(3):
        killed.measure(*[DONE] * len(MANY), of=MANY)
        killed.syncer.sync()
        other.syncer.sync()
    killed.state.take()  # what is in its memory is gone
    killed.syncer._held = Held()
    for _ in range(3):
        clock.now += HOUSEKEEPING_SECONDS + 1
        other.syncer.sync()
        assert attempts(database) == written(database) == 3 * len(MANY)
    other.syncer.sync()
    assert other.requests("019") == 3


def test_a_worker_that_slept_so_long_that_it_was_taken_for_dead_counts_nothing_twice(
    few, make_worker, database, clock
):
    slept, other = make_worker(), make_worker()
    other.syncer.sync()
    slept.measure(*[DONE] * len(MANY), of=MANY)
    slept.syncer.sync()
    clock.now += HOUSEKEEPING_SECONDS + 1
    other.syncer.sync()
    assert slept.requests("000") == 1
    slept.measure(*[DONE] * len(MANY), of=MANY)
    for _ in range(3):
        slept.syncer.sync()
        assert slept.requests("000") == 2
        clock.now += held.HELD_SECONDS
    slept.syncer.stop()
    assert attempts(database) == written(database) == 2 * len(MANY)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_fails_the_view_is_exact_and_all_is_written_once(
    seed, few, faulty, database, clock, monkeypatch
):
    random, measured = Random(seed), Counter()

    def full(*_):
        raise StoreUnavailable("The database cannot be used: disk is full.")

    for _ in range(150):
        some = random.sample(MANY, random.randrange(8))
        faulty.measure(*[DONE] * len(some), of=some)
        measured.update(each.name for each in some)
        with monkeypatch.context() as patch:
            if random.random() < 0.3:
                late = random.choice([(usage, "add"), (client_states, "read")])
                patch.setattr(*late, full)
            faulty.syncer.sync()
        clock.now += random.choice([0.2, 1.0])
        assert all(faulty.requests(each.name) == measured[each.name] for each in MANY)
    faulty.syncer.stop()
    assert attempts(database) == written(database) == measured.total()


# What a worker keeps and what it hears in differences are, at any moment, what all is.


def everything(worker, taken, now):
    """A state that read all anew, and noted as new to others what the worker wrote."""
    fresh = State(worker.state._clock, peers=TWO)
    fresh.take()
    fresh._take(taken)
    with worker.database._database.read() as connection:
        fresh.merge(states.read(connection, now), worker.snapshots.current.configs)
    return fresh


def metered(state, now):
    """What limits are compared with, where it is not 0."""
    found = {}
    for key, meter in list(state._metering.all.items()):
        lately = state._lately(meter) or Lately()
        sums = [m.total(int(now)) for m in (meter.tokens, meter.requests)]
        sums += [lately.tokens(int(now)), lately.requests(int(now))]
        if any(sums):
            found[key] = sums
    return found


def shown(state):
    """Each instance as operators see it, but for what is this worker's alone."""
    views = [state.view(name) for name in NAMES]
    return [replace(v, last_used=0, status="", breaker="", open_until=None) for v in views]


NAMES = ("a", "b", "c")
TWO = Peers(others=1, sync_seconds=0.2)
FAILED = Ending(verdicts.FAILED, error="it broke off its answer")


class Walk:
    """Two workers on one database that do one thing after the other, by chance."""

    def __init__(self, seed, database_file, clock):
        self.random = Random(seed)
        self.clock = clock
        databases = [Faulty(Database(f"sqlite:///{database_file}", VAULT)) for _ in range(2)]
        self.workers = [Worker(database, clock, peers=TWO) for database in databases]
        self.open = []
        self.compared = Counter()
        limits = dict.fromkeys(NAMES, 10**9) | {"c": 0}
        configs = [config(name, max_tpm=limit) for name, limit in limits.items()]
        add(databases[0]._database, *configs)
        for worker in self.workers:
            worker.syncer.sync()

    def step(self):
        acts = [self.start] * 8 + [self.finish] * 8 + [self.sync] * 6 + [self.wait] * 3
        acts += [self.fail_to_sync, self.change, self.clear, self.clear_rests]
        self.random.choice(acts)()

    def start(self):
        worker = self.random.choice(self.workers)
        name = self.random.choice(NAMES)
        stored = worker.snapshots.current.instances[name]
        deployment = self.random.choice(["gpt", "mini"])
        asked = call(reserved_tokens=self.random.randrange(1, 50))
        found = worker.state.start(serving(stored.config, deployment), asked)
        if isinstance(found, Reservation):
            self.open.append((worker, found))

    def finish(self):
        if self.open:
            worker, reservation = self.open.pop(self.random.randrange(len(self.open)))
            usage = Usage(self.random.randrange(60))
            ending = self.random.choice([DONE, Ending(verdicts.SUCCEEDED, usage), FAILED])
            worker.state.finish(reservation, ending)

    def sync(self):
        worker = self.random.choice(self.workers)
        merges, taken = [], Deltas()
        taken.windows = dict(worker.state._pending.windows)
        merge = worker.state.merge

        def merged(shared, *others):
            merges.append(shared.is_whole)
            merge(shared, *others)

        worker.state.merge = merged
        worker.syncer.sync()
        worker.state.merge = merge
        assert worker.syncer.problem is None
        if merges:
            self.compare(worker, taken)
            self.compared[merges[0]] += 1

    def compare(self, worker, taken):
        fresh = everything(worker, taken, self.clock.now)
        assert metered(worker.state, self.clock.now) == metered(fresh, self.clock.now)
        assert shown(worker.state) == shown(fresh)

    def fail_to_sync(self):
        """Before anything was written, or when some was."""
        worker = self.random.choice(self.workers)
        with pytest.MonkeyPatch.context() as patch:
            if self.random.random() < 0.5:
                patch.setattr(usage, "add", fail)
            else:
                patch.setattr(worker.database, "fault", StoreUnavailable(LOCKED))
            worker.syncer.sync()

    def change(self):
        name, group = self.random.choice(NAMES), self.random.choice([None, "g", "h"])
        with self.workers[0].database._database.session() as session:
            instances.change(session, name, {"quota_group": group}, author=AUTHOR)
        if self.random.random() < 0.5:
            self.workers[0].snapshots.reload()  # as the worker does whose API was asked

    def clear(self):
        worker, name = self.random.choice(self.workers), self.random.choice(NAMES)
        with worker.database._database.write() as connection:
            states.clear_errors(connection, name, self.clock.now)
        worker.state.clear(name, self.clock.now)

    def clear_rests(self):
        worker, name = self.random.choice(self.workers), self.random.choice(NAMES)
        with worker.database._database.write() as connection:
            states.clear_rests(connection, name, self.clock.now)
        worker.state.clear_rests(name)

    def wait(self):
        self.clock.now += self.random.choice([0.1, 0.4, 1.0, 3.0, 20.0, 61.0])

    def stop(self):
        for worker in self.workers:
            worker.syncer.stop()
            worker.database._database.dispose()


def fail(*_):
    raise StoreUnavailable(LOCKED)


@pytest.mark.parametrize("seed", range(6))
def test_what_is_heard_in_differences_is_what_is_read_at_once(seed, database_file, clock):
    walk = Walk(seed, database_file, clock)
    for _ in range(400):
        walk.step()
    walk.stop()
    assert walk.compared[False] > 30  # rounds that read but changes


# A count from now is one of the future then, and too far in it if it was set back by much.
@pytest.mark.parametrize("seconds, counted", [(5.0, 3), (100.0, 2)])
def test_where_the_clock_was_set_back_all_is_read_again(seconds, counted, make_worker, clock):
    one, two = make_worker(), make_worker()
    for later in (seconds, 0.0):
        two.measure(DONE)
        for worker in (two, one):
            worker.syncer.sync()
        clock.now += later
    clock.now -= seconds
    one.measure(DONE)
    one.syncer.sync()
    assert one.state.view("a").current_rpm == counted


FAILED = Ending(verdicts.FAILED, error="500: broken")


@pytest.mark.parametrize("ending", [THROTTLED, FAILED], ids=["rest", "breaker"])
def test_what_a_clock_earned_an_instance_that_was_ahead_ends_when_it_is_set_back(
    ending, make_worker, clock
):
    one, two = make_worker(), make_worker()
    for worker in (one, two):
        worker.syncer.sync()
    clock.now += DAY_SECONDS
    one.measure(*[ending] * 5)
    for worker in (one, two):
        worker.syncer.sync()
        assert worker.state.view("a").status != "healthy"
    clock.now -= DAY_SECONDS
    for worker in (one, two) * 2:
        worker.syncer.sync()
    new = make_worker()
    new.syncer.sync()
    for worker in (one, two, new):
        assert worker.state.view("a").status == "healthy"
        assert worker.state.refusals([serving(A)], call()) == [None]
    # And what happens now is told, though it is earlier than what is told already.
    clock.now += 1
    two.measure(*[ending] * 5)
    for worker in (two, one):
        worker.syncer.sync()
        assert worker.state.view("a").status != "healthy"
        assert worker.state.view("a").last_error_time == clock.now


def test_what_an_operator_said_then_stands(make_worker, clock):
    """It may be the clock of now that is wrong: of a host that has just started, say."""
    worker, until = make_worker(), clock.now + 7 * DAY_SECONDS
    worker.state.rest("a", until)
    worker.syncer.sync()
    clock.now -= DAY_SECONDS
    for _ in range(2):
        worker.syncer.sync()
    assert worker.state.view("a").rests[""].until == until


def test_what_an_operator_cleared_then_voids_nothing_that_is_measured_now(make_worker, clock):
    one, two = make_worker(), make_worker()
    clock.now += DAY_SECONDS
    one.measure(THROTTLED)
    one.syncer.sync()
    with one.database.write() as connection:
        states.clear_rests(connection, "a", clock.now)
    clock.now -= DAY_SECONDS
    for worker in (one, two):
        worker.syncer.sync()
    two.measure(THROTTLED)
    for worker in (two, one):
        worker.syncer.sync()
        assert worker.state.view("a").status == "rate_limited"


def test_after_that_all_is_read_until_the_clock_is_where_it_was(make_worker, clock):
    """What lies ahead is not counted when it is read, and not told again when it is over."""
    one, two = make_worker(), make_worker()
    two.measure(DONE)
    for worker in (two, one):
        worker.syncer.sync()
    clock.now -= 100
    one.measure(DONE)
    one.syncer.sync()
    clock.now += 101
    one.measure(DONE)
    one.syncer.sync()
    assert one.state.view("a").current_rpm == 2


def test_a_clock_that_was_set_back_while_the_database_was_away_is_noticed_too(faulty, clock):
    faulty.measure(DONE)
    faulty.syncer.sync()
    faulty.database.fault = StoreUnavailable(LOCKED)
    clock.now -= 100
    faulty.syncer.sync()
    faulty.state.view("a")  # a look at the meters, by which they forget what is ahead
    clock.now += 101
    faulty.database.fault = None
    faulty.measure(DONE)
    faulty.syncer.sync()
    assert faulty.state.view("a").current_rpm == 2


def test_another_database_with_more_writes_is_read_whole(
    make_worker, database_file, migrated_file
):
    """Its numbers are as high as those the worker knows, but its file is another."""
    worker = make_worker()
    worker.measure(DONE)
    worker.syncer.sync()
    path = shutil.copy(migrated_file, f"{database_file}.backup")
    other = Worker(Database(f"sqlite:///{path}", VAULT), worker.state._clock)
    for _ in range(2):
        other.measure(DONE, DONE, of=config("b"))
        other.syncer.sync()
    other.syncer.stop()
    other.database.dispose()
    for side in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.remove(f"{database_file}{side}")
    os.replace(path, database_file)
    worker.syncer.sync()
    assert worker.requests("b") == 4
    assert worker.state.view("a").current_rpm == 0


def test_a_merge_that_broke_off_is_followed_by_a_read_of_all(make_worker, monkeypatch):
    one, two = make_worker(), make_worker()
    add(one.database, A)
    for worker in (one, two):
        worker.syncer.sync()
        worker.measure(DONE, of=one.snapshots.current.instances["a"].config)
    two.syncer.sync()
    with monkeypatch.context() as patch:
        patch.setattr(one.state._metering, "_count", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            one.syncer.sync()
    one.measure(DONE, of=one.snapshots.current.instances["a"].config)
    one.syncer.sync()
    assert (one.requests(), one.state.view("a").current_rpm) == (3, 3)


# Secrets that are read from files.


def served(worker):
    """Of instance a, as the worker would ask it."""
    return worker.snapshots.current.catalog.serving(MODEL)[0].config


def test_a_key_in_a_file_that_changes_is_used_by_all_and_what_the_old_one_earned_is_void(
    make_worker, clock, tmp_path
):
    path = tmp_path / "key"
    path.write_text("old")
    one, two = make_worker(), make_worker()
    add(one.database, config("a", api_key=f"file:{path}"))
    for worker in (one, two):
        worker.syncer.sync()
    one.measure(THROTTLED, of=served(one))
    for worker in (one, two):
        worker.syncer.sync()
    assert two.state.view("a").status == "rate_limited"
    path.write_text("new-key")
    clock.now += 1
    for worker in (one, two):
        worker.syncer.sync()
        assert served(worker).api_key == "new-key"
    # Also after what is in the database was read again, and in a worker that begins now.
    for worker in (one, two, make_worker()):
        worker.syncer.sync()
        assert worker.state.view("a").status == "healthy"


def test_a_worker_that_is_late_brings_no_rest_of_the_old_key(make_worker, clock, tmp_path):
    path = tmp_path / "key"
    path.write_text("old")
    early, late = make_worker(), make_worker()
    add(early.database, config("a", api_key=f"file:{path}"))
    for worker in (early, late):
        worker.syncer.sync()
    path.write_text("new-key")
    clock.now += 1
    early.syncer.sync()
    late.measure(THROTTLED, of=served(late))  # with the old one still
    late.syncer.sync()
    early.syncer.sync()
    assert early.state.view("a").status == "healthy"


def test_a_change_of_a_file_while_the_database_is_away_is_used_at_once_and_told_later(
    faulty, clock, tmp_path, database
):
    path = tmp_path / "key"
    path.write_text("old")
    add(database, config("a", api_key=f"file:{path}"))
    faulty.syncer.sync()
    faulty.measure(THROTTLED, of=served(faulty))
    faulty.syncer.sync()
    path.write_text("new-key")
    clock.now += 1
    faulty.database.fault = StoreUnavailable(LOCKED)
    faulty.syncer.sync()
    assert served(faulty).api_key == "new-key"
    assert rows(database, DeploymentStateRow)
    faulty.database.fault = None
    faulty.syncer.sync()
    assert rows(database, DeploymentStateRow) == []
    assert faulty.snapshots.moved() == set()


def test_a_round_in_which_no_file_changed_asks_the_database_for_nothing(
    faulty, clock, tmp_path, database
):
    path = tmp_path / "key"
    path.write_text("old")
    add(database, config("a", api_key=f"file:{path}"))
    faulty.syncer.sync()
    faulty.database.done.clear()
    for _ in range(3):
        clock.now += 1
        faulty.syncer.sync()
    assert faulty.database.done == []


def test_a_key_of_the_vault_that_is_put_back_is_noticed_without_a_change_of_config(
    database_file, clock, tmp_path
):
    vault = Vault(path=tmp_path / "secret.key")
    vault.make_key()
    key = vault.path.read_bytes()
    database = Database(f"sqlite:///{database_file}", vault)
    add(database, A)
    vault.path.write_text(new_key())
    worker = Worker(database, clock)
    worker.syncer.sync()
    assert worker.snapshots.current.out_of_service == ["a"]
    vault.path.write_bytes(key)
    clock.now += 1
    worker.syncer.sync()
    assert served(worker) == A
    worker.syncer.stop()
    database.dispose()
