import pytest

from proxy.core import verdict
from proxy.core.types import Usage
from proxy.runtime.onlooker import Onlooker
from proxy.runtime.snapshot import Snapshots
from proxy.runtime.state import Ending, State
from proxy.runtime.syncer import Syncer
from proxy.store import instances
from tests.builders import AUTHOR, call, config, serving

NOW = 1_700_000_000.5


@pytest.fixture
def worker(database):
    """One of the gateway's: its state, and what writes it."""
    with database.session() as session:
        instances.add(session, [config("a")], author=AUTHOR)
    state = State(clock=lambda: NOW)
    return state, Syncer(
        database,
        state,
        Snapshots(database),
        interval_seconds=60,
        retention_days=1,
        clock=lambda: NOW,
    )


@pytest.fixture
def seen(database):
    state = State(clock=lambda: NOW)
    onlooker = Onlooker(database, Snapshots(database), state, clock=lambda: NOW)

    def look():
        onlooker.look()
        return state.view("a")

    return look


def test_it_sees_what_a_worker_wrote_and_what_that_adds(worker, seen):
    state, syncer = worker
    for requests in (1, 2):
        reservation = state.start(serving(config("a")), call(reserved_tokens=100))
        state.finish(reservation, Ending(verdict.SUCCEEDED, Usage(30, 10)))
        syncer.sync()
        view = seen()
        assert (view.current_rpm, view.current_tpm) == (requests, 40 * requests)
        assert view.totals["total_requests"] == requests
    syncer.stop()


def test_it_writes_nothing(seen, statements, database):
    asked = statements(database)
    seen()
    assert asked
    assert not [s for s in asked if s.startswith(("INSERT", "UPDATE", "DELETE", "BEGIN IMM"))]
