import re

from proxy.store.keys import FIELDS
from proxy.web.ui import forms, keys
from tests.web.ui.test_instances import seal_of

NEW = {"enabled": "on", "compat": "raw", "revision": "0"}


def key_in(answer):
    assert answer.status_code == 200, answer.text
    return re.search(r'id="made-key">(gw_\w+)<', answer.text)[1]


def opens(world, key):
    return world.client.get("/v1/models", headers={"api-key": key}).status_code == 200


def add(browser, **form):
    seal = seal_of(browser.act("key/preview", **NEW, **form))
    return browser.act("key/save", **NEW, **form, seal=seal)


def sent(world, name, **changes):
    with world.app.app_context():
        shown, _ = keys.EDITOR.present(name)
    texts = {f.name: f.text(shown[f.name]) for f in forms.all_of(keys.GROUPS)} | changes
    return {"revision": str(shown["revision"])} | {n: t for n, t in texts.items() if t != "off"}


def test_every_field_of_a_client_is_in_the_form():
    assert {f.name for f in forms.all_of(keys.GROUPS)} == set(FIELDS)


def test_a_key_is_made_and_shown_once(world, admin):
    key = key_in(add(admin, name="team-a", max_tpm="1000", labels="team = a"))
    assert opens(world, key)
    for page in ("keys", "key?name=team-a", "live/key?name=team-a"):
        text = admin.get(page).text
        assert key not in text
        assert f"***{key[-4:]}" in text


def test_limits_are_shown_with_what_is_used_of_them(world, admin):
    world.add("a")
    key = world.add_client("team-a", max_tpm=10_000, max_tokens_per_day=5_000)
    world.ask(headers={"Authorization": f"Bearer {key}"})
    text = admin.get("key?name=team-a").text
    used = re.findall(r'<meter min="0" max="(\d+)" value="(\d+)"', text)
    assert [most for most, _ in used] == ["10000", "5000"]
    assert all(int(value) > 0 for _, value in used)


def test_another_key_and_the_former_stays_for_as_long_as_was_said(world, admin):
    key = key_in(add(admin, name="team-a"))
    second = key_in(admin.act("key/rotate?name=team-a", grace_seconds="3600"))
    assert opens(world, key)
    assert opens(world, second)
    third = key_in(admin.act("key/rotate?name=team-a", grace_seconds="0"))
    assert not opens(world, second)
    assert opens(world, third)
    assert admin.act("key/rotate?name=team-a", grace_seconds="99999999").status_code == 422


def test_an_edit_is_shown_before_it_is_saved_and_not_twice(world, admin):
    form = sent(world, "app", max_rpm="60", expires_at="2030-01-01T00:00")
    shown = admin.act("key/preview?name=app", **form)
    assert "<ins>60</ins>" in shown.text
    assert "<del>nothing</del>" in shown.text
    answer = admin.act("key/save?name=app", **form, seal=seal_of(shown))
    assert answer.headers["HX-Redirect"].startswith("/admin/ui/key?name=app")
    with world.app.app_context():
        stored, _ = keys.EDITOR.present("app")
    assert (stored["max_rpm"], stored["expires_at"]) == (60, 1_893_456_000.0)
    assert admin.act("key/save?name=app", **form, seal=seal_of(shown)).status_code == 412


def test_a_mistake_names_its_field(world, admin):
    answer = admin.act("key/preview", **NEW, name="x", allowed_networks="10.0.0.300")
    assert answer.status_code == 422
    assert 'data-param="allowed_networks.0"' in answer.text


def test_one_that_is_removed_opens_nothing(world, admin):
    key = key_in(add(admin, name="team-a"))
    revision = sent(world, "team-a")["revision"]
    assert admin.act("key/remove?name=team-a", revision="1").status_code == 412
    assert admin.act("key/remove?name=team-a", revision=revision).status_code == 204
    assert not opens(world, key)
