import re

from tests.web.conftest import ADMIN


def numbers(page):
    return re.findall(r"revision\?number=(\d+)\">", page.text)


def weight(world):
    return world.parts.snapshots.current.configs["a"].weight


def changed(world):
    """Revision 3 made the weight 7."""
    world.add("a")
    headers = {"X-Change-Reason": "it is slow"}
    answer = world.admin("PATCH", "/a", json={"weight": 7}, headers=headers)
    return answer.get_json()["config"]["revision"]


def plan(browser, number):
    answer = browser.act("config/plan", number=str(number))
    assert answer.status_code == 200
    return answer.text, dict(re.findall(r'name="(number|revision)" value="(\d+)"', answer.text))


def test_revisions_say_who_changed_what_and_why(world, admin):
    number = changed(world)
    page = admin.get("config")
    assert str(number) in numbers(page)
    assert "it is slow" in page.text
    text = admin.get(f"config/revision?number={number}").text
    assert "<del>100</del>" in text
    assert "<ins>7</ins>" in text


def test_secrets_are_masked(world, admin):
    changed(world)
    key = world.simulator["a"].api_key
    for number in numbers(admin.get("config")):
        assert key not in admin.get(f"config/revision?number={number}").text


def test_a_rollback_is_first_shown_and_then_done(world, admin):
    number = changed(world)
    text, form = plan(admin, number - 1)
    assert "1 to change" in text
    assert weight(world) == 7
    answer = admin.act("config/rollback", **form, reason="it was not")
    assert "is back to revision" in answer.text
    assert weight(world) == 100
    newest = world.client.get("/admin/config/revisions?limit=1", headers=ADMIN).get_json()
    assert newest["revisions"][0]["reason"] == "it was not"


def test_a_plan_that_is_out_of_date_is_not_carried_out(world, admin):
    number = changed(world)
    _, form = plan(admin, number - 1)
    world.admin("PATCH", "/a", json={"priority": 3})
    assert admin.act("config/rollback", **form).status_code == 412
    assert weight(world) == 7


def test_where_nothing_is_other_there_is_nothing_to_roll_back(world, admin):
    number = changed(world)
    world.admin("PATCH", "/a", json={"weight": 100})
    text, _ = plan(admin, number - 1)
    assert "Nothing to do." in text
    assert "Roll back" not in text


def test_what_was_never_a_revision_is_not_found(admin):
    assert admin.get("config/revision?number=99999").status_code == 404
    assert admin.get("config/revision?number=x").status_code == 404
    assert admin.act("config/plan", number="99999").status_code == 404


def test_many_revisions_are_shown_a_page_at_a_time(world, admin, monkeypatch):
    monkeypatch.setattr("proxy.web.ui.config.PAGE", 2)
    changed(world)
    first = admin.get("config")
    assert "Older" in first.text
    assert "Newer" not in first.text
    second = admin.get("config?offset=2")
    assert set(numbers(first)).isdisjoint(numbers(second))
    assert "Newer" in second.text
    assert "No revision is this far back." in admin.get("config?offset=9999").text
