import time

import pytest

from proxy.store import admin_keys
from proxy.web.ui import ticks
from tests.builders import AUTHOR
from tests.web.ui.conftest import Browser

LIVE = "live/instances"


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
