import re
import time

import pytest

from proxy.store.models import ClientKeyRow, ClientStateRow, RevisionRow
from tests.web.conftest import ADMIN, CHAT

KEY = re.compile(r"gw_[0-9A-Za-z]{49}")
PATH = "/admin/keys"


def admin(world, method, path="", headers=None, **arguments):
    return world.client.open(
        PATH + path, method=method, headers=ADMIN | (headers or {}), **arguments
    )


def add(world, name="team", **fields):
    answer = admin(world, "POST", json={"name": name, **fields})
    assert answer.status_code == 201, answer.text
    return answer.get_json()["key"]


def ask(world, key):
    return world.ask(CHAT, headers={"Authorization": f"Bearer {key}"})


def names(world, query=""):
    answer = admin(world, "GET", query)
    assert answer.status_code == 200, answer.text
    return [shown["name"] for shown in answer.get_json()["keys"]]


def test_a_key_is_shown_once_and_serves_at_once(world):
    world.add("a")
    answer = admin(world, "POST", json={"name": "team", "max_rpm": 60})
    shown = answer.get_json()
    assert answer.status_code == 201
    key = shown.pop("key")
    assert KEY.fullmatch(key)
    assert shown["key_hint"] == f"***{key[-4:]}"
    assert answer.headers["Location"] == "/admin/keys/team"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["ETag"] == f'"{shown["revision"]}"'
    again = admin(world, "GET", "/team")
    assert again.get_json() == shown
    assert again.headers["ETag"] == answer.headers["ETag"]
    assert ask(world, key).status_code == 200
    for text in (again.text, admin(world, "GET").text):
        assert not KEY.search(text)
        assert "hash" not in text


def test_a_client_that_only_has_a_name_may_do_everything(world):
    add(world)
    assert admin(world, "GET", "/team").get_json() == {
        "name": "team",
        "enabled": True,
        "expires_at": None,
        "allowed_models": [],
        "allowed_instances": [],
        "allowed_networks": [],
        "max_tpm": 0,
        "max_rpm": 0,
        "max_parallel_requests": 0,
        "max_tokens_per_day": 0,
        "max_tokens_per_month": 0,
        "max_cost_per_day": 0.0,
        "max_cost_per_month": 0.0,
        "compat": "raw",
        "labels": {},
        "former_keys": [],
        "expired": False,
        "last_used_at": None,
        "state": {
            "in_flight": 0,
            "current_tpm": None,
            "current_rpm": None,
            "tokens_today": 0,
            "tokens_this_month": 0,
            "cost_today": 0.0,
            "cost_this_month": 0.0,
        },
    } | {
        k: v
        for k, v in admin(world, "GET", "/team").get_json().items()
        if k in ("key_hint", "created_at", "updated_at", "revision")
    }


def test_what_a_client_uses_is_shown_beside_what_it_may_use(world):
    world.add("a")
    key = add(world, max_tpm=1000, max_rpm=10)
    before = time.time()
    used = ask(world, key).get_json()["usage"]["total_tokens"]
    shown = admin(world, "GET", "/team").get_json()
    assert shown["last_used_at"] >= before
    state = shown["state"]
    assert (state["current_tpm"], state["current_rpm"], state["in_flight"]) == (used, 1, 0)
    assert (state["tokens_today"], state["tokens_this_month"]) == (used, used)
    (listed,) = [k for k in admin(world, "GET").get_json()["keys"] if k["name"] == "team"]
    assert listed == shown


def test_the_use_of_a_removed_client_of_that_name_is_not_shown(world):
    world.add("a")
    assert ask(world, add(world)).status_code == 200
    assert admin(world, "DELETE", "/team").status_code == 204
    add(world)
    assert admin(world, "GET", "/team").get_json()["last_used_at"] is None


def test_what_was_spent_is_counted_by_name_and_a_larger_budget_opens_it_again(world):
    world.add("a")
    key = add(world, max_tokens_per_day=100)
    spent = ask(world, key).get_json()["usage"]["total_tokens"]
    assert admin(world, "DELETE", "/team").status_code == 204
    key = add(world, max_tokens_per_day=spent)
    assert admin(world, "GET", "/team").get_json()["state"]["tokens_today"] == spent
    answer = ask(world, key)
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (
        429,
        "insufficient_quota",
    )
    admin(world, "PATCH", "/team", json={"max_tokens_per_day": 2 * spent + 100})
    assert ask(world, key).status_code == 200


def test_a_name_that_exists_is_a_conflict(world):
    key = add(world)
    answer = admin(world, "POST", json={"name": "team"})
    assert (answer.status_code, answer.get_json()["error"]["param"]) == (409, "name")
    assert key[-4:] in admin(world, "GET", "/team").text


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_change_leaves_alone_what_is_not_sent(world, method):
    add(world, allowed_models=["o3"], labels={"team": "a"})
    answer = admin(world, method, "/team", json={"max_tpm": 5, "labels": {}})
    shown = answer.get_json()
    assert (answer.status_code, shown["max_tpm"], shown["labels"]) == (200, 5, {})
    assert shown["allowed_models"] == ["o3"]
    assert answer.headers["ETag"] == f'"{shown["revision"]}"'


def test_what_get_shows_may_come_back(world):
    add(world, max_cost_per_day=1.5, expires_at=2_000_000_000)
    shown = admin(world, "GET", "/team").get_json()
    answer = admin(world, "PUT", "/team", json=shown)
    assert (answer.status_code, answer.get_json()) == (200, shown)


@pytest.mark.parametrize(
    "sent, words",
    [
        ({"former_keys": []}, "grace_seconds 0"),
        ({"expired": False}, "Set expires_at"),
        ({"state": {"tokens_today": 0}}, "raise the limit"),
    ],
)
def test_what_is_only_shown_is_refused_as_nothing_would_come_of_it(world, sent, words):
    add(world)
    answer = admin(world, "PATCH", "/team", json={"max_rpm": 1, **sent})
    assert answer.status_code == 422
    error = answer.get_json()["error"]
    assert error["param"] == next(iter(sent))
    assert "cannot be set" in error["message"]
    assert words in error["message"]
    assert admin(world, "GET", "/team").get_json()["max_rpm"] == 0


def test_a_former_key_is_not_taken_away_by_what_get_showed_without_it(world):
    add(world)
    admin(world, "POST", "/team/rotate")
    shown = admin(world, "GET", "/team").get_json()
    assert admin(world, "PUT", "/team", json=shown).status_code == 200
    answer = admin(world, "PUT", "/team", json=shown | {"former_keys": []})
    assert answer.get_json()["error"]["param"] == "former_keys"


def test_a_change_is_live_at_once_and_named_in_a_revision(world):
    world.add("a")
    key = add(world)
    why = {"X-Change-Reason": "left the company"}
    assert admin(world, "PUT", "/team", json={"enabled": False}, headers=why).status_code == 200
    assert ask(world, key).status_code == 401
    with world.parts.database.session() as session:
        row = session.query(RevisionRow).order_by(RevisionRow.id.desc()).first()
        assert (row.author, row.action, row.reason) == (
            "admin",
            "key changed",
            "left the company",
        )


@pytest.mark.parametrize(
    "method, path, json, done",
    [
        ("PUT", "/team", {"max_rpm": 1}, 200),
        ("POST", "/team/rotate", {}, 200),
        ("DELETE", "/team", None, 204),
    ],
)
def test_of_two_writers_the_second_hears_of_the_first(world, method, path, json, done):
    add(world)
    mine = {"If-Match": admin(world, "GET", "/team").headers["ETag"]}
    admin(world, "PUT", "/team", json={"max_tpm": 5})
    assert admin(world, method, path, json=json, headers=mine).status_code == 412
    mine = {"If-Match": admin(world, "GET", "/team").headers["ETag"]}
    assert admin(world, method, path, json=json, headers=mine).status_code == done


def test_a_client_cannot_be_renamed(world):
    add(world)
    answer = admin(world, "PUT", "/team", json={"name": "other"})
    assert (answer.status_code, answer.get_json()["error"]["param"]) == (422, "name")


def test_a_removed_client_is_gone_and_its_key_worth_nothing(world):
    world.add("a")
    key = add(world)
    assert admin(world, "DELETE", "/team").status_code == 204
    assert ask(world, key).status_code == 401
    assert admin(world, "GET", "/team").status_code == 404


def test_a_rotated_key_stays_valid_beside_the_new_one_for_its_grace(world):
    world.add("a")
    old = add(world, max_rpm=600)
    answer = admin(world, "POST", "/team/rotate", json={"grace_seconds": 60})
    shown = answer.get_json()
    assert answer.status_code == 200
    assert shown["max_rpm"] == 600
    assert answer.headers["Cache-Control"] == "no-store"
    assert [k["key_hint"] for k in shown["former_keys"]] == [f"***{old[-4:]}"]
    assert answer.headers["ETag"] == f'"{shown["revision"]}"'
    for key in (old, shown["key"]):
        assert ask(world, key).status_code == 200


def test_without_grace_the_old_key_ends_now(world):
    world.add("a")
    old = add(world)
    new = admin(world, "POST", "/team/rotate", json={"grace_seconds": 0}).get_json()["key"]
    refused = ask(world, old)
    assert (refused.status_code, ask(world, new).status_code) == (401, 200)
    assert refused.get_json()["error"]["code"] == "api_key_replaced"


def test_without_a_body_the_grace_is_a_day(world):
    add(world)
    shown = admin(world, "POST", "/team/rotate").get_json()
    (former,) = shown["former_keys"]
    assert former["valid_until"] == pytest.approx(shown["updated_at"] + 86_400)


@pytest.mark.parametrize(
    "json", [{"grace_seconds": -1}, {"grace_seconds": "1d"}, {"grace": 1}, [], 5]
)
def test_a_grace_that_is_none_is_refused(world, json):
    key = add(world)
    assert admin(world, "POST", "/team/rotate", json=json).status_code == 422
    assert admin(world, "GET", "/team").get_json()["key_hint"] == f"***{key[-4:]}"


def test_a_client_that_waits_for_a_key_is_shown_and_given_one(world):
    world.add("a")
    with world.parts.database.session() as session:
        session.add(ClientKeyRow(name="team", created_at=0, updated_at=0, revision=1))
    assert admin(world, "GET", "/team").get_json()["key_hint"] is None
    key = admin(world, "POST", "/team/rotate").get_json()["key"]
    assert ask(world, key).status_code == 200


def test_it_is_shown_when_a_client_was_last_seen(world):
    add(world)
    with world.parts.database.session() as session:
        session.add(ClientStateRow(client_name="team", last_used_at=4_000_000_000.0))
    assert admin(world, "GET", "/team").get_json()["last_used_at"] == 4_000_000_000.0


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_somebody_unknown_is_told_by_name(world, method):
    answer = admin(world, method, "/no body", json={})
    error = answer.get_json()["error"]
    assert (answer.status_code, error["code"]) == (404, "client_not_found")
    assert "'no body'" in error["message"]


def test_names_may_hold_spaces_and_slashes(world):
    add(world, "team a/search")
    assert admin(world, "GET", "/team a/search").get_json()["name"] == "team a/search"
    assert admin(world, "POST", "/team a/search/rotate").status_code == 200


@pytest.mark.parametrize(
    "query, found",
    [
        ("", ["app", "search", "Search-old", "sick"]),
        ("?name=SEARCH", ["search", "Search-old"]),
        ("?label=team", ["search", "sick"]),
        ("?label=team=a", ["search"]),
        ("?label=team=b", []),
        ("?enabled=false", ["sick"]),
        ("?expired=true", ["Search-old"]),
        ("?expired=false&enabled=true", ["app", "search"]),
        ("?limit=2", ["Search-old", "app"]),
        ("?limit=2&offset=3", ["sick"]),
    ],
)
def test_the_list_is_filtered_and_paged(world, query, found):
    add(world, "search", labels={"team": "a"})
    add(world, "Search-old", expires_at=5)
    add(world, "sick", enabled=False, labels={"team": "c"})
    assert sorted(names(world, query)) == sorted(found)


def test_a_page_tells_how_many_there_are(world):
    add(world)
    page = admin(world, "GET", "?limit=1").get_json()
    assert (page["total"], page["limit"], page["offset"], len(page["keys"])) == (2, 1, 0, 1)


@pytest.mark.parametrize(
    "query", ["?enabled=maybe", "?limit=0", "?offset=-1", "?lable=a", "?name=a&name=b"]
)
def test_a_query_that_is_none_is_refused(world, query):
    assert admin(world, "GET", query).status_code == 422


def test_an_instance_that_is_not_there_is_refused_by_name(world):
    answer = admin(world, "POST", json={"name": "team", "allowed_instances": ["est"]})
    error = answer.get_json()["error"]
    assert (answer.status_code, error["param"]) == (409, "allowed_instances")
    assert "'est'" in error["message"]


def test_every_path_and_method_needs_the_admin_key(world):
    rules = [r for r in world.app.url_map.iter_rules() if r.endpoint.startswith("keys.")]
    assert len(rules) == 3
    for rule in rules:
        for method in rule.methods - {"OPTIONS"}:
            path = rule.rule.replace("<path:name>", "app")
            answer = world.client.open(path, method=method, json={})
            assert answer.status_code == 401, (method, path)
