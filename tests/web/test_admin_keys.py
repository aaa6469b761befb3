import re
import time

import pytest

from proxy.store import admin_keys
from tests.builders import AUTHOR
from tests.web.conftest import ADMIN, ADMIN_KEY

KEY = re.compile(r"gwa_[0-9A-Za-z]{49}")


def ask(world, method, path="", headers=None, **arguments):
    return world.client.open(
        f"/admin/admin-keys{path}", method=method, headers=ADMIN | (headers or {}), **arguments
    )


def make(world, name="ann", role="admin", **fields):
    return ask(world, "POST", json={"name": name, "role": role} | fields)


def opens(world, key):
    answer = world.client.get("/admin/instances", headers={"X-Admin-API-Key": key})
    return answer.status_code == 200


def test_a_key_is_made_shown_once_and_opens_the_admin_api_at_once(world):
    answer = make(world, "ann b", "viewer")
    made = answer.get_json()
    assert (answer.status_code, answer.headers["Location"]) == (
        201,
        "/admin/admin-keys/ann%20b",
    )
    assert answer.headers["Cache-Control"] == "no-store"
    assert KEY.fullmatch(made["key"])
    assert opens(world, made["key"])
    shown = ask(world, "GET", "/ann b")
    assert shown.headers["ETag"] == answer.headers["ETag"] == f'"{made["revision"]}"'
    assert shown.get_json() == {k: v for k, v in made.items() if k != "key"}
    assert (made["key_hint"], made["role"], made["expires_at"], made["expired"]) == (
        f"***{made['key'][-4:]}",
        "viewer",
        None,
        False,
    )


def test_the_list_shows_all_by_name_and_no_key(world):
    keys = [make(world, name).get_json()["key"] for name in ("b", "a")]
    answer = ask(world, "GET")
    shown = answer.get_json()
    assert [each["name"] for each in shown["admin_keys"]] == ["a", "b"]
    assert shown["admin_api_key_set"] is True
    assert not KEY.search(answer.text)
    assert all(key not in answer.text for key in (*keys, ADMIN_KEY))


def test_a_role_is_changed_and_what_is_not_sent_stays(world):
    moment = time.time() + 600
    key = make(world, "ann", "viewer", expires_at=moment).get_json()["key"]
    shown = ask(world, "PATCH", "/ann", json={"role": "operator"}).get_json()
    assert (shown["role"], shown["expires_at"]) == ("operator", moment)
    shown = ask(world, "PATCH", "/ann", json={"expires_at": None}).get_json()
    assert (shown["role"], shown["expires_at"]) == ("operator", None)
    answer = world.client.put(
        "/admin/instances/x/state", headers={"X-Admin-API-Key": key}, json={"status": "healthy"}
    )
    assert answer.status_code == 404  # let in, and there is no x


def test_a_key_can_be_ended_now_and_is_still_listed(world):
    key = make(world).get_json()["key"]
    shown = ask(world, "PATCH", "/ann", json={"expires_at": time.time()}).get_json()
    assert shown["expired"] is True
    assert not opens(world, key)
    assert ask(world, "GET").get_json()["admin_keys"] == [shown]


def test_a_removed_key_opens_nothing(world):
    key = make(world).get_json()["key"]
    assert ask(world, "DELETE", "/ann").status_code == 204
    assert not opens(world, key)
    assert ask(world, "GET", "/ann").status_code == 404


@pytest.mark.parametrize(
    "body, status, param",
    [
        ({"name": "admin", "role": "viewer"}, 422, "name"),
        ({"name": "ann", "role": "owner"}, 422, "role"),
        ({"name": "ann"}, 422, "role"),
        ({"name": "ann", "role": "viewer", "expires_at": 1e13}, 422, "expires_at"),
        ({"name": "there", "role": "viewer"}, 409, "name"),
        ({"name": "ann", "role": "viewer", "key": "gwa_mine"}, 422, "key"),
        ([], 422, None),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_written(world, body, status, param):
    make(world, "there")
    before = world.everything()
    answer = ask(world, "POST", json=body)
    assert (answer.status_code, answer.get_json()["error"]["param"]) == (status, param)
    assert world.everything() == before


def test_another_version_is_refused(world):
    make(world, "ann")
    stale = {"If-Match": '"1"'}
    assert (
        ask(world, "PATCH", "/ann", json={"role": "viewer"}, headers=stale).status_code == 412
    )
    assert ask(world, "DELETE", "/ann", headers=stale).status_code == 412


@pytest.mark.parametrize("path, method", [("/x", "GET"), ("/x", "PATCH"), ("/x", "DELETE")])
def test_who_is_not_there_is_not_found(world, path, method):
    answer = ask(world, method, path, json={"role": "viewer"})
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (
        404,
        "admin_key_not_found",
    )


def test_the_last_admin_cannot_take_itself_away_without_the_environments_key(make_world):
    world = make_world(admin_api_key="")
    with world.parts.database.session() as session:
        key = admin_keys.add(session, "ann", "admin", author=AUTHOR)
        admin_keys.add(session, "view", "viewer", author=AUTHOR)
    world.parts.snapshots.reload()
    mine = {"X-Admin-API-Key": key}
    for answer in (
        ask(world, "DELETE", "/ann", headers=mine),
        ask(world, "PATCH", "/ann", headers=mine, json={"role": "operator"}),
    ):
        error = answer.get_json()["error"]
        assert (answer.status_code, error["code"]) == (409, "last_admin_key")
        assert "set ADMIN_API_KEY" in error["message"]
    assert ask(world, "GET", headers=mine).get_json()["admin_api_key_set"] is False
    assert ask(world, "DELETE", "/view", headers=mine).status_code == 204


def test_with_the_environments_key_it_can(world):
    make(world)
    assert ask(world, "PATCH", "/ann", json={"role": "operator"}).status_code == 200
    assert ask(world, "DELETE", "/ann").status_code == 204
