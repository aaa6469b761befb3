import contextlib
import select
import socket
import struct
import threading
import time

import pytest
import requests

from proxy.core.types import Spliced
from proxy.runtime import transport as module
from proxy.runtime.line import Line
from proxy.runtime.transport import Outgoing, Transport

WAIT_SECONDS = 5.0  # for what comes at once; it is reached only by a bug
OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def transport():
    made = Transport(connections=10)
    yield made
    made.close()


def send(transport, listener, path="/", body=b"{}", silence=WAIT_SECONDS, **more):
    url = f"http://127.0.0.1:{listener.port}{path}"
    headers = more.pop("headers", {"api-key": "k"})
    given = {name: more.pop(name) for name in ("line", "ends_at") if name in more}
    request = Outgoing("POST", url, headers, body, **given)
    return transport.send(request, timeout=(WAIT_SECONDS, silence), **more)


def answered(transport, listener, **more):
    return send(transport, listener, **more).content


# As requests knows it.


def test_an_answer_is_one_of_requests(transport, listen):
    listener = listen(lambda p: p.request() and p.answer(b'{"a": 1}', b"Content-Type: text/x"))
    response = send(transport, listener)
    assert (response.status_code, response.ok) == (200, True)
    assert response.headers["content-type"] == "text/x"
    assert response.json() == {"a": 1}
    assert response.request.body is None  # which has been sent, and may be large


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("", b"/"),
        ("/", b"/"),
        (
            "/openai/deployments/a%2Fb/chat?api-version=1",
            b"/openai/deployments/a%2Fb/chat?api-version=1",
        ),
        ("?a=/b", b"/?a=/b"),
        ("/a?b#c", b"/a?b"),
        ("#/c", b"/"),
        ("/a\tb", b"/ab"),
        ("//a", b"//a"),
    ],
)
def test_it_asks_for_the_path_and_the_query(path, target, transport, listen):
    heads = []
    listener = listen(lambda p: heads.append(p.request()[0]) or p.answer())
    answered(transport, listener, path=path)
    host = b"Host: 127.0.0.1:%d\r\n" % listener.port
    assert heads[0].startswith(b"POST %s HTTP/1.1\r\n%s" % (target, host))


def test_a_url_without_a_host_is_none(transport):
    for url in ("", "/a", "x", "http://", "http:///a", "ftp://a/b", "http://a:b/", "//a/b"):
        with pytest.raises(requests.exceptions.InvalidURL):
            transport.send(Outgoing("POST", url, {}, b""), timeout=(1.0, 1.0))


def test_requests_can_iterate_over_it(transport, listen):
    listener = listen(lambda p: p.request() and p.answer(b"one\ntwo"))
    response = send(transport, listener)
    assert list(response.iter_lines()) == [b"one", b"two"]
    response.close()


def test_a_response_closes_its_connection(transport, listen):
    left = threading.Event()
    listener = listen(lambda p: (p.request() and p.answer(b"one")) or (p.request(), left.set()))
    with send(transport, listener):
        pass
    assert left.wait(WAIT_SECONDS)


# What goes out.


def test_the_head_is_ours_and_the_callers_in_that_order(transport, listen):
    heads = []
    listener = listen(lambda p: heads.append(p.request()) or p.answer())
    headers = {"X-One": "1", "Accept-Encoding": "br", "HOST": "x", "content-length": "9"}
    answered(transport, listener, path="/a%20b?c=d", headers=headers)
    assert heads == [
        (
            b"POST /a%%20b?c=d HTTP/1.1\r\n"
            b"Host: 127.0.0.1:%d\r\n"
            b"Accept-Encoding: identity\r\n"
            b"X-One: 1\r\n"
            b"Content-Length: 2\r\n" % listener.port,
            b"{}",
        )
    ]


@pytest.mark.parametrize(
    "headers",
    [{"a": "b\r\nc: d"}, {"a": "b\nc: d"}, {"a\r\nb": "c"}, {"a": "b\r"}, {"a": "ключ"}],
)
def test_no_header_can_begin_another(headers, transport, listen):
    listener = listen(lambda p: p.request())
    with pytest.raises(requests.exceptions.InvalidHeader, match="what no header can"):
        send(transport, listener, headers=headers)


class Counting:
    """A socket that counts what it is told to send at once."""

    def __init__(self, sock, sends):
        self._sock = sock
        self._sends = sends

    def send(self, data):
        self._sends.append(len(data))
        self._sock.sendall(data)
        return len(data)

    def __getattr__(self, name):
        return getattr(self._sock, name)


@pytest.mark.parametrize("size, sends", [(100, 1), (module.MAX_JOINED_BYTES + 1, 2)])
def test_head_and_small_body_are_sent_at_once_and_a_large_one_is_not_copied(
    size, sends, transport, listen, monkeypatch
):
    counted = []
    keep = transport._connections.open

    def open_(origin, **more):
        connection = keep(origin, **more)
        connection.sock = Counting(connection.sock, counted)
        return connection

    monkeypatch.setattr(transport._connections, "open", open_)
    listener = listen(lambda p: p.answer(b"%d" % len(p.request()[1])))
    assert answered(transport, listener, body=b"x" * size) == b"%d" % size
    assert len(counted) == sends


def test_a_body_in_pieces_arrives_as_one(transport, listen):
    listener = listen(lambda p: p.answer(p.request()[1]))
    whole = bytearray(b"abcdefgh" * 20_000)
    view = memoryview(whole)
    body = Spliced((view[:100_000], b"NEW", view[100_004:]))
    expected = whole[:100_000] + b"NEW" + whole[100_004:]
    assert answered(transport, listener, body=body) == expected


# Connections closed while they were idle.


def one_answer_each(seen, closed):
    """Answers once, then closes without a word at the sight of the next request."""

    def talk(peer):
        seen.append(peer.request()[1])
        peer.answer()
        peer.request()
        closed.release()

    return talk


def test_a_connection_that_closes_as_it_is_used_again_is_replaced_once(transport, listen):
    seen, closed = [], threading.Semaphore(0)
    listener = listen(one_answer_each(seen, closed))
    for number in (b"1", b"2", b"3"):
        assert answered(transport, listener, body=number) == b"ok"
    assert seen == [b"1", b"2", b"3"]
    assert closed.acquire(timeout=WAIT_SECONDS)
    assert closed.acquire(timeout=WAIT_SECONDS)


def test_where_the_new_one_closes_too_it_is_an_error(transport, listen):
    connections = []

    def talk(peer):
        connections.append(peer)
        peer.request()
        if len(connections) == 1:
            peer.answer()
            peer.request()

    listener = listen(talk)
    assert answered(transport, listener) == b"ok"
    with pytest.raises(requests.ConnectionError, match="without an answer"):
        answered(transport, listener)
    assert len(connections) == 2


def test_a_new_connection_that_closes_is_not_replaced(transport, listen):
    seen = []
    listener = listen(lambda p: seen.append(p.request()))
    with pytest.raises(requests.ConnectionError, match="without an answer"):
        answered(transport, listener)
    assert len(seen) == 1


@pytest.mark.parametrize("then", ["begins", "is silent", "is cut", "is ended by us", "is late"])
def test_a_kept_connection_whose_peer_took_the_request_is_not_replaced(
    then, transport, listen, monkeypatch
):
    monkeypatch.setattr(module, "STALE_SECONDS", 0.0 if then == "is late" else WAIT_SECONDS)
    seen = []
    line = Line()

    def talk(peer):
        seen.append(peer.request())
        peer.answer()
        seen.append(peer.request())
        if then == "begins":
            peer.send(b"HTTP/1.1 2")
        elif then == "is silent":
            peer.request()
        elif then == "is cut":
            line.cut()
        elif then == "is ended by us":
            line.wake()
            peer.request()

    listener = listen(talk)
    assert answered(transport, listener) == b"ok"
    with pytest.raises(requests.RequestException):
        answered(
            transport, listener, silence=0.1 if then == "is silent" else WAIT_SECONDS, line=line
        )
    assert len(seen) == 2


# Answers that come early, late or not at all.


def test_an_answer_before_the_whole_request_is_read(transport, listen):
    def talk(peer):
        peer.send(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno")
        peer.sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            while peer.sock.recv(65536):
                pass

    response = send(transport, listen(talk), body=b"x" * 1_000_000)
    assert (response.status_code, response.content) == (413, b"no")


def test_a_connection_on_which_a_request_was_not_sent_whole_is_not_kept(transport, listen):
    class Deaf:
        """Takes nothing; its answer is there."""

        def __init__(self):
            self.closed = 0

        def send(self, _data):
            raise BrokenPipeError

        def recv_into(self, buffer):
            answer = OK + b"content-length: 2\r\n\r\nok"
            buffer[: len(answer)] = answer
            return len(answer)

        def settimeout(self, _seconds):
            pass

        def close(self):
            self.closed += 1

    deaf = Deaf()
    connection = module.Connection(module.origin_of("http://127.0.0.1"), deaf)
    transport._connections.open = lambda *_, **__: connection
    request = Outgoing("POST", "http://127.0.0.1/", {}, b"{}")
    response = transport.send(request, timeout=(1.0, 1.0))
    assert (response.content, deaf.closed) == (b"ok", 1)


def test_an_error_says_whether_the_request_was_out(transport, listen):
    listener = listen(lambda p: p.request())
    with pytest.raises(requests.ConnectionError) as caught:
        send(transport, listener)
    assert caught.value.request.was_sent
    listener.close()
    request = Outgoing("POST", f"http://127.0.0.1:{listener.port}/", {}, b"{}")
    with pytest.raises(requests.ConnectionError):
        transport.send(request, timeout=(1.0, 1.0))
    assert not request.was_sent


def test_a_silence_may_be_set_for_what_follows(transport, listen):
    listener = listen(
        lambda p: (p.request() and p.send(OK + b"content-length: 2\r\n\r\no")) or p.request()
    )
    response = send(transport, listener)
    assert response.raw.read1() == b"o"
    response.raw.allow_silence(0.05)
    with pytest.raises(requests.ReadTimeout, match="timed out in the middle"):
        response.raw.read1()
    response.raw.allow_silence(0.05)  # it is closed: without effect


def dribbling(left, first, piece):
    """Says `first`, then `piece` again and again until the other side leaves."""

    def talk(peer):
        peer.request()
        with contextlib.suppress(OSError):
            peer.send(first)
            while not left.wait(0.01):
                peer.send(piece)

    return talk


@pytest.mark.parametrize(
    "piece", [b"x", b"HTTP/1.1 100 Continue\r\n\r\n"], ids=["bytes", "interim answers"]
)
def test_a_head_that_dribbles_has_no_more_time_than_one_that_does_not_come(
    piece, transport, listen
):
    left = threading.Event()
    first = b"HTTP/1.1 200 OK\r\nx-y: " if piece == b"x" else b""
    listener = listen(dribbling(left, first, piece))
    with pytest.raises(requests.ReadTimeout):
        send(transport, listener, silence=0.1)
    left.set()


def test_a_body_that_dribbles_ends_with_the_requests_time(transport, listen):
    left = threading.Event()
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n"
    listener = listen(dribbling(left, head, b"x"))
    response = send(transport, listener, ends_at=time.monotonic() + 0.1)
    with pytest.raises(requests.ReadTimeout):
        _ = response.content
    left.set()


def test_an_end_may_be_set_for_what_follows(transport, listen):
    listener = listen(
        lambda p: (p.request() and p.send(OK + b"content-length: 2\r\n\r\no")) or p.request()
    )
    response = send(transport, listener)
    assert response.raw.read1() == b"o"
    response.raw.end_by(time.monotonic() + 0.05)
    with pytest.raises(requests.ReadTimeout):
        response.raw.read1()
    response.raw.end_by(0)  # it is closed: without effect


def test_a_line_that_is_cut_ends_the_wait_for_a_head(transport, listen):
    line = Line()
    listener = listen(lambda p: p.request() and (line.cut(), p.request()))
    with pytest.raises(requests.ConnectionError):
        send(transport, listener, line=line)


def test_a_line_is_released_with_the_answers_last_byte(transport, listen):
    """Its connection may carry another call's request by then."""
    line = Line()
    listener = listen(lambda p: [p.request() and p.answer() for _ in range(2)])
    assert answered(transport, listener, line=line) == b"ok"
    line.cut()
    assert answered(transport, listener) == b"ok"
    assert len(listener.peers) == 1


# Watched by who waits for many.


def until_it_arrives(body):
    poll = select.poll()
    poll.register(body.watched(), select.POLLIN)
    assert poll.poll(WAIT_SECONDS * 1000)
    return body.arrived()


def test_what_is_watched_is_kept_only_by_who_reads_its_end(transport, listen):
    """Until it is watched no more its connection must not carry another answer."""
    go_on = threading.Event()

    def talk(peer):
        peer.request()
        peer.send(OK + b"content-length: 3\r\n\r\no")
        assert go_on.wait(WAIT_SECONDS)
        peer.send(b"ne")
        peer.request()

    listener = listen(talk)
    body = send(transport, listener).raw
    assert body.read1() == b"o"
    with pytest.raises(BlockingIOError):
        body.arrived()
    go_on.set()
    got = until_it_arrives(body)
    while got != b"ne":
        got += until_it_arrives(body)
    assert body.has_ended
    assert body._connection is not None
    assert body.read1() == b""
    assert body._connection is None
    assert body.watched() is None


def test_one_that_breaks_off_is_closed_only_by_who_goes_on(transport, listen):
    listener = listen(lambda p: p.request() and p.send(OK + b"content-length: 9\r\n\r\no"))
    body = send(transport, listener).raw
    assert body.read1() == b"o"
    with pytest.raises(requests.ConnectionError, match="broke off"):
        until_it_arrives(body)
    assert body._connection is not None
    body.close()


def test_an_answer_that_is_all_here_is_not_watched(transport, listen):
    listener = listen(lambda p: p.request() and p.answer(b"all"))
    body = send(transport, listener).raw
    assert body.read1() == b"all"
    assert body.watched() is None


def test_that_a_watched_one_was_reset_is_told_as_all_is(transport, listen):
    """Or whoever goes on would take it for the client's connection."""

    def talk(peer):
        peer.request()
        peer.send(OK + b"content-length: 9\r\n\r\no")
        at_once = struct.pack("@ii", 1, 0)  # not by the end that a close is else
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        peer._reader.close()
        peer.sock.close()

    body = send(transport, listen(talk)).raw
    assert body.read1() == b"o"
    poll = select.poll()
    poll.register(body.watched(), 0)  # an error is told unasked
    assert poll.poll(WAIT_SECONDS * 1000)
    with pytest.raises(requests.ConnectionError, match="broke off"):
        body.arrived()
    body.close()


def test_one_that_was_closed_is_not_watched(transport, listen):
    listener = listen(lambda p: p.request() and p.send(OK + b"content-length: 9\r\n\r\no"))
    body = send(transport, listener).raw
    body.close()
    assert body.watched() is None
