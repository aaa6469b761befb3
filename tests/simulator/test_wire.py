import contextlib
import socket
import threading

import pytest

from proxy.simulator.wire import Connection, Headers, Malformed, PeerLeft, chunk, head


@pytest.fixture
def pair():
    """A connection and the socket at its other end."""
    ours, theirs = socket.socketpair()
    connection = Connection(ours)
    with contextlib.closing(connection), theirs:
        yield connection, theirs


def test_a_request_is_read_with_its_body(pair):
    connection, peer = pair
    peer.sendall(b"POST /a%2Fb?x=1&y= HTTP/1.1\r\nContent-Length: 2\r\nX-A: b\r\n\r\n{}")
    received = connection.read()
    assert (received.method, received.path) == ("POST", "/a%2Fb")
    assert received.query == {"x": "1", "y": ""}
    assert (received.headers["x-a"], received.body, received.json) == ("b", b"{}", {})
    assert connection.keep_alive


def test_a_chunked_body_is_put_together(pair):
    connection, peer = pair
    peer.sendall(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    peer.sendall(b"3;a=b\r\nabc\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n")
    assert connection.read().body == b"abc0123456789"


def test_who_asks_before_sending_a_body_is_told_to_go_on(pair):
    connection, peer = pair
    peer.sendall(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx")
    assert connection.read().body == b"x"
    assert peer.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize(
    "version, line, keep_alive",
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: keep-alive\r\n", True),
        (b"1.1", b"Connection: Close\r\n", False),
        (b"1.0", b"", False),
    ],
)
def test_a_connection_is_kept_unless_the_peer_says_otherwise(pair, version, line, keep_alive):
    connection, peer = pair
    peer.sendall(b"GET / HTTP/" + version + b"\r\n" + line + b"\r\n")
    connection.read()
    assert connection.keep_alive is keep_alive


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
    ],
)
def test_a_peer_that_leaves_early_has_sent_no_request(pair, sent):
    connection, peer = pair
    peer.sendall(sent)
    peer.close()
    assert connection.read() is None


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n\r\n",
        b"GET / SPDY/1\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
    ],
)
def test_what_is_not_http_is_malformed(pair, sent):
    connection, peer = pair
    peer.sendall(sent)
    with pytest.raises(Malformed):
        connection.read()


def test_headers_ignore_case_and_join_what_comes_twice():
    headers = Headers([("Api-Key", "a"), ("api-key", "b")])
    assert headers["API-KEY"] == "a, b"
    assert "API-key" in headers
    assert headers.get("other") is None


def test_time_passes_while_the_peer_is_there(pair):
    connection, _ = pair
    connection.wait(0.001)


def test_time_passes_though_the_next_request_is_there_already(pair):
    connection, peer = pair
    peer.sendall(b"GET / HTTP/1.1\r\n\r\n")
    connection.wait(0.001)


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\n\r\n"])
@pytest.mark.parametrize("leaves", ["peer", "interrupt"])
def test_a_wait_ends_when_nobody_is_there_any_more(pair, leaves, sent):
    connection, peer = pair
    peer.sendall(sent)
    leave = peer.close if leaves == "peer" else connection.interrupt
    timer = threading.Timer(0.02, leave)
    timer.start()
    with pytest.raises(PeerLeft):
        connection.wait(None)
    timer.join()


def test_sending_to_nobody_says_so(pair):
    connection, peer = pair
    peer.close()
    with pytest.raises(PeerLeft):
        connection.send(b"x")


def test_heads_and_chunks_are_framed_as_http_wants_them():
    assert head(404, {"a": "b"}) == b"HTTP/1.1 404 Not Found\r\na: b\r\n\r\n"
    assert chunk(b"0123456789") == b"a\r\n0123456789\r\n"
