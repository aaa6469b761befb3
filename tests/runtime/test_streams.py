import math
import socket
import threading
import time
from types import SimpleNamespace

import pytest

from proxy.runtime import streams as module
from proxy.runtime.client_socket import ClientSocket
from proxy.runtime.streams import (
    BUSY_SHARE,
    LOOK_SECONDS,
    MANY_A_SECOND,
    PAUSE_SECONDS,
    STILL_BUSY_SHARE,
    STILL_MANY_A_SECOND,
    Stream,
    Streams,
)
from tests.runtime.world import Clock

WAIT_SECONDS = 5  # for what other threads do at once; it is reached only by a bug


class Upstream:
    """What comes through a pair of sockets: `says` sends it, and the other end is read as a
    source is. A word that is an error is raised."""

    silence_seconds = 60.0
    ends_at = math.inf

    def __init__(self):
        self.peer, self.ours = socket.socketpair()
        self.failed = None
        self.is_over = False
        self.raises = None

    def says(self, words):
        self.peer.sendall(words)

    def pass_on(self):
        if self.raises:
            raise self.raises
        words = self.ours.recv(1000, socket.MSG_DONTWAIT)
        self.is_over = not words or words.endswith(b".")
        return words.replace(b"secret", b"")

    def fail(self, error):
        self.failed = error
        self.is_over = True

    def time_out(self):
        self.fail(TimeoutError())


class Client:
    """One that reads what it is sent when it is asked to."""

    def __init__(self):
        self.ends, served = socket.socketpair()
        self.ends.setblocking(False)
        self.socket = ClientSocket(served, lambda: None)

    def got(self):
        try:
            return self.ends.recv(1_000_000)
        except BlockingIOError:
            return b""

    def close(self):
        self.ends.close()
        self.socket.close()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def cpu():
    """The clock that goes while the worker works."""
    return Clock()


@pytest.fixture
def streams(clock, cpu):
    made = Streams(clock, cpu)
    made.open()
    yield made
    made.stop()


@pytest.fixture
def begin(streams):
    """A stream that has begun, its upstream, its client, and how often it was given back."""
    begun = []

    def begin(**changes):
        upstream, client, given_back = Upstream(), Client(), []
        vars(upstream).update(changes)
        number = upstream.ours.fileno()
        stream = Stream(
            number, upstream, client.socket, lambda b: b"<%b>" % b, lambda: given_back.append(1)
        )
        begun.append((upstream, client))
        streams.add(stream)
        return stream, upstream, client, given_back

    yield begin
    for upstream, client in begun:
        upstream.peer.close()
        upstream.ours.close()
        client.close()


def test_what_arrives_goes_to_its_client_framed(streams, begin):
    _, one, of_one, one_given_back = begin()
    _, other, of_other, _ = begin()
    one.says(b"a")
    other.says(b"b")
    streams.look()
    one.says(b"c")
    streams.look()
    assert (of_one.got(), of_other.got()) == (b"<a><c>", b"<b>")
    assert not one_given_back


def test_what_is_not_to_be_passed_on_sends_nothing(streams, begin):
    _, upstream, client, given_back = begin()
    upstream.says(b"secret")
    streams.look()
    assert (client.got(), given_back) == (b"", [])


def test_at_its_end_it_is_given_back_with_all_sent(streams, begin):
    stream, upstream, client, given_back = begin()
    upstream.says(b"the end.")
    streams.look()
    assert (client.got(), stream.unsent, given_back) == (b"<the end.>", b"", [1])


def test_one_that_is_given_back_is_watched_no_more(streams, begin):
    _, upstream, client, given_back = begin()
    upstream.says(b"the end.")
    streams.look()
    upstream.says(b"of another answer, on the same connection")
    streams.look()
    assert (client.got(), given_back) == (b"<the end.>", [1])


def test_it_may_be_given_to_the_streams_again(streams, begin):
    stream, upstream, client, given_back = begin()
    upstream.says(b"a.")
    streams.look()
    streams.add(stream)
    upstream.says(b"b")
    streams.look()
    assert (client.got(), given_back) == (b"<a.><b>", [1])


def test_what_a_client_does_not_take_is_left_to_a_thread(streams, begin):
    stream, upstream, client, given_back = begin()
    sent = 0
    while not given_back:
        upstream.says(b"x" * 1000)
        streams.look()
        sent += 1002
    assert stream.unsent
    got = b""
    while more := client.got():
        got += more
    assert got + stream.unsent == b"<%b>" % (b"x" * 1000) * (sent // 1002)


def test_that_a_client_has_gone_is_for_a_thread_to_find(streams, begin):
    stream, upstream, client, given_back = begin()
    client.ends.close()
    upstream.says(b"a")
    streams.look()
    assert (stream.unsent, given_back, upstream.failed) == (b"<a>", [1], None)


@pytest.mark.parametrize("error", [OSError(), ValueError(), KeyError()])
def test_an_error_ends_its_stream_alone_and_is_told_to_who_goes_on(error, streams, begin):
    _, broken, _, given_back = begin()
    _, other, of_other, _ = begin()
    broken.raises = error
    broken.says(b"a")
    other.says(b"b")
    streams.look()
    assert (broken.failed, given_back) == (error, [1])
    assert of_other.got() == b"<b>"


def test_one_that_is_silent_for_too_long_is_given_back(streams, begin, clock):
    _, silent, _, given_back = begin()
    _, other, _, other_given_back = begin()
    clock.now += silent.silence_seconds - 1
    other.says(b"a")
    streams.look()
    assert not given_back
    clock.now += 1
    streams.look()
    assert isinstance(silent.failed, TimeoutError)
    assert (given_back, other_given_back) == ([1], [])


def test_so_is_one_of_which_nothing_arrives_that_can_be_read(streams, begin, clock):
    _, upstream, _, given_back = begin()
    upstream.says(b"a piece of a TLS record")
    upstream.raises = BlockingIOError()
    clock.now += upstream.silence_seconds - 1
    streams.look()
    assert not given_back
    clock.now += 1
    streams.look()
    assert isinstance(upstream.failed, TimeoutError)
    assert given_back == [1]


def test_so_is_one_whose_time_is_over_though_it_speaks(streams, begin, clock):
    _, upstream, _, given_back = begin(ends_at=clock() + 10)
    for _ in range(9):
        clock.now += 1
        upstream.says(b"a")
        streams.look()
    assert not given_back
    clock.now += 1
    streams.look()
    assert isinstance(upstream.failed, TimeoutError)
    assert given_back == [1]


def test_what_arrives_after_its_time_is_not_passed_on(streams, begin, clock):
    _, upstream, client, given_back = begin(ends_at=clock() + 0.1)
    upstream.says(b"a")
    streams.look()
    clock.now += 0.1  # sooner than silent ones are looked at
    upstream.says(b"b")
    streams.look()
    assert isinstance(upstream.failed, TimeoutError)
    assert (client.got(), given_back) == (b"<a>", [1])


def instead(real, **methods):
    """The system's, but for these."""
    names = ("poll", "register", "unregister", "close")
    return SimpleNamespace(**{name: getattr(real, name) for name in names} | methods)


def test_what_came_while_the_process_was_stopped_is_passed_on_first(streams, begin, clock):
    _, upstream, client, given_back = begin()
    poll = streams._poll

    def stopped(seconds):
        ready = poll.poll(seconds)
        clock.now += upstream.silence_seconds
        upstream.says(b"a")
        return ready

    streams._poll = instead(poll, poll=stopped)
    streams.look()
    assert not given_back
    streams._poll = poll
    clock.now += LOOK_SECONDS
    streams.look()
    assert (client.got(), upstream.failed, given_back) == (b"<a>", None, [])


def test_one_whose_time_is_over_when_it_is_added_is_given_back_once(streams, begin, clock):
    poll = streams._poll

    def register(*arguments):
        streams.look()  # by the other thread
        poll.register(*arguments)

    streams._poll = instead(poll, register=register)
    _, upstream, _, given_back = begin(silence_seconds=0.0)
    assert not given_back
    clock.now += LOOK_SECONDS
    streams.look()
    assert isinstance(upstream.failed, TimeoutError)
    assert given_back == [1]


def test_they_are_not_all_looked_at_each_time(streams, begin, clock):
    _, silent, _, given_back = begin()
    clock.now += silent.silence_seconds
    streams.look()
    assert given_back == [1]
    _, silent, _, given_back = begin(silence_seconds=0.0)
    clock.now += LOOK_SECONDS / 2
    streams.look()
    assert not given_back
    clock.now += LOOK_SECONDS / 2
    streams.look()
    assert given_back == [1]


def test_what_cannot_be_watched_is_given_back_once(streams, begin, tmp_path, clock):
    stream, upstream, client, given_back = begin()
    path = tmp_path / "file"
    path.touch()
    upstream.says(b"the end.")
    streams.look()
    with path.open() as file:  # the system watches none
        streams.add(Stream(file.fileno(), upstream, client.socket, stream.framed, stream.go_on))
        clock.now += upstream.silence_seconds
        streams.look()
    assert given_back == [1, 1]  # by each of the two


def test_what_is_added_when_all_is_stopped_is_given_back(streams, begin):
    streams.stop()
    _, _, _, given_back = begin()
    assert given_back == [1]


def test_a_thread_that_cannot_be_had_costs_no_other_stream(streams, begin, caplog):
    stream, upstream, _, _ = begin()
    _, other, of_other, _ = begin()

    def fail():
        raise RuntimeError

    stream.go_on = fail
    upstream.says(b"the end.")
    other.says(b"b")
    streams.look()
    assert of_other.got() == b"<b>"
    assert "could not be given back" in caplog.text


def test_a_look_that_fails_is_told_and_not_the_last(caplog, monkeypatch):
    looked = threading.Event()
    looks = iter([KeyError(), None])

    def look(_self, _seconds):
        error = next(looks, None)
        if error is not None:
            raise error
        looked.set()

    monkeypatch.setattr(Streams, "look", look)
    monkeypatch.setattr("proxy.runtime.streams.LOOK_SECONDS", 0.001)
    streams = Streams()
    streams.start()
    assert looked.wait(WAIT_SECONDS)
    streams.stop()
    assert "could not be looked at" in caplog.text


def test_its_thread_is_woken_to_end(monkeypatch):
    monkeypatch.setattr(module, "LOOK_SECONDS", 2 * WAIT_SECONDS)
    streams = Streams()
    streams.start()
    thread = streams._thread
    began = time.monotonic()
    streams.stop()
    assert not thread.is_alive()
    assert time.monotonic() - began < WAIT_SECONDS


def test_once_started_a_thread_of_its_own_does_all_that_until_it_is_stopped():
    streams = Streams()
    assert not streams.is_running
    streams.start()
    assert streams.is_running
    upstream, client, given_back = Upstream(), Client(), threading.Event()
    client.ends.settimeout(WAIT_SECONDS)
    stream = Stream(
        upstream.ours.fileno(), upstream, client.socket, lambda b: b, given_back.set
    )
    streams.add(stream)
    upstream.says(b"a")
    assert client.ends.recv(10) == b"a"
    upstream.says(b"b.")
    assert client.ends.recv(10) == b"b."
    assert given_back.wait(WAIT_SECONDS)
    streams.stop()
    streams.stop()
    assert not streams.is_running
    assert "streams" not in {thread.name for thread in threading.enumerate()}
    for end in (upstream.peer, upstream.ours, client):
        end.close()


@pytest.fixture
def busy_after(streams, begin, clock, cpu):
    """Whether it is busy after so many pieces of several streams, in that time."""
    several = [begin() for _ in range(2)]
    streams.look()

    def after(seconds, pieces, cpu_share):
        began = clock.now
        for number in range(round(pieces)):
            clock.now = began + 0.9 * LOOK_SECONDS * number / pieces
            _, upstream, client, _ = several[number % 2]
            upstream.says(b"a")
            streams.look()
            assert client.got() == b"<a>"
        clock.now = began + seconds
        cpu.now += cpu_share * seconds
        streams.look()
        return streams._is_busy

    return after


@pytest.mark.parametrize(
    "a_second, cpu_share, is_busy",
    [
        (MANY_A_SECOND + 10, BUSY_SHARE + 0.01, True),
        (MANY_A_SECOND - 10, BUSY_SHARE + 0.01, False),
        (MANY_A_SECOND + 10, BUSY_SHARE - 0.01, False),
        (MANY_A_SECOND * 2, 0.0, False),
        (100, 1.0, False),
    ],
)
def test_it_is_busy_where_many_pieces_come_to_a_worker_that_has_much_to_do(
    a_second, cpu_share, is_busy, busy_after
):
    for _ in range(2):
        assert busy_after(LOOK_SECONDS, LOOK_SECONDS * a_second, cpu_share) == is_busy
    assert not busy_after(LOOK_SECONDS, 0, 1.0)


@pytest.mark.parametrize(
    "a_second, cpu_share, is_busy",
    [
        (STILL_MANY_A_SECOND + 10, STILL_BUSY_SHARE + 0.01, True),
        (STILL_MANY_A_SECOND - 10, 1.0, False),
        (MANY_A_SECOND, STILL_BUSY_SHARE - 0.01, False),
    ],
)
def test_what_its_pauses_save_does_not_end_them(a_second, cpu_share, is_busy, busy_after):
    assert not busy_after(LOOK_SECONDS, LOOK_SECONDS * a_second, cpu_share)
    assert busy_after(LOOK_SECONDS, LOOK_SECONDS * 2 * MANY_A_SECOND, 1.0)
    for _ in range(2):
        assert busy_after(LOOK_SECONDS, LOOK_SECONDS * a_second, cpu_share) == is_busy


@pytest.mark.parametrize("seconds, pieces, cpu_share", [(10.0, 1_000, 0.9), (1.0, 3_100, 0.3)])
def test_after_a_pause_of_the_process_it_is_no_busier(seconds, pieces, cpu_share, busy_after):
    assert not busy_after(seconds, pieces, cpu_share)


def test_while_it_is_busy_more_is_awaited_after_each_look_and_goes_together(monkeypatch):
    pauses, looks = [], iter([True, False, True])
    over = threading.Event()

    def look(streams, _):
        streams._is_busy = next(looks, None)
        if streams._is_busy is None:
            over.set()

    monkeypatch.setattr(Streams, "look", look)
    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=pauses.append, monotonic=None))
    streams = Streams(clock=time.monotonic)
    streams.start()
    assert over.wait(WAIT_SECONDS)
    streams.stop()
    assert pauses == [PAUSE_SECONDS] * 2


@pytest.mark.parametrize("cores", [{0, 1}, None])
def test_its_thread_may_run_on_all_cores_where_its_worker_has_a_part_of_them(
    cores, monkeypatch
):
    told, looked = [], threading.Event()
    monkeypatch.setattr(module, "run_on", told.append)
    monkeypatch.setattr(Streams, "look", lambda *_: looked.set())
    streams = Streams()
    streams.cores = cores
    streams.start()
    assert looked.wait(WAIT_SECONDS)
    streams.stop()
    assert told == ([cores] if cores else [])
