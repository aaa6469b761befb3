import os

import pytest

from proxy.runtime import cpu_affinity
from proxy.runtime.cpu_affinity import free_number, share


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
        ([0, 0, 1], 1),
    ],
)
def test_the_next_worker_goes_where_fewest_are(taken, number):
    assert free_number(taken, 2) == number


@pytest.fixture
def system(monkeypatch):
    """Two cores, and what was asked of it."""
    asked = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(os, "sched_setaffinity", lambda *given: asked.append(given))
    return asked


def test_a_process_stays_on_its_share(system):
    cpu_affinity.stay(1, 2)
    assert system == [(0, {1})]


def test_where_the_system_does_not_let_it_all_is_as_before(system, monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    cpu_affinity.stay(1, 2)
