import re
from dataclasses import replace

import pytest

from proxy.core.roles import ROLES
from proxy.store import admin_keys, instances
from tests.builders import AUTHOR, config
from tests.web.ui.conftest import FRAGMENT, Browser

# The least role of each. One that is not here fails the test: look what it shows and changes
# before you add it.
NEEDED = {
    ("GET", "/"): "viewer",
    ("GET", "/live/overview"): "viewer",
    ("GET", "/live/traffic"): "viewer",
    ("POST", "/sign-out"): "viewer",
    ("GET", "/instances"): "viewer",
    ("GET", "/live/instances"): "viewer",
    ("GET", "/instance"): "viewer",
    ("GET", "/live/instance"): "viewer",
    ("POST", "/instance/switch"): "operator",
    ("POST", "/instance/enable"): "operator",
    ("POST", "/instance/clear"): "operator",
    ("POST", "/instance/verify"): "operator",
    ("POST", "/instance/remove"): "admin",
    ("GET", "/instance/edit"): "admin",
    ("GET", "/instance/new"): "admin",
    ("POST", "/instance/preview"): "admin",
    ("POST", "/instance/save"): "admin",
    ("GET", "/requests"): "viewer",
    ("GET", "/live/requests"): "viewer",
    ("GET", "/request"): "viewer",
    ("GET", "/request/story"): "viewer",
    ("GET", "/keys"): "viewer",
    ("GET", "/live/keys"): "viewer",
    ("GET", "/key"): "viewer",
    ("GET", "/live/key"): "viewer",
    ("GET", "/key/new"): "admin",
    ("GET", "/key/edit"): "admin",
    ("POST", "/key/preview"): "admin",
    ("POST", "/key/save"): "admin",
    ("POST", "/key/rotate"): "admin",
    ("POST", "/key/remove"): "admin",
    ("GET", "/config"): "viewer",
    ("GET", "/config/revision"): "viewer",
    ("POST", "/config/plan"): "admin",
    ("POST", "/config/rollback"): "admin",
    ("GET", "/chat"): "viewer",
    ("GET", "/<path:_anything>"): "viewer",
}
OPEN = {("GET", "/static/<path:filename>"), ("GET", "/sign-in"), ("POST", "/sign-in")}
RANKS = {role: rank for rank, role in enumerate(ROLES)}


def views(app):
    return {
        (method, rule.rule.removeprefix("/admin/ui"))
        for rule in app.url_map.iter_rules()
        if rule.endpoint.startswith("console.")
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }


def test_every_view_is_in_the_table(world):
    assert views(world.app) == set(NEEDED) | OPEN


@pytest.mark.parametrize("role", ROLES)
def test_each_role_is_let_in_where_the_table_says(signed_in, role):
    browser = signed_in(role)
    for (method, rule), needed in NEEDED.items():
        if rule == "/sign-out":
            continue
        answer = (browser.get if method == "GET" else browser.post)(rule[1:])
        is_refused = answer.status_code == 403
        assert is_refused is (RANKS[role] < RANKS[needed]), (method, rule)
        if is_refused:
            assert f"This needs the role &#39;{needed}&#39;" in answer.text


def test_nobody_is_let_in_without_a_session(world):
    for method, rule in NEEDED:
        browser = Browser(world.app)
        answer = browser.client.open("/admin/ui" + rule, method=method)
        assert answer.status_code == 302, rule
        assert answer.location.startswith("/admin/ui/sign-in")


def test_a_part_of_a_page_sends_the_whole_page_to_the_door(browser):
    answer = browser.get("live/instances", headers=FRAGMENT)
    assert (answer.status_code, answer.headers["HX-Redirect"]) == (401, "/admin/ui/sign-in")


@pytest.mark.parametrize("path", ["", "sign-in", "instance?name=nobody", "static/console.js"])
def test_every_answer_forbids_what_is_inline_or_from_elsewhere(admin, path):
    headers = admin.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    is_static = path.startswith("static")
    assert ("no-store" in headers["Cache-Control"]) is not is_static


def test_no_page_has_what_the_policy_forbids(world, admin):
    world.add("a")
    for method, rule in NEEDED:
        if method == "GET":
            text = admin.get(f"{rule[1:]}?name=a").text
            assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]* src=)", text), rule
            assert not re.search(r"(?:src|href)=\"(?:https?:)?//", text), rule


def test_what_is_not_there_is_told_on_a_page_and_within_one(admin):
    page = admin.get("instance?name=nobody")
    assert page.status_code == 404
    assert "<nav" in page.text
    assert "There is no instance named &#39;nobody&#39;" in page.text
    nowhere = admin.get("keyz/of <b>")
    assert (nowhere.status_code, "<nav" in nowhere.text) == (404, True)
    assert "There is no page at /admin/ui/keyz/of &lt;b&gt;." in nowhere.text
    part = admin.act("instance/clear?name=nobody")
    assert part.status_code == 404
    assert part.text.startswith('<p class="alert"')


def test_pages_show_what_another_worker_changed_a_moment_ago_and_ticks_ask_for_nothing(
    world, admin
):
    admin.get("instances")  # what it shows is kept for a second
    with world.parts.database.session() as db:
        instances.add(db, [config("made-elsewhere")], author=AUTHOR)
    assert "made-elsewhere" not in admin.get("live/instances").text
    assert "made-elsewhere" in admin.get("instances").text


def test_a_session_whose_key_another_worker_removed_is_over(world, admin):
    with world.parts.database.session() as db:
        admin_keys.remove(db, "the admin", author=AUTHOR, is_first_set=True)
    assert "/sign-in" in admin.get("instances").location


def test_the_way_to_it_without_a_slash_names_no_host(world):
    answer = world.client.get("/admin/ui")
    assert (answer.status_code, answer.location) == (302, "/admin/ui/")


def test_without_the_secret_of_keys_nobody_signs_in_and_is_told_why(world, monkeypatch):
    snapshots = world.parts.snapshots
    monkeypatch.setattr(snapshots, "current", replace(snapshots.current, pepper=None))
    answer = Browser(world.app).get("sign-in")
    assert answer.status_code == 503
    assert "Keys cannot be checked" in answer.text
