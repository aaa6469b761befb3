import time

import pytest
from sqlalchemy import delete, select

from proxy.store import admin_keys, keys
from proxy.store.models import RevisionRow, SecretRow
from proxy.web import auth
from tests.builders import AUTHOR
from tests.web.conftest import ADMIN, ADMIN_KEY, CHAT

MODELS = "/v1/models"


@pytest.mark.parametrize(
    "header, value",
    [
        ("Authorization", "Bearer {}"),
        ("Authorization", "bearer {}"),
        ("Authorization", "Bearer   {} "),
        ("api-key", "{}"),
    ],
)
def test_a_client_is_known_by_its_key_in_either_header(shared_world, header, value):
    headers = {header: value.format(shared_world.client_key)}
    assert shared_world.client.get(MODELS, headers=headers).status_code == 200


def test_one_right_key_of_two_is_enough(shared_world):
    right, wrong = shared_world.client_key, "gw-wrong"
    for first, second in ((right, wrong), (wrong, right)):
        headers = {"api-key": first, "Authorization": f"Bearer {second}"}
        assert shared_world.client.get(MODELS, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers, code",
    [
        ({}, "missing_api_key"),
        ({"Authorization": ""}, "missing_api_key"),
        ({"Authorization": "Bearer"}, "missing_api_key"),
        ({"Authorization": "Bearer "}, "missing_api_key"),
        ({"Authorization": "Basic {}"}, "missing_api_key"),
        ({"Authorization": "{}"}, "missing_api_key"),
        ({"api-key": "Bearer {}"}, "invalid_api_key"),
        ({"api-key": "gw-wrong"}, "invalid_api_key"),
        ({"api-key": "{}x"}, "invalid_api_key"),
        ({"api-key": "\xe4\xff"}, "invalid_api_key"),
        # The operator's key is not a client's.
        ({"api-key": ADMIN_KEY}, "invalid_api_key"),
        ({"X-Admin-API-Key": ADMIN_KEY}, "missing_api_key"),
    ],
)
@pytest.mark.parametrize("method, path", [("POST", "/v1/chat/completions"), ("GET", MODELS)])
def test_nobody_is_served_without_a_known_key(shared_world, method, path, headers, code):
    headers = {
        name: value.replace("{}", shared_world.client_key) for name, value in headers.items()
    }
    answer = shared_world.client.open(path, method=method, headers=headers, json=CHAT)
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (401, code)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert shared_world.asked() == (0, 0)


def test_every_path_of_the_client_api_needs_a_key(shared_world):
    rules = shared_world.app.url_map.iter_rules()
    paths = {r.rule.replace("<path:model>", "gpt-4o") for r in rules}
    paths = {p for p in paths if p.startswith(("/v1/", "/openai/"))}
    assert len(paths) == 16
    for path in paths:
        method = "GET" if "models" in path or path.endswith("deployments") else "POST"
        assert shared_world.client.open(path, method=method, json=CHAT).status_code == 401, path


def test_the_key_is_asked_for_before_the_body_is_looked_at(shared_world):
    assert shared_world.client.post("/v1/chat/completions", data=b"no JSON").status_code == 401


def test_a_removed_key_is_worth_nothing(world):
    with world.parts.database.session() as session:
        keys.remove(session, "app", author=AUTHOR)
    world.parts.syncer.sync()
    assert world.ask().status_code == 401


@pytest.mark.parametrize("headers", [{}, {"api-key": "whatever"}])
def test_with_client_authentication_off_everybody_is_served(make_world, headers):
    world = make_world(client_auth="off")
    world.add("a")
    answer = world.client.post("/v1/chat/completions", json=CHAT, headers=headers)
    assert answer.status_code == 200
    assert world.received().headers["api-key"] == world.simulator["a"].api_key


def test_without_an_admin_key_the_admin_api_is_closed(make_world):
    world = make_world(admin_api_key="")
    for headers in ({}, {"X-Admin-API-Key": ""}, ADMIN):
        answer = world.client.get("/admin/instances", headers=headers)
        assert answer.status_code == 403
        assert answer.get_json()["error"]["code"] == "admin_api_closed"
        message = answer.get_json()["error"]["message"]
        assert "ADMIN_API_KEY" in message
        assert "flask admins add" in message


@pytest.mark.parametrize("key", [None, "", "wrong", ADMIN_KEY[:-1], ADMIN_KEY + "x", "\xe4"])
def test_the_admin_api_is_closed_to_any_other_key(shared_world, key):
    headers = {} if key is None else {"X-Admin-API-Key": key}
    answer = shared_world.client.get("/admin/instances", headers=headers)
    assert answer.status_code == 401
    assert "X-Admin-API-Key" in answer.get_json()["error"]["message"]
    assert ADMIN_KEY not in answer.text


def test_a_clients_key_does_not_open_the_admin_api(shared_world):
    key = shared_world.client_key
    for name, value in (("X-Admin-API-Key", key), ("api-key", key), ("Authorization", key)):
        answer = shared_world.client.get("/admin/instances", headers={name: value})
        assert answer.status_code == 401


def test_every_path_and_method_of_the_admin_api_needs_its_key(shared_world):
    before = shared_world.everything()
    rules = [
        r for r in shared_world.app.url_map.iter_rules() if r.endpoint.startswith("instances.")
    ]
    assert len(rules) == 5
    for rule in rules:
        for method in rule.methods:
            path = rule.rule.replace("<path:name>", "a")
            answer = shared_world.client.open(path, method=method, json={"enabled": False})
            assert answer.status_code == 401, (method, path)
    assert shared_world.everything() == before


def test_an_admin_key_may_have_any_characters(make_world):
    world = make_world(admin_api_key="schlüssel-€")
    sent = "schlüssel-€".encode().decode("latin-1")  # WSGI's way to hand over bytes
    answer = world.client.get("/admin/instances", headers={"X-Admin-API-Key": sent})
    assert answer.status_code == 200


def add_admin(world, name="ann", role="admin", **more):
    with world.parts.database.session() as session:
        key = admin_keys.add(session, name, role, author=AUTHOR, **more)
    world.parts.snapshots.reload()
    return key


def look(world, key):
    return world.client.get("/admin/instances", headers={"X-Admin-API-Key": key})


@pytest.mark.parametrize("first", ["", ADMIN_KEY])
def test_an_admin_key_opens_the_admin_api_with_or_without_the_environments(make_world, first):
    world = make_world(admin_api_key=first)
    assert look(world, add_admin(world)).status_code == 200
    assert look(world, ADMIN_KEY).status_code == (200 if first else 401)
    assert look(world, "").status_code == 401


def test_several_keys_are_valid_at_a_time_until_each_is_removed(world):
    ann, bob = add_admin(world, "ann"), add_admin(world, "bob", "viewer")
    assert [look(world, key).status_code for key in (ann, bob, ADMIN_KEY)] == [200] * 3
    with world.parts.database.session() as session:
        admin_keys.remove(session, "ann", author=AUTHOR, is_first_set=True)
    world.parts.syncer.sync()
    assert [look(world, key).status_code for key in (ann, bob, ADMIN_KEY)] == [401, 200, 200]


def test_a_key_that_is_expired_opens_nothing_and_its_owner_is_told(world, monkeypatch):
    now = time.time()
    key = add_admin(world, expires_at=now + 60)
    assert look(world, key).status_code == 200
    monkeypatch.setattr(auth.time, "time", lambda: now + 60)
    answer = look(world, key)
    assert answer.status_code == 401
    assert "it is expired" in answer.get_json()["error"]["message"]


def test_a_slip_of_the_pen_is_told_from_a_key_that_is_not_known(world):
    key = add_admin(world)
    assert "it is cut off" in look(world, key[:-1]).get_json()["error"]["message"]
    assert "it is not known" in look(world, "whatever").get_json()["error"]["message"]


def test_a_revision_has_the_name_of_the_admin_key(world):
    for name, headers in (("a", {"X-Admin-API-Key": add_admin(world, "ann")}), ("b", ADMIN)):
        body = world.config(name)
        answer = world.client.post("/admin/instances", headers=headers, json=body)
        assert answer.status_code == 201
    with world.parts.database.read() as connection:
        authors = connection.execute(select(RevisionRow.author).order_by(RevisionRow.id))
        assert list(authors.scalars())[-2:] == ["ann", "admin"]


def test_without_what_hashes_are_keyed_with_only_the_environments_key_is_known(world):
    key = add_admin(world)
    with world.parts.database.session() as session:
        session.execute(delete(SecretRow))
        keys.remove(session, "app", author=AUTHOR)  # a revision, so that it is read again
    world.parts.snapshots.reload()
    answer = look(world, key)
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (503, "keys_unreadable")
    assert look(world, ADMIN_KEY).status_code == 200


def test_a_client_key_of_the_same_gateway_is_no_admin_key(world):
    add_admin(world)
    assert look(world, world.client_key).status_code == 401
    asked = world.client.get(MODELS, headers={"api-key": add_admin(world, "bob")})
    assert asked.status_code == 401
