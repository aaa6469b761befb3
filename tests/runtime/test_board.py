import copy
import os

import pytest

from proxy.runtime.board import MAX_BYTES, Board


def workers(number):
    """As after forks: the same memory, and a row for each."""
    board = Board(number)
    each = [copy.copy(board) for _ in range(number)]
    for row, worker in enumerate(each):
        worker.use_row(row)
    return each


def read(worker):
    return list(worker.others())


def test_each_reads_what_the_others_wrote_and_not_its_own():
    one, two, three = workers(3)
    one.write(b"one", 5.0)
    two.write(b"two" * 1000, 5.0)
    assert read(one) == [b"two" * 1000]
    assert read(three) == [b"one", b"two" * 1000]


def test_what_is_written_replaces_what_was_there():
    one, two = workers(2)
    one.write(b"a long text", 5.0)
    one.write(b"short", 6.0)
    assert read(two) == [b"short"]


def test_the_latest_moment_of_all_rows_is_known_to_all():
    one, two = workers(2)
    assert one.until == 0.0
    one.write(b"", 5.0)
    two.write(b"", 9.0)
    assert (one.until, two.until) == (9.0, 9.0)
    two.write(b"", 3.0)
    assert one.until == 5.0


def test_who_takes_the_row_of_one_that_ended_begins_with_nothing():
    one, two = workers(2)
    two.write(b"two", 9.0)
    assert read(one) == [b"two"]
    copy.copy(two).use_row(1)
    assert (read(one), one.until) == ([], 0.0)


def test_what_is_being_written_while_it_is_read_counts_as_nothing():
    one, two = workers(2)
    one.write(b"one", 5.0)
    at = one._memory.find(b"one")
    one._memory[at : at + 1] = b"O"
    assert read(two) == []
    one._memory[at - 8 : at - 4] = b"\xff\xff\xff\xff"  # its length
    assert read(two) == []


def test_one_that_has_no_row_reads_and_does_not_write():
    one, two = workers(2)
    late = copy.copy(one)
    late.use_row(None)
    late.write(b"late", 9.0)
    one.write(b"one", 5.0)
    assert read(late) == [b"one"]
    assert (read(one), read(two)) == ([], [b"one"])


def test_a_row_takes_so_much_and_the_next_begins_behind_it():
    one, two = workers(2)
    one.write(b"x" * MAX_BYTES, 5.0)
    two.write(b"two", 5.0)
    assert read(two) == [b"x" * MAX_BYTES]
    assert read(one) == [b"two"]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_what_a_forked_process_wrote_is_read_here():
    board = Board(2)
    board.use_row(1)
    child = os.fork()
    if not child:
        board.write(b"from the child", 5.0)
        os._exit(0)
    board.use_row(0)
    assert os.waitpid(child, 0)[1] == 0
    assert read(board) == [b"from the child"]


def test_all_rows_are_read_with_their_numbers_and_those_of_the_dead_are_cleared():
    one, _, three = workers(3)
    one.write(b"one", 5.0)
    three.write(b"three", 5.0)
    assert list(one.all()) == [(0, b"one"), (2, b"three")]
    one.clear(2)
    assert list(one.all()) == [(0, b"one")]


def test_rows_may_be_longer():
    board = Board(2, 100_000)
    board.use_row(1)
    board.write(b"x" * board.max_bytes, 5.0)
    assert list(board.all()) == [(1, b"x" * board.max_bytes)]
