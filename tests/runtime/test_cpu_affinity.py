import os

import pytest

from proxy.runtime.cpu_affinity import free_number, run_as_the_first, run_on, share


@pytest.mark.parametrize(
    "cores, workers, shares",
    [
        ({0, 1}, 2, [{0}, {1}]),
        ({0, 1, 2, 3}, 2, [{0, 2}, {1, 3}]),
        ({0, 1, 2}, 2, [{0, 2}, {1}]),
        ({4, 6}, 2, [{4}, {6}]),  # as `taskset` and containers leave them
        ({0, 1}, 4, [{0}, {1}, {0}, {1}]),
        ({0}, 2, [{0}, {0}]),
        ({0, 1, 2}, 1, [{0, 1, 2}]),
    ],
)
def test_each_core_is_somebodys(cores, workers, shares):
    assert [share(cores, number, workers) for number in range(workers)] == shares


def test_no_core_is_left_out_and_none_has_two_workers_while_there_are_enough():
    for cores in range(1, 20):
        for workers in range(1, cores + 1):
            shares = [share(range(cores), number, workers) for number in range(workers)]
            assert sorted(core for each in shares for core in each) == list(range(cores))


@pytest.mark.parametrize(
    "taken, number",
    [
        ([], 0),
        ([0], 1),
        ([1], 0),  # its worker was killed
        ([0, 1], 0),  # a reload: the new ones come before the old ones go
        ([0, 1, 0], 1),
        ([1, 0, 0], 1),
        ([0, 1, 1], 0),  # one more was asked for, and one of the others was killed
        ([0, 1, 0, 1], 0),  # a second reload, before the first has ended
        ([0, 1, 0, 1, 0], 1),
    ],
)
def test_the_next_worker_goes_where_none_is_of_those_who_stay(taken, number):
    assert free_number(taken, 2) == number


def test_one_that_is_alone_has_the_only_number():
    assert [free_number(taken, 1) for taken in ([], [0], [0, 0])] == [0, 0, 0]


def test_a_thread_runs_where_it_is_told_to(monkeypatch):
    asked = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda *given: asked.append(given))
    run_on({1})
    assert asked == [(0, {1})]


def test_where_the_system_does_not_let_it_all_is_as_before():
    before = os.sched_getaffinity(0)
    run_on({100_000})  # there is no such core
    assert os.sched_getaffinity(0) == before


def test_nor_where_it_does_not_say_where_the_first_one_may(monkeypatch):
    def refused(_process):
        raise PermissionError

    before = os.sched_getaffinity(0)
    with monkeypatch.context() as here:
        here.setattr(os, "sched_getaffinity", refused)
        run_as_the_first()
    assert os.sched_getaffinity(0) == before
