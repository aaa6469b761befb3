import os
import time
from urllib.parse import quote

import pytest

from proxy.store import instances
from proxy.store.models import RevisionChangeRow
from tests.builders import AUTHOR, MODEL, config
from tests.web.conftest import ADMIN, CHAT, STREAM


def error(answer):
    assert list(answer.get_json()) == ["error"]
    return answer.get_json()["error"]


# Adding.


def test_a_new_instance_is_shown_with_its_place_and_version(world):
    answer = world.add("a")
    assert answer.status_code == 201
    assert answer.headers["location"] == "/admin/instances/a"
    config, state = answer.get_json()["config"], answer.get_json()["state"]
    assert (config["name"], config["priority"], config["max_tpm"]) == ("a", 100, 240_000)
    assert (state["name"], state["status"], state["total_requests"]) == ("a", "healthy", 0)
    assert answer.headers["etag"] == f'"{config["revision"]}"'
    assert world.client.get(answer.headers["location"], headers={}).status_code == 401
    assert world.admin("GET", "/a").get_json() == answer.get_json()


def test_a_new_instance_serves_at_once(world):
    world.add("a")
    assert world.ask().status_code == 200


def test_a_list_is_added_whole_and_shown(world):
    answer = world.admin("POST", json=[world.config("a"), world.config("b")])
    assert answer.status_code == 201
    assert answer.get_json()["total"] == 2
    assert [i["config"]["name"] for i in answer.get_json()["instances"]] == ["a", "b"]
    assert answer.get_json()["instances"] == world.admin("GET").get_json()["instances"]


@pytest.mark.parametrize(
    "second, status, param",
    [
        ({"name": "present"}, 409, "name"),
        ({"name": "a"}, 409, "name"),  # twice in the list itself
        ({"max_tpm": -1}, 422, "1.max_tpm"),
        ({"model_deployments": {"gpt-4.1": 5}}, 422, "1.model_deployments.gpt-4.1.value"),
        ({"_schema": 1}, 422, "1"),
        (None, 422, "1"),
    ],
)
def test_a_list_with_one_that_cannot_be_added_adds_none(world, second, status, param):
    world.add("present")
    before = world.everything()
    second = None if second is None else world.config("b") | second
    answer = world.admin("POST", json=[world.config("a"), second])
    assert answer.status_code == status
    if status == 422:
        assert error(answer)["message"].startswith(param + ":")
    if second is not None:
        assert error(answer)["param"] == param
    assert world.everything() == before


def test_a_name_that_marshmallow_has_for_the_whole_is_a_422(shared_world):
    for answer in (
        shared_world.admin("POST", json=shared_world.config("b", _schema=1)),
        shared_world.admin("GET", "?_schema=1"),
    ):
        assert (answer.status_code, error(answer)["message"]) == (422, "Unknown field.")


def test_an_empty_list_is_a_mistake(world):
    before = world.everything()
    answer = world.admin("POST", json=[])
    assert answer.status_code == 422
    assert "nothing to add" in answer.get_json()["error"]["message"]
    assert world.everything() == before


def test_a_name_that_exists_is_a_conflict_and_changes_nothing(world):
    world.add("a")
    before = world.everything()
    answer = world.admin("POST", json=world.config("a", priority=7))
    assert (answer.status_code, error(answer)["code"]) == (409, "name_exists")
    assert "'a'" in error(answer)["message"]
    assert world.everything() == before


@pytest.mark.parametrize(
    "body", [b"", b"no JSON", b'{"name": "a"', b"\xff", b'{"weight": NaN}']
)
@pytest.mark.parametrize(
    "method, path", [("POST", ""), ("PUT", "/a"), ("PATCH", "/a/config"), ("PUT", "/a/state")]
)
def test_a_body_that_is_not_json_is_a_400(shared_world, method, path, body):
    before = shared_world.everything()
    answer = shared_world.admin(method, path, data=body)
    assert answer.status_code == 400
    assert "not valid JSON" in error(answer)["message"]
    assert shared_world.everything() == before


@pytest.mark.parametrize("body", ["null", "5", '"a"', "true"])
@pytest.mark.parametrize(
    "method, path",
    [
        ("POST", ""),
        ("PUT", "/a"),
        ("PUT", "/a/config"),
        ("PUT", "/a/state"),
        ("POST", "/a/verify"),
    ],
)
def test_a_body_that_is_no_object_is_a_422(shared_world, method, path, body):
    answer = shared_world.admin(method, path, data=body)
    assert answer.status_code == 422
    assert "object" in error(answer)["message"]


def test_json_is_read_whatever_type_it_names(world):
    """`curl -d` names the type of a form."""
    kind = "application/x-www-form-urlencoded"
    world.add("a")
    answer = world.admin("PUT", "/a", data=b'{"priority": 7}', content_type=kind)
    assert answer.get_json()["config"]["priority"] == 7


# What cannot be used. (The field, its value, how the message names the value.)

BAD_FIELDS = [
    *(
        (field, value, shown)
        for field in ("priority", "weight", "max_tpm", "max_input_tokens", "retry_count")
        for value, shown in (
            (True, "true"),
            ("3", '"3"'),
            (1.5, "1.5"),
            (1.0, "1.0"),
            (None, "null"),
            ([], "[]"),
            ({}, "{}"),
            (2**31, "2147483648"),
            (10**30, "1e+30"),
        )
    ),
    *((field, -1, "-1") for field in ("weight", "max_tpm", "max_input_tokens", "retry_count")),
    ("retry_count", 101, "101"),
    ("timeout_seconds", True, "true"),
    ("timeout_seconds", "60", '"60"'),
    ("timeout_seconds", None, "null"),
    ("timeout_seconds", 0, "0"),
    ("timeout_seconds", -1, "-1"),
    ("timeout_seconds", 3600.5, "3600.5"),
    ("enabled", 1, "1"),
    ("enabled", "true", '"true"'),
    ("enabled", None, "null"),
    ("rate_limit_enabled", "off", '"off"'),
    ("name", "", '""'),
    ("name", " a", '" a"'),
    ("name", "a\nb", r'"a\nb"'),
    ("name", "/a", '"/a"'),
    ("name", "a/", '"a/"'),
    ("name", "x" * 101, "x" * 90),
    ("name", 5, "5"),
    ("name", None, "null"),
    ("name", "new", '"new"'),
    ("name", "new/a", '"new/a"'),
    ("name", "migrate", '"migrate"'),
    ("name", "implementation", '"implementation"'),
    ("name", "a/config", '"a/config"'),
    ("name", "a/state", '"a/state"'),
    ("name", "a/verify", '"a/verify"'),
    # Clients remove such segments from a path before they send it.
    ("name", ".", '"."'),
    ("name", "a/../b", '"a/../b"'),
    ("provider_type", "aws", '"aws"'),
    ("provider_type", None, "null"),
    ("provider_type", "Azure", '"Azure"'),
    ("api_base", "", '""'),
    ("api_base", "east-us", '"east-us"'),
    ("api_base", "ftp://h", '"ftp://h"'),
    ("api_base", "https://h/openai/deployments/x", '"https://h/openai/deployments/x"'),
    ("api_base", "file:///etc/passwd", '"file:///etc/passwd"'),
    ("api_base", "http://", '"http://"'),
    ("api_base", "http://[::1", '"http://[::1"'),
    ("api_base", "http://h:99999", '"http://h:99999"'),
    ("api_base", "http://h:0", '"http://h:0"'),
    ("api_base", "http://h/a b", '"http://h/a b"'),
    ("api_base", "http://h/\r\nx: y", r'"http://h/\r\nx: y"'),
    ("api_base", "http://h?x=1", '"http://h?x=1"'),
    ("api_base", "http://h#x", '"http://h#x"'),
    ("api_base", "https://user:word@h", "api_key"),
    ("api_base", "http://169.254.169.254", '"http://169.254.169.254"'),
    ("api_base", "http://0xa9fea9fe/x", "PROXY_ALLOW_PRIVATE_UPSTREAMS"),
    ("api_base", "http://[::ffff:169.254.169.254]", "to 169.254.169.254, a link-local"),
    ("api_base", "http://[fe80::1%25eth0]:80", "a link-local"),
    ("api_base", "http://metadata.google.internal", '"http://metadata.google.internal"'),
    ("api_base", 5, "5"),
    ("api_version", "2024?x=1", '"2024?x=1"'),
    ("api_version", "", '""'),
    ("api_version", "2024-10-21\n", r'"2024-10-21\n"'),
    ("supported_models", "gpt-4o", '"gpt-4o"'),
    ("supported_models", {"gpt-4o": 1}, '{"gpt-4o":1}'),
    ("supported_models", ["a", "a"], '["a","a"]'),
    ("supported_models.1", ["a", ""], '""'),
    ("supported_models.0", [5], "5"),
    ("supported_models.0", ["a\n"], r'"a\n"'),
    ("supported_models", None, "null"),
    ("model_deployments", ["a"], '["a"]'),
    ("model_deployments.gpt-4.1.value", {"gpt-4.1": 5}, "5"),
    ("model_deployments.a.value", {"a": ""}, '""'),
    ("model_deployments..key", {"": "a"}, ""),
    # Without its value: what is misspelt may be a secret.
    ("priorty", 5, "Unknown field. Did you mean 'priority'?"),
    ("deployment_name", "east", "Unknown field."),
]
# Of these the value is a secret, or could be one: it is not shown again.
BAD_SECRETS = [
    ("api_key", ""),
    ("api_key", None),
    ("api_key", 5),
    ("api_key", "two words planted"),
    ("api_key", "planted\r\nx: y"),
    ("api_key", "plänted"),
    ("api_key", "***planted"),
    ("api-key", "planted"),
    ("API_KEY", "planted"),
    ("proxy_url", "planted"),
    ("proxy_url", "socks5://user:planted@h"),
    ("proxy_url", "http://user:planted@"),
    ("proxy_url", "http://user:planted€@h"),
    ("proxy_url", "http://user:planted%E2%82%AC@h"),
    ("proxy_url", "http://***@h:8080"),
    ("proxy_url", "http://user:planted@169.254.169.254:80"),
    ("proxy_url", 5),
]


@pytest.mark.parametrize("field, value, shown", BAD_FIELDS)
def test_what_cannot_be_used_is_refused_by_name_and_value(shared_world, field, value, shown):
    before = shared_world.everything()
    change = {field.split(".")[0]: value}
    attempts = [("POST", "", shared_world.config("b") | change)]
    if field != "name":
        attempts += [(m, p, change) for m in ("PUT", "PATCH") for p in ("/a", "/a/config")]
        attempts.append(("PUT", "/a", {"config": change}))
    for method, path, body in attempts:
        answer = shared_world.admin(method, path, json=body)
        assert answer.status_code == 422
        assert error(answer)["param"] == field
        assert error(answer)["message"].startswith(field + ": ")
        assert shown in error(answer)["message"]
        assert len(error(answer)["message"]) < 300
    assert shared_world.everything() == before


@pytest.mark.parametrize("field, value", BAD_SECRETS)
def test_a_secret_that_cannot_be_used_is_refused_without_showing_it(shared_world, field, value):
    before = shared_world.everything()
    for method, path, body in (("POST", "", shared_world.config("b")), ("PUT", "/a", {})):
        answer = shared_world.admin(method, path, json=body | {field: value})
        assert answer.status_code == 422
        assert error(answer)["param"] == field
        assert "planted" not in answer.text
        assert "pl\\u00e4nted" not in answer.text
    assert shared_world.everything() == before


@pytest.mark.parametrize("field", ["api_base", "proxy_url"])
def test_a_metadata_address_may_be_allowed(make_world, field):
    world = make_world(allow_private_upstreams=True)
    world.add("a", **{field: "http://169.254.169.254"})
    assert world.admin("PUT", "/a", json={field: "http://metadata"}).status_code == 200


@pytest.mark.parametrize("allowed, tried", [(False, []), (True, [("169.254.169.254", 80)])])
def test_one_that_is_there_already_is_asked_only_where_it_is_allowed(
    make_world, monkeypatch, allowed, tried
):
    """A database may hold it: written before, or by hand."""
    asked = []

    def refuse(_sock, address, *_):
        asked.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr("proxy.runtime.dialling._connect", refuse)
    world = make_world(allow_private_upstreams=allowed)
    with world.parts.database.session() as session:
        there = config("a", api_base="http://169.254.169.254")
        instances.add(session, [there], author=AUTHOR)
    world.parts.snapshots.reload()
    checks = world.admin("POST", "/a/verify", json={"model": "m"}).get_json()["checks"]
    assert asked == tried
    assert ("PROXY_ALLOW_PRIVATE_UPSTREAMS" in checks[0]["detail"]) is not allowed


@pytest.mark.parametrize("missing", ["name", "api_base", "api_key"])
def test_what_every_instance_needs_is_asked_for(shared_world, missing):
    body = {k: v for k, v in shared_world.config("a").items() if k != missing}
    answer = shared_world.admin("POST", json=body)
    assert (answer.status_code, error(answer)["param"]) == (422, missing)
    assert "Missing" in error(answer)["message"]


# Names.

NAMES = [
    "a b",
    "a/b/c",
    "a//b",
    "100%",
    "%2F",
    "a?b",
    "a#b",
    "a;b",
    "a+b",
    'a"b',
    "ä€",
    "a&b=c",
]


@pytest.mark.parametrize("name", [*NAMES, "new york", "config", "state", "a/new", "verify"])
def test_an_instance_of_any_name_can_be_reached(world, name):
    answer = world.add(name)
    paths = {quote(name), quote(name, safe=""), answer.headers["location"].split("/", 3)[3]}
    for path in paths:
        assert world.admin("GET", f"/{path}").get_json()["config"]["name"] == name
        assert world.admin("GET", f"/{path}/config").get_json()["name"] == name
        assert world.admin("GET", f"/{path}/state").get_json()["name"] == name
        for field, place in (("weight", ""), ("priority", "/config")):
            changed = world.admin("PUT", f"/{path}{place}", json={field: 7})
            assert changed.status_code == 200
        assert world.admin("POST", f"/{path}/verify").status_code == 200
    assert world.admin("DELETE", f"/{quote(name)}").status_code == 204
    assert world.admin("GET", f"/{quote(name)}").status_code == 404


@pytest.mark.parametrize("name", ["A", "b", "a%20", "a%2Fb", "%00"])
@pytest.mark.parametrize(
    "method, part",
    [
        ("GET", ""),
        ("PUT", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("GET", "/config"),
        ("PUT", "/config"),
        ("PATCH", "/config"),
        ("GET", "/state"),
        ("PUT", "/state"),
        ("POST", "/verify"),
    ],
)
def test_an_instance_that_is_not_there_is_a_404(shared_world, name, method, part):
    answer = shared_world.admin(method, f"/{name}{part}", json={})
    assert (answer.status_code, error(answer)["code"]) == (404, "instance_not_found")


def test_an_instance_cannot_be_renamed(world):
    world.add("a")
    before = world.everything()
    answer = world.admin("PUT", "/a", json={"name": "b", "priority": 7})
    assert (answer.status_code, error(answer)["param"]) == (422, "name")
    assert world.everything() == before
    assert world.admin("PUT", "/a", json={"name": "a", "priority": 7}).status_code == 200


# The list.


@pytest.fixture
def three(world):
    """a: healthy, b: rests, c: refuses its key."""
    world.add("a", priority=3, weight=1, supported_models=["gpt-4o"])
    world.add(
        "b", priority=1, weight=2, provider_type="generic", supported_models=["GPT-4o", "x"]
    )
    world.add("c", priority=2, weight=3, provider_type="azure_v1", api_key="wrong")
    world.admin("PUT", "/b/state", json={"rate_limited_until": time.time() + 100})
    assert world.ask(CHAT | {"model": "only-c"}).status_code == 502
    return world


def names(answer):
    return [each["config"]["name"] for each in answer.get_json()["instances"]]


@pytest.mark.parametrize(
    "query, expected, total",
    [
        ("", "abc", 3),
        ("?status=healthy", "a", 1),
        ("?status=rate_limited", "b", 1),
        ("?status=misconfigured", "c", 1),
        ("?status=error", "", 0),
        ("?provider_type=azure", "a", 1),
        ("?provider_type=openai", "b", 1),
        ("?provider_type=generic", "b", 1),
        ("?provider_type=azure_v1", "c", 1),
        ("?model=gpt-4o", "abc", 3),  # c serves any
        ("?model=X", "bc", 2),
        ("?model=nobody-names-it", "c", 1),
        ("?model=", "abc", 3),
        ("?model=x&provider_type=openai&status=rate_limited", "b", 1),
        ("?model=gpt-4o&provider_type=azure&status=rate_limited", "", 0),
        ("?sort=name", "abc", 3),
        ("?sort=-name", "cba", 3),
        ("?sort=priority", "bca", 3),
        ("?sort=-priority", "acb", 3),
        ("?sort=-weight", "cba", 3),
        ("?sort=status", "acb", 3),
        ("?sort=-error_count", "cab", 3),
        ("?sort=-total_requests", "cab", 3),
        ("?limit=2", "ab", 3),
        ("?limit=1&offset=1", "b", 3),
        ("?offset=2", "c", 3),
        ("?offset=3", "", 3),
        ("?limit=1000&offset=" + "9" * 30, "", 3),
        ("?sort=priority&limit=1&offset=1", "c", 3),
        ("?provider_type=azure_v1&limit=1", "c", 1),
    ],
)
def test_the_list_shows_what_is_asked_for(three, query, expected, total):
    answer = three.admin("GET", query)
    assert (answer.status_code, "".join(names(answer))) == (200, expected)
    assert answer.get_json()["total"] == total


@pytest.mark.parametrize(
    "query, param",
    [
        ("?status=sick", "status"),
        ("?status=", "status"),
        ("?provider_type=aws", "provider_type"),
        ("?sort=api_key", "sort"),
        ("?sort=--name", "sort"),
        ("?limit=0", "limit"),
        ("?limit=1001", "limit"),
        ("?limit=-1", "limit"),
        ("?limit=many", "limit"),
        ("?limit=1.5", "limit"),
        ("?limit=", "limit"),
        ("?limit=" + "9" * 5000, "limit"),
        ("?offset=-1", "offset"),
        ("?state=healthy", "state"),  # misspelt: it would be all of them
        ("?limit=1&limit=2", "limit"),
        ("?status=healthy&status=error", "status"),
    ],
)
def test_a_filter_that_cannot_be_used_is_refused_by_name(shared_world, query, param):
    answer = shared_world.admin("GET", query)
    assert (answer.status_code, error(answer)["param"]) == (422, param)


def test_a_page_says_how_it_was_cut(three):
    answer = three.admin("GET", "?limit=2&offset=1").get_json()
    assert (answer["total"], answer["limit"], answer["offset"]) == (3, 2, 1)


# Changing.


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize("path", ["/a", "/a/config"])
def test_a_change_leaves_what_it_does_not_name(world, method, path):
    before = world.add("a", weight=3, supported_models=["gpt-4o"]).get_json()["config"]
    answer = world.admin(method, path, json={"priority": 50})
    assert answer.status_code == 200
    shown = answer.get_json()
    after = shown["config"] if path == "/a" else shown
    assert after == world.admin("GET", "/a/config").get_json()
    assert after["revision"] > before["revision"]
    assert after["updated_at"] >= before["updated_at"]
    moved = ("revision", "updated_at")
    assert {k: v for k, v in after.items() if k not in moved} == {
        k: v for k, v in before.items() if k not in moved
    } | {"priority": 50}


EVERY_FIELD = {
    "provider_type": "azure_v1",
    "api_version": "preview",
    "proxy_url": "http://user:p%40ss@127.0.0.1:1",
    "priority": -5,
    "weight": 0,
    "max_tpm": 0,
    "max_input_tokens": 5,
    "supported_models": ["gpt-4o", "Ä/b c"],
    "model_deployments": {"gpt-4o": "east", "x.y": "z"},
    "enabled": False,
    "timeout_seconds": 0.5,
    "retry_count": 0,
    "rate_limit_enabled": False,
}


@pytest.mark.parametrize("key", ["NONE", "short", "long-enough-to-show-its-end"])
def test_what_get_shows_can_be_put_back_and_changes_nothing(world, key):
    world.add("a", **EVERY_FIELD | {"api_key": key})
    stored = world.parts.snapshots.current.instances["a"]
    both = world.admin("GET", "/a").get_json()
    before = world.everything()
    for path, body in (
        ("/a", both),
        ("/a", both["config"]),
        ("/a", {"config": both["config"]}),
        ("/a/config", both["config"]),
    ):
        for method in ("PUT", "PATCH"):
            answer = world.admin(method, path, json=body)
            assert answer.status_code == 200, answer.text
    assert world.everything() == before
    assert world.parts.snapshots.reload().instances["a"] == stored


def test_every_field_can_be_set_and_is_shown(world):
    world.add("a")
    shown = world.admin("PUT", "/a/config", json=EVERY_FIELD).get_json()
    expected = EVERY_FIELD | {"proxy_url": "http://***@127.0.0.1:1"}
    assert {k: shown[k] for k in expected} == expected
    added = world.add("b", **EVERY_FIELD).get_json()["config"]
    assert {k: added[k] for k in expected} == expected


def test_a_change_to_what_is_there_makes_no_revision(world):
    world.add("a", priority=7)
    before = world.everything()
    etag = world.admin("GET", "/a").headers["etag"]
    for body in ({"priority": 7}, {}):
        assert world.admin("PUT", "/a", json=body).headers["etag"] == etag
    assert world.everything() == before


def test_an_empty_proxy_url_is_none(world):
    world.add("a", proxy_url="http://h:1")
    for empty in ("", None):
        world.admin("PUT", "/a", json={"proxy_url": empty})
        assert world.admin("GET", "/a/config").get_json()["proxy_url"] is None


# Secrets.


def test_keys_and_passwords_are_never_returned(world):
    key, password = "planted-key-with-4567", "planted-password"
    added = world.add("a", api_key=key, proxy_url=f"http://user:{password}@127.0.0.1:1")
    answers = [
        added,
        world.admin("GET"),
        world.admin("GET", "/a"),
        world.admin("GET", "/a/config"),
        world.admin("PUT", "/a", json={"priority": 7}),
        world.admin("PATCH", "/a/config", json={"api_key": key}),
        world.admin("POST", "/a/verify", json={"model": MODEL}),
        world.admin("GET", "/a/state"),
        world.admin("POST", json=world.config("a", api_key=key)),
    ]
    for answer in answers:
        assert "planted" not in answer.text
        assert "user" not in answer.text
    config = world.admin("GET", "/a/config").get_json()
    assert (config["api_key"], config["api_key_set"]) == ("***4567", True)
    assert config["proxy_url"] == "http://***@127.0.0.1:1"


def test_no_secret_is_kept_in_the_history(world, database):
    world.add("a", api_key="planted-key-with-4567", proxy_url="http://u:planted@h:1")
    world.admin("PUT", "/a", json={"api_key": "planted-other-890123"})
    world.admin("DELETE", "/a")
    with database.read() as connection:
        table = RevisionChangeRow.__table__
        history = [str(row.changes) for row in connection.execute(table.select())]
    assert len(history) == 4
    assert "planted" not in "".join(history)


# Versions.


def change(world, method, path, given):
    """Changes a if If-Match allows it; {} in `given` becomes the present revision."""
    revision = world.admin("GET", "/a").get_json()["config"]["revision"]
    if_match = {"If-Match": given.format(revision)}
    return world.admin(method, path, headers=if_match, json={"priority": 7})


WAYS = [(m, p) for m in ("PUT", "PATCH") for p in ("/a", "/a/config")] + [("DELETE", "/a")]


@pytest.mark.parametrize("method, path", WAYS)
@pytest.mark.parametrize("given", ['"{}"', ' "{}" ', "*"])
def test_a_change_of_the_version_that_was_read_is_made(world, method, path, given):
    world.add("a")
    assert change(world, method, path, given).status_code in (200, 204)


@pytest.mark.parametrize("method, path", WAYS)
@pytest.mark.parametrize(
    "given",
    [
        '"1"',
        '"99"',
        '"0{}x"',
        "{}",
        'W/"{}"',
        '""',
        "",
        "x",
        '"-1"',
        '"' + "9" * 30 + '"',
        '"²"',
    ],
)
def test_a_change_of_another_version_is_refused(shared_world, method, path, given):
    before = shared_world.everything()
    answer = change(shared_world, method, path, given)
    assert (answer.status_code, error(answer)["code"]) == (412, "precondition_failed")
    assert shared_world.everything() == before


def test_of_two_who_read_the_same_version_one_changes_it(world):
    etag = {"If-Match": world.add("a").headers["etag"]}
    first = world.admin("PUT", "/a", headers=etag, json={"priority": 1})
    second = world.admin("PUT", "/a", headers=etag, json={"priority": 2})
    assert (first.status_code, second.status_code) == (200, 412)
    again = {"If-Match": first.headers["etag"]}
    assert world.admin("PUT", "/a", headers=again, json={"priority": 2}).status_code == 200


def test_both_ways_to_an_instance_tell_its_version(world):
    etag = world.add("a").headers["etag"]
    assert world.admin("GET", "/a").headers["etag"] == etag
    assert world.admin("GET", "/a/config").headers["etag"] == etag


# What follows from a change.


def test_a_rotated_key_is_used_by_the_next_request(world):
    world.add("a", api_key="wrong")
    assert world.ask().status_code == 502
    world.admin("PUT", "/a", json={"api_key": world.simulator["a"].api_key})
    assert world.ask().status_code == 200
    assert world.state()["status"] == "healthy"


def test_a_key_that_is_right_ends_a_rest_for_all_workers(world, database):
    world.add("a", api_key="wrong")
    world.ask()
    world.parts.syncer.sync()
    world.admin("PUT", "/a", json={"api_key": world.simulator["a"].api_key})
    world.parts.syncer.sync()
    assert world.state()["status"] == "healthy"
    assert world.ask().status_code == 200


def test_other_changes_do_not_end_a_rest(world):
    world.add("a", api_key="wrong")
    world.ask()
    world.admin("PUT", "/a", json={"priority": 7})
    assert world.state()["status"] == "misconfigured"
    assert world.ask().status_code == 502
    assert len(world.simulator["a"].requests) == 1


def test_an_instance_that_is_added_anew_does_not_rest_for_the_old_one(world):
    world.add("a", api_key="wrong")
    world.ask()
    world.admin("DELETE", "/a")
    answer = world.add("a")
    assert answer.get_json()["state"]["status"] == "healthy"
    world.parts.syncer.sync()
    assert world.state()["status"] == "healthy"
    assert world.ask().status_code == 200


def test_a_disabled_instance_gets_no_more(world):
    world.add("a", priority=1)
    world.add("b", priority=2)
    world.ask()
    world.admin("PUT", "/a", json={"enabled": False})
    world.ask()
    assert world.asked() == (1, 1)
    world.admin("PATCH", "/a/config", json={"enabled": True})
    world.ask()
    assert world.asked() == (2, 1)


def test_a_removed_instance_gets_no_more(world):
    world.add("a", priority=1)
    world.add("b", priority=2)
    answer = world.admin("DELETE", "/a")
    assert (answer.status_code, answer.data) == (204, b"")
    world.ask()
    assert world.asked() == (0, 1)
    assert names(world.admin("GET")) == ["b"]
    assert world.admin("DELETE", "/a").status_code == 404


# State.


def test_the_state_of_a_removed_instance_stays_readable(world):
    world.add("a")
    world.ask(STREAM)
    before = world.state()
    world.parts.syncer.sync()
    world.admin("DELETE", "/a")
    after = world.state()
    assert after["status"] == "removed"
    kept = ("name", "total_requests", "total_tokens_served", "avg_latency_ms", "last_used")
    assert {k: after[k] for k in kept} == {k: before[k] for k in kept}
    assert before["total_requests"] == 1
    assert world.admin("PUT", "/a/state", json={"status": "healthy"}).status_code == 404


def test_the_state_says_what_was_measured(world):
    world.add("a", max_tpm=1000)
    world.ask(CHAT)
    world.simulator["a"].faults["*"] = "500"
    world.ask(CHAT)
    state = world.state()
    assert (state["status"], state["breaker"]) == ("healthy", "closed")
    # Of the only instance's failure it was asked once more.
    assert (state["total_requests"], state["successful_requests"]) == (3, 1)
    assert (state["error_count"], state["total_upstream_500_errors"]) == (2, 2)
    assert (state["current_rpm"], state["current_tpm"]) == (3, 23)
    assert state["utilization_percentage"] == 2.3
    assert state["last_error"].startswith("500: ")
    assert abs(state["last_error_time"] - time.time()) < 60
    assert state["avg_latency_ms"] >= 0


def test_the_state_says_that_nobody_asks_it_for_a_while(world):
    world.add("a")
    world.simulator["a"].faults["*"] = "break-before-head"
    for _ in range(2):
        world.ask(CHAT)
    state = world.state()
    assert (state["status"], state["breaker"]) == ("error", "open")
    assert 0 < state["breaker_open_until"] - time.time() <= 1
    world.admin("PUT", "/a/state", json={"status": "healthy"})
    state = world.state()
    assert (state["status"], state["breaker"]) == ("healthy", "closed")
    assert state["breaker_open_until"] is None


def test_without_a_limit_there_is_no_utilization(world):
    world.add("a", max_tpm=0)
    world.ask()
    assert world.state()["utilization_percentage"] == 0.0
    assert world.state()["current_tpm"] > 0


def test_a_rest_says_whom_it_concerns_and_why(world):
    world.add("a", model_deployments={MODEL: "east"})
    world.simulator["a"].faults["*"] = "429"
    world.ask()
    (rest,) = world.state()["rests"]
    assert (rest["deployment"], rest["reason"]) == ("east", "throttled")
    assert rest["rate_limited_until"] == world.state()["rate_limited_until"] > time.time()


def test_healthy_clears_errors_and_rests(world):
    world.add("a", api_key="wrong")
    world.ask()
    assert world.state()["error_count"] == 1
    world.admin("PUT", "/a/config", json={"priority": 7})
    answer = world.admin("PUT", "/a/state", json={"status": "healthy"})
    assert answer.status_code == 200
    world.parts.syncer.sync()
    for state in (answer.get_json(), world.state()):
        assert (state["status"], state["error_count"], state["rests"]) == ("healthy", 0, [])
        assert (state["last_error"], state["last_error_time"]) == (None, None)
        assert state["total_requests"] == 1
    world.ask()
    assert len(world.simulator["a"].requests) == 2


def test_an_operators_rest_keeps_requests_away_until_it_is_over(world):
    world.add("a", priority=1)
    world.add("b", priority=2)
    until = time.time() + 1000
    answer = world.admin("PUT", "/a/state", json={"rate_limited_until": until})
    assert answer.get_json()["status"] == "rate_limited"
    assert answer.get_json()["rate_limited_until"] == pytest.approx(until)
    world.ask()
    world.parts.syncer.sync()
    world.ask()
    assert world.asked() == (0, 2)


@pytest.mark.parametrize("end", [None, 0, 1.5, "soon"])
def test_an_operators_rest_can_be_ended_or_shortened(world, end):
    world.add("a")
    world.admin("PUT", "/a/state", json={"rate_limited_until": time.time() + 1000})
    until = time.time() + 100 if end == "soon" else end
    state = world.admin("PUT", "/a/state", json={"rate_limited_until": until}).get_json()
    if end == "soon":
        assert state["rate_limited_until"] == pytest.approx(until)
    else:
        assert (state["status"], state["rate_limited_until"]) == ("healthy", None)


@pytest.mark.parametrize(
    "body, param",
    [
        ({}, None),
        ({"status": "error"}, "status"),
        ({"status": "removed"}, "status"),
        ({"status": None}, "status"),
        ({"error_count": 0}, "error_count"),
        ({"rate_limited_until": "soon"}, "rate_limited_until"),
        ({"rate_limited_until": "5"}, "rate_limited_until"),
        ({"rate_limited_until": True}, "rate_limited_until"),
        ({"rate_limited_until": -1}, "rate_limited_until"),
        ({"rate_limited_until": 1e300}, "rate_limited_until"),
        ({"status": "healthy", "rate_limited_until": []}, "rate_limited_until"),
    ],
)
def test_of_the_state_nothing_else_can_be_set(world, body, param):
    world.add("a")
    world.admin("PUT", "/a/state", json={"rate_limited_until": time.time() + 1000})
    before = world.state()
    answer = world.admin("PUT", "/a/state", json=body)
    assert (answer.status_code, error(answer)["param"]) == (422, param)
    assert world.state() == before


# Verify.


@pytest.mark.parametrize("arguments", [{}, {"json": {}}, {"json": {"model": MODEL}}])
def test_verify_calls_the_deployment_and_says_what_it_found(world, arguments):
    world.add("a", supported_models=[MODEL], model_deployments={MODEL: "east"})
    answer = world.admin("POST", "/a/verify", **arguments)
    assert answer.status_code == 200
    (check,) = answer.get_json()["checks"]
    assert (answer.get_json()["name"], answer.get_json()["ok"]) == ("a", True)
    assert (check["model"], check["deployment"], check["status"]) == (MODEL, "east", 200)
    assert world.received().path == "/openai/deployments/east/chat/completions"


@pytest.mark.parametrize(
    "fault, check, status", [("401", "key", 401), ("404", "deployment", 404)]
)
def test_verify_says_what_is_wrong(world, fault, check, status):
    world.add("a", supported_models=[MODEL])
    world.simulator["a"].faults["*"] = fault
    answer = world.admin("POST", "/a/verify").get_json()
    found = answer["checks"][0]
    assert (answer["ok"], found["check"], found["status"]) == (False, check, status)


def test_verify_is_well_only_if_every_model_is(world):
    world.add("a", supported_models=["good", "bad"], model_deployments={"bad": "fault-404"})
    answer = world.admin("POST", "/a/verify").get_json()
    found = {check["model"]: check["ok"] for check in answer["checks"]}
    assert (answer["ok"], found) == (False, {"good": True, "bad": False})


def test_verify_counts_as_no_request_and_ends_no_rest(world):
    world.add("a", supported_models=[MODEL])
    world.admin("PUT", "/a/state", json={"rate_limited_until": time.time() + 1000})
    before = world.state()
    assert world.admin("POST", "/a/verify").get_json()["ok"]
    assert world.state() == before


@pytest.mark.parametrize("fault", ["401", "403"])
def test_what_verify_finds_well_is_asked_again_at_once(world, fault):
    world.add("a", supported_models=[MODEL])
    world.simulator["a"].faults["*"] = fault
    assert world.ask().status_code == 502
    world.admin("POST", "/a/verify")
    assert world.state()["status"] == "misconfigured"  # it is that still
    del world.simulator["a"].faults["*"]
    assert world.ask().status_code == 502  # left alone
    assert world.admin("POST", "/a/verify").get_json()["ok"]
    assert world.ask().status_code == 200


@pytest.mark.parametrize(
    "body, param",
    [({"model": 5}, "model"), ({"model": ""}, "model"), ({"modle": "x"}, "modle")],
)
def test_verify_refuses_what_it_does_not_understand(shared_world, body, param):
    answer = shared_world.admin("POST", "/a/verify", json=body)
    assert (answer.status_code, error(answer)["param"]) == (422, param)
    assert shared_world.asked() == (0, 0)


# Without the database.


# Several workers.


def test_what_one_worker_changed_every_other_shows_at_once(world, other_worker):
    one, two = world, other_worker
    one.add("a")
    assert two.admin("POST", "/a/verify").get_json()["ok"] is False
    for weight, (here, there) in enumerate([(one, two), (two, one)] * 2):
        changed = here.admin("PATCH", "/a", json={"weight": weight})
        shown = there.admin("GET", "/a")
        assert shown.get_json()["config"]["weight"] == weight
        assert shown.headers["etag"] == changed.headers["etag"]
        match = {"If-Match": shown.headers["etag"]}
        answer = there.admin("PATCH", "/a", headers=match, json={"priority": weight})
        assert answer.status_code == 200
    one.add_client("fresh")
    asked = "/admin/explain?client=fresh"
    assert two.client.post(asked, json=CHAT, headers=ADMIN).status_code == 200
    one.admin("DELETE", "/a")
    assert two.admin("GET", "/a").status_code == 404
    assert two.admin("GET").get_json()["total"] == 0


def test_while_the_database_is_away_what_is_known_is_shown(world, database_file):
    world.add("a")
    os.rename(database_file, f"{database_file}.aside")
    assert world.admin("GET", "/a").status_code == 200
    world.parts.syncer.sync()
    assert world.parts.syncer.problem
    assert world.admin("GET", "/a").status_code == 200


def test_a_database_that_is_away_is_a_503_and_nothing_is_changed(world, database_file):
    world.add("a")
    before = world.everything()
    world.parts.database.dispose()
    content = database_file.read_bytes()
    database_file.write_bytes(b"no database" * 100)
    answer = world.admin("PUT", "/a", json={"priority": 7})
    assert (answer.status_code, error(answer)["code"]) == (503, "database_unavailable")
    assert "UPDATE" not in answer.text
    assert world.ask().status_code == 200
    world.parts.database.dispose()
    database_file.write_bytes(content)
    assert world.everything() == before


def test_who_removes_an_instance_hears_whose_only_one_it_was(world):
    world.add("a")
    world.add("b")
    world.add_client("app-of-a", allowed_instances=["a"])
    answer = world.admin("DELETE", "/a")
    assert (answer.status_code, answer.get_json()) == (
        200,
        {
            "notes": [
                "client 'app-of-a' may use nothing any more: none is left of its"
                " allowed_instances ('a' is removed)."
            ]
        },
    )
    assert world.admin("GET", "/a").status_code == 404
    assert world.admin("DELETE", "/b").status_code == 204
