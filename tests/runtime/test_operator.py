import time

import pytest

from proxy.core import verdict as verdicts
from proxy.core.attempts import Ending
from proxy.core.deltas import OPERATOR, WHOLE_INSTANCE, Deltas, Rest
from proxy.core.refusal import Refusal
from proxy.core.verdict import Verdict
from proxy.runtime.operator import OperatorHand
from proxy.runtime.state import State
from proxy.runtime.verify import Check
from proxy.store import states
from proxy.store.db import Database, StoreUnavailable
from tests.builders import MODEL, VAULT, call, config, serving

A = config("a")
FAILED = Ending(verdicts.FAILED, error="it broke off its answer")
THROTTLED = Ending(Verdict("throttled", rest_seconds=100.0), error="429: slow")
HOUR = 3600.0


@pytest.fixture
def state():
    return State()


@pytest.fixture
def operator(database, state):
    return OperatorHand(database, state)


def measure(state, *endings):
    """Attempts that ended so, all begun before the first ended."""
    reservations = [state.start(serving(A), call()) for _ in endings]
    for reservation, ending in zip(reservations, endings, strict=True):
        state.finish(reservation, ending)


def write(database, state):
    """What a worker's syncer does, and what it then sees."""
    with database.write() as connection:
        states.add(connection, state.take())
        state.merge(states.read(connection, time.time()))


def stored(database):
    with database.read() as connection:
        return states.read(connection, time.time())


def test_clearing_shows_at_once_and_in_the_database(database, state, operator):
    measure(state, FAILED, THROTTLED)
    write(database, state)
    assert state.view("a").totals["error_count"] == 2
    operator.clear_errors("a")
    view = state.view("a")
    assert (view.status, view.last_error, view.last_error_time) == ("healthy", None, None)
    assert (view.totals["error_count"], view.totals["total_requests"]) == (0, 2)
    assert stored(database).rests == {}
    assert stored(database).instances["a"].totals["error_count"] == 0


def test_clearing_reaches_the_other_workers(database, state, operator):
    other = State()
    measure(other, FAILED, THROTTLED)
    write(database, other)
    operator.clear_errors("a")
    write(database, other)
    view = other.view("a")
    assert (view.status, view.last_error, view.totals["error_count"]) == ("healthy", None, 0)


@pytest.mark.parametrize("hand", [OperatorHand.clear_errors, lambda o, n: o.set_rest(n, None)])
def test_a_worker_that_writes_later_brings_no_rest_back(hand, database, state, operator):
    other = State()
    measure(other, FAILED, THROTTLED)
    hand(operator, "a")
    write(database, other)
    write(database, state)
    for worker in (state, other):
        assert (worker.view("a").status, worker.view("a").rests) == ("healthy", {})


def test_what_others_measured_since_a_clearing_stays_when_a_sync_was_faster(
    database, state, operator, monkeypatch
):
    measure(state, FAILED)
    write(database, state)
    clear = state.clear

    def late(*arguments):
        other = State()
        measure(other, FAILED)
        write(database, other)
        write(database, state)
        clear(*arguments)

    monkeypatch.setattr(state, "clear", late)
    operator.clear_errors("a")
    view = state.view("a")
    assert (view.totals["error_count"], view.last_error) == (1, FAILED.error)


def test_what_is_measured_after_a_clearing_counts(database, state, operator):
    operator.clear_errors("a")
    measure(state, THROTTLED)
    write(database, state)
    view = state.view("a")
    assert (view.status, view.totals["error_count"]) == ("rate_limited", 1)


@pytest.mark.parametrize("seconds", [10.0, HOUR])  # shorter and longer than the present one
def test_a_rest_is_set_instead_of_any_other(seconds, database, state, operator):
    measure(state, THROTTLED)
    write(database, state)
    until = time.time() + seconds
    operator.set_rest("a", until)
    assert {d: r.until for d, r in state.view("a").rests.items()} == {WHOLE_INSTANCE: until}
    write(database, state)
    (rest,) = stored(database).rests.values()
    assert (rest.until, rest.reason) == (until, OPERATOR)
    assert {d: r.until for d, r in state.view("a").rests.items()} == {WHOLE_INSTANCE: until}


def test_a_rest_reaches_the_other_workers(database, state, operator):
    other = State()
    until = time.time() + HOUR
    operator.set_rest("a", until)
    write(database, other)
    assert isinstance(other.start(serving(A), call()), Refusal)
    assert other.view("a").rests[WHOLE_INSTANCE].until == until


def test_a_rest_is_ended(database, state, operator):
    operator.set_rest("a", time.time() + HOUR)
    operator.set_rest("a", None)
    assert state.view("a").status == "healthy"
    assert stored(database).rests == {}
    write(database, state)
    assert state.view("a").status == "healthy"


def test_ending_a_rest_leaves_the_errors(database, state, operator):
    measure(state, THROTTLED)
    write(database, state)
    operator.set_rest("a", None)
    view = state.view("a")
    assert (view.rests, view.last_error, view.totals["error_count"]) == ({}, "429: slow", 1)


@pytest.mark.parametrize(
    "hand",
    [
        lambda o: o.clear_errors("a"),
        lambda o: o.set_rest("a", None),
        lambda o: o.set_rest("a", time.time() + HOUR),
    ],
)
def test_what_could_not_be_written_is_not_done_here_either(hand, state, tmp_path):
    measure(state, THROTTLED)
    empty = Database(f"sqlite:///{tmp_path}/empty.db", VAULT)
    with pytest.raises(StoreUnavailable):
        hand(OperatorHand(empty, state))
    empty.dispose()
    assert set(state.view("a").rests) == {MODEL}
    assert state.view("a").last_error == "429: slow"


WELL = Check("deployment", ok=True, detail="Answered.", deployment="x")
NOT_WELL = Check("deployment", ok=False, detail="404", deployment="y")


def test_what_was_found_well_ends_rests_that_a_person_had_to_mend_and_no_others(
    operator, database, state
):
    other, now = State(), time.time()
    deltas = Deltas()
    for place, reason in (
        (WHOLE_INSTANCE, "misconfigured"),
        ("x", "no_deployment"),
        ("y", "no_deployment"),
        ("z", "throttled"),
    ):
        deltas.add_rest(("a", place), Rest(now + 100, reason, now))
    with database.write() as connection:
        states.add(connection, deltas)
    for each in (state, other):
        each.merge(stored(database))
    assert operator.end_misconfigured("a", [NOT_WELL]) is False
    assert operator.end_misconfigured("a", [WELL, NOT_WELL]) is True
    assert sorted(state.view("a").rests) == ["y", "z"]
    other.merge(stored(database))
    assert sorted(other.view("a").rests) == ["y", "z"]
    assert operator.end_misconfigured("a", [WELL]) is False


def test_what_was_found_well_has_a_closed_breaker_in_all_workers(operator, database, state):
    measure(state, *[FAILED] * 5)
    write(database, state)
    other = State()
    other.merge(stored(database))
    assert other.view("a").breaker == state.view("a").breaker == "open"
    assert operator.end_misconfigured("a", [WELL]) is True
    other.merge(stored(database))
    assert other.view("a").breaker == state.view("a").breaker == "closed"
