import socket
import threading

import pytest

from proxy.runtime.departures import Departures


class Watched:
    """An attempt, as far as who watches it is concerned."""

    def __init__(self):
        self.left = threading.Event()

    def leave(self):
        self.left.set()


@pytest.fixture
def connection():
    """(our end, the client's end)"""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_a_client_that_closes_its_connection_has_left(connection):
    ours, theirs = connection
    departures, attempt = Departures(), Watched()
    departures.watch(attempt, ours)
    departures.look()
    assert not attempt.left.is_set()
    theirs.close()
    departures.look()
    assert attempt.left.is_set()


def test_a_client_that_sends_more_has_not_left(connection):
    ours, theirs = connection
    departures, attempt = Departures(), Watched()
    departures.watch(attempt, ours)
    theirs.sendall(b"GET / HTTP/1.1\r\n")  # its next request
    departures.look()
    assert not attempt.left.is_set()


def test_what_is_closed_is_not_watched_any_more(connection):
    ours, theirs = connection
    departures, attempt = Departures(), Watched()
    departures.watch(attempt, ours)
    departures.forget(attempt)
    departures.forget(attempt)  # an attempt without a stream was never watched
    theirs.close()
    departures.look()
    assert not attempt.left.is_set()


def test_a_connection_that_our_own_server_closed_troubles_nobody(connection):
    ours, _ = connection
    departures, attempt = Departures(), Watched()
    departures.watch(attempt, ours)
    ours.close()
    departures.look()
    assert not attempt.left.is_set()


def test_it_looks_by_itself_until_it_is_stopped(connection):
    ours, theirs = connection
    departures, attempt = Departures(), Watched()
    departures.start()
    try:
        departures.watch(attempt, ours)
        theirs.close()
        assert attempt.left.wait(5)
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
        departures.watch(Watched(), Closing(ours.fileno()))
        departures.look()
        departures.look()  # and is not asked for the number of a closed one either
