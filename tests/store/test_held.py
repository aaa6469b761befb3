from copy import copy

import pytest
from sqlalchemy import select

from proxy.core.deltas import Deltas, LastError
from proxy.store import held, states, usage
from proxy.store.held import ABANDONED_SECONDS, HELD_SECONDS, Held, fold_abandoned, fold_all
from proxy.store.models import HeldCountsRow

NOW = 1_700_000_000.0
NOTHING = Deltas()


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(held, "FEW_ROWS", 2)


def measured(*names, at=NOW, **more):
    deltas = Deltas()
    for name in names:
        deltas.add_totals(name, {"total_requests": 1, **more})
        deltas.note(name, last_used=at)
        deltas.add_usage((60, name, "gpt-4o", "app"), {"attempts": 1, **more})
        deltas.add_window((int(at), name, "gpt-4o"), 10, 1)
    return deltas


def exchange(database, process, deltas, now, *, fails=False):
    """One transaction: what it adds to the tables, and the totals that wait after it."""
    with database.write() as connection:
        added = process.exchange(connection, deltas, now)
        waiting = process.waiting(connection)
        if fails:
            raise ZeroDivisionError
    return added, process.settled(waiting)


def count(database):
    with database.read() as connection:
        return len(connection.execute(select(HeldCountsRow.number)).all())


def requests(deltas):
    return {name: counts["total_requests"] for name, counts in deltas.totals.items()}


def test_few_rows_go_to_their_tables_at_once(database):
    few = measured("a", "b")
    assert exchange(database, Held(), few, NOW) == (few, [])
    assert count(database) == 0


def test_many_wait_but_for_what_others_decide_by(database):
    many = measured("a", "b", "c")
    many.errors["c"] = LastError("boom", NOW)
    added, waiting = exchange(database, Held(), many, NOW)
    assert (requests(added), added.usage) == ({"c": 1}, {})
    assert (added.windows, added.errors) == (many.windows, many.errors)
    assert [list(totals) for totals in waiting] == [["a", "b"]]
    assert many.totals.keys() == {"a", "b", "c"}
    assert count(database) == 1


@pytest.mark.parametrize("rows", ["usage", "totals"])
def test_many_rows_of_either_wait(rows, database):
    many = measured("a", "b", "c")
    setattr(many, "totals" if rows == "usage" else "usage", {})
    exchange(database, Held(), many, NOW)
    assert count(database) == 1


def test_sums_of_what_waited_and_of_the_round_are_added_after_a_few_seconds(database):
    process = Held()
    exchange(database, process, measured("a", "b", "c"), NOW)
    exchange(database, process, measured("a", "b", "d", at=NOW + 1, errors=2), NOW + 1)
    assert not process.is_due(NOW + HELD_SECONDS - 0.01)
    assert process.is_due(NOW + HELD_SECONDS)
    added, waiting = exchange(database, process, measured("a"), NOW + HELD_SECONDS)
    assert requests(added) == {"a": 3, "b": 2, "c": 1, "d": 1}
    assert added.usage[60, "a", "gpt-4o", "app"] == {"attempts": 3, "errors": 2}
    assert added.moments["a"] == {"last_used": NOW + 1}
    assert (waiting, count(database), bool(process)) == ([], 0, False)


def test_a_clock_that_was_set_back_lets_nothing_wait(database):
    process = Held()
    exchange(database, process, measured("a", "b", "c"), NOW)
    assert process.is_due(NOW - 1)


def test_a_transaction_that_failed_changes_nothing(database):
    process, many = Held(), measured("a", "b", "c")
    exchange(database, process, many, NOW)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            exchange(database, process, many, NOW + HELD_SECONDS, fails=True)
        assert (count(database), bool(process)) == (1, True)
    added, waiting = exchange(database, process, many, NOW + HELD_SECONDS)
    assert (requests(added), waiting) == ({"a": 2, "b": 2, "c": 2}, [])


def test_of_very_much_the_oldest_rows_are_added_and_the_others_later(database, monkeypatch):
    monkeypatch.setattr(held, "MOST_ROWS", 4)
    process, found = Held(), []
    for number in range(4):
        exchange(database, process, measured(*(f"{number}{c}" for c in "abc")), NOW + number)
    process.end()
    while process:
        added, waiting = exchange(database, process, NOTHING, NOW)
        left = {name[0] for totals in waiting for name in totals}
        found.append((sorted({name[0] for name in added.totals}), sorted(left)))
    assert found == [(["0", "1"], ["2", "3"]), (["2", "3"], [])]


def test_at_the_end_nothing_waits(database):
    process = Held()
    process.end()
    many = measured("a", "b", "c")
    assert exchange(database, process, many, NOW) == (many, [])


def test_what_the_dead_left_is_taken_once_and_what_waits_of_the_living_is_left(database):
    dead, living = Held(), Held()
    exchange(database, dead, measured("a", "b", "c"), NOW - ABANDONED_SECONDS - 1)
    exchange(database, living, measured("d", "e", "f"), NOW)
    with database.write() as connection:
        assert requests(fold_abandoned(connection, NOW)) == {"a": 1, "b": 1, "c": 1}
        assert not fold_abandoned(connection, NOW)
    assert count(database) == 1


def test_who_was_not_dead_adds_nothing_of_it_again(database):
    process, many = Held(), measured("a", "b", "c")
    exchange(database, process, many, NOW)
    with database.write() as connection:
        assert fold_abandoned(connection, NOW + ABANDONED_SECONDS + 1)
    added, waiting = exchange(database, process, NOTHING, NOW + HELD_SECONDS)
    assert (bool(added), waiting) == (False, [])


def test_what_lies_in_the_future_is_of_a_clock_that_was_set_back(database):
    exchange(database, Held(), measured("a", "b", "c"), NOW)
    with database.write() as connection:
        assert not fold_abandoned(connection, NOW - 1)
        assert fold_abandoned(connection, NOW - ABANDONED_SECONDS - 1)


def test_processes_do_not_take_each_others_though_they_come_of_one(database):
    one = Held()
    two = copy(one)  # as a fork does
    for process in (one, two):
        process.begin()
        exchange(database, process, measured("a", "b", "c"), NOW)
    added, _ = exchange(database, one, NOTHING, NOW + HELD_SECONDS)
    assert (requests(added)["a"], count(database), bool(two)) == (1, 1, True)


def test_who_begins_again_with_rows_of_its_own_still_folds_them(database):
    process = Held()
    exchange(database, process, measured("a", "b", "c"), NOW)
    process.begin()
    added, _ = exchange(database, process, NOTHING, NOW + HELD_SECONDS)
    assert requests(added)["a"] == 1


def test_where_no_gateway_runs_all_can_be_added(database):
    exchange(database, Held(), measured("a", "b", "c"), NOW)
    with database.write() as connection:
        deltas = fold_all(connection)
        states.add(connection, deltas)
        usage.add(connection, deltas)
        assert sum(row["attempts"] for row in usage.totals(connection).values()) == 3
        assert not fold_all(connection)
