import socket
import time

import pytest

from proxy.runtime.client_socket import ClientSocket
from proxy.store import admin_keys
from proxy.web.ui import ticks
from tests.builders import AUTHOR
from tests.web.ui.conftest import Browser

LIVE = "live/instances"
HEAD = b"GET /admin/ui/live/instances HTTP/1.1\r\nHost: x\r\n\r\n"
HAS_IT = HEAD[:-2] + b"If-None-Match: %s\r\n\r\n"


@pytest.fixture
def routed(world, monkeypatch):
    """How often a tick went the usual way."""
    seen = []
    view = world.app.view_functions["console.live_instances"]

    def count():
        seen.append(1)
        return view()

    count.right = view.right
    monkeypatch.setitem(world.app.view_functions, "console.live_instances", count)
    return seen


def test_who_asks_again_is_answered_at_once_and_as_before(world, admin, routed):
    world.add("a")
    first = admin.get(LIVE)
    again = admin.get(LIVE)
    assert len(routed) == 1
    assert again.data == first.data
    different = {"x-request-id"}
    headers = {k: v for k, v in first.headers if k.lower() not in different}
    assert {k: v for k, v in again.headers if k.lower() not in different} == headers
    same = admin.get(LIVE, headers={"If-None-Match": first.headers["ETag"]})
    assert (same.status_code, same.data, len(routed)) == (304, b"", 1)
    assert same.headers["Cache-Control"] == "no-store"
    assert len(same.headers["x-request-id"]) == 16


def test_what_is_a_second_old_is_made_the_usual_way(world, admin, routed, monkeypatch):
    admin.get(LIVE)
    world.parts.fragments.forget()
    admin.get(LIVE)
    assert len(routed) == 2


def test_nobody_is_taken_for_somebody_else(world, admin, routed):
    admin.get(LIVE)
    stranger = Browser(world.app)
    assert stranger.get(LIVE).status_code == 302
    stranger.client.set_cookie("gateway_console", "x", path="/admin/ui")
    assert stranger.get(LIVE).status_code == 302
    assert admin.client.post("/admin/ui/" + LIVE).status_code == 405


def test_a_key_that_is_removed_ends_it_at_once(world, operator, routed):
    assert operator.get(LIVE).status_code == 200
    with world.parts.database.session() as db:
        admin_keys.remove(db, "the operator", author=AUTHOR, is_first_set=True)
    world.parts.snapshots.reload()
    assert operator.get(LIVE).status_code == 302


def test_a_key_that_is_removed_while_it_is_answered_opens_nothing_more(
    world, operator, monkeypatch
):
    view = world.app.view_functions["console.live_instances"]

    def meanwhile():
        shown = view()
        with world.parts.database.session() as db:
            admin_keys.remove(db, "the operator", author=AUTHOR, is_first_set=True)
        world.parts.snapshots.reload()
        return shown

    meanwhile.right = view.right
    monkeypatch.setitem(world.app.view_functions, "console.live_instances", meanwhile)
    assert operator.get(LIVE).status_code == 200
    assert operator.get(LIVE).status_code == 302


def test_a_sign_out_in_another_worker_is_heard_of_at_once(world, admin, routed):
    admin.get(LIVE)
    world.app.extensions["console_ticks"].forget_all()  # its memory is theirs, too
    admin.get(LIVE)
    admin.get(LIVE)
    assert len(routed) == 2


def test_a_session_that_is_over_ends_it(world, admin, routed, monkeypatch):
    admin.get(LIVE)
    later = time.time() + 13 * 3600
    monkeypatch.setattr(time, "time", lambda: later)
    assert admin.get(LIVE).status_code == 302


def test_of_many_pages_not_all_are_known(world, admin, monkeypatch):
    monkeypatch.setattr(ticks, "MAX_KNOWN", 3)
    for number in range(10):
        assert admin.get(f"{LIVE}?x={number}").status_code == 200
    assert len(world.app.extensions["console_ticks"]._known) <= 3


# On a connection that asks the very same.


@pytest.fixture
def connection():
    """Ours to a page."""
    mine, theirs = socket.socketpair()
    with mine, theirs:
        yield ClientSocket(mine, lambda: None)


@pytest.fixture
def ask(admin, connection):
    """A function: a request of that head, read the usual way. The loop has seen it."""

    def ask(head=HEAD, **environ):
        connection.repeated = head
        over = {"gunicorn.socket": connection, "SERVER_PROTOCOL": "HTTP/1.1"} | environ
        return admin.get(LIVE, environ_overrides=over)

    return ask


@pytest.fixture
def asked_often(ask, connection):
    """By then its head is known."""
    for _ in range(3):
        answer = ask()
    return connection.again, answer


def read(answer):
    """Status, headers and body."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return first, {n.lower(): v for n, _, v in (line.partition(": ") for line in lines)}, body


def test_a_head_that_was_seen_is_answered_as_it_was(world, asked_often, routed):
    again, before = asked_often
    status, headers, body = read(again(HEAD))
    assert (status, body, routed) == ("HTTP/1.1 200 OK", before.data, [])
    different = {"x-request-id", "date", "connection"}
    assert {k: v for k, v in headers.items() if k not in different} == {
        k.lower(): v for k, v in before.headers if k.lower() not in different
    }
    assert headers["connection"] == "keep-alive"
    assert headers["x-request-id"] != before.headers["x-request-id"]
    status, headers, body = read(again(HAS_IT % headers["etag"].encode()))
    assert (status, body) == ("HTTP/1.1 304 NOT MODIFIED", b"")
    assert "content-length" not in headers
    assert read(again(HAS_IT % b'"another"'))[0] == "HTTP/1.1 200 OK"


def test_one_that_says_what_it_has_is_known_whatever_that_is(ask, connection):
    answer = [ask(HAS_IT % b'"a"', HTTP_IF_NONE_MATCH='"a"') for _ in range(3)][-1]
    assert read(connection.again(HAS_IT % b'"b"'))[2] == answer.data
    assert connection.again(HEAD) is not None


def test_one_that_says_so_in_another_way_is_not(ask, connection):
    head = (HAS_IT % b'"a"').replace(b"If-None-Match", b"if-none-match")
    for _ in range(3):
        ask(head, HTTP_IF_NONE_MATCH='"a"')
    assert connection.again(head) is None


def test_who_names_a_request_gets_that_name(ask, connection):
    head = HEAD[:-2] + b"x-request-id: mine\r\n\r\n"
    for _ in range(3):
        ask(head, HTTP_X_REQUEST_ID="mine")
    assert read(connection.again(head))[1]["x-request-id"] == "mine"


@pytest.mark.parametrize(
    "head",
    [
        HEAD.replace(b"instances", b"overview"),
        HEAD.replace(b"Host: x", b"Host: x\r\nCookie: gateway_console=another"),
        HEAD.replace(b"GET", b"PUT"),
        HEAD + HEAD,
        HEAD[:-1],
        HEAD[:-2],
        b"",
        HAS_IT % b'"a"\r\nContent-Length: 1',
    ],
    ids=["path", "cookie", "method", "two", "half", "short", "nothing", "body"],
)
def test_any_other_is_not_known(head, asked_often):
    again, _ = asked_often
    assert again(head) is None


@pytest.mark.parametrize(
    "head",
    [b"", b"GET", HEAD[:-2], HEAD + b"\r\n", HEAD + b"G", HEAD + HEAD, HEAD + b"\r\n\r\n"],
)
def test_what_was_seen_of_it_has_to_be_all_and_nothing_else(head, ask, connection):
    for _ in range(3):
        ask(head)
    assert connection.again(head) is None


@pytest.mark.parametrize(
    "environ",
    [
        {"SERVER_PROTOCOL": "HTTP/1.0"},
        {"HTTP_CONNECTION": "close"},
        {"CONTENT_LENGTH": "1"},
        {"HTTP_TRANSFER_ENCODING": "chunked"},
        {"gunicorn.socket": None},
    ],
)
def test_no_other_requests_are_answered_so(environ, ask, connection):
    for _ in range(3):
        ask(**environ)
    assert connection.again is None


def test_what_ends_the_usual_way_ends_it_too(world, asked_often, monkeypatch):
    again, _ = asked_often
    assert again(HEAD) is not None
    with monkeypatch.context() as patched:
        later = time.time() + 13 * 3600
        patched.setattr(time, "time", lambda: later)
        assert again(HEAD) is None
    assert again(HEAD) is not None
    world.parts.fragments.forget()
    assert again(HEAD) is None


def test_a_sign_out_ends_it_at_once(world, asked_often):
    again, _ = asked_often
    world.app.extensions["console_ticks"].forget_all()
    assert again(HEAD) is None


def test_of_many_heads_not_all_are_known(world, ask, monkeypatch):
    monkeypatch.setattr(ticks, "MAX_KNOWN", 3)
    for number in range(10):
        head = HEAD.replace(b"Host: x", b"Host: %d" % number)
        ask(head)
        ask(head)
    assert 0 < len(world.app.extensions["console_ticks"]._heads) <= 3
