import copy
from types import SimpleNamespace

import pytest

from proxy.runtime.roster import Entry, Roster


def roster(rows=2, **changes):
    """Of a worker that is at nothing, but for what is given."""
    state = SimpleNamespace(in_flight=lambda: changes.get("in_flight", {}))
    return Roster(
        rows,
        calls=SimpleNamespace(count=changes.get("calls_open", 0), ceiling=512),
        waiting=SimpleNamespace(count=changes.get("calls_waiting", 0)),
        syncer=SimpleNamespace(synced_at=5.0, problem=changes.get("problem")),
        snapshots=SimpleNamespace(current=SimpleNamespace(revision=7)),
        state=state,
    )


def another(worker, row):
    """As a fork of it would be: with the same memory, and another row."""
    other = copy.copy(worker)
    other._board = copy.copy(worker._board)
    other._board.use_row(row)
    return other


IDLE = Entry(0, 512, 0, 5.0, False, 7, {})


def test_a_worker_says_how_it_is_now():
    busy = roster(calls_open=3, calls_waiting=2, in_flight={"a": 3}, problem="It is locked.")
    busy.threads = SimpleNamespace(busy=4, size=528)
    assert busy.read() == {0: Entry(3, 512, 2, 5.0, True, 7, {"a": 3}, 4, 528)}


def test_each_is_known_to_all():
    one = roster(calls_open=1)
    two = another(one, 1)
    two._calls = SimpleNamespace(count=2, ceiling=512)
    one.write()
    assert {row: e.calls_open for row, e in two.read().items()} == {0: 1, 1: 2}


def test_who_died_or_ended_is_in_it_no_more():
    one = roster()
    two = another(one, 1)
    two.write()
    assert set(one.read()) == {0, 1}
    one.free_row(1)
    assert set(one.read()) == {0}
    two.write()
    two.stop()
    assert one.read() == {0: IDLE}


def test_what_one_wrote_last_that_died_is_known_to_who_frees_its_row():
    one = roster()
    two = another(one, 1)
    two._calls = SimpleNamespace(count=9, ceiling=512)
    two.write()
    last = one.free_row(1)
    assert (last and last.calls_open, one.free_row(1)) == (9, None)


def test_of_one_that_said_that_it_ends_there_is_nothing_to_know():
    one = roster()
    two = another(one, 1)
    two.write()
    two.stop()
    assert one.free_row(1) is None


def test_more_names_than_there_is_room_for_are_left_out():
    crowded = roster(in_flight={f"{n}" * 100: 1 for n in range(10_000)})
    assert crowded.read() == {0: IDLE}


@pytest.mark.parametrize("torn, seen", [(1, {0}), (100, set())])
def test_a_row_that_is_being_written_is_read_again(torn, seen, monkeypatch):
    one = roster()
    read, left = one._board._read, [None] * torn
    monkeypatch.setattr(
        one._board, "_read", lambda at: left.pop() if left and at < 100 else read(at)
    )
    assert set(one.read()) == seen
