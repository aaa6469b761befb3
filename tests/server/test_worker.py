import contextlib
import errno
import json
import math
import os
import selectors
import socket
import threading
import time
from collections import Counter
from types import SimpleNamespace

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.workers.gthread import TConn

from proxy.runtime.client_socket import ClientSocket
from proxy.runtime.draining import Draining
from proxy.runtime.least_connections import LeastConnections
from proxy.runtime.open_calls import OpenCalls
from proxy.runtime.open_files import PAUSE_SECONDS, Shortage
from proxy.runtime.streams import Streams
from proxy.runtime.threads import ThreadPool
from proxy.runtime.turnstile import Turnstile
from proxy.server import worker as workers
from proxy.server.known_heads import KnownHeads
from proxy.server.request_reader import KnownRequest, RequestReader
from proxy.server.worker import (
    HEAD_SECONDS,
    HELD_SECONDS,
    LEAVE_AT_MOST_SECONDS,
    LEAVE_SECONDS,
    Worker,
)

WAIT_SECONDS = 5  # for what other threads do at once; it is reached only by a bug

SHORT = Config()
SHORT.set("keepalive", 0)

GET = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"


class Watched(Turnstile):
    """Tells who is inside."""

    def __init__(self):
        super().__init__()
        self.inside = self.entered = 0

    def enter(self):
        super().enter()
        self.inside += 1
        self.entered += 1

    def leave(self):
        if getattr(self._mine, "is_inside", False):
            self.inside -= 1
        super().leave()


@pytest.fixture
def paths():
    """What was asked for."""
    return []


@pytest.fixture
def worker(paths):
    """One that serves, but neither listens nor loops; its app says "ok"."""
    made = Worker(1, os.getpid(), [], None, 30, Config(), Logger(Config()))

    def app(environ, start_response):
        paths.append((environ["PATH_INFO"], made._turnstile.inside))
        start_response("200 OK", [("content-length", "2")])
        return [b"ok"]

    made.wsgi = app
    made._turnstile = Watched()
    made._calls = OpenCalls(10)
    made._streams = Streams()
    made._least = LeastConnections(2)
    made._draining = Draining()
    made._snapshots = SimpleNamespace(is_read=True)
    made.tpool = ThreadPool(1)
    made.poller = selectors.DefaultSelector()
    made.method_queue.init()
    yield made
    made.tpool.shutdown()
    made.poller.close()
    made.method_queue.close()
    made.tmp.close()


@pytest.fixture
def ends(worker):
    """A client's end, and gunicorn's object for the other."""
    client, served = socket.socketpair()
    client.settimeout(WAIT_SECONDS)
    with client:
        conn = TConn(worker.cfg, served, ("127.0.0.1", 1), ("127.0.0.1", 2))
        conn.sock = ClientSocket(served, worker._turnstile.leave)
        yield client, conn
        conn.sock.close()


def test_heads_are_known_to_all_connections_of_the_same_address(worker, paths):
    ask = b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
    known = []
    for port in (2, 2, 2, 3, 2):
        client, served = socket.socketpair()
        with client:
            conn = TConn(worker.cfg, served, ("127.0.0.1", 1), ("127.0.0.1", port))
            conn.sock = ClientSocket(served, worker._turnstile.leave)
            client.sendall(ask)
            client.shutdown(socket.SHUT_WR)
            worker.handle(conn)
            known.append(isinstance(conn.parser.mesg, KnownRequest))
            conn.sock.close()
    assert len(paths) == len(known)
    assert known == [False, False, True, False, True]


def test_a_client_that_pauses_is_given_back_to_the_loop(worker, ends, paths, monkeypatch):
    monkeypatch.setattr(workers, "LINGER_MS", 0)
    client, conn = ends
    client.sendall(GET % 1)
    assert worker.handle(conn) is True
    assert [p for p, _ in paths] == ["/1"]
    assert client.recv(1000).endswith(b"ok")


def test_one_that_asks_again_at_once_keeps_its_thread(worker, ends, paths):
    client, conn = ends
    client.sendall(GET % 1)
    found = []
    thread = threading.Thread(target=lambda: found.append(worker.handle(conn)))
    worker_ms, workers.LINGER_MS = workers.LINGER_MS, WAIT_SECONDS * 1000
    try:
        thread.start()
        assert client.recv(1000).endswith(b"ok")
        client.sendall(GET % 2)
        assert client.recv(1000).endswith(b"ok")
        client.close()
        thread.join(WAIT_SECONDS)
    finally:
        workers.LINGER_MS = worker_ms
    assert found == [False]  # it has left
    assert [p for p, _ in paths] == ["/1", "/2"]


def test_requests_sent_together_are_answered_one_after_the_other(worker, ends, paths):
    client, conn = ends
    client.sendall(GET % 1 + GET % 2 + GET % 3)
    client.shutdown(socket.SHUT_WR)
    assert worker.handle(conn) is False
    assert [p for p, _ in paths] == ["/1", "/2", "/3"]


def test_where_others_wait_for_a_thread_nobody_lingers(worker, ends, monkeypatch):
    monkeypatch.setattr(workers, "LINGER_MS", WAIT_SECONDS * 1000)
    monkeypatch.setattr(worker, "tpool", SimpleNamespace(is_full=True))
    client, conn = ends
    client.sendall(GET % 1)
    assert worker.handle(conn) is True


def test_a_worker_that_ends_gives_its_clients_up(worker, ends):
    client, conn = ends
    worker.alive = False
    client.sendall(GET % 1)
    assert worker.handle(conn) is False
    assert b"Connection: close" in client.recv(1000)


def test_a_client_that_says_nothing_has_no_thread_for_long(worker, ends, monkeypatch):
    monkeypatch.setattr(workers, "FIRST_BYTE_MS", 0)
    monkeypatch.setattr("gunicorn.workers.gthread.DEFAULT_WORKER_DATA_TIMEOUT", 3600)
    _, conn = ends
    assert is_later(worker.handle(conn))


def test_a_whole_request_is_begun_in_turn_and_leaves_when_it_is_answered(worker, ends, paths):
    client, conn = ends
    client.sendall(GET % 1)
    worker.handle(conn)
    assert paths == [("/1", 1)]
    assert worker._turnstile.inside == 0


def is_later(found):
    """gunicorn's word for: the loop looks after it."""
    return found not in (True, False)


def test_half_of_a_head_has_no_thread_and_is_read_on_when_more_has_come(worker, ends, paths):
    client, conn = ends
    for piece in (b"GET /1 HTTP/1.1\r\n", b"Ho", b"st: x\r", b"\n\r"):
        client.sendall(piece)
        assert is_later(worker.handle(conn))
        assert is_later(worker.handle(conn))  # it was woken, and there is nothing
    client.sendall(b"\n")
    client.shutdown(socket.SHUT_WR)
    assert worker.handle(conn) is False
    assert paths == [("/1", 1)]
    assert (worker._turnstile.entered, worker._turnstile.inside) == (1, 0)


def test_its_time_is_that_of_the_first_byte_however_it_dribbles(worker, ends):
    client, conn = ends
    client.sendall(b"G")
    worker.handle(conn)
    until = conn.sock.head_until
    assert 0 < until - time.monotonic() <= HEAD_SECONDS
    client.sendall(b"ET /")
    worker.handle(conn)
    assert conn.sock.head_until == until
    client.sendall(b"1 HTTP/1.1\r\nHost: x\r\n\r\n" + GET % 2 + b"GET /3")
    assert is_later(worker.handle(conn))
    assert until < conn.sock.head_until  # of the third, which has its own


def test_half_a_head_behind_an_answer_has_no_thread_either(worker, ends, paths):
    client, conn = ends
    client.sendall(GET % 1 + b"GET /2 HTTP/1.1\r\nHost: x\r\n")
    assert is_later(worker.handle(conn))
    client.sendall(b"\r\n")
    client.shutdown(socket.SHUT_WR)
    worker.handle(conn)
    assert [p for p, _ in paths] == ["/1", "/2"]


def test_a_client_that_leaves_with_half_a_head_is_forgotten(worker, ends, paths):
    client, conn = ends
    client.sendall(b"GET /1 HTTP/1.1\r\n")
    worker.handle(conn)
    client.close()
    assert worker.handle(conn) is False
    assert paths == []


def test_a_worker_that_ends_does_not_wait_for_the_rest_of_a_head(worker, ends):
    client, conn = ends
    worker.alive = False
    client.sendall(b"GET /1")
    assert worker.handle(conn) is False


class Counted:
    """A socket that notes what is sent at once."""

    def __init__(self, sock):
        self.sock, self.sent = sock, []

    def sendall(self, data):
        self.sent.append(data)
        self.sock.sendall(data)

    def __getattr__(self, name):
        return getattr(self.sock, name)


def test_a_request_is_received_and_answered_with_few_calls_of_the_system(
    worker, ends, monkeypatch
):
    """To receive what has come at once, and to send it all; and once a connection to tell how
    long to wait for what comes next. What keeps others out is free."""
    monkeypatch.setattr(workers, "LINGER_MS", WAIT_SECONDS * 1000)
    client, conn = ends
    counts = Counter()
    served = conn.sock._sock

    class Noted:
        def __getattr__(self, name):
            found = getattr(served, name)
            return found if name == "fileno" else lambda *a: counts.update([name]) or found(*a)

    conn.sock = ClientSocket(Noted(), worker._turnstile.leave)
    thread = threading.Thread(target=worker.handle, args=(conn,))
    thread.start()
    for number in range(10):
        client.sendall(GET % number)
        assert client.recv(1_000).endswith(b"ok")
    client.close()
    thread.join(WAIT_SECONDS)
    assert counts == {
        "gettimeout": 1,
        "settimeout": 1,
        "recv_into": 12,  # two of them, and the next, find that the client has left
        "recv": 1,
        "sendall": 10,
        "setsockopt": 2,  # the other for an end, where nobody waits in vain
    }


def answers(*pieces, length=None):
    """An app that says this; a stream where no length is given."""

    def app(_environ, start_response):
        start_response("200 OK", [("content-length", str(length))] if length else [])
        return pieces

    return app


@pytest.mark.parametrize(
    "app, sent",
    [
        (answers(b"ok", length=2), [b"\r\n\r\nok"]),
        (answers(b"a", b"b"), [b"\r\n\r\n1\r\na\r\n", b"1\r\nb\r\n", b"0\r\n\r\n"]),
        (answers(), [b"\r\n\r\n0\r\n\r\n"]),
        (answers(b"x" * 100_000, length=100_000), [b"\r\n\r\n", b"x" * 100_000]),
    ],
)
def test_head_and_first_bytes_are_sent_at_once(app, sent, worker, ends, monkeypatch):
    monkeypatch.setattr(workers, "LINGER_MS", 0)
    client, conn = ends
    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 500_000)
    counted = Counted(conn.sock)
    conn.sock = ClientSocket(counted, worker._turnstile.leave)
    worker.wsgi = app
    client.sendall(GET % 1)
    assert worker.handle(conn) is True
    head, _, first = counted.sent[0].partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert [b"\r\n\r\n" + first, *counted.sent[1:]] == sent


def test_a_connections_first_task_gives_it_such_a_socket(worker, monkeypatch):
    ours, theirs = socket.socketpair()
    tasks = []
    monkeypatch.setattr(worker, "tpool", SimpleNamespace(submit=tasks.append))
    with ours, theirs:
        conn = TConn(worker.cfg, ours, ("127.0.0.1", 1), ("127.0.0.1", 2))
        worker.enqueue_req(conn)
        first = conn.sock
        worker.enqueue_req(conn)
        assert isinstance(first, ClientSocket)
        assert conn.sock is first
    assert len(tasks) == 2


def test_an_answer_without_a_body_is_sent(worker, ends, monkeypatch):
    monkeypatch.setattr(workers, "LINGER_MS", 0)

    def app(_environ, start_response):
        start_response("204 No Content", [])
        return []

    worker.wsgi = app
    client, conn = ends
    client.sendall(GET % 1)
    assert worker.handle(conn) is True
    assert client.recv(1000).startswith(b"HTTP/1.1 204 ")


def test_a_file_comes_behind_its_head(worker, ends, monkeypatch, tmp_path):
    monkeypatch.setattr(workers, "LINGER_MS", 0)
    (tmp_path / "file").write_bytes(b"words")

    def app(environ, start_response):
        start_response("200 OK", [("content-length", "5")])
        return environ["wsgi.file_wrapper"]((tmp_path / "file").open("rb"))

    worker.wsgi = app
    client, conn = ends
    client.sendall(GET % 1)
    assert worker.handle(conn) is True
    received = b""
    while not received.endswith(b"words"):
        received += client.recv(1000)
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_client_that_has_gone_is_not_served(worker, ends, paths):
    client, conn = ends
    client.close()
    assert worker.handle(conn) is False
    assert paths == []


def test_a_client_that_does_not_read_keeps_nobody_out(worker, ends, monkeypatch):
    monkeypatch.setattr(workers, "LINGER_MS", 0)
    client, conn = ends
    inside = []

    class Slow(Counted):
        def sendall(self, data):
            inside.append(worker._turnstile.inside)
            super().sendall(data)

    conn.sock = ClientSocket(Slow(conn.sock), worker._turnstile.leave)
    client.sendall(GET % 1)
    assert worker.handle(conn) is True
    assert (worker._turnstile.entered, inside) == (1, [0])


def test_a_rest_of_a_body_is_awaited_outside(worker, ends, monkeypatch):
    inside = []
    monkeypatch.setattr(workers, "LINGER_MS", 0)
    monkeypatch.setattr(
        RequestReader,
        "finish_body",
        lambda *_, **__: inside.append(worker._turnstile.inside) or True,
    )
    client, conn = ends
    client.sendall(GET % 1)
    assert worker.handle(conn) is True
    assert (worker._turnstile.entered, inside[-1]) == (1, 0)


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 9\r\n\r\nhalf",
        b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nbroken\r\n",
    ],
)
def test_what_nobody_reads_of_a_body_is_not_waited_for(body, worker, ends, monkeypatch):
    """And what is wrong with it is no second answer."""
    monkeypatch.setattr(workers, "UNREAD_SECONDS", 0.001)
    client, conn = ends
    client.sendall(b"POST /1 HTTP/1.1\r\nHost: x\r\n" + body)
    assert worker.handle(conn) is False
    conn.sock.close()
    assert everything(client).endswith(b"\r\n\r\nok")


def everything(client):
    """What it receives until its connection ends."""
    received = b""
    while more := client.recv(100_000):
        received += more
    return received


def test_a_connection_whose_client_goes_is_closed_by_its_own_thread(worker, ends):
    client, conn = ends
    closed, worker.nr_conns = [], 1
    close = conn.close
    conn.close = lambda: closed.append(threading.current_thread()) or close()
    client.close()
    worker._serve(conn)
    assert closed == [threading.current_thread()]
    assert worker.nr_conns == 1  # the loop's own, which hears of it
    worker.method_queue.run_callbacks(None)
    assert worker.nr_conns == 0


# Connections that the loop looks after.


@pytest.fixture
def seen_off(worker, ends, monkeypatch):
    """A client that has its answer and does not go."""
    monkeypatch.setattr(workers, "LINGER_MS", 1)
    client, conn = ends
    worker.nr_conns = 1
    client.sendall(b"GET /1 HTTP/1.0\r\n\r\n")
    worker._serve(conn)
    worker.method_queue.run_callbacks(None)
    assert everything(client).endswith(b"ok")
    assert (worker.nr_conns, conn.sock.fileno() >= 0) == (1, True)
    return ends


def looked(worker):
    """The loop looks once at what is there."""
    worker.wait_for_and_dispatch_events(0)
    worker.murder_pending()


def test_one_that_does_not_go_has_no_thread_and_a_while(worker, seen_off):
    client, conn = seen_off
    assert worker._at_work == set()
    client.sendall(b"more")
    looked(worker)
    assert conn.sock.fileno() >= 0
    client.close()
    looked(worker)
    assert (worker.nr_conns, conn.sock.fileno(), len(worker._leaving)) == (0, -1, 0)


def test_after_that_while_it_is_closed(worker, seen_off):
    _, conn = seen_off
    looked(worker)
    assert conn.timeout - time.monotonic() <= LEAVE_SECONDS
    conn.timeout = 0
    looked(worker)
    assert (worker.nr_conns, conn.sock.fileno(), len(worker._leaving)) == (0, -1, 0)


def test_one_that_still_sends_has_longer(worker, seen_off, monkeypatch):
    monkeypatch.setattr(workers, "LEAVE_LEAST_BYTES", 4)
    client, conn = seen_off
    client.sendall(b"more")
    looked(worker)
    conn.timeout = 0
    looked(worker)
    left = conn.timeout - time.monotonic()
    assert 0 < left <= LEAVE_SECONDS
    assert (worker.nr_conns, list(worker._leaving)) == (1, [conn])
    conn.timeout = 0  # and since then it sent nothing
    looked(worker)
    assert (worker.nr_conns, conn.sock.fileno()) == (0, -1)


def test_a_worker_that_ends_does_not_wait_for_one_that_sends(worker, seen_off, monkeypatch):
    monkeypatch.setattr(workers, "LEAVE_LEAST_BYTES", 4)
    client, conn = seen_off
    client.sendall(b"more")
    worker.wait_for_and_dispatch_events(0)
    worker.alive = False
    conn.timeout = 0
    worker.murder_pending()
    assert (worker.nr_conns, conn.sock.fileno()) == (0, -1)


def test_one_that_sends_a_little_only_to_stay_has_not(worker, seen_off):
    client, conn = seen_off
    client.sendall(b"more")
    looked(worker)
    conn.timeout = 0
    looked(worker)
    assert (worker.nr_conns, conn.sock.fileno()) == (0, -1)


def test_however_long_it_sends_there_is_an_end(worker, seen_off, monkeypatch):
    monkeypatch.setattr(workers, "LEAVE_LEAST_BYTES", 4)
    client, conn = seen_off
    assert conn.sock.leave_until - time.monotonic() <= LEAVE_AT_MOST_SECONDS
    conn.sock.leave_until = time.monotonic() + 0.5
    for is_open in (True, False):
        client.sendall(b"more")
        worker.wait_for_and_dispatch_events(0)
        conn.timeout = 0
        worker.murder_pending()
        assert (worker.nr_conns, conn.sock.fileno() >= 0) == (int(is_open), is_open)
        assert conn.timeout <= conn.sock.leave_until
        conn.sock.leave_until = time.monotonic()


def test_who_goes_sooner_does_not_wait_for_who_sends(worker, seen_off, monkeypatch):
    monkeypatch.setattr(workers, "LEAVE_LEAST_BYTES", 4)
    client, conn = seen_off
    client.sendall(b"more")
    looked(worker)
    conn.timeout = 0
    mine, theirs = socket.socketpair()
    with mine, theirs:
        other = type(conn)(worker.cfg, mine, conn.client, conn.server)
        other.sock = ClientSocket(mine, lambda: None)
        worker.nr_conns += 1
        worker._see_off(other)
        worker.murder_pending()
        assert list(worker._leaving) == [other, conn]


def test_one_that_sends_and_sends_is_closed_sooner(worker, seen_off, monkeypatch):
    monkeypatch.setattr(workers, "LEAVE_BYTES", 1_500)
    client, conn = seen_off
    for is_open in (True, False):
        client.sendall(b"x" * 1_000)
        looked(worker)
        assert (worker.nr_conns, conn.sock.fileno() >= 0) == (int(is_open), is_open)


@pytest.fixture
def pending(worker, ends):
    """A client that has sent half a head, in the loop's hands."""
    client, conn = ends
    worker.nr_conns = 1
    client.sendall(b"GET /1 HTTP/1.1\r\n")
    worker._serve(conn)
    worker.method_queue.run_callbacks(None)
    assert list(worker.pending_conns) == [conn]
    return ends


def test_a_head_that_is_late_is_told_so(worker, pending):
    client, conn = pending
    assert 0 < conn.timeout - time.monotonic() <= HEAD_SECONDS  # and not as long as idle ones
    looked(worker)
    assert worker.nr_conns == 1
    conn.timeout = 0
    looked(worker)
    assert (worker.nr_conns, conn.sock.fileno(), len(worker.pending_conns)) == (0, -1, 0)
    head, error = refused(everything(client))
    assert head.startswith("HTTP/1.1 408 Request Timeout\r\n")
    assert error["code"] == "request_timeout"


def test_one_that_is_late_goes_though_another_before_it_is_not(worker, pending, paths):
    _, conn = pending
    other, served = socket.socketpair()
    with other, served:
        first = TConn(worker.cfg, served, ("127.0.0.1", 1), ("127.0.0.1", 2))
        first.sock = ClientSocket(served, worker._turnstile.leave)
        first.timeout = time.monotonic() + 1_000
        worker.pending_conns.appendleft(first)
        conn.timeout = 0
        looked(worker)
        assert list(worker.pending_conns) == [first]


def test_a_client_that_said_nothing_is_told_nothing(worker, ends):
    """But for empty lines, which some send behind a request."""
    client, conn = ends
    worker.nr_conns = 1
    client.sendall(b"\r\n")
    worker._serve(conn)
    worker.method_queue.run_callbacks(None)
    conn.timeout = 0
    looked(worker)
    assert everything(client) == b""


def test_a_worker_that_ends_gives_those_up_soon_that_say_nothing(worker, pending):
    _, conn = pending
    worker._cap_keepalive(5.0)
    assert conn.timeout == 5.0


def test_where_no_more_may_connect_the_one_that_was_silent_longest_goes(worker, pending):
    _, conn = pending
    worker.worker_connections = 2
    looked(worker)
    assert (worker.nr_conns, conn.sock.fileno() >= 0) == (1, True)
    worker.worker_connections = 1
    looked(worker)
    assert (worker.nr_conns, conn.sock.fileno()) == (0, -1)


@pytest.mark.parametrize("silent", ["pending_conns", "_leaving", "keepalived_conns"])
def test_those_who_asked_before_go_last(silent, worker, ends):
    _, conn = ends
    order = ("_leaving", "pending_conns", "keepalived_conns")
    before = order[: order.index(silent)]
    assert not any(getattr(worker, name) for name in before)
    getattr(worker, silent).append(conn)
    worker.poller.register(conn.sock, selectors.EVENT_READ)
    worker.nr_conns = 1
    worker._make_room()
    assert (worker.nr_conns, conn.sock.fileno()) == (0, -1)
    worker._make_room()  # there is nobody left
    assert worker.nr_conns == 0


class Slow:
    """An app that takes its time, reads its request, or answers at length."""

    def __init__(self):
        self.begun, self.over = threading.Event(), threading.Event()

    def __call__(self, environ, start_response):
        self.begun.set()
        environ["wsgi.input"].read()
        if environ["PATH_INFO"] == "/1":
            self.over.wait(WAIT_SECONDS)
        start_response("200 OK", [])
        return [b"x" * 10_000_000] if environ["PATH_INFO"] == "/2" else [b"ok"]


HALF = b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf"


@pytest.fixture
def relieved(worker, ends, monkeypatch):
    """A function: whether the client of such a request loses its thread."""
    client, conn = ends
    worker.wsgi = Slow()

    def run(sent, *, seconds=HELD_SECONDS + 1, is_full=True, is_call=False):
        monkeypatch.setattr(worker, "tpool", SimpleNamespace(is_full=is_full))
        monkeypatch.setattr(worker, "_close", lambda _conn: None)
        shut_down = ClientSocket.shut_down
        monkeypatch.setattr(
            ClientSocket, "shut_down", lambda mine: ended.append(mine) or shut_down(mine)
        )
        ended = []
        if is_call:
            worker._calls.begin(conn.sock)
        client.sendall(sent)
        thread = threading.Thread(target=worker._serve, args=(conn,))
        thread.start()
        assert worker.wsgi.begun.wait(WAIT_SECONDS)
        if sent.startswith(b"GET /2"):  # until no more goes out to it
            client.recv(1)
            while conn.sock.is_writable():
                pass
        conn.sock.begun_at -= seconds
        worker.murder_pending()
        assert ended in ([], [conn.sock])
        if not ended:
            worker.wsgi.over.set()
            client.close()
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()
        return bool(ended)

    return run


@pytest.mark.parametrize("sent", [HALF % 3, GET % 2], ids=["does not send", "does not read"])
def test_where_threads_lack_who_holds_one_for_long_loses_it(sent, relieved):
    assert relieved(sent)


@pytest.mark.parametrize(
    "sent, more",
    [
        (HALF % 3, {"seconds": HELD_SECONDS - 1}),
        (HALF % 3, {"is_full": False}),  # nobody waits for its thread
        (HALF % 3, {"is_call": True}),  # it has a time and a ceiling
        (GET % 1, {}),  # it is not its client who takes long
    ],
)
def test_and_nobody_else(sent, more, relieved):
    assert not relieved(sent, **more)


def test_one_that_waits_for_its_turn_has_not_begun(worker, ends):
    _, conn = ends
    begun = []
    worker._turnstile.enter = lambda: begun.append(conn.sock.begun_at)
    ends[0].sendall(GET % 1)
    worker.handle(conn)
    assert begun == [math.inf]
    assert conn.sock.begun_at < math.inf


# Clients that ask the same over and over.


@pytest.fixture
def repeating(worker, ends):
    """A client that was answered, stays connected, and whose next head is known; and what goes
    to a thread."""
    client, conn = ends
    conn.parser = RequestReader(worker.cfg, conn.sock, conn.client, KnownHeads())
    conn.init()
    conn.sock.again = {GET % 1: b"at once"}.get
    tasks = []
    worker.tpool = SimpleNamespace(submit=tasks.append, shutdown=lambda: None, is_full=False)
    worker.finish_request(conn, SimpleNamespace(cancelled=lambda: False, result=lambda: True))
    return client, conn, tasks


def loop_once(worker):
    worker.wait_for_and_dispatch_events(timeout=0)


def test_what_is_known_is_answered_by_the_loop(worker, repeating, paths):
    client, _, tasks = repeating
    for _ in range(3):
        client.sendall(GET % 1)
        loop_once(worker)
        assert client.recv(1000) == b"at once"
    assert (tasks, paths) == ([], [])


def test_and_its_connection_is_the_last_to_end(worker, repeating):
    client, conn, _ = repeating
    worker.keepalived_conns.append(other := SimpleNamespace(timeout=conn.timeout))
    conn.timeout -= 10
    client.sendall(GET % 1)
    loop_once(worker)
    assert list(worker.keepalived_conns) == [other, conn]
    assert conn.timeout >= other.timeout
    worker.keepalived_conns.remove(other)


def test_what_is_not_known_goes_the_usual_way(worker, repeating, paths, monkeypatch):
    monkeypatch.setattr(workers, "LINGER_MS", 0)
    client, conn, tasks = repeating
    client.sendall(GET % 2)
    loop_once(worker)
    assert conn.sock.repeated == GET % 2
    tasks.pop()()
    assert [p for p, _ in paths] == ["/2"]
    assert client.recv(1000).endswith(b"ok")
    assert not worker.keepalived_conns


def test_who_asks_something_else_on_the_same_thread_is_not_taken_for_that(
    worker, repeating, paths
):
    client, _, tasks = repeating
    client.sendall(GET % 2)
    loop_once(worker)
    client.sendall(GET % 3)
    client.shutdown(socket.SHUT_WR)
    repeated = []
    app = worker.wsgi

    def seen(environ, start_response):
        repeated.append(environ["gunicorn.socket"].repeated)
        return app(environ, start_response)

    worker.wsgi = seen
    tasks.pop()()
    assert [p for p, _ in paths] == ["/2", "/3"]
    assert repeated == [GET % 2, b""]


def test_a_worker_that_ends_says_so_to_all(worker, repeating):
    client, _, tasks = repeating
    worker.alive = False
    client.sendall(GET % 1)
    loop_once(worker)
    assert len(tasks) == 1


def test_who_leaves_is_found_to_have_left(worker, repeating):
    client, conn, tasks = repeating
    client.close()
    loop_once(worker)
    tasks.pop()()
    assert conn.sock.fileno() == -1


@pytest.mark.parametrize("taken", [0, 3])
def test_what_does_not_go_out_at_once_is_sent_by_a_thread(taken, worker, repeating):
    client, conn, tasks = repeating

    class Full(Counted):
        def send(self, data):
            if not taken:
                raise BlockingIOError
            return self.sock.send(data[:taken])

    conn.sock._sock = Full(conn.sock._sock)
    client.sendall(GET % 1)
    loop_once(worker)
    tasks.pop()()
    assert client.recv(1000) == b"at once"
    worker.method_queue.run_callbacks(None)  # it was given back
    assert list(worker.keepalived_conns) == [conn]


def test_who_leaves_before_it_is_all_sent_is_given_up(worker, repeating):
    client, conn, _ = repeating
    conn.sock.unsent = b"the rest"
    client.close()
    assert worker.handle(conn) is False


# A crowd, and the loop as it runs.


@pytest.fixture
def looping(worker, monkeypatch):
    """Where it listens; two threads."""
    monkeypatch.setattr(workers, "FIRST_BYTE_MS", 1)
    monkeypatch.setattr(workers, "UNREAD_SECONDS", 0.001)
    monkeypatch.setattr(workers, "LINGER_MS", 1)
    worker.tpool = ThreadPool(2)
    worker.worker_connections = 60
    worker.ppid = os.getppid()
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        worker.sockets = [listener]
        loop = threading.Thread(target=worker.run)
        loop.start()
        yield listener.getsockname()
        worker.alive = False
        worker.method_queue.defer(lambda: None)
        loop.join(WAIT_SECONDS)  # when all have gone
        assert not loop.is_alive()
    worker.tpool.shutdown()


@pytest.mark.parametrize(
    "says",
    [
        b"",
        b"G",
        b"GET /1 HTTP/1.1\r\nHost: x\r\n",
        b"POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
    ],
    ids=["nothing", "a byte", "half a head", "no body"],
)
def test_a_crowd_that_says_half_of_what_it_wants_keeps_nobody_out(says, looping, paths):
    """More than there are threads, and more than may be connected."""
    crowd = []
    try:
        for _ in range(100):
            crowd.append(socket.create_connection(looping, WAIT_SECONDS))
            crowd[-1].sendall(says)
        for _ in range(5):
            with socket.create_connection(looping, WAIT_SECONDS) as client:
                client.sendall(b"GET /health HTTP/1.0\r\n\r\n")
                assert everything(client).endswith(b"ok")
        assert [p for p, _ in paths].count("/health") == 5
    finally:
        for client in crowd:
            client.close()


# What is refused before the app hears of it.


def refused(received):
    """Head and error of an answer that has OpenAI's shape."""
    head, _, body = received.decode().partition("\r\n\r\n")
    lines = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:])
    assert (lines["content-type"], lines["connection"]) == ("application/json", "close")
    assert int(lines["content-length"]) == len(body)
    assert lines["x-request-id"]
    (error,) = json.loads(body).values()
    assert sorted(error) == ["code", "message", "param", "type"]
    return head, error


@pytest.mark.parametrize(
    "sent, status, code",
    [
        (b"planted\r\n\r\n", "400 Bad Request", "malformed_request"),
        (b"GET /planted HTTP/9.9\r\n\r\n", "400 Bad Request", "malformed_request"),
        (b"GET / HTTP/1.1\r\nplanted\r\n\r\n", "400 Bad Request", "malformed_request"),
        (b"GET / HTTP/1.1\nHost: planted\n\n", "400 Bad Request", "malformed_request"),
        (b"\x16\x03\x01\x02\x00planted", "400 Bad Request", "malformed_request"),
        (b"GET /planted HTTP/1.1\r\n\r\n", "400 Bad Request", "malformed_request"),
        (b"GET /planted HTTP/1.1\r\nX: " + b"x" * 70_000, "431", "headers_too_large"),
        (b"GET / HTTP/1.1\r\nExpect: planted\r\n\r\n", "417", "expectation_failed"),
        (b"GET /planted" + b"x" * 9_000 + b" HTTP/1.1\r\n\r\n", "414", "uri_too_long"),
    ],
)
def test_what_is_refused_is_said_in_openais_shape_and_not_quoted(
    sent, status, code, worker, ends, paths, monkeypatch
):
    logged = []
    monkeypatch.setattr(
        worker.log, "info", lambda text, *more, extra: logged.append(text % more)
    )
    client, conn = ends
    client.sendall(sent)
    found = worker.handle(conn)
    while is_later(found):
        found = worker.handle(conn)
    assert (found, paths) == (False, [])
    conn.sock.close()
    received = everything(client)
    head, error = refused(received)
    assert head.startswith(f"HTTP/1.1 {status}")
    assert error["code"] == code
    assert b"planted" not in received
    (line,) = logged
    assert "planted" not in line
    assert f"client=127.0.0.1 status={status[:3]}: {error['message']}" in line


def test_an_app_that_fails_is_a_500_that_tells_nothing(worker, ends, monkeypatch):
    logged = []
    monkeypatch.setattr(worker.log, "exception", lambda text, extra: logged.append(text))

    def app(_environ, _start_response):
        raise LookupError("planted")

    worker.wsgi = app
    client, conn = ends
    client.sendall(GET % 1)
    assert worker.handle(conn) is False
    conn.sock.close()
    head, error = refused(everything(client))
    assert head.startswith("HTTP/1.1 500 ")
    assert error["code"] == "internal_error"
    assert "planted" not in error["message"]
    assert logged == ["A request failed outside of the app."]


def test_a_header_that_the_app_may_not_send_is_our_fault(worker, ends, monkeypatch):
    logged = []
    monkeypatch.setattr(worker.log, "exception", lambda text, extra: logged.append(text))

    def app(_environ, start_response):
        start_response("200 OK", [("x-planted", "a\nb")])
        return []

    worker.wsgi = app
    client, conn = ends
    client.sendall(GET % 1)
    worker.handle(conn)
    conn.sock.close()
    assert refused(everything(client))[0].startswith("HTTP/1.1 500 ")
    assert len(logged) == 1


def test_one_that_fails_in_the_middle_of_its_answer_ends_it_without_a_second_head(
    worker, ends, monkeypatch
):
    logged, closed = [], []
    monkeypatch.setattr(worker.log, "exception", lambda text, extra: logged.append(text))

    class Answer:
        def __iter__(self):
            yield b"half"
            raise LookupError("planted")

        def close(self):
            closed.append(self)

    def app(_environ, start_response):
        start_response("200 OK", [])
        return Answer()

    worker.wsgi = app
    client, conn = ends
    client.sendall(GET % 1 + GET % 2)
    assert worker.handle(conn) is False
    conn.sock.close()
    received = everything(client)
    assert received.count(b"HTTP/1.1") == 1
    assert received.endswith(b"\r\n\r\n4\r\nhalf\r\n")  # no end of it
    assert (len(logged), len(closed)) == (1, 1)


def test_what_cannot_even_be_begun_to_be_sent_is_closed(worker, ends, monkeypatch):
    closed = []
    monkeypatch.setattr(worker.log, "exception", lambda text, extra: None)

    class Answer:
        def __iter__(self):
            raise LookupError("planted")

        def close(self):
            closed.append(self)

    def app(_environ, start_response):
        start_response("200 OK", [])
        return Answer()

    worker.wsgi = app
    client, conn = ends
    client.sendall(GET % 1)
    assert worker.handle(conn) is False
    assert len(closed) == 1
    assert client.recv(1000).startswith(b"HTTP/1.1 500 ")


def test_a_worker_that_has_served_as_many_as_it_should_ends(worker, ends, paths):
    """Where somebody gives gunicorn `--max-requests`."""
    worker.max_requests = 2
    client, conn = ends
    client.sendall(GET % 1 + GET % 2 + GET % 3)
    assert worker.handle(conn) is False
    assert [path for path, _ in paths] == ["/1", "/2"]
    assert not worker.alive
    conn.sock.close()
    first, second = everything(client).split(b"HTTP/1.1 200 OK")[1:]
    assert b"Connection: keep-alive" in first
    assert b"Connection: close" in second


@pytest.mark.parametrize("name, value", [("max_keepalived", 0), ("cfg", SHORT)])
def test_where_no_more_may_stay_connected_a_client_is_asked_to_go(name, value, worker, ends):
    setattr(worker, name, value)
    client, conn = ends
    client.sendall(GET % 1)
    assert worker.handle(conn) is False
    assert b"Connection: close" in client.recv(1000)


def test_requests_after_the_second_are_served_like_the_others(worker, ends, monkeypatch):
    monkeypatch.setattr(workers, "LINGER_MS", 0)
    told = []

    def app(environ, start_response):
        told.append((environ["wsgi.input"].read(), environ["wsgi.multithread"]))
        start_response("200 OK", [("content-length", "2")])
        return [b"ok"]

    worker.wsgi = app
    client, conn = ends
    for number in range(5):
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n%02d" % number)
        assert worker.handle(conn) is True
        assert client.recv(1000).endswith(b"\r\n\r\nok")
    assert told == [(b"%02d" % number, True) for number in range(5)]
    assert isinstance(conn.parser.mesg, KnownRequest)


def test_one_that_does_not_read_its_refusal_keeps_no_thread(worker, ends):
    client, conn = ends
    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    conn.sock.settimeout(0.0)
    with contextlib.suppress(BlockingIOError):
        while True:
            conn.sock.send(b"x" * 100_000)
    client.sendall(b"planted\r\n\r\n")
    assert worker.handle(conn) is False


@pytest.mark.parametrize(
    "codings", [["gzip, chunked"], ["identity, chunked"], ["identity", "chunked"]]
)
def test_a_body_that_others_may_read_otherwise_is_refused(codings, worker, ends, paths):
    """These gunicorn itself would take."""
    lines = "".join(f"Transfer-Encoding: {coding}\r\n" for coding in codings)
    client, conn = ends
    client.sendall(f"POST /1 HTTP/1.1\r\nHost: x\r\n{lines}\r\n0\r\n\r\n".encode())
    assert worker.handle(conn) is False
    conn.sock.close()
    assert refused(everything(client))[1]["code"] == "malformed_request"
    assert paths == []


@pytest.mark.parametrize("hosts", ["", "Host: a b\r\n", "Host: x\r\nHost: x\r\n"])
def test_who_names_no_host_or_two_is_told_that(hosts, worker, ends, paths):
    client, conn = ends
    client.sendall(f"GET /1 HTTP/1.1\r\n{hosts}\r\n".encode())
    assert worker.handle(conn) is False
    conn.sock.close()
    head, error = refused(everything(client))
    assert head.startswith("HTTP/1.1 400 ")
    assert error["message"].startswith("The request needs one Host header")
    assert paths == []


@pytest.mark.parametrize(
    "asked, says, is_kept",
    [
        ("1.1\r\nHost: x", "keep-alive", True),
        ("1.1\r\nHost: x\r\nConnection: foo, Close", "close", False),
        ("1.2\r\nHost: x", "keep-alive", True),
        ("1.9\r\nHost: x\r\nConnection: keep-alive\r\nConnection: close", "close", False),
    ],
)
def test_an_answer_is_of_our_version_and_tells_what_becomes_of_the_connection(
    asked, says, is_kept, worker, ends, monkeypatch
):
    monkeypatch.setattr(workers, "LINGER_MS", 0)
    client, conn = ends
    client.sendall(f"GET /1 HTTP/{asked}\r\n\r\n".encode())
    assert worker.handle(conn) is is_kept
    head = client.recv(1000).decode()
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    assert f"\r\nConnection: {says}\r\n" in head


def test_a_chunked_body_is_read_whatever_the_case_of_its_coding(worker, ends, paths):
    client, conn = ends
    client.sendall(
        b"POST /1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n"
    )
    client.shutdown(socket.SHUT_WR)
    worker.handle(conn)
    assert [p for p, _ in paths] == ["/1"]


def test_an_app_that_fails_leaves_its_place(worker, ends):
    def app(_environ, _start_response):
        raise LookupError

    worker.wsgi = app
    worker.log.error_log.disabled = True
    client, conn = ends
    client.sendall(GET % 1)
    assert worker.handle(conn) is False
    assert (worker._turnstile.entered, worker._turnstile.inside) == (1, 0)
    assert client.recv(1000).startswith(b"HTTP/1.1 500 ")


@pytest.mark.parametrize("error", [BrokenPipeError(errno.EPIPE, ""), StopIteration()])
def test_so_does_one_whose_client_has_left_and_gets_nothing(error, worker, ends):
    """Of neither gunicorn tells us: it is all that is left of the request."""

    def app(_environ, _start_response):
        raise error

    worker.wsgi = app
    client, conn = ends
    client.sendall(GET % 1)
    assert worker.handle(conn) is False
    assert (worker._turnstile.entered, worker._turnstile.inside) == (1, 0)


def test_the_more_clients_there_are_the_more_are_taken_at_once(worker, monkeypatch):
    served = []
    monkeypatch.setattr(worker, "enqueue_req", served.append)

    def taken():
        before = worker.nr_conns
        worker.accept(listener)
        return worker.nr_conns - before

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        clients = [socket.create_connection(listener.getsockname()) for _ in range(10)]
        assert [taken() for _ in range(9)] == [1] * 8 + [2]
        assert taken() == 0  # there is nobody left
        clients += [socket.create_connection(listener.getsockname()) for _ in range(3)]
        worker.worker_connections = 11
        assert taken() == 1  # and no more than it may have
        worker.worker_connections = 100
        assert taken() == 2
    for end in (*clients, *(conn.sock for conn in served)):
        end.close()


class TestAWorkerThatEnds:
    """While it has answers that are still open; two clients have connected just before."""

    @pytest.fixture
    def listener(self, worker, monkeypatch):
        monkeypatch.setattr(worker, "enqueue_req", lambda conn: conn.sock.close())
        with contextlib.ExitStack() as stack, socket.create_server(("127.0.0.1", 0)) as made:
            made.setblocking(False)
            worker.sockets = [made]
            self.address = made.getsockname()
            for _ in range(2):
                stack.enter_context(socket.create_connection(self.address, WAIT_SECONDS))
            yield made

    def test_takes_those_and_refuses_others_where_the_gateway_ends(self, worker, listener):
        worker._draining.begin()
        worker._cap_keepalive(0.0)
        assert worker.nr_conns == 2
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(self.address, WAIT_SECONDS)

    def test_leaves_them_to_those_who_stay(self, worker, listener):
        with listener.dup() as of_another:
            worker._cap_keepalive(0.0)
            assert (worker.nr_conns, listener.fileno()) == (0, -1)
            of_another.accept()[0].close()


def test_who_is_served_when_the_loop_has_ended_writes_to_no_others_file(
    worker, ends, paths, tmp_path
):
    """As to the database, which may have the pipe's number by then."""
    client, conn = ends
    client.sendall(GET % 1)
    client.shutdown(socket.SHUT_WR)
    numbers = {worker.method_queue._read_fd, worker.method_queue._write_fd}
    worker.method_queue.close()
    path = tmp_path / "proxy.db"
    path.touch()
    opened = [os.open(path, os.O_RDWR) for _ in range(max(numbers) + 1)]
    try:
        worker._serve(conn)
    finally:
        for number in opened:
            os.close(number)
    assert [p for p, _ in paths] == ["/1"]
    assert path.read_bytes() == b""


class NoFiles:
    """A listener, where the process may open no more files."""

    def __init__(self, why):
        self.why = why

    def accept(self):
        raise OSError(self.why, os.strerror(self.why))


@pytest.mark.parametrize("why", [errno.EMFILE, errno.ENFILE])
def test_where_no_more_files_may_be_opened_clients_wait_and_nobody_is_lost(why, worker):
    now = 100.0
    worker._shortage = Shortage(clock=lambda: now)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        worker.sockets = [listener]
        worker.set_accept_enabled(True)
        worker.accept(NoFiles(why))
        assert (worker._accepting, worker.nr_conns) == (False, 0)
        worker.set_accept_enabled(True)
        assert not worker._accepting  # the loop would be woken by who waits, for nothing
        now += PAUSE_SECONDS
        worker.set_accept_enabled(True)
        assert worker._accepting


def test_and_who_was_silent_longest_goes(worker, pending):
    _, conn = pending
    worker._accepting = False
    worker.accept(NoFiles(errno.EMFILE))
    assert worker.nr_conns == 1  # what the loop has still to do may concern that one
    worker.murder_pending()
    assert (worker.nr_conns, conn.sock.fileno()) == (0, -1)


def test_another_error_of_it_ends_the_worker_as_ever(worker):
    with pytest.raises(OSError, match="Bad file descriptor"):
        worker.accept(NoFiles(errno.EBADF))


class TestOthersWithFewerConnections:
    """`waits` has how many connections it had each time it let another one go first."""

    @pytest.fixture
    def waits(self, worker, monkeypatch):
        found = []
        monkeypatch.setattr(worker, "enqueue_req", lambda conn: conn.sock.close())
        monkeypatch.setattr(workers.time, "sleep", lambda _: found.append(worker.nr_conns))
        return found

    @pytest.fixture
    def connect(self):
        """One more client."""
        with contextlib.ExitStack() as stack, socket.create_server(("127.0.0.1", 0)) as server:
            server.setblocking(False)

            def connect():
                stack.enter_context(socket.create_connection(server.getsockname()))
                return server

            yield connect

    def of_another(self, worker, count):
        worker._least.use_row(1)
        worker._least.note(count)
        worker._least.use_row(0)

    def test_go_first(self, worker, waits, connect):
        self.of_another(worker, 1)
        for _ in range(4):
            worker.accept(connect())
        assert (worker.nr_conns, waits) == (4, [3])

    def test_have_taken_it_meanwhile(self, worker, waits, connect, monkeypatch):
        self.of_another(worker, 0)
        worker.nr_conns = 5
        monkeypatch.setattr(workers.time, "sleep", lambda _: listener.accept()[0].close())
        listener = connect()
        worker.accept(listener)
        assert worker.nr_conns == 5

    def test_hear_how_many_it_has(self, worker, waits, connect):
        for _ in range(4):
            worker.accept(connect())
        worker._least.use_row(1)
        assert worker._least.is_another(6)
        assert not worker._least.is_another(5)
        worker.nr_conns = 2  # two have left
        worker._accepting = True
        worker._least.use_row(0)
        worker.murder_pending()
        worker._least.use_row(1)
        assert worker._least.is_another(4)

    def test_are_those_with_config(self, worker, waits, connect):
        """A worker that began while the database was away could only say that it has none."""
        worker._snapshots.is_read = False
        worker.set_accept_enabled(True)
        worker.accept(connect())
        worker.murder_pending()
        assert (worker.nr_conns, waits) == (1, [0])
        worker._least.use_row(1)
        assert not worker._least.is_another(100)
        worker._least.use_row(0)
        worker._snapshots.is_read = True
        worker.accept(connect())
        assert waits == [0]
        worker._least.use_row(1)
        assert worker._least.is_another(4)

    def test_hear_whether_it_takes_any(self, worker):
        worker.set_accept_enabled(True)
        worker._least.use_row(1)
        assert worker._least.is_another(2)
        worker._least.use_row(0)
        worker.set_accept_enabled(False)
        worker.murder_pending()
        worker._least.use_row(1)
        assert not worker._least.is_another(2)


# Streams, of which the rest is watched.


class Events:
    """An app whose answer is a stream of what `says` sends; `.` is its end. It notes which
    thread passed what on, and how often it was closed."""

    silence_seconds = WAIT_SECONDS
    ends_at = math.inf

    def __init__(self):
        self._upstream, self._ours = socket.socketpair()
        self.threads = []
        self.closed = 0
        self.is_over = False
        self.failed = None
        self.source = self

    def __call__(self, _environ, start_response):
        start_response("200 OK", [])
        return self

    def says(self, words):
        self._upstream.sendall(words)

    def __iter__(self):
        yield b"begin"
        while not self.is_over:
            yield self._read(0)
        if self.failed:
            raise self.failed

    def _read(self, flags):
        self.threads.append(threading.current_thread().name)
        words = self._ours.recv(100_000, flags)
        self.is_over = words.endswith(b".")
        return words

    def watched(self):
        return None if self.is_over else self._ours.fileno()

    def pass_on(self):
        return self._read(socket.MSG_DONTWAIT)

    def fail(self, error):
        self.failed, self.is_over = error, True

    def time_out(self):
        self.fail(TimeoutError())

    def close(self):
        self.closed += 1

    def end(self):
        self._upstream.close()
        self._ours.close()


@pytest.fixture
def events(worker):
    made = worker.wsgi = Events()
    worker._streams.start()
    yield made
    worker._streams.stop()
    made.end()


def until(client, ending):
    got = b""
    while not got.endswith(ending):
        more = client.recv(1_000_000)
        assert more, got
        got += more
    return got


def unchunked(data):
    """The bytes of whole chunks."""
    got = b""
    while data:
        length, _, data = data.partition(b"\r\n")
        size = int(length, 16)
        assert data[size : size + 2] == b"\r\n"
        got += data[:size]
        data = data[size + 2 :]
    return got


def served(worker, conn):
    """As gunicorn's loop has it served, but on the present thread first."""
    worker.nr_conns += 1
    worker._serve(conn)


def when(true):
    ends_at = time.monotonic() + WAIT_SECONDS
    while not true():
        assert time.monotonic() < ends_at


def test_a_stream_that_has_begun_has_no_thread(worker, ends, events):
    client, conn = ends
    client.sendall(GET % 1)
    served(worker, conn)  # comes back
    assert until(client, b"begin\r\n").startswith(b"HTTP/1.1 200 OK\r\n")
    events.says(b"one")
    assert until(client, b"\r\n") == b"3\r\none\r\n"
    assert events.threads == ["streams"]
    assert worker.tpool.busy == 0
    assert not worker._at_work
    assert events.closed == 0


def test_its_end_is_a_threads_and_the_client_may_ask_again(worker, ends, events, paths):
    client, conn = ends
    client.sendall(GET % 1)
    served(worker, conn)
    until(client, b"begin\r\n")
    events.says(b"the end.")
    assert until(client, b"0\r\n\r\n") == b"8\r\nthe end.\r\n0\r\n\r\n"
    when(lambda: worker.tpool.busy == 0)
    assert events.closed == 1
    worker.method_queue.run_callbacks(None)
    assert list(worker.keepalived_conns) == [conn]


def test_a_client_that_asks_again_at_once_is_served_by_that_thread(worker, ends, events):
    client, conn = ends
    client.sendall(GET % 1 + GET % 2)
    served(worker, conn)
    until(client, b"begin\r\n")
    events.says(b"the end.")
    assert b"0\r\n\r\nHTTP/1.1 200 OK\r\n" in until(client, b"begin\r\n0\r\n\r\n")


def test_one_that_is_not_running_leaves_all_to_the_thread(worker, ends, events):
    worker._streams.stop()
    client, conn = ends
    client.sendall(GET % 1)
    events.says(b"the end.")
    served(worker, conn)
    assert b"the end." in until(client, b"0\r\n\r\n")
    assert events.threads == [threading.current_thread().name]
    assert events.closed == 1


def test_an_old_client_keeps_its_thread(worker, ends, events):
    """Its answer has no chunks: what ends it is the connection's end."""
    client, conn = ends
    client.sendall(b"GET / HTTP/1.0\r\n\r\n")
    events.says(b"the end.")
    served(worker, conn)
    assert until(client, b"the end.").endswith(b"\r\n\r\nbeginthe end.")
    assert events.threads == [threading.current_thread().name]


def test_a_client_that_does_not_read_has_a_thread_until_it_does(worker, ends, events):
    client, conn = ends
    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    client.sendall(GET % 1)
    served(worker, conn)
    until(client, b"begin\r\n")
    said = 0
    events._upstream.setblocking(False)
    while worker.tpool.busy == 0:
        with contextlib.suppress(BlockingIOError):
            said += events._upstream.send(b"x" * 1000)
    got = b""
    while got.count(b"x") < said or not got.endswith(b"\r\n"):
        got += client.recv(1_000_000)
    assert unchunked(got) == b"x" * said
    when(lambda: worker.tpool.busy == 0)
    events._upstream.setblocking(True)
    events.says(b"z")
    assert until(client, b"\r\n") == b"1\r\nz\r\n"
    assert events.threads[-1] == "streams"


def test_a_client_that_leaves_is_found_to_have_left(worker, ends, events):
    client, conn = ends
    client.sendall(GET % 1)
    served(worker, conn)
    until(client, b"begin\r\n")
    client.close()
    events.says(b"x")
    when(lambda: events.closed)
    when(lambda: worker.tpool.busy == 0)
    assert events.closed == 1


def test_what_went_wrong_meanwhile_ends_the_answer_without_its_end(worker, ends, events):
    """So no client can take what came for all there is."""
    client, conn = ends
    client.sendall(GET % 1)
    served(worker, conn)
    until(client, b"begin\r\n")
    events._ours.shutdown(socket.SHUT_RDWR)

    def broken(_flags):
        raise ValueError

    events._read = broken
    when(lambda: events.closed)
    assert client.recv(1000) == b""
    assert isinstance(events.failed, ValueError)
