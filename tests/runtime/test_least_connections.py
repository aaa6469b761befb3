import multiprocessing

import pytest

from proxy.runtime.least_connections import TAKES_NONE, LeastConnections


@pytest.fixture
def least():
    """With three rows; this worker's is the last."""
    made = LeastConnections(3)
    made.use_row(2)
    return made


def other(least, row, count):
    least.use_row(row)
    least.note(count)
    least.use_row(2)


def test_alone_nobody_else_has_fewer(least):
    assert not least.is_another(0)
    least.note(50)
    assert not least.is_another(50)


@pytest.mark.parametrize(
    ("count", "fewer", "is_another"),
    [
        (1, 0, False),
        (2, 0, True),
        (9, 8, False),
        (10, 8, True),
        (80, 71, False),
        (80, 70, True),
    ],
)
def test_another_one_has_fewer_by_more_than_the_last_few(least, count, fewer, is_another):
    other(least, 0, 1_000)
    other(least, 1, fewer)
    assert least.is_another(count) is is_another


def test_one_who_takes_none_is_no_other(least):
    other(least, 0, 0)
    assert least.is_another(10)
    other(least, 0, TAKES_NONE)
    assert not least.is_another(10)


def test_a_dead_one_is_no_other(least):
    other(least, 0, 0)
    other(least, 1, 0)
    least.free_row(0)
    assert least.is_another(10)
    least.free_row(1)
    assert not least.is_another(10)


def test_one_without_a_row_sees_others_and_is_not_seen(least):
    other(least, 0, 3)
    least.use_row(None)
    least.note(0)
    least.use_row(2)
    assert not least.is_another(4)
    assert least.is_another(5)


def test_what_one_process_notes_another_sees(least):
    least.use_row(0)
    child = multiprocessing.get_context("fork").Process(target=least.note, args=(1,))
    child.start()
    child.join()
    least.use_row(2)
    assert least.is_another(3)
