from dataclasses import replace

import pytest
from sqlalchemy import update

from proxy.core.breaker import CLOSED, BreakerNews
from proxy.core.deltas import TOTALS, Deltas, LastError, Rest, SharedInstance
from proxy.store import states
from proxy.store.models import StateWriteRow
from tests.builders import config

NOW = 1_700_000_000.5
SECOND = int(NOW)


def deltas(**totals):
    made = Deltas()
    if totals:
        made.add_totals("a", totals)
    return made


def resting(until, reason="throttled", set_at=NOW, deployment="gpt", name="a"):
    made = Deltas()
    made.add_rest((name, deployment), Rest(until, reason, set_at))
    return made


def noted(**moments):
    made = Deltas()
    made.note("a", **moments)
    return made


def failed(message, at):
    made = deltas(error_count=1, total_requests=1)
    made.note("a", last_failure_time=at)
    made.errors["a"] = LastError(message, at)
    return made


def window(tokens, requests=1, second=SECOND, deployment="gpt", name="a"):
    made = Deltas()
    made.add_window((second, name, deployment), tokens, requests)
    return made


@pytest.fixture
def add(database):
    """Writes each worker's deltas, one after the other."""

    def write(*workers):
        for each in workers:
            with database.write() as connection:
                states.add(connection, each)

    return write


@pytest.fixture
def shared(database):
    def read(now=NOW):
        with database.read() as connection:
            return states.read(connection, now)

    return read


@pytest.fixture
def act(database):
    """Calls a function of `states` in a write transaction."""

    def call(function, *arguments):
        with database.write() as connection:
            function(connection, *arguments)

    return call


def test_before_anything_was_measured_there_is_nothing(shared):
    found = shared()
    assert (found.instances, found.rests, found.windows) == ({}, {}, [])


def test_no_deltas_write_nothing(add, shared):
    add(Deltas())
    assert shared().instances == {}


# Totals.


@pytest.mark.parametrize("total", TOTALS)
def test_totals_of_two_workers_add_up(add, shared, total):
    add(deltas(**{total: 3}), deltas(**{total: 4}))
    assert shared().instances["a"].totals == dict.fromkeys(TOTALS, 0) | {total: 7}


def test_totals_are_those_of_one_instance(add, shared):
    one, other = deltas(total_requests=1), Deltas()
    other.add_totals("b", {"total_requests": 5})
    one.add(other)
    add(one, other)
    assert {n: i.totals["total_requests"] for n, i in shared().instances.items()} == {
        "a": 1,
        "b": 10,
    }


def test_totals_outgrow_32_bits(add, shared):
    add(*[deltas(total_tokens_served=2**32)] * 2)
    assert shared().instances["a"].totals["total_tokens_served"] == 2**33


# Moments and errors.


@pytest.mark.parametrize("moment", states.MOMENTS)
@pytest.mark.parametrize("order", [(5.5, 7.25), (7.25, 5.5)])
def test_of_two_workers_moments_the_later_is_kept(add, shared, moment, order):
    add(*[noted(**{moment: at}) for at in order])
    assert getattr(shared().instances["a"], moment) == 7.25


def test_a_moment_that_was_not_measured_leaves_the_one_that_was(add, shared):
    add(
        noted(last_used=5.0, last_success_time=5.0), noted(last_used=6.0), deltas(error_count=1)
    )
    found = shared().instances["a"]
    assert (found.last_used, found.last_success_time, found.last_failure_time) == (
        6.0,
        5.0,
        None,
    )


@pytest.mark.parametrize("order", [("old", "new"), ("new", "old")])
def test_of_two_workers_errors_the_later_is_kept_with_its_moment(add, shared, order):
    at = {"old": 5.0, "new": 6.0}
    add(*[failed(message, at[message]) for message in order])
    found = shared().instances["a"]
    assert (found.last_error, found.last_error_time) == ("new", 6.0)
    assert found.totals["error_count"] == 2


def test_a_success_does_not_take_the_last_error_away(add, shared):
    add(failed("429: slow down", 5.0), deltas(total_requests=1))
    assert shared().instances["a"].last_error == "429: slow down"


# Rests.


@pytest.mark.parametrize("order", [("short", "long"), ("long", "short")])
def test_of_two_workers_rests_the_longer_is_kept_whole(add, shared, order):
    rests = {
        "short": resting(NOW + 5, "throttled", NOW),
        "long": resting(NOW + 9, "failed", NOW - 1),
    }
    add(*[rests[which] for which in order])
    assert shared().rests == {("a", "gpt"): Rest(NOW + 9, "failed", NOW - 1)}


def test_rests_are_those_of_one_deployment(add, shared):
    add(
        resting(NOW + 1, deployment="gpt"),
        resting(NOW + 2, deployment=""),
        resting(NOW + 3, name="b"),
    )
    assert {place: rest.until - NOW for place, rest in shared().rests.items()} == {
        ("a", "gpt"): 1.0,
        ("a", ""): 2.0,
        ("b", "gpt"): 3.0,
    }


def test_a_rest_is_over_at_its_moment(add, shared):
    add(resting(NOW + 5))
    assert shared(NOW + 4.9).rests
    assert not shared(NOW + 5).rests


def test_a_new_rest_follows_one_that_is_over(add, shared):
    add(resting(NOW - 5), resting(NOW + 1))
    assert shared().rests["a", "gpt"].until == NOW + 1


# Windows.


def added(tokens, requests=1, second=SECOND, deployment="gpt", name="a"):
    """As it is read."""
    return [second, name, deployment, tokens, requests]


def test_windows_of_workers_are_kept_by_second_and_deployment(add, shared):
    add(
        window(10, requests=1),
        window(20, requests=2),
        window(5, requests=1, deployment="mini"),
        window(7, requests=1, second=SECOND - 1),
        window(1000, name="b"),
    )
    assert shared().windows == [
        added(10),
        added(20, requests=2),
        added(5, deployment="mini"),
        added(7, second=SECOND - 1),
        added(1000, name="b"),
    ]


def test_what_was_reserved_too_much_is_taken_back(add, shared):
    add(window(100, requests=1), window(-40, requests=0))
    assert shared().windows == [added(100), added(-40, requests=0)]


def test_only_seconds_not_all_of_which_are_a_minute_old_are_read(add, shared):
    add(*[window(1, second=SECOND - age) for age in (0, 60, 61, 62)])
    assert [second for second, *_ in shared().windows] == [SECOND, SECOND - 60]


def test_old_windows_are_forgotten_and_new_ones_kept(add, shared, act):
    add(window(1, second=SECOND), window(2, second=SECOND - states.KEPT_WINDOW_SECONDS))
    add(window(4, second=SECOND - states.KEPT_WINDOW_SECONDS - 1))
    act(states.forget_old, NOW)
    early, late = (shared(NOW - ago).windows for ago in (110, 0))
    assert [[tokens for *_, tokens, _ in kept] for kept in (early, late)] == [[2], [1]]


def test_what_a_clock_wrote_that_was_set_back_since_is_not_read(add, shared):
    add(window(1, second=SECOND), window(2, second=SECOND + 60), window(4, second=SECOND + 61))
    assert [tokens for *_, tokens, _ in shared().windows] == [1, 2]


# Breakers.


def broken(changed_at, **news):
    made = Deltas()
    made.breakers["a"] = BreakerNews(changed_at=changed_at, **news), config()
    return made


def test_a_breaker_comes_back_as_it_was(add, shared):
    news = BreakerNews(NOW + 4, 4.0, NOW + 60, NOW)
    add(broken(NOW, open_until=NOW + 4, open_seconds=4.0, trial_until=NOW + 60))
    assert shared().instances["a"].breaker == news
    assert shared().instances["a"].totals == dict.fromkeys(TOTALS, 0)


def test_of_an_instance_that_never_failed_it_is_closed(add, shared):
    add(deltas(total_requests=1))
    assert shared().instances["a"].breaker == CLOSED


@pytest.mark.parametrize("at, is_later", [(NOW - 1, False), (NOW, False), (NOW + 1, True)])
def test_the_later_change_of_a_breaker_is_right(at, is_later, add, shared):
    add(broken(NOW, open_until=NOW + 4, open_seconds=4.0))
    add(broken(at))
    assert (shared().instances["a"].breaker.open_until == 0.0) is is_later


def test_clearing_closes_a_breaker_and_late_news_do_not_open_it(add, shared, act):
    add(broken(NOW - 1, open_until=NOW + 4, open_seconds=4.0))
    act(states.clear_rests, "a", NOW)
    assert shared().instances["a"].breaker == BreakerNews(changed_at=NOW)
    add(broken(NOW - 0.5, open_until=NOW + 4))
    assert shared().instances["a"].breaker == BreakerNews(changed_at=NOW)


# The operator's hand.


def test_clearing_voids_errors_and_rests_and_keeps_the_counts(add, shared, act):
    add(failed("boom", NOW - 1), noted(last_used=NOW - 1, last_success_time=NOW - 2))
    add(resting(NOW + 9, set_at=NOW - 1), resting(NOW + 9, set_at=NOW - 1, deployment=""))
    act(states.clear_errors, "a", NOW)
    found = shared()
    assert found.rests == {}
    assert found.instances["a"] == SharedInstance(
        totals=dict.fromkeys(TOTALS, 0) | {"total_requests": 1},
        last_used=NOW - 1,
        last_success_time=NOW - 2,
        cleared_at=NOW,
        breaker=BreakerNews(changed_at=NOW),
    )


def test_clearing_rests_keeps_the_errors(add, shared, act):
    add(failed("boom", NOW - 1), resting(NOW + 9, set_at=NOW - 1))
    act(states.clear_rests, "a", NOW)
    found = shared()
    assert found.rests == {}
    assert found.instances["a"].last_error == "boom"
    assert found.instances["a"].totals["error_count"] == 1
    assert found.instances["a"].last_failure_time is None
    assert found.instances["a"].cleared_at == NOW


@pytest.mark.parametrize("clear", [states.clear_errors, states.clear_rests])
def test_clearing_one_leaves_the_others(add, shared, act, clear):
    one = resting(NOW + 9, name="b", set_at=NOW - 1)
    one.errors["b"] = LastError("boom", NOW - 1)
    add(one, resting(NOW + 9, set_at=NOW - 1))
    before = shared()
    act(clear, "a", NOW)
    assert shared().instances["b"] == before.instances["b"]
    assert set(shared().rests) == {("b", "gpt")}


@pytest.mark.parametrize("clear", [states.clear_errors, states.clear_rests])
def test_clearing_what_was_never_used_is_noted_for_the_workers(shared, act, clear):
    act(clear, "a", NOW)
    assert shared().instances["a"].cleared_at == NOW


def test_what_happens_after_clearing_counts_again(add, shared, act):
    act(states.clear_errors, "a", NOW)
    add(failed("again", NOW + 1), resting(NOW + 9, set_at=NOW + 1))
    found = shared()
    assert found.instances["a"].last_error == "again"
    assert found.instances["a"].last_failure_time == NOW + 1
    assert set(found.rests) == {("a", "gpt")}


def test_a_worker_that_writes_late_does_not_bring_back_what_was_cleared(add, shared, act):
    late = failed("old", NOW - 1)
    late.note("a", last_used=NOW - 1)
    late.add(resting(NOW + 9, set_at=NOW - 1))
    late.add(resting(NOW + 9, set_at=NOW, deployment=""))
    act(states.clear_errors, "a", NOW)
    cleared = shared()
    add(late)
    found = shared()
    assert found.rests == {}
    assert found.instances["a"] == replace(
        cleared.instances["a"],
        last_used=NOW - 1,
        totals=dict.fromkeys(TOTALS, 0) | {"total_requests": 1},
    )


def test_of_errors_before_and_after_clearing_all_count(add, shared, act):
    late = failed("old", NOW - 1)
    late.add(failed("new", NOW + 1))
    act(states.clear_errors, "a", NOW)
    add(late)
    found = shared().instances["a"]
    assert (found.totals["error_count"], found.last_error) == (2, "new")


def test_a_late_rest_does_not_hide_one_that_was_set_after_clearing(add, shared, act):
    act(states.clear_rests, "a", NOW)
    add(resting(NOW + 2, set_at=NOW + 1))
    add(resting(NOW + 100, set_at=NOW - 1))
    assert shared().rests == {("a", "gpt"): Rest(NOW + 2, "throttled", NOW + 1)}


# One instance.


def test_one_instance_is_read_as_all_are(database, add, shared):
    add(failed("boom", NOW), noted(last_used=NOW))
    with database.read() as connection:
        assert states.read_one(connection, "a") == shared().instances["a"]


def test_an_instance_that_was_never_used_has_no_state(database, add):
    add(deltas(total_requests=1))
    with database.read() as connection:
        assert states.read_one(connection, "b") is None


# Only what changed.


@pytest.fixture
def changes(database):
    """What was written since the last look, as a worker sees it."""
    number = None

    def read():
        nonlocal number
        with database.read() as connection:
            found = states.read(connection, NOW, number)
        number = found.number
        return found

    return read


def test_the_first_look_finds_all_and_the_next_what_was_written_since(add, changes):
    add(deltas(total_requests=1), window(10), window(20, second=SECOND - 1, name="b"))
    first = changes()
    assert first.is_whole
    assert first.windows == [added(10), added(20, second=SECOND - 1, name="b")]
    other = deltas(total_requests=2)
    other.add_totals("c", {"total_requests": 1})
    other.add(window(5))
    add(other)
    second = changes()
    assert not second.is_whole
    assert {n: i.totals["total_requests"] for n, i in second.instances.items()} == {
        "a": 3,
        "c": 1,
    }
    assert second.windows == [added(5)]


def test_of_seconds_a_workers_own_write_is_no_change_but_part_of_all(add, database):
    add(window(10), window(20))
    with database.read() as connection:
        changes = states.read(connection, NOW, since=0, mine=2)
        whole = states.read(connection, NOW, since=None, mine=2)
    assert (changes.number, changes.windows) == (2, [added(10)])
    assert whole.windows == [added(10), added(20)]


def test_what_is_committed_while_it_is_read_is_in_the_next_read_alone(database, add):
    """Each statement of PostgreSQL's sees what was committed before it."""
    add(window(10), window(20))
    with database.write() as connection:
        connection.execute(update(StateWriteRow).values(number=1))  # as the first one saw it
        for since in (None, 0):
            found = states.read(connection, NOW, since)
            assert (found.number, found.windows) == (1, [added(10)])


def test_where_nothing_was_written_nothing_is_read(add, changes):
    add(deltas(total_requests=1), window(10))
    changes()
    again = changes()
    assert (again.instances, again.windows, again.is_whole) == ({}, [], False)


def test_rests_are_all_read_each_time(add, changes):
    add(resting(NOW + 5))
    for _ in range(2):
        assert set(changes().rests) == {("a", "gpt")}


@pytest.mark.parametrize(
    "written",
    [deltas(total_requests=1), noted(last_used=NOW), failed("boom", NOW), resting(NOW + 5)],
)
def test_a_write_that_voids_nothing_is_one_number(written, add, changes):
    before = changes().number
    add(written)
    assert changes().number == before + 1


@pytest.mark.parametrize("clear", [states.clear_errors, states.clear_rests])
def test_an_operators_clearing_is_a_change(add, act, changes, clear):
    add(failed("boom", NOW - 1))
    changes()
    act(clear, "a", NOW)
    assert changes().instances["a"].cleared_at == NOW


def test_a_breakers_news_are_a_change(add, changes):
    add(deltas(total_requests=1))
    changes()
    add(broken(NOW, open_until=NOW + 4))
    assert changes().instances["a"].breaker.open_until == NOW + 4


def test_old_windows_that_are_forgotten_are_no_change(add, act, changes):
    add(window(10, second=SECOND - states.KEPT_WINDOW_SECONDS - 1))
    changes()
    act(states.forget_old, NOW)
    assert changes().windows == []


def test_a_database_that_never_had_the_number_is_read_whole(database, add):
    add(deltas(total_requests=1), window(10))
    for since, is_whole in ((1, False), (2, False), (3, True)):
        with database.read() as connection:
            found = states.read(connection, NOW, since)
        assert found.is_whole is is_whole
    assert (set(found.instances), found.windows) == ({"a"}, [added(10)])


def test_what_changed_is_found_without_a_look_at_the_rest(database, statements, changes):
    changes()
    asked = statements(database)
    add_one(database)
    changes()
    reads = [s for s in asked if s.startswith("SELECT") and "number >" in s]
    assert len(reads) == 2
    with database.read() as connection:
        for read in reads:
            (plan,) = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {read}").all()
            assert "SEARCH" in plan[3]
            assert "_write_number" in plan[3] or "INTEGER PRIMARY KEY" in plan[3]


def add_one(database):
    made = deltas(total_requests=1)
    made.add(window(1))
    with database.write() as connection:
        states.add(connection, made)


def test_only_what_an_operator_can_void_is_looked_up(database, statements):
    add_one(database)
    asked = statements(database)
    add_one(database)
    assert not [s for s in asked if s.startswith("SELECT")]


def test_of_more_instances_than_are_asked_for_at_once_all_are_voided(
    database, act, monkeypatch, shared
):
    monkeypatch.setattr(states, "NAMES_AT_ONCE", 2)
    late = Deltas()
    for name in "abcde":
        act(states.clear_rests, name, NOW)
        late.add_rest((name, "gpt"), Rest(NOW + 9, "throttled", NOW - 1))
    act(states.add, late)
    assert shared().rests == {}


def mended(at, deployment="gpt", name="a"):
    made = Deltas()
    made.mend((name, deployment), at)
    return made


@pytest.mark.parametrize("reason", ["misconfigured", "no_deployment"])
def test_what_one_worker_found_mended_refuses_no_other_one(reason, add, shared):
    add(resting(NOW + 300, reason), mended(NOW + 1))
    assert shared().rests == {}


@pytest.mark.parametrize(
    "other",
    [
        resting(NOW + 300, "throttled"),
        resting(NOW + 300, "operator"),
        resting(NOW + 300, "misconfigured", set_at=NOW + 2),
        resting(NOW + 300, "misconfigured", deployment="mini"),
        resting(NOW + 300, "misconfigured", name="b"),
    ],
)
def test_nothing_else_is_over_because_of_it(other, add, shared):
    add(other, mended(NOW + 1))
    assert len(shared().rests) == 1


def test_what_is_refused_again_after_that_rests_again(add, shared):
    again = resting(NOW + 310, "misconfigured", set_at=NOW + 10)
    again.mend(("a", "gpt"), NOW + 5)
    add(resting(NOW + 300, "misconfigured"), again)
    assert shared().rests == {("a", "gpt"): Rest(NOW + 310, "misconfigured", NOW + 10)}


@pytest.mark.parametrize(
    "reason, set_at, kept",
    [
        ("misconfigured", NOW + 1, "operator"),
        ("no_deployment", NOW + 59, "operator"),
        ("misconfigured", NOW + 60, "misconfigured"),
        ("throttled", NOW + 1, "throttled"),
    ],
)
def test_what_refuses_the_gateway_does_not_end_what_a_person_set(
    reason, set_at, kept, add, shared
):
    add(resting(NOW + 60, "operator"), resting(NOW + 300, reason, set_at=set_at))
    assert shared().rests["a", "gpt"].reason == kept
