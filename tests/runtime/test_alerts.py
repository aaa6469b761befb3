import copy
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from proxy.core.alerts import GATHER_SECONDS, LEAST_SECONDS, Alert
from proxy.runtime.alerts import KEPT, LEAST_CHARACTERS, Alerts
from tests.runtime.world import Clock

HOLDS_THE_LOCK = (
    "import fcntl, sys; fcntl.lockf(int(sys.argv[1]), fcntl.LOCK_EX); print(flush=True);"
    " sys.stdin.read()"
)
PATH = "/hook/planted-secret"


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        length = int(self.headers["content-length"])
        self.server.received.append(json.loads(self.rfile.read(length)))
        self.server.paths.append(self.path)
        self.send_response(self.server.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def receiver():
    """On loopback; `received` has what it was sent, `status` is what it answers."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        server.received, server.paths, server.status = [], [], 200
        server.url = f"http://127.0.0.1:{server.server_port}{PATH}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make_alerts(receiver, clock, upstream):
    made = []

    def make(url=receiver.url, **more):
        made.append(Alerts(upstream, url=url, clock=clock, chance=lambda: 0.0, **more))
        return made[-1]

    yield make
    for each in made:
        each.stop()


def alert(name="east", event="breaker_opened", message=None):
    return Alert(event, 5.0, message or f"{name} fails", {"instance": name})


def told(receiver):
    """Of each message, the instances and how often."""
    return [
        {a["fields"]["instance"]: a["count"] for a in m["alerts"]} for m in receiver.received
    ]


def test_alerts_of_one_moment_arrive_in_one_message(make_alerts, receiver, clock):
    alerts = make_alerts()
    for name in ("east", "west", "east"):
        alerts.note(alert(name))
    alerts.work()
    assert receiver.received == []
    clock.now += GATHER_SECONDS
    alerts.work()
    alerts.work()
    assert told(receiver) == [{"east": 2, "west": 1}]
    assert receiver.paths == [PATH]


def test_the_next_message_waits_for_its_time(make_alerts, receiver, clock):
    alerts = make_alerts()
    alerts.note(alert())
    alerts.work()
    clock.now += GATHER_SECONDS
    alerts.work()
    alerts.note(alert("west"))
    alerts.work()
    clock.now += LEAST_SECONDS - 1
    alerts.work()
    assert len(receiver.received) == 1
    clock.now += 1
    alerts.work()
    assert told(receiver) == [{"east": 1}, {"west": 1}]


def test_what_is_not_taken_is_tried_again_and_told_once_without_the_url(
    make_alerts, receiver, clock, logged
):
    receiver.status = 500
    alerts = make_alerts()
    alerts.note(alert())
    alerts.work()
    for _ in range(3):
        clock.now += LEAST_SECONDS
        alerts.work()
    receiver.status = 200
    clock.now += LEAST_SECONDS
    alerts.work()
    assert told(receiver) == [{"east": 1}] * 4
    said = "the webhook does not take alerts: it answered 500. They are tried again."
    assert logged == [("WARNING", said)]
    clock.now += LEAST_SECONDS
    alerts.work()
    assert len(receiver.received) == 4


def test_a_receiver_that_is_gone_is_told_without_the_url(make_alerts, receiver, clock, logged):
    alerts = make_alerts("http://127.0.0.1:1" + PATH)
    alerts.note(alert())
    alerts.work()
    clock.now += GATHER_SECONDS
    alerts.work()
    ((_, line),) = logged
    assert "the connection was refused" in line
    assert "127.0.0.1" not in line


def test_where_credentials_are_given_nothing_is_sent(make_alerts, clock, logged, monkeypatch):
    # A name may lead there, which only shows when it is looked up.
    found = [(2, 1, 6, "", ("169.254.169.254", 80))]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: found)
    alerts = make_alerts("http://hooks.example" + PATH)
    alerts.note(alert())
    alerts.work()
    clock.now += GATHER_SECONDS
    alerts.work()
    assert "link-local or metadata address" in logged[0][1]


def workers(make_alerts, number):
    """As after forks; but the lock is the process', which all of them are here."""
    alerts = make_alerts(rows=number)
    each = [copy.copy(alerts) for _ in range(number)]
    for row, worker in enumerate(each):
        worker._rings = tuple(map(copy.copy, alerts._rings))
        worker.use_row(row)
    return each


def test_one_worker_sends_what_all_of_them_tell(make_alerts, receiver, clock):
    one, two = workers(make_alerts, 2)
    one.note(alert(event="sync_failed"))
    two.note(alert(event="sync_failed"))
    one.work()
    clock.now += GATHER_SECONDS
    one.work()
    assert told(receiver) == [{"east": 2}]


def test_who_has_not_the_lock_sends_nothing_until_the_other_process_ends(
    make_alerts, receiver, clock
):
    alerts = make_alerts()
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS_THE_LOCK, str(alerts._lock)],
        pass_fds=[alerts._lock],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        other.stdout.readline()
        alerts.note(alert())
        for _ in range(2):
            alerts.work()
            clock.now += GATHER_SECONDS
        assert receiver.received == []
    alerts.work()
    clock.now += GATHER_SECONDS
    alerts.work()
    assert told(receiver) == [{"east": 1}]


def test_what_a_worker_left_unsent_its_successor_sends_and_nothing_twice(
    make_alerts, receiver, clock
):
    one, two = workers(make_alerts, 2)
    one.note(alert("east"))
    one.work()
    clock.now += GATHER_SECONDS
    one.work()
    one.note(alert("west"))
    one.work()  # read, but it is not time yet: here it dies
    two.work()
    clock.now += LEAST_SECONDS
    two.work()
    assert told(receiver) == [{"east": 1}, {"west": 1}]


def test_what_waits_is_sent_when_the_worker_ends(make_alerts, receiver):
    alerts = make_alerts()
    alerts.start()
    alerts.note(alert())
    alerts.work()
    alerts.stop()
    alerts.stop()
    assert told(receiver) == [{"east": 1}]


def test_without_a_url_nothing_is_done(make_alerts):
    alerts = make_alerts("")
    alerts.start()
    alerts.use_row(1)
    alerts.note(alert())
    alerts.stop()
    assert not [t for t in threading.enumerate() if t.name == "alerts"]


def test_a_long_message_arrives_shortened(make_alerts, receiver, clock):
    alerts = make_alerts()
    many = {"instances": ["x" * 999] * 99, "why": "y" * 9999, "count": 7}
    alerts.note(Alert("out_of_service", 5.0, "z" * 99_999, many))
    alerts.work()
    clock.now += GATHER_SECONDS
    alerts.work()
    ((found,),) = [m["alerts"] for m in receiver.received]
    assert (len(found["message"]), found["fields"]["count"]) == (300, 7)


def flush(alerts, clock):
    alerts.work()
    clock.now += GATHER_SECONDS
    alerts.work()


@pytest.mark.parametrize("sign", ["\u4e2d", "\N{GRINNING FACE}", "\0", "\ud800"])
def test_whatever_letters_it_has_it_arrives(make_alerts, receiver, clock, sign):
    alerts = make_alerts()
    fields = {"instances": [sign * 100] * 5, "why": sign * 300}
    alerts.note(Alert("out_of_service", 5.0, sign * 300, fields))
    flush(alerts, clock)
    ((found,),) = [m["alerts"] for m in receiver.received]
    assert len(found["fields"]["instances"]) == 5
    assert len(found["fields"]["why"]) >= LEAST_CHARACTERS


def test_what_came_too_fast_is_counted_and_pushes_out_nothing_severe(
    make_alerts, receiver, clock
):
    alerts = make_alerts()
    alerts.note(Alert("disk_full", 5.0, "full", {"why": "x"}))
    for number in range(KEPT + 9):
        alerts.note(alert(str(number)))
    flush(alerts, clock)
    (message,) = receiver.received
    assert message["alerts"][0]["event"] == "disk_full"
    assert sum(a["count"] for a in message["alerts"]) + message["left_out"] == 1 + KEPT + 9
