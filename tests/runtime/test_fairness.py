import copy

import pytest

from proxy.core.contention import HUNGRY_SECONDS, MEMORY_SECONDS, NOBODY, WANTING_SECONDS
from proxy.runtime import fairness as module
from proxy.runtime.board import MAX_BYTES, Board
from proxy.runtime.fairness import (
    MOST_TELL_SECONDS,
    TELL_SECONDS,
    TELLING_SHARE,
    Fairness,
)
from tests.runtime.world import Clock

SOON = TELL_SECONDS + 0.001


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def workers(clock):
    """Two on one host."""
    boards = [Board(2)]
    boards.append(copy.copy(boards[0]))
    for row, board in enumerate(boards):
        board.use_row(row)
    return [Fairness(board, clock) for board in boards]


def wait(worker, client, *, barred=NOBODY, model="m"):
    worker.wait(model, client, barred, short=True)


def left(worker, client, model="m"):
    seen = worker.contention(model)
    return seen and seen.left_to(client)


def test_while_nobody_wants_more_nothing_is_counted_and_no_lock_is_taken(clock):
    worker = Fairness(clock=clock)
    worker._lock = None
    worker.give("m", "a", 100)
    assert worker.contention("m") is None
    assert worker._competitors == {}


def test_a_calm_worker_looks_at_the_board_only_once_in_a_while(clock):
    looks = []

    class Watched(Board):
        @property
        def until(self):
            looks.append(clock.now)
            return super().until

    worker = Fairness(Watched(), clock)
    began = clock.now
    for at in (began, began + TELL_SECONDS / 2, began + SOON):
        clock.now = at
        worker.contention("m")
        worker.give("m", "a", 100)
    assert looks == [began, began + SOON]


def test_one_that_was_calm_knows_at_once_who_waits_here(clock):
    worker = Fairness(clock=clock)
    assert worker.contention("m") is None
    wait(worker, "b")
    worker.give("m", "a", 100)
    assert worker.contention("m").had == {"a": 100, "b": 0}


def test_from_when_somebody_waits_it_is_known_who_had_how_much(clock):
    worker = Fairness(clock=clock)
    wait(worker, "b")
    worker.give("m", "a", 100)
    assert worker.contention("m").had == {"a": 100, "b": 0}
    assert (left(worker, "a"), left(worker, "b")) == (NOBODY, None)


def test_models_do_not_concern_each_other(clock):
    worker = Fairness(clock=clock)
    wait(worker, "b", model="n")
    worker.give("m", "a", 100)
    assert worker.contention("m") is None
    assert worker.contention("n").had == {"b": 0}


def test_it_is_over_when_nobody_wanted_more_for_a_while(clock):
    worker = Fairness(clock=clock)
    wait(worker, "b")
    clock.now += WANTING_SECONDS - 0.1
    assert worker.contention("m") is not None
    clock.now += 0.1
    worker._lock = None
    assert worker.contention("m") is None


def test_one_that_was_refused_is_remembered_until_it_may_come_back(clock):
    worker = Fairness(clock=clock)
    worker.refuse("m", "b", 60.0, NOBODY, short=True)
    worker.give("m", "a", 100)
    clock.now += 59.9
    worker.give("m", "a", 100)
    assert left(worker, "a") is None
    clock.now += 0.1
    assert left(worker, "a") == NOBODY
    clock.now += HUNGRY_SECONDS
    assert left(worker, "a") is None


def test_who_is_hungry_in_one_worker_is_left_room_to_in_the_other(clock, workers):
    here, there = workers
    wait(here, "b", barred=frozenset("x"))
    there.give("m", "a", 100)
    clock.now += SOON
    assert left(there, "a") == {"x"}


def test_what_a_client_had_in_all_workers_counts_together(clock, workers):
    here, there = workers
    wait(here, "b")
    here.give("m", "a", 30)
    there.give("m", "a", 20)
    there.give("m", "b", 40)
    for worker in workers * 2:  # tells, then hears
        clock.now += SOON
        worker.contention("m")
    assert here.contention("m").had == pytest.approx({"a": 50, "b": 40}, rel=0.05)
    assert there.contention("m").had == pytest.approx({"a": 50, "b": 40}, rel=0.05)


def test_between_two_exchanges_a_view_is_kept(clock):
    worker = Fairness(clock=clock)
    wait(worker, "b")
    seen = worker.contention("m")
    assert worker.contention("m") is seen
    clock.now += SOON
    assert worker.contention("m") is not seen


@pytest.mark.parametrize(
    "takes_seconds, every_seconds",
    [
        (0.0, TELL_SECONDS),
        (TELL_SECONDS * TELLING_SHARE / 2, TELL_SECONDS),
        (0.005, 0.1),
        (1.0, MOST_TELL_SECONDS),
    ],
)
def test_what_takes_long_to_exchange_is_exchanged_less_often(
    takes_seconds, every_seconds, clock
):
    class Slow(Board):
        def others(self):
            clock.now += takes_seconds
            return super().others()

    worker = Fairness(Slow(), clock)
    began = clock.now
    wait(worker, "b")
    clock.now = began + every_seconds - 0.001
    seen = worker.contention("m")
    clock.now = began
    assert worker.contention("m") is seen
    clock.now = began + every_seconds + 0.001
    assert worker.contention("m") is not seen


def test_clients_of_whom_nothing_is_to_be_said_any_more_are_forgotten(clock):
    worker = Fairness(clock=clock)
    wait(worker, "b")
    worker.give("m", "a", 100)
    wait(worker, "c", model="n")
    clock.now += MEMORY_SECONDS + 1
    wait(worker, "d", model="o")
    assert set(worker._competitors) == {"o"}


def test_one_client_may_be_forgotten_while_others_of_its_model_are_not(clock):
    worker = Fairness(clock=clock)
    wait(worker, "b")
    clock.now += MEMORY_SECONDS + 1
    wait(worker, "c")
    assert set(worker.contention("m").had) == {"c"}


def test_of_too_many_models_and_clients_all_are_forgotten(clock, monkeypatch):
    monkeypatch.setattr(module, "MAX_COMPETITORS", 10)
    worker = Fairness(clock=clock)
    for number in range(100):
        wait(worker, f"client-{number}", model=f"model-{number % 3}")
        assert sum(map(len, worker._competitors.values())) <= 10


def test_who_comes_when_all_are_forgotten_is_the_first_that_is_known(clock, monkeypatch):
    monkeypatch.setattr(module, "MAX_COMPETITORS", 2)
    worker = Fairness(clock=clock)
    for client, model in (("a", "m"), ("b", "n"), ("c", "n")):
        wait(worker, client, model=model)
    clock.now += SOON
    assert (left(worker, "a"), worker.contention("m")) == (None, None)
    assert set(worker.contention("n").had) == {"c"}


def test_of_many_clients_the_others_hear_of_those_who_wanted_more_last(clock, workers):
    here, there = workers
    for number in range(500):
        clock.now += 0.001
        wait(here, f"client-{number}" + "x" * 200)
    clock.now += SOON
    here.contention("m")
    there.contention("m")
    heard = there.contention("m").had
    assert 50 <= len(heard) < MAX_BYTES / 200
    assert "client-499" + "x" * 200 in heard


def test_a_worker_that_follows_another_in_its_row_knows_nothing_of_it(clock, workers):
    here, there = workers
    wait(here, "b")
    clock.now += SOON
    assert there.contention("m") is not None
    here._board.use_row(0)
    clock.now += SOON
    assert there.contention("m") is None
