"""What makes a request fast, as counts: times depend on the machine, these do not."""

import gc
import json
import sys
import threading
import tracemalloc
from collections import Counter
from functools import partial
from types import CellType, FunctionType

import orjson
import pytest
from werkzeug.test import EnvironBuilder

from proxy.core.request_head import KEPT, KeptHead
from proxy.core.sse import StreamWatcher
from proxy.core.types import Client, Usage
from proxy.runtime.clients import ClientState
from proxy.runtime.connection import Connection
from proxy.runtime.shared_counts import SharedCounts
from proxy.web import body as body_module
from proxy.web.limits import has_lines
from tests.web.conftest import CHAT, STREAM

WARM = 3  # requests until everything that is made once is there

EVENT = (
    b'data: {"choices":[{"content_filter_results":{},"delta":{"content":" word"},'
    b'"finish_reason":null,"index":0,"logprobs":null}],"created":1750154400,"id":"chatcmpl-1",'
    b'"model":"gpt-4o-2024-11-20","object":"chat.completion.chunk"}\n\n'
)

_watched: dict[int, Counter] = {}


def _note(name, _arguments):
    counts = _watched.get(threading.get_ident())
    if counts is not None:
        counts[name] += 1


# Hooks cannot be taken away again: one for all, which does nothing while nobody is watched.
sys.addaudithook(_note)


@pytest.fixture
def watched():
    """What this thread asks of the system, by the names of Python's audit events."""
    counts = Counter()
    yield counts
    _watched.pop(threading.get_ident(), None)


def begin(counts):
    _watched[threading.get_ident()] = counts


@pytest.fixture(params=[CHAT, STREAM], ids=["plain", "stream"])
def body(request):
    return request.param


LIMITS = {
    "max_tpm": 10_000_000,
    "max_rpm": 1_000_000,
    "max_parallel_requests": 100,
    "max_tokens_per_day": 10**9,
    "max_cost_per_month": 1000.0,
}


@pytest.fixture(params=[{}, LIMITS], ids=["", "limited"])
def warm(request, world, body):
    """A world in which this body was asked for before, by a client with limits or without."""
    world.add("a", max_tpm=10_000_000, max_rpm=1_000_000)
    world.client_key = world.add_client("warm", **request.param)
    world.is_limited = bool(request.param)
    for _ in range(WARM):
        assert world.ask(body).status_code == 200
    return world


def test_it_makes_no_sql_statement(warm, body, statements):
    asked = statements(warm.parts.database)
    assert warm.ask(body).status_code == 200
    assert asked == []
    warm.parts.syncer.sync()  # that is heard
    assert asked


def test_it_opens_no_file_no_connection_and_no_thread(warm, body, watched):
    begin(watched)
    answer = warm.ask(body)
    found = watched.copy()
    assert answer.status_code == 200
    for name in (
        "open",
        "os.listdir",
        "socket.connect",
        "socket.getaddrinfo",
        "sqlite3.connect",
    ):
        assert found[name] == 0, name
    assert found["_thread.start_new_thread"] == 0


def test_the_hook_hears_what_a_first_request_opens(world, watched):
    world.add("a")
    begin(watched)
    assert world.ask().status_code == 200
    assert watched["socket.connect"] == 1


@pytest.mark.parametrize("body", [CHAT], ids=["plain"])
def test_its_body_is_parsed_once(warm, body, monkeypatch):
    parsed = []

    class Counted:
        JSONDecodeError, dumps = orjson.JSONDecodeError, staticmethod(orjson.dumps)

        @staticmethod
        def loads(data):
            parsed.append(data)
            return orjson.loads(data)

    loads, mine = json.loads, threading.get_ident()

    def counted(data, **options):
        if threading.get_ident() == mine:  # and not the simulated instance
            parsed.append(data)
        return loads(data, **options)

    monkeypatch.setattr(body_module, "orjson", Counted)
    monkeypatch.setattr(json, "loads", counted)
    assert warm.ask(body).status_code == 200
    assert parsed == [json.dumps(body).encode()]


def test_it_is_sent_upstream_in_one_piece(warm, body, monkeypatch):
    sent, send = [], Connection.send_all
    monkeypatch.setattr(
        Connection, "send_all", lambda mine, data: (sent.append(data), send(mine, data))
    )
    assert warm.ask(body).status_code == 200
    assert len(sent) == 1


def calls_of(act):
    """How many Python functions it calls."""
    counts = Counter()
    sys.setprofile(lambda _frame, what, _argument: counts.update([what]))
    try:
        act()
    finally:
        sys.setprofile(None)
    return counts["call"]


HEADERS = {f"x-stainless-{name}": "1" for name in ("arch", "lang", "os", "runtime", "async")}
# Two more than were needed when this was written.
MOST_CALLS, MOST_CALLS_LIMITED = 489, 515


@pytest.mark.parametrize("body", [CHAT], ids=["plain"])
@pytest.mark.parametrize("headers", [{}, HEADERS], ids=["", "of-sdk"])
def test_a_warm_call_costs_so_many_calls_however_many_headers_it_has(warm, body, headers):
    """Flask's among them; of a head that came before on its connection."""
    kept, data = KeptHead(), json.dumps(body).encode()
    headers = headers | {"Authorization": f"Bearer {warm.client_key}"}
    headers = {"Content-Type": "application/json"} | headers

    def asked():
        return EnvironBuilder(
            "/v1/chat/completions", method="POST", data=data, headers=headers
        ).get_environ() | {KEPT: kept}

    def act(environ):
        answer = warm.app(environ, lambda status, _lines: told.append(status))
        told.append(b"".join(answer))
        answer.close()

    told = []
    act(asked())
    # The first one of a second moves each window on: no five in a row are that.
    calls = [calls_of(partial(act, environ)) for environ in [asked() for _ in range(5)]]
    assert told[::2] == ["200 OK"] * 6
    assert min(calls) <= (MOST_CALLS_LIMITED if warm.is_limited else MOST_CALLS)


def test_an_event_costs_few_calls_and_is_not_parsed(monkeypatch):
    watcher = StreamWatcher()
    watcher.feed(EVENT)
    assert watcher.content

    def never(*_arguments):
        raise AssertionError("an event of text is parsed")

    monkeypatch.setattr(json, "loads", never)
    assert calls_of(lambda: watcher.feed(EVENT)) <= 6


@pytest.mark.parametrize("fields, most", [({}, 18), (LIMITS, 41)], ids=["", "limited"])
def test_what_limits_cost_is_a_few_calls(fields, most):
    clients, app = ClientState(SharedCounts(2)), Client("app", 1, **fields)

    def act():
        clients.start(app, 900, 1000).settle(Usage(400, 100), 500)
        if has_lines(app):
            clients.lines(app)

    act()
    assert calls_of(act) <= most


def peak_bytes(events):
    """Of what is allocated at once while so many events go by."""
    watcher = StreamWatcher()
    watcher.feed(EVENT)
    tracemalloc.start()
    try:
        for _ in range(events):
            assert watcher.feed(EVENT) == EVENT
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_what_a_stream_holds_does_not_grow_with_its_events():
    peak_bytes(10)
    assert peak_bytes(20_000) <= peak_bytes(200) + 2_048


def test_an_event_that_is_cut_holds_one_event_at_most():
    watcher = StreamWatcher(hide_usage=True)
    for _ in range(1_000):
        watcher.feed(EVENT[:100])
        watcher.feed(EVENT[100:] + EVENT[:50])
        watcher.feed(EVENT[50:])
        assert len(watcher._tail) < len(EVENT)


def test_it_leaves_nothing_to_the_garbage_collector(warm, body):
    gc.collect()
    gc.disable()
    try:
        gc.set_debug(gc.DEBUG_SAVEALL)
        assert warm.ask(body).status_code == 200
        gc.collect()
        left = [type(found) for found in gc.garbage]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    # All else is the test's own client's and simulator's.
    calls = (FunctionType, CellType)
    modules = ("proxy", "httptools", "flask", "werkzeug.routing")
    assert [t for t in left if t in calls or t.__module__.startswith(modules)] == []
