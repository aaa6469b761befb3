import ctypes
import math
import struct
import threading

import pytest

from proxy.runtime.buffers import thread_address, thread_buffer, timeval


def test_a_thread_uses_the_same_memory_again():
    first = thread_buffer(100)
    assert len(first) == 100
    first[:4] = b"used"
    assert thread_buffer(100)[:4] == b"used"


def test_it_is_as_long_as_was_asked():
    assert [len(thread_buffer(n)) for n in (10, 1000, 10)] == [10, 1000, 10]


def test_threads_do_not_share_it():
    thread_buffer(10)[:4] = b"mine"
    found = []
    thread = threading.Thread(target=lambda: found.append(bytes(thread_buffer(10)[:4])))
    thread.start()
    thread.join()
    assert found == [bytes(4)]
    assert thread_buffer(10)[:4] == b"mine"


def test_it_begins_where_it_says():
    for size in (10, 100_000, 10):
        buffer = thread_buffer(size)
        ctypes.memmove(thread_address(), b"words", 5)
        assert buffer[:5] == b"words"


@pytest.mark.parametrize(
    "seconds, expected",
    [(math.inf, (0, 0)), (60, (60, 1)), (0.25, (0, 250_000)), (1e-9, (0, 1))],
)
def test_how_the_system_is_told_a_time(seconds, expected):
    assert struct.unpack("@ll", timeval(seconds)) == expected
