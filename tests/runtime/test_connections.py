import select
import socket
import threading
import time

import pytest

from proxy.runtime.connections import KEPT_SECONDS
from tests.runtime.dialled import WAIT_SECONDS, opened, to
from tests.runtime.world import Clock


def test_the_newest_is_used_first(connections, silent):
    first, second = (opened(connections, to(silent)) for _ in range(2))
    connections.keep(first)
    connections.keep(second)
    assert connections.take(to(silent)) is second
    assert connections.take(to(silent)) is first
    assert connections.take(to(silent)) is None
    first.close()
    second.close()


@pytest.mark.parametrize(
    "said, is_kept", [([b"first"], True), ([b"firstmore"], False), ([b"first", b"more"], False)]
)
def test_of_tls_what_came_behind_an_answer_is_not_the_next_ones(
    said, is_kept, connections, listen, server_context
):
    """In its record, or in one of its own, which nobody has looked at."""

    def talk(peer):
        peer.sock.recv(1)
        for record in said:
            peer.sock.send(record)
        peer.sock.recv(1)

    listener = listen(talk, server_context)
    connection = opened(connections, to(listener, "https"))
    connection.send_all(b"?")
    assert bytes(connection.receive(5)) == b"first"
    until = time.monotonic() + WAIT_SECONDS
    while not is_kept and not _has_more(connection.sock):
        assert time.monotonic() < until
    connections.keep(connection)
    taken = connections.take(to(listener, "https"))
    assert (taken is connection) is is_kept
    connection.close()


def _has_more(sock):
    return sock.pending() or select.select([sock], [], [], 0)[0]


def test_what_leads_elsewhere_is_not_taken(connections, silent, listen):
    other = listen(lambda peer: peer.request())
    connections.keep(opened(connections, to(other)))
    assert connections.take(to(silent)) is None


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 408 Request Timeout\r\n\r\n"])
def test_what_the_peer_closed_or_spoke_on_is_not_taken(says, connections, listen):
    said = threading.Event()

    def talk(peer):
        if says:
            peer.send(says)
            said.set()
            peer.request()
        else:
            peer.close()
            said.set()

    listener = listen(talk)
    connection = opened(connections, to(listener))
    assert said.wait(WAIT_SECONDS)
    connection.sock.settimeout(WAIT_SECONDS)
    connection.sock.recv(1, socket.MSG_PEEK)  # it has arrived here
    connections.keep(connection)
    assert connections.take(to(listener)) is None
    assert connection.sock.fileno() == -1


def test_no_more_are_kept_than_allowed(make_connections, silent):
    connections = make_connections(kept=1)
    first, second = (opened(connections, to(silent)) for _ in range(2))
    connections.keep(first)
    connections.keep(second)
    assert second.sock.fileno() == -1
    assert connections.take(to(silent)) is first
    first.close()


def test_what_was_idle_for_long_is_closed(make_connections, silent):
    clock = Clock()
    connections = make_connections(clock=clock)
    old, new = (opened(connections, to(silent)) for _ in range(2))
    connections.keep(old)
    clock.now += KEPT_SECONDS - 1
    connections.keep(new)
    connections.close_idle()
    assert old.sock.fileno() >= 0
    clock.now += 1
    connections.close_idle()
    assert (old.sock.fileno(), new.sock.fileno() >= 0) == (-1, True)
    assert connections.take(to(silent)) is new
    new.close()


def test_after_the_end_nothing_is_kept(connections, silent):
    kept, used = (opened(connections, to(silent)) for _ in range(2))
    connections.keep(kept)
    connections.close()
    assert kept.sock.fileno() == -1
    connections.keep(used)
    assert used.sock.fileno() == -1


def test_what_was_received_so_does_not_make_it_stale(connections, listen):
    listener = listen(lambda peer: peer.send(b"all of it") or peer.request())
    connection = opened(connections, to(listener))
    poll = select.poll()
    poll.register(connection.watched(), select.POLLIN)
    assert poll.poll(WAIT_SECONDS * 1000)
    assert bytes(connection.arrived(100)) == b"all of it"
    connections.keep(connection)
    assert connections.take(to(listener)) is connection
    connection.close()
