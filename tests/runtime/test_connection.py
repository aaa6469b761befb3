import contextlib
import select
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from urllib3.util.ssltransport import SSLTransport

from proxy.runtime.connection import Connection, Origin, origin_of
from tests.runtime.dialled import WAIT_SECONDS, opened, to


@pytest.mark.parametrize(
    "url, scheme, host, port, authority",
    [
        ("https://a.example/x?y=z", "https", "a.example", 443, "a.example"),
        ("http://a.example", "http", "a.example", 80, "a.example"),
        ("http://A.example:443", "http", "a.example", 443, "a.example:443"),
        ("https://[::1]:8443/", "https", "::1", 8443, "[::1]:8443"),
        ("https://[::1]/", "https", "::1", 443, "[::1]"),
    ],
)
def test_an_origin_is_scheme_host_and_port(url, scheme, host, port, authority):
    origin = origin_of(url)
    assert (origin.scheme, origin.host, origin.port) == (scheme, host, port)
    assert origin.authority == authority


@pytest.mark.parametrize(
    "url", ["ftp://a", "http://", "a.example", "http://a:99999", "http://[::1"]
)
def test_what_leads_nowhere_is_none(url):
    with pytest.raises(ValueError, match=r"\w"):
        origin_of(url)


def test_an_origins_proxy_is_part_of_it_and_not_shown():
    one, other = (origin_of("http://a", f"http://user:secret@{p}") for p in ("b", "c"))
    assert one != other
    assert "secret" not in repr(one)
    assert origin_of("http://a", "") == origin_of("http://a", None)


class Sock:
    """Notes which times it was given."""

    def __init__(self):
        self.set = []

    def settimeout(self, seconds):
        self.set.append(seconds)

    def recv_into(self, buffer):
        buffer[:1] = b"x"
        return 1

    def send(self, data):
        return len(data)


def test_what_a_thread_receives_comes_into_one_buffer_of_its_own():
    first, second = (Connection(Origin("http", "a", 80), Sock()) for _ in "ab")
    got = first.receive(100)
    assert bytes(got) == b"x"
    assert second.receive(100).obj is got.obj
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(first.receive, 100).result().obj is not got.obj


def test_no_wait_is_longer_than_the_silence_or_goes_on_beyond_the_end():
    now = 100.0
    connection = Connection(Origin("http", "a", 80), Sock(), clock=lambda: now)
    connection.receive(1)
    for connection.silence_seconds in (5.0, 5.0, 1.0):
        connection.receive(1)
    connection.ends_at = 100.5
    connection.send_all(b"x")
    connection.ends_at = 101.0
    connection.receive(1)
    assert connection.sock.set == [None, 5.0, 1.0, 0.5, 1.0]
    connection.ends_at = 100.0
    with pytest.raises(TimeoutError):
        connection.receive(1)
    with pytest.raises(TimeoutError):
        connection.send_all(b"x")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_what_has_arrived_is_received_without_waiting(
    scheme, connections, listen, server_context
):
    asked = threading.Event()

    def talk(peer):
        peer.sock.recv(10)
        assert asked.wait(WAIT_SECONDS)
        peer.send(b"one")
        peer.sock.recv(10)
        peer.send(b"two")

    listener = listen(talk, server_context if scheme == "https" else None)
    connection = opened(connections, to(listener, scheme))
    connection.silence_seconds = WAIT_SECONDS
    connection.send_all(b"begin")  # it was waited for before, within the same time
    number = connection.watched()
    with pytest.raises(BlockingIOError):
        connection.arrived(100)
    asked.set()
    poll = select.poll()
    poll.register(number, select.POLLIN)
    got = b""
    while not got:
        assert poll.poll(WAIT_SECONDS * 1000)
        with contextlib.suppress(BlockingIOError):  # TLS has words of its own
            got = bytes(connection.arrived(100))
    assert got == b"one"
    # And then it can be waited for again.
    connection.send_all(b"go on")
    assert bytes(connection.receive(100)) == b"two"
    connection.close()


def test_tls_inside_of_tls_has_to_be_waited_for(connections, silent):
    connection = opened(connections, to(silent))
    inside = object.__new__(SSLTransport)
    connection.sock, outside = inside, connection.sock
    assert connection.watched() is None
    outside.close()


def test_a_peer_that_takes_it_bit_by_bit_has_the_same_time_as_one_that_takes_nothing():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    ended = threading.Event()

    def take():
        while not ended.wait(0.002):
            theirs.recv(20_000)

    thread = threading.Thread(target=take)
    thread.start()
    connection = Connection(Origin("http", "h", 80), ours)
    connection.ends_at = time.monotonic() + 0.2
    try:
        with pytest.raises(TimeoutError):
            connection.send_all(bytes(200_000_000))
        assert time.monotonic() < connection.ends_at + WAIT_SECONDS
    finally:
        ended.set()
        thread.join()
        ours.close()
        theirs.close()
