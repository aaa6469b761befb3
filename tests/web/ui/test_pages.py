import re
from pathlib import Path

from proxy.web import ui

TEMPLATES = sorted(Path(ui.__file__).parent.glob("templates/*.html"))


def forms_of_scripts():
    """Of each that a script sends its tag, and whereto."""
    for template in TEMPLATES:
        for tag in re.findall(r'<form\b(?:"[^"]*"|[^>"])*>', template.read_text()):
            where = re.search(r'hx-post="(.*?)"(?=[ >])', tag)
            if where:
                yield tag, where[1]


def test_without_a_script_no_form_puts_what_is_in_it_into_an_address():
    found = list(forms_of_scripts())
    assert len(found) > 5
    for tag, where in found:
        assert f'method="post" action="{where}"' in tag


def test_a_form_that_no_script_sent_changes_nothing_and_says_so(world, admin):
    answer = admin.post("instance/preview", token="", api_key="planted-key-0123456789")
    assert answer.status_code == 403
    assert "<nav" in answer.text
    assert "before its scripts were there; nothing was changed" in answer.text


def test_what_is_live_is_sent_only_when_it_is_another(world, admin, monkeypatch):
    world.add("a")
    first = admin.get("live/instances")
    assert first.status_code == 200
    etag = {"If-None-Match": first.headers["ETag"]}
    again = admin.get("live/instances", headers=etag)
    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["Cache-Control"] == "no-store"
    assert admin.act("instance/clear?name=a").status_code == 200
    world.admin("PATCH", "/a", json={"enabled": False})
    world.parts.fragments.forget()
    assert admin.get("live/instances", headers=etag).status_code == 200


def test_what_is_live_is_made_once_for_all_of_a_role(world, signed_in, monkeypatch):
    world.add("a")
    asked = []
    view = world.parts.state.view
    monkeypatch.setattr(
        type(world.parts.state), "view", lambda _, n: asked.append(n) or view(n)
    )
    admin, viewer = signed_in("admin"), signed_in("viewer")
    world.parts.fragments.forget()
    asked.clear()
    pages = [browser.get("live/instances").text for browser in (admin, viewer)]
    made = len(asked)
    pages += [browser.get("live/instances").text for browser in (admin, viewer)]
    assert len(asked) == made
    assert pages[0] == pages[2]
    assert ("Disable" in pages[0], "Disable" in pages[1]) == (True, False)


def test_the_page_says_where_one_is(admin):
    assert admin.get("instances").text.count('aria-current="page"') == 1
    assert 'href="/admin/ui/" aria-current' in admin.get().text
