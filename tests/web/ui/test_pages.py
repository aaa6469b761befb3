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
