import os
import socket
import threading
from types import SimpleNamespace

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.workers.gthread import TConn, ThreadWorker

from proxy import worker as workers
from proxy.runtime.client_socket import ClientSocket
from proxy.runtime.entry import Entry
from proxy.runtime.threads import ThreadPool
from proxy.worker import Worker

WAIT_SECONDS = 5  # for what other threads do at once; it is reached only by a bug

GET = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"


class Watched(Entry):
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
        paths.append((environ["PATH_INFO"], made._entry.inside))
        start_response("200 OK", [("content-length", "2")])
        return [b"ok"]

    made.wsgi = app
    made._entry = Watched()
    made.tpool = ThreadPool(1)
    made.method_queue.init()
    yield made
    made.tpool.shutdown()
    made.method_queue.close()
    made.tmp.close()


@pytest.fixture
def ends(worker):
    """A client's end, and gunicorn's object for the other."""
    client, served = socket.socketpair()
    client.settimeout(WAIT_SECONDS)
    with client:
        conn = TConn(worker.cfg, served, ("127.0.0.1", 1), ("127.0.0.1", 2))
        conn.sock = ClientSocket(served, worker._entry.leave)
        yield client, conn
        conn.sock.close()


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
    assert worker.handle(conn) not in (True, False)  # gunicorn's word for "later"


def test_a_whole_request_is_begun_in_turn_and_leaves_when_it_is_answered(worker, ends, paths):
    client, conn = ends
    client.sendall(GET % 1)
    worker.handle(conn)
    assert paths == [("/1", 1)]
    assert worker._entry.inside == 0


def test_one_whose_rest_is_awaited_keeps_nobody_out(worker, ends, paths):
    client, conn = ends
    client.sendall(b"GET /1 HTTP/1.1\r\n")
    thread = threading.Thread(target=worker.handle, args=(conn,))
    thread.start()
    client.sendall(b"Host: x\r\n\r\n")
    assert client.recv(1000).endswith(b"ok")
    client.close()
    thread.join(WAIT_SECONDS)
    # It may have come in one piece.
    assert paths in ([("/1", 0)], [("/1", 1)])


class Counted:
    """A socket that notes what is sent at once."""

    def __init__(self, sock):
        self.sock, self.sent = sock, []

    def sendall(self, data):
        self.sent.append(data)
        self.sock.sendall(data)

    def __getattr__(self, name):
        return getattr(self.sock, name)


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
    conn.sock = ClientSocket(counted, worker._entry.leave)
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
            inside.append(worker._entry.inside)
            super().sendall(data)

    conn.sock = ClientSocket(Slow(conn.sock), worker._entry.leave)
    client.sendall(GET % 1)
    assert worker.handle(conn) is True
    assert (worker._entry.entered, inside) == (1, [0])


def test_a_rest_of_a_body_is_awaited_outside(worker, ends, monkeypatch):
    inside = []
    monkeypatch.setattr(workers, "LINGER_MS", 0)
    monkeypatch.setattr(
        ThreadWorker,
        "_keepalive_after",
        lambda _worker, _conn, kept: inside.append(worker._entry.inside) or kept,
    )
    client, conn = ends
    client.sendall(GET % 1)
    assert worker.handle(conn) is True
    assert (worker._entry.entered, inside) == (1, [0])


def test_a_connection_is_closed_by_its_own_thread(worker, ends):
    client, conn = ends
    closed, worker.nr_conns = [], 1
    conn.close = lambda graceful=False: closed.append((graceful, threading.current_thread()))
    client.close()
    worker._serve(conn)
    assert closed == [(True, threading.current_thread())]
    assert worker.nr_conns == 1  # the loop's own, which hears of it
    worker.method_queue.run_callbacks(None)
    assert worker.nr_conns == 0


def test_an_app_that_fails_leaves_its_place(worker, ends):
    def app(_environ, _start_response):
        raise LookupError

    worker.wsgi = app
    worker.log.error_log.disabled = True
    client, conn = ends
    client.sendall(GET % 1)
    assert worker.handle(conn) is False
    assert (worker._entry.entered, worker._entry.inside) == (1, 0)
    assert client.recv(1000).startswith(b"HTTP/1.1 500 ")


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
