import math
import socket
import threading
import time

import pytest

from proxy.runtime.client_socket import ClientSocket

WAIT_SECONDS = 5  # for what other threads do at once; it is reached only by a bug


@pytest.fixture
def ends():
    """A client's end, and ours."""
    client, served = socket.socketpair()
    client.settimeout(WAIT_SECONDS)
    with client, served:
        yield client, ClientSocket(served, lambda: None)


def test_what_has_arrived_is_received_at_once(ends):
    client, ours = ends
    ours.setblocking(True)
    client.sendall(b"words")
    assert ours.received() == b"words"
    client.close()
    assert ours.received() == b""


def test_what_does_not_arrive_in_time_is_nothing_and_an_end_is_one(ends):
    client, ours = ends
    assert ours.received_within(1) is None
    client.sendall(b"words")
    assert ours.received_within(1) == b"words"
    client.close()
    assert ours.received_within(WAIT_SECONDS * 1000) == b""


def test_after_such_a_wait_others_have_no_end(ends):
    client, ours = ends
    assert ours.received_within(1) is None
    thread = threading.Timer(0.02, client.sendall, [b"late"])
    thread.start()
    assert ours.received() == b"late"
    thread.join()


@pytest.mark.parametrize("receive", [lambda ours: ours.recv(10), ClientSocket.peeked])
def test_whoever_receives_after_such_a_wait_waits_as_long_as_it_takes(ends, receive):
    client, ours = ends
    assert ours.received_within(1) is None
    thread = threading.Timer(0.02, client.sendall, [b"late"])
    thread.start()
    assert receive(ours) == b"late"
    thread.join()


def test_what_is_received_until_a_moment_may_come_in_pieces_and_not_later(ends):
    client, ours = ends
    ours.setblocking(True)
    ours.receive_until = time.monotonic() + WAIT_SECONDS
    for _ in range(3):
        client.sendall(b"piece")
        assert ours.recv(10) == b"piece"
    ours.receive_until = time.monotonic() + 0.02
    with pytest.raises(TimeoutError):
        ours.recv(10)
    client.sendall(b"late")
    with pytest.raises(TimeoutError):
        ours.recv(10)  # though it is there: it could dribble for ever
    ours.receive_until = math.inf
    assert ours.recv(10) == b"late"


def test_how_long_to_wait_is_told_only_where_it_changes(ends):
    client, ours = ends
    told = []

    class Noted:
        def __init__(self, sock):
            self.sock = sock

        def setsockopt(self, *arguments):
            told.append(arguments)
            self.sock.setsockopt(*arguments)

        def __getattr__(self, name):
            return getattr(self.sock, name)

    ours._sock = Noted(ours._sock)
    for _ in range(3):
        assert ours.received_within(1) is None
    assert len(told) == 1
    assert ours.received_within(2) is None
    client.sendall(b"words")
    assert ours.recv(10) == b"words"
    assert len(told) == 3


def test_whether_its_client_takes_more(ends):
    client, ours = ends
    assert ours.is_writable()
    ours.setblocking(False)
    while ours.is_writable():
        ours.send(b"x" * 100_000)
    while not ours.is_writable():
        client.recv(100_000)


def test_shutting_it_down_wakes_whoever_waits_and_may_be_done_twice(ends):
    client, ours = ends
    found = []
    thread = threading.Thread(target=lambda: found.append(ours.received()))
    ours.setblocking(True)
    thread.start()
    ours.shut_down()
    thread.join(WAIT_SECONDS)
    assert found == [b""]
    assert client.recv(1) == b""
    ours.close()
    ours.shut_down()


def test_whether_there_is_something_to_read(ends):
    client, ours = ends
    assert not ours.is_readable(0)
    client.sendall(b"x")
    assert ours.is_readable(WAIT_SECONDS * 1000)
    assert ours.received() == b"x"
    client.close()
    assert ours.is_readable(WAIT_SECONDS * 1000)  # its end
    ours.close()
    assert not ours.is_readable(WAIT_SECONDS * 1000)


def test_the_system_hears_how_long_to_wait_only_where_there_is_something_to_wait_for():
    class Told:
        def __init__(self):
            self.seconds = []

        def gettimeout(self):
            return 0.0

        def settimeout(self, seconds):
            self.seconds.append(seconds)

        def recv(self, size):
            return b"x" * size

    sock = ClientSocket(Told(), lambda: None)
    for wanted, told in ((0.0, []), (None, [None]), (None, [None]), (2.5, [None, 2.5])):
        sock.settimeout(5.0)
        sock.settimeout(wanted)
        assert sock.gettimeout() == wanted
        assert sock.recv(3) == b"xxx"
        assert sock._sock.seconds == told
    sock.setblocking(False)
    sock.setblocking(True)
    assert sock.gettimeout() is None
    assert sock._sock.seconds == told


def test_what_is_looked_at_can_still_be_received():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sock = ClientSocket(ours, lambda: None)
        theirs.sendall(b"a head")
        assert (sock.peeked(), sock.recv(100)) == (b"a head", b"a head")
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.peeked()


def test_what_is_to_go_now_waits_for_nobody(ends):
    client, ours = ends
    ours.setblocking(True)
    ours.sendall(b"head")
    ours.end_answer()
    assert ours.send_now(b"words") == len(b"words")
    assert client.recv(100) == b"headwords"
    while ours.send_now(b"x" * 100_000):
        pass  # until nobody takes more
    client.close()
    assert ours.send_now(b"x") == 0
