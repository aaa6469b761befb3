import socket
import threading

import pytest

from proxy.runtime.departures import Departures
from proxy.runtime.line import Line


@pytest.fixture
def connection():
    """(our end, the client's end)"""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_a_client_that_closes_its_connection_has_left(connection):
    ours, theirs = connection
    departures, line = Departures(), Line()
    departures.watch(line, ours)
    departures.look()
    assert not line.is_cut
    theirs.close()
    departures.look()
    assert line.is_cut


def test_a_client_that_sends_more_has_not_left(connection):
    ours, theirs = connection
    departures, line = Departures(), Line()
    departures.watch(line, ours)
    theirs.sendall(b"GET / HTTP/1.1\r\n")  # its next request
    departures.look()
    assert not line.is_cut


def test_what_is_closed_is_not_watched_any_more(connection):
    ours, theirs = connection
    departures, line = Departures(), Line()
    departures.watch(line, ours)
    departures.forget(line)
    departures.forget(line)  # nobody watched it without a socket
    theirs.close()
    departures.look()
    assert not line.is_cut


def test_a_connection_that_our_own_server_closed_troubles_nobody(connection):
    ours, _ = connection
    departures, line = Departures(), Line()
    departures.watch(line, ours)
    ours.close()
    departures.look()
    assert not line.is_cut


def test_it_looks_by_itself_until_it_is_stopped(connection):
    ours, theirs = connection
    departures, line = Departures(), Line()
    departures.start()
    try:
        woken = threading.Event()
        line.hold(woken.set)
        departures.watch(line, ours)
        theirs.close()
        assert woken.wait(5)
    finally:
        departures.stop()
    departures.stop()
    assert "departures" not in {t.name for t in threading.enumerate()}


def test_a_connection_that_closes_while_it_is_looked_at_troubles_nobody():
    class Closing:
        """Open when asked first, closed when asked again."""

        def __init__(self, number):
            self.answers = iter([number])

        def fileno(self):
            return next(self.answers, -1)

    ours, theirs = socket.socketpair()
    with ours, theirs:
        departures = Departures()
        departures.watch(Line(), Closing(ours.fileno()))
        departures.look()
        departures.look()  # and is not asked for the number of a closed one either
