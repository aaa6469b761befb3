import ctypes
import socket

import pytest

from proxy.runtime import short_calls
from proxy.runtime.buffers import thread_address, thread_buffer
from proxy.runtime.short_calls import MAX_BYTES


@pytest.fixture
def ends():
    pair = socket.socketpair()
    yield pair
    for end in pair:
        end.close()


def received(sock, size=100):
    buffer = thread_buffer(size)
    found = short_calls.received(sock, thread_address(), size)
    return found if found is None else bytes(buffer[:found])


def test_what_is_sent_is_received(ends):
    one, other = ends
    assert short_calls.sent(one, b"wo\0rds") == 6
    assert received(other) == b"wo\0rds"


def test_neither_waits(ends):
    one, other = ends
    assert received(other) is None
    while short_calls.sent(one, b"x" * 1000):
        pass
    assert received(other) == b"x" * 100


def test_so_much_is_sent_at_once(ends):
    one, _ = ends
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
    assert 0 < short_calls.sent(one, b"x" * (MAX_BYTES + 1)) <= MAX_BYTES


def test_an_end_is_told_from_nothing(ends):
    one, other = ends
    one.close()
    assert received(other) == b""


def test_what_is_wrong_is_found_by_who_tries_as_usual(ends):
    one, other = ends
    other.close()
    assert short_calls.sent(one, b"x") == 0
    with pytest.raises(BrokenPipeError):
        one.send(b"x")
    one.close()
    assert short_calls.sent(one, b"x") == 0
    assert received(one) is None


class Wrapped:
    """Not what the system knows by that number, as TLS."""

    def __init__(self, sock):
        self.fileno = sock.fileno


def test_what_is_no_plain_socket_is_left_alone(ends):
    one, other = ends
    assert short_calls.sent(Wrapped(one), b"x") == 0
    other.send(b"x")
    assert received(Wrapped(one)) is None
    assert received(one) == b"x"


def test_what_may_be_changed_meanwhile_is_left_alone(ends):
    assert short_calls.sent(ends[0], bytearray(b"x")) == 0


def test_other_threads_do_not_run_meanwhile():
    """That is what they are for: ctypes.CDLL would give the interpreter away."""
    assert type(short_calls._LIBC) is ctypes.PyDLL
