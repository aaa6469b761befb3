import pytest

from proxy.core import verdict
from proxy.core.attempts import Ending
from proxy.core.types import Usage
from proxy.runtime.onlooker import Onlooker
from proxy.runtime.snapshot import Snapshots
from proxy.runtime.state import State
from proxy.store import instances, states
from tests.builders import AUTHOR, call, config, serving

NOW = 1_700_000_000.5


@pytest.fixture
def work(database):
    """A function that asks the instance once, as one of the gateway's workers does, and writes
    what was measured."""
    with database.session() as session:
        instances.add(session, [config("a")], author=AUTHOR)
    state = State(clock=lambda: NOW)

    def once():
        reservation = state.start(serving(config("a")), call(reserved_tokens=100))
        state.finish(reservation, Ending(verdict.SUCCEEDED, Usage(30, 10)))
        with database.write() as connection:
            states.add(connection, state.take())

    return once


@pytest.fixture
def seen(database):
    state = State(clock=lambda: NOW)
    onlooker = Onlooker(database, Snapshots(database), state, clock=lambda: NOW)

    def look():
        onlooker.look()
        return state.view("a")

    return look


def test_it_sees_what_a_worker_wrote_and_what_that_adds(work, seen):
    for requests in (1, 2):
        work()
        view = seen()
        assert (view.current_rpm, view.current_tpm) == (requests, 40 * requests)
        assert view.totals["total_requests"] == requests


def test_it_writes_nothing(seen, statements, database):
    asked = statements(database)
    seen()
    assert asked
    assert not [s for s in asked if s.startswith(("INSERT", "UPDATE", "DELETE", "BEGIN IMM"))]
