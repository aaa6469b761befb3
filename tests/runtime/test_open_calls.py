import socket
import threading

import pytest

from proxy.errors import Saturated
from proxy.runtime.open_calls import OpenCalls


@pytest.fixture
def connection():
    """(our end, the client's end)"""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def calls():
    return OpenCalls(2)


# No more than a worker can hold.


def test_beyond_the_ceiling_the_next_is_refused_at_once(calls):
    first, _ = calls.begin(None), calls.begin(None)
    with pytest.raises(Saturated) as caught:
        calls.begin(None)
    assert (caught.value.status, caught.value.headers()["retry-after"]) == (503, "1")
    assert (calls.count, calls.ceiling) == (2, 2)
    calls.end(first)
    calls.begin(None)


def test_a_call_ends_once(calls):
    line = calls.begin(None)
    calls.end(line)
    calls.end(line)
    assert calls.count == 0


def test_who_asks_now_is_known(calls, connection):
    line = calls.begin(connection[0])
    assert calls.clients() == {connection[0]}
    calls.end(line)
    assert calls.clients() == set()


# Clients that stay and do nothing.


def test_when_a_calls_time_is_over_its_client_is_cut_off(connection):
    ours, theirs = connection
    now = [100.0]
    calls = OpenCalls(2, clock=lambda: now[0])
    line = calls.begin(ours)
    calls.end_by(line, 105.0)
    now[0] = 105.0
    calls.look()
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(1)
    now[0] = 105.1
    calls.look()
    assert theirs.recv(1) == b""
    with pytest.raises(BrokenPipeError):
        ours.sendall(b"x")
    assert line.is_cut
    assert calls.count == 1  # until its thread has seen it


def test_a_later_end_replaces_an_earlier_one_and_a_call_that_ended_has_none(connection):
    ours, theirs = connection
    calls = OpenCalls(2, clock=lambda: 100.0)
    line = calls.begin(ours)
    calls.end_by(line, 99.0)
    calls.end_by(line, 101.0)
    calls.look()
    calls.end(line)
    calls.end_by(line, 99.0)  # the connection may carry the next call by now
    calls.look()
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(1)


def test_a_connection_that_has_gone_ends_without_an_error(connection):
    ours, _ = connection
    calls = OpenCalls(2, clock=lambda: 100.0)
    for client in (ours, None):
        calls.end_by(calls.begin(client), 99.0)
    ours.close()
    calls.look()


# Clients that leave.


def test_a_client_that_closes_its_connection_has_left(calls, connection):
    ours, theirs = connection
    line = calls.begin(ours)
    calls.look()
    assert not line.is_cut
    theirs.close()
    calls.look()
    assert line.is_cut


def test_a_client_that_sends_more_has_not_left(calls, connection):
    ours, theirs = connection
    line = calls.begin(ours)
    theirs.sendall(b"GET / HTTP/1.1\r\n")  # its next request
    calls.look()
    assert not line.is_cut


def test_what_is_over_is_not_watched_any_more(calls, connection):
    ours, theirs = connection
    line = calls.begin(ours)
    calls.end(line)
    theirs.close()
    calls.look()
    assert not line.is_cut


def test_a_call_whose_connection_nobody_knows_is_not_watched(calls):
    line = calls.begin(None)
    calls.look()
    assert not line.is_cut


def test_a_connection_that_our_own_server_closed_troubles_nobody(calls, connection):
    ours, _ = connection
    line = calls.begin(ours)
    ours.close()
    calls.look()
    assert not line.is_cut


def test_it_looks_by_itself_until_it_is_stopped(calls, connection):
    ours, theirs = connection
    calls.start()
    try:
        woken = threading.Event()
        calls.begin(ours).hold(woken.set)
        theirs.close()
        assert woken.wait(5)
    finally:
        calls.stop()
    calls.stop()
    assert "open-calls" not in {t.name for t in threading.enumerate()}


def test_a_connection_that_closes_while_it_is_looked_at_troubles_nobody(calls, connection):
    class Closing:
        """Open when asked first, closed when asked again."""

        def __init__(self, number):
            self.answers = iter([number])

        def fileno(self):
            return next(self.answers, -1)

    calls.begin(Closing(connection[0].fileno()))
    calls.look()
    calls.look()  # and is not asked for the number of a closed one either
