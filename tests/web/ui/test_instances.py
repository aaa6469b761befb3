import re
import time

from proxy.core.deltas import Deltas
from proxy.store import usage
from proxy.store.instances import CONFIG_FIELDS
from proxy.web.ui import forms, instances
from tests.web.conftest import ADMIN
from tests.web.ui.conftest import HURRIED


def form(world, name="a", **changes):
    """The fields as they are shown, but for what is named."""
    stored = world.parts.snapshots.current.instances[name]
    shown = instances.plain_config(stored.config)
    texts = {f.name: f.text(shown[f.name]) for f in forms.all_of(instances.GROUPS)}
    sent = {n: t for n, t in (texts | changes).items() if t != "off"}
    return {"revision": str(stored.revision)} | sent


def seal_of(answer):
    assert answer.status_code == 200, answer.text
    return re.search(r'name="seal" value="(\w+)"', answer.text)[1]


def edit(world, browser, name="a", **changes):
    sent = form(world, name, **changes)
    seal = seal_of(browser.act(f"instance/preview?name={name}", **sent))
    return browser.act(f"instance/save?name={name}", **sent, seal=seal, reason="because")


def weight(world):
    return world.parts.snapshots.current.configs["a"].weight


def test_every_field_of_a_config_is_in_the_form():
    assert {f.name for f in forms.all_of(instances.GROUPS)} == set(CONFIG_FIELDS)


def test_the_table_shows_groups_of_priority_and_how_each_is(world, admin):
    world.add("a", priority=2, supported_models=["gpt-4o"])
    world.add("b", priority=1, enabled=False)
    text = admin.get("instances").text
    assert text.index("Priority 1") < text.index(">b</a>") < text.index("Priority 2")
    assert re.search(r'class="pill disabled">disabled', text)
    assert re.search(r'class="pill healthy">healthy', text)
    assert '<meter min="0" max="240000" value="0"' in text


def test_one_that_rests_says_why_and_until_when(world, admin):
    world.add("a")
    world.simulator["a"].faults["gpt-4o"] = "429"
    world.ask(headers=HURRIED)
    text = admin.get("live/instances").text
    assert re.search(r'class="pill rate_limited">rests <time data-until="\d+\.\d"', text)
    assert "only gpt-4o" in text
    assert "The one instance rests" in text


def test_the_last_minutes_are_told_of_each_whichever_worker_it_was(world, admin):
    world.add("a")
    at = int(time.time())
    deltas = Deltas()
    counts = {"requests": 3, "attempts": 4, "succeeded": 3, "throttled": 1}
    counts |= {"prompt_tokens": 5, "first_byte_upto_200_ms": 3}
    deltas.add_usage((at // 60 * 60, "a", "gpt-4o", "app"), counts)
    with world.parts.database.write() as connection:
        usage.add(connection, deltas)
    world.parts.fragments.forget()
    cells = [re.sub(r"<[^>]+>", " ", cell) for cell in row_of(admin.get("instances").text)]
    assert [" ".join(cell.split()) for cell in cells[-3:]] == [
        "3 5 tokens",
        "150 ms",
        "25 % 429: 1",
    ]
    page = re.sub(r"<[^>]+>", " ", admin.get("instance?name=a").text)
    assert re.search(r"First byte +150 ms +p99: 199 ms", page)
    assert re.search(r"Errors +25 % +429: 1", page)


def row_of(text):
    """The cells with numbers."""
    return re.findall(r'<td class="number wide">(.*?)</td>', text)


def test_an_edit_is_shown_before_it_is_saved_and_keeps_who_and_why(world, admin):
    world.add("a")
    shown = admin.act("instance/preview?name=a", **form(world, weight="7"))
    assert "<del>100</del>" in shown.text
    assert "<ins>7</ins>" in shown.text
    assert weight(world) == 100
    answer = edit(world, admin, weight="7")
    assert answer.status_code == 204
    assert answer.headers["HX-Redirect"] == "/admin/ui/instance?name=a"
    assert weight(world) == 7
    newest = world.client.get("/admin/config/revisions?limit=1", headers=ADMIN).get_json()
    revision = newest["revisions"][0]
    assert (revision["author"], revision["reason"]) == ("the admin", "because")


def test_what_was_not_shown_is_not_saved(world, admin):
    world.add("a")
    seal = seal_of(admin.act("instance/preview?name=a", **form(world, weight="7")))
    answer = admin.act("instance/save?name=a", **form(world, weight="8"), seal=seal)
    assert answer.status_code == 409
    assert weight(world) == 100


def test_of_two_who_edit_the_second_hears_of_the_first(world, admin):
    world.add("a")
    sent = form(world, weight="7")
    seal = seal_of(admin.act("instance/preview?name=a", **sent))
    world.admin("PATCH", "/a", json={"priority": 3})
    answer = admin.act("instance/save?name=a", **sent, seal=seal)
    assert answer.status_code == 412
    assert admin.act("instance/preview?name=a", **sent).status_code == 412
    assert weight(world) == 100


def test_a_mistake_is_told_as_the_admin_api_tells_it(world, admin):
    world.add("a")
    answer = admin.act("instance/preview?name=a", **form(world, weight="-3"))
    assert answer.status_code == 422
    assert 'data-param="weight"' in answer.text
    assert "Given: -3." in answer.text
    assert admin.act("instance/preview?name=a", **form(world)).status_code == 422


def test_the_key_is_in_no_page(world, admin):
    world.add("a")
    key = world.simulator["a"].api_key
    sent = form(world, api_key="planted-another-key-0123456789")
    pages = [
        admin.get("instance?name=a"),
        admin.get("instance/edit?name=a"),
        admin.act("instance/preview?name=a", **sent),
    ]
    for page in pages:
        assert page.status_code == 200
        assert key not in page.text
        assert "planted-another" not in page.text


def test_one_can_be_added(world, admin):
    config = world.config("b")
    page = admin.get("instance/new").text
    assert 'name="max_tpm" inputmode="decimal" value="240000"' in page
    sent = {"name": "b", "api_base": config["api_base"], "api_key": config["api_key"]}
    sent |= {"enabled": "on", "rate_limit_enabled": "on", "revision": "0"}
    seal = seal_of(admin.act("instance/preview", **sent))
    answer = admin.act("instance/save", **sent, seal=seal)
    assert answer.headers["HX-Redirect"].startswith("/admin/ui/instance?name=b")
    assert world.parts.snapshots.current.configs["b"].api_key == config["api_key"]


def test_an_operator_switches_clears_and_verifies(world, operator):
    world.add("a", supported_models=["gpt-4o"])
    answer = switch(operator, to="off", of="table")
    assert 'class="pill disabled"' in answer.text
    assert not world.parts.snapshots.current.configs["a"].enabled
    assert "<h2>Status</h2>" in switch(operator, to="on", of="one").text
    assert world.parts.snapshots.current.configs["a"].enabled
    world.simulator["a"].faults["gpt-4o"] = "429"
    world.ask(headers=HURRIED)
    assert world.state()["status"] == "rate_limited"
    world.simulator["a"].faults.clear()
    assert 'class="pill healthy"' in operator.act("instance/clear?name=a").text
    assert "<strong>well</strong>" in operator.act("instance/verify?name=a").text


def switch(browser, **form):
    """As its card does it, with what that shows."""
    card = browser.act("instance/switch?name=a", **form).text
    hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="(\w+)"', card))
    assert hidden.items() >= form.items()
    return browser.act("instance/enable?name=a", **hidden, reason="it is slow")


def test_that_one_is_switched_off_is_shown_before_it_is_saved(world, operator):
    world.add("a")
    shown = operator.act("instance/switch?name=a", to="off").text
    assert "<del>on</del></td><td><ins>off</ins>" in shown
    assert world.parts.snapshots.current.configs["a"].enabled
    assert "It is enabled already" in operator.act("instance/switch?name=a", to="on").text
    switch(operator, to="off", of="table")
    newest = world.client.get("/admin/config/revisions?limit=1", headers=ADMIN).get_json()
    assert newest["revisions"][0]["reason"] == "it is slow"
    assert operator.act("instance/enable?name=a", to="on", revision="1").status_code == 412
    assert not world.parts.snapshots.current.configs["a"].enabled


def test_one_can_be_removed_unless_somebody_changed_it(world, admin):
    world.add("a")
    assert admin.act("instance/remove?name=a", revision="1").status_code == 412
    revision = world.parts.snapshots.current.instances["a"].revision
    answer = admin.act("instance/remove?name=a", revision=str(revision))
    assert answer.headers["HX-Redirect"].startswith("/admin/ui/instances")
    assert "a" not in world.parts.snapshots.current.instances


def test_a_name_with_signs_in_it_is_shown_as_it_is(world, admin):
    world.add("a/b & <c>")
    text = admin.get("instances").text
    assert "a/b &amp; &lt;c&gt;" in text
    link = re.search(r'href="(/admin/ui/instance\?name=[^"]+)"', text)[1]
    assert admin.client.get(link.replace("&amp;", "&")).status_code == 200
