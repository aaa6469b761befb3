import os
import select

import pytest

from proxy.server.method_queue import MethodQueue


@pytest.fixture
def queue():
    made = MethodQueue()
    made.init()
    yield made
    made.close()


def test_what_is_deferred_wakes_the_loop_and_is_done_there(queue):
    done = []
    queue.defer(done.append, 1)
    assert select.select([queue.fileno()], [], [], 0)[0]
    queue.run_callbacks(None)
    assert done == [1]


def test_when_it_is_closed_nothing_is_written_to_a_file_that_was_opened_since(queue, tmp_path):
    """Whose number may be one of the pipe's: the system gives the lowest that is free."""
    numbers = {queue._read_fd, queue._write_fd}
    queue.close()
    path = tmp_path / "proxy.db"
    path.write_bytes(b"SQLite format 3")
    opened = [os.open(path, os.O_RDWR) for _ in range(max(numbers) + 1)]
    try:
        queue.defer(print)
        assert path.read_bytes() == b"SQLite format 3"
        assert numbers & set(opened)  # they were free to be taken
    finally:
        for number in opened:
            os.close(number)


def test_a_thread_that_was_about_to_write_writes_to_no_other_file_either(queue, tmp_path):
    number = queue._write_fd
    queue.close()
    with pytest.raises(BrokenPipeError):
        os.write(number, b"\0")


def test_closed_twice_it_closes_nobody_elses_file(queue):
    number = queue.fileno()
    queue.close()
    other = os.open(os.devnull, os.O_RDONLY)
    assert other == number
    queue.close()
    os.close(other)


def test_who_holds_it_no_more_has_nothing_open():
    made = MethodQueue()
    made.init()
    numbers = made._read_fd, made._write_fd
    del made
    for number in numbers:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)


def test_one_that_was_never_begun_is_closed_all_the_same():
    MethodQueue().close()
