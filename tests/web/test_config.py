import json

import pytest

from proxy import make_parts
from proxy.web import config_text
from tests.web.conftest import ADMIN, CHAT

KEY, OTHER = "sk-planted-secret-3f2a", "sk-planted-secret-9999"
YAML = {"Content-Type": "application/yaml"}


def ask(world, method, path, headers=None, **arguments):
    return world.client.open(
        f"/admin/config/{path}", method=method, headers=ADMIN | (headers or {}), **arguments
    )


def get(world, path, **query):
    answer = ask(world, "GET", path, query_string=query)
    assert answer.status_code == 200, answer.text
    return answer.get_json()


def bring(world, config, headers=None, **flags):
    return ask(world, "POST", "import", headers, json={"config": config} | flags)


def back(world, number, headers=None, **flags):
    return ask(world, "POST", "rollback", headers, json={"revision": number} | flags)


def newest(world):
    return world.everything()[0]


@pytest.fixture
def filled(world):
    """Instance a with a key that is known, and the client "app"; at revision 2."""
    world.add("a", api_key=KEY)
    return world


def test_a_document_is_brought_in_and_serves_at_once(world):
    resource = world.simulator["a"]
    a = {"name": "a", "api_base": resource.url, "api_key": resource.api_key}
    answer = bring(world, {"instances": [a]}, {"X-Change-Reason": "the first"})
    told = answer.get_json()
    assert (answer.status_code, told["applied"], told["revision"]) == (200, True, 2)
    assert answer.headers["ETag"] == '"2"'
    assert world.ask(CHAT).status_code == 200
    (revision,) = get(world, "revisions", limit=1)["revisions"]
    assert (revision["author"], revision["reason"]) == ("admin", "the first")
    assert (revision["action"], revision["request_id"]) == (
        "config imported",
        answer.headers["x-request-id"],
    )


def test_a_dry_run_says_what_would_be_and_writes_nothing(filled):
    before = filled.everything()
    answer = bring(filled, {"instances": [{"name": "a", "weight": 3}]}, dry_run=True)
    assert answer.get_json() == {
        "applied": False,
        "revision": 2,
        "plan": {
            "summary": "0 to add, 1 to change, 0 to remove.",
            "changes": [
                {
                    "kind": "instance",
                    "name": "a",
                    "effect": "changed",
                    "fields": {"weight": [100, 3]},
                    "changed_secrets": [],
                }
            ],
            "notes": [],
        },
    }
    assert answer.headers["ETag"] == '"2"'
    assert filled.everything() == before


def test_twice_is_once(filled):
    config = {"instances": [{"name": "a", "weight": 3}], "clients": [{"name": "new"}]}
    assert bring(filled, config, prune=True).get_json()["applied"]
    again = bring(filled, config, prune=True).get_json()
    assert (again["applied"], again["revision"], again["plan"]["changes"]) == (False, 3, [])
    assert newest(filled) == 3


def test_it_is_all_or_nothing_and_all_errors_are_told(filled):
    before = filled.everything()
    config = {"instances": [{"name": "a", "weight": 3}, {"name": "b", "weight": -1}]}
    answer = bring(filled, config | {"prices": [{"model": "x"}]})
    error = answer.get_json()["error"]
    assert (answer.status_code, error["code"]) == (422, "invalid_config")
    assert error["param"] == "instances[1].api_base"
    paths = {line.partition(":")[0] for line in error["message"].splitlines()}
    assert paths == {
        *(f"instances[1].{field}" for field in ("api_key", "api_base", "weight")),
        *(f"prices[0].{kind}_per_million" for kind in ("prompt", "completion")),
    }
    assert filled.everything() == before


def test_an_instance_that_takes_no_tokens_is_not_to_be_sent_any(filled):
    a = {"name": "a", "auth": "entra", "provider_type": "openai"}
    error = bring(filled, {"instances": [a]}).get_json()["error"]
    assert (error["code"], error["param"]) == ("invalid_config", "instances[0].auth")
    assert error["message"] == (
        "instances[0].auth: entra cannot be used: a provider_type openai takes no such tokens,"
        " only azure or azure_v1."
    )
    assert newest(filled) == 2


def test_yaml_that_is_sent_as_something_else_is_refused_with_the_header_it_needs(world):
    answer = ask(world, "POST", "import", data=b"instances: []\nclients: []\n")
    assert answer.status_code == 400
    assert "Content-Type: application/yaml" in answer.get_json()["error"]["message"]


@pytest.mark.parametrize("name", config_text.YAML_TYPES)
def test_it_may_be_yaml(filled, name):
    text = "instances:\n- name: a\n  weight: 3  # less\n  api_version: 2024-06-01\n"
    headers = {"Content-Type": f"{name}; charset=utf-8"}
    told = ask(filled, "POST", "import?dry_run=true", headers, data=text).get_json()
    (change,) = told["plan"]["changes"]
    assert change["fields"] == {
        "weight": [100, 3],
        "api_version": ["2024-10-21", "2024-06-01"],
    }
    assert not told["applied"]
    assert ask(filled, "POST", "import", headers, data=text).get_json()["applied"]


def test_the_whole_request_may_be_yaml_too(filled):
    text = "{config: {clients: []}, prune: true, dry_run: true}"
    told = ask(filled, "POST", "import", YAML, data=text).get_json()
    assert [c["name"] for c in told["plan"]["changes"]] == ["app"]


def test_the_document_may_come_alone_with_the_rest_in_the_query(filled):
    told = ask(
        filled, "POST", "import?prune=true&dry_run=true", json={"clients": []}
    ).get_json()
    assert told["plan"]["notes"] == [
        "client 'app' is removed: its key is worth nothing from then on."
    ]
    assert newest(filled) == 2


@pytest.mark.parametrize(
    "headers, body, status",
    [
        (YAML, b"a: &x 1\nb: *x", 400),
        (YAML, b"a: [", 400),
        (YAML, b"", 422),
        (YAML, b"\xff", 400),
        ({}, b"{", 400),
        ({}, b"[]", 422),
        ({}, b'{"config": {}, "dry": true}', 422),
        ({}, b'{"config": {}, "dry_run": 1}', 422),
        ({}, b'{"config": null}', 422),
    ],
)
def test_what_cannot_be_read_is_refused(filled, headers, body, status):
    answer = ask(filled, "POST", "import", headers, data=body)
    assert answer.status_code == status
    assert newest(filled) == 2


def test_a_client_that_is_removed_is_out_at_once(filled):
    assert filled.ask(CHAT).status_code != 401
    bring(filled, {"clients": []}, prune=True)
    assert filled.ask(CHAT).status_code == 401


def test_back_to_a_revision_with_its_key(filled):
    filled.admin("PUT", "/a", json={"api_key": OTHER, "weight": 3})
    told = back(filled, 2, dry_run=True).get_json()
    (change,) = told["plan"]["changes"]
    assert change["fields"] == {"api_key": ["***9999", "***3f2a"], "weight": [3, 100]}
    assert change["changed_secrets"] == ["api_key"]
    assert newest(filled) == 3
    answer = back(filled, 2, {"X-Change-Reason": "too soon"})
    assert (answer.status_code, answer.get_json()["revision"]) == (200, 4)
    config = filled.parts.snapshots.current.configs["a"]
    assert (config.api_key, config.weight) == (KEY, 100)
    shown = get(filled, "revisions/4")
    assert (shown["action"], shown["reason"]) == ("config rolled back to 2", "too soon")


def test_back_to_where_it_is_makes_no_revision(filled):
    told = back(filled, 2).get_json()
    assert (told["applied"], told["plan"]["summary"]) == (False, "Nothing to do.")
    assert newest(filled) == 2


@pytest.mark.parametrize(
    "body, status", [({"revision": 3}, 404), ({"revision": -1}, 422), ({}, 422), ([], 422)]
)
def test_back_to_where_it_never_was_is_refused(filled, body, status):
    assert ask(filled, "POST", "rollback", json=body).status_code == status


@pytest.mark.parametrize("act", [lambda w, h: bring(w, {}, h), lambda w, h: back(w, 1, h)])
def test_of_two_writers_the_second_hears_of_the_first(filled, act):
    filled.admin("PUT", "/a", json={"weight": 3})
    answer = act(filled, {"If-Match": '"2"'})
    assert answer.status_code == 412
    assert "revision 3, not 2" in answer.get_json()["error"]["message"]
    assert newest(filled) == 3
    assert act(filled, {"If-Match": '"3"'}).status_code == 200


def test_another_worker_sees_it_within_one_round(make_world):
    first = make_world()
    second = make_parts(first.parts.settings)
    second.syncer.sync()
    bring(first, {"prices": [], "instances": [first.config("a"), first.config("b")]})
    assert set(second.snapshots.current.configs) == set()
    second.syncer.sync()
    assert set(second.snapshots.current.configs) == {"a", "b"}
    second.stop()


def test_what_is_exported_can_be_imported_and_changes_nothing(filled):
    for form in ("json", "yaml"):
        exported = ask(filled, "GET", f"export?format={form}")
        assert exported.headers["ETag"] == '"2"'
        assert exported.mimetype == f"application/{form}"
        headers = {"Content-Type": exported.mimetype}
        told = ask(filled, "POST", "import?prune=1", headers, data=exported.data).get_json()
        assert (told["applied"], told["plan"]["notes"]) == (False, [])


def test_an_export_shows_references_and_no_secrets(filled):
    proxy = f"http://me:{OTHER}@127.0.0.1:9"
    filled.add("b", api_key="env:B_KEY", proxy_url=proxy)
    a, b = get(filled, "export")["instances"]
    assert (a["api_key"], b["api_key"]) == ("***3f2a", "env:B_KEY")
    assert b["proxy_url"] == "http://***@127.0.0.1:9"
    (client,) = get(filled, "export")["clients"]
    assert not {"key_hash", "key_hint", "former_keys"} & set(client)


def test_the_difference_of_two_revisions(filled):
    filled.admin("PUT", "/a", json={"api_key": OTHER})
    filled.admin("DELETE", "/a")
    found = get(filled, "diff", **{"from": 2, "to": 3})
    assert (found["from"], found["to"]) == (2, 3)
    assert found["changes"] == [
        {
            "kind": "instance",
            "name": "a",
            "effect": "changed",
            "fields": {"api_key": ["***3f2a", "***9999"]},
            "changed_secrets": ["api_key"],
        }
    ]
    to_newest = get(filled, "diff", **{"from": 0})
    assert (to_newest["to"], [c["name"] for c in to_newest["changes"]]) == (4, ["app"])


@pytest.mark.parametrize(
    "path, status",
    [
        ("diff", 422),
        ("diff?from=x", 422),
        ("diff?from=0&to=99", 404),
        ("diff?from=0&x=1", 422),
        (f"diff?from={10**30}", 422),
        ("export?format=xml", 422),
        ("revisions?limit=0", 422),
        (f"revisions?offset={10**30}", 422),
        ("revisions/99", 404),
        (f"revisions/{10**30}", 404),
        ("revisions/x", 404),
        ("", 404),
    ],
)
def test_what_is_not_there_or_makes_no_sense_is_refused(filled, path, status):
    assert ask(filled, "GET", path).status_code == status


def test_revisions_are_listed_and_filtered(filled):
    filled.admin("PUT", "/a", json={"weight": 3}, headers={"X-Change-Reason": "Käse"})
    listed = get(filled, "revisions")
    assert [each["revision"] for each in listed["revisions"]] == [3, 2, 1]
    assert (listed["total"], listed["limit"], listed["offset"]) == (3, 100, 0)
    page = get(filled, "revisions", limit=1, offset=1, kind="instance")
    assert ([each["revision"] for each in page["revisions"]], page["total"]) == ([2], 2)
    assert get(filled, "revisions", author="nobody")["total"] == 0
    assert get(filled, "revisions", kind="admin_key")["total"] == 0
    assert (
        filled.client.get("/admin/config/revisions?kind=instances", headers=ADMIN).status_code
        == 422
    )
    assert [each["revision"] for each in get(filled, "revisions", name="app")["revisions"]] == [
        1
    ]
    one = get(filled, "revisions/3")
    assert one == listed["revisions"][0]
    assert (one["reason"], one["changes"][0]["fields"]) == ("Käse", {"weight": [100, 3]})


def test_nothing_that_is_said_holds_a_secret(filled):
    proxy = f"http://me:{OTHER}@127.0.0.1:9"
    said = [
        bring(filled, {"instances": [{"name": "a", "api_key": OTHER, "proxy_url": proxy}]}),
        back(filled, 2, dry_run=True),
        back(filled, 0),
        back(filled, 2),
        ask(filled, "GET", "revisions"),
        ask(filled, "GET", "diff?from=0&to=3"),
        ask(filled, "GET", "diff?from=3&to=4"),
        ask(filled, "GET", "export"),
        ask(filled, "GET", "export?format=yaml"),
        bring(filled, {"instances": [{"name": "x", "api_key": f"{KEY} "}]}),
    ]
    assert [answer.status_code for answer in said] == [200] * 9 + [422]
    for answer in said:
        assert "planted" not in answer.text


@pytest.mark.parametrize(
    "method, path",
    [
        ("GET", "revisions"),
        ("GET", "revisions/1"),
        ("GET", "diff?from=0"),
        ("GET", "export"),
        ("POST", "import"),
        ("POST", "rollback"),
    ],
)
def test_it_needs_the_admin_key(world, method, path):
    body = json.dumps({"config": {}, "revision": 0})
    answer = world.client.open(f"/admin/config/{path}", method=method, data=body)
    assert answer.status_code == 401
