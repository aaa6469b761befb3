"""What each role may do in the admin API: every path and method, against one table."""

import re

import pytest
from flask.views import MethodView
from flask_smorest import Blueprint

from proxy.core.roles import ROLES
from proxy.store import admin_keys
from proxy.web import docs
from proxy.web.auth import require_admin
from tests.builders import AUTHOR
from tests.web.conftest import ADMIN_KEY, CHAT

# The least role of each. A path that is not here fails the test: look what it shows and
# changes before you add it.
NEEDED = {
    ("GET", "/admin/instances"): "viewer",
    ("POST", "/admin/instances"): "admin",
    ("GET", "/admin/instances/<path:name>"): "viewer",
    # For `enabled` alone; all else takes an admin, see below.
    ("PUT", "/admin/instances/<path:name>"): "operator",
    ("PATCH", "/admin/instances/<path:name>"): "operator",
    ("DELETE", "/admin/instances/<path:name>"): "admin",
    ("GET", "/admin/instances/<path:name>/config"): "viewer",
    ("PUT", "/admin/instances/<path:name>/config"): "operator",
    ("PATCH", "/admin/instances/<path:name>/config"): "operator",
    ("GET", "/admin/instances/<path:name>/state"): "viewer",
    ("PUT", "/admin/instances/<path:name>/state"): "operator",
    ("POST", "/admin/instances/<path:name>/verify"): "operator",
    ("GET", "/admin/admin-keys"): "admin",
    ("POST", "/admin/admin-keys"): "admin",
    ("GET", "/admin/admin-keys/<path:name>"): "admin",
    ("PATCH", "/admin/admin-keys/<path:name>"): "admin",
    ("DELETE", "/admin/admin-keys/<path:name>"): "admin",
    ("GET", "/admin/keys"): "viewer",
    ("POST", "/admin/keys"): "admin",
    ("GET", "/admin/keys/<path:name>"): "viewer",
    ("PUT", "/admin/keys/<path:name>"): "admin",
    ("PATCH", "/admin/keys/<path:name>"): "admin",
    ("DELETE", "/admin/keys/<path:name>"): "admin",
    ("POST", "/admin/keys/<path:name>/rotate"): "admin",
    ("GET", "/admin/prices"): "viewer",
    ("GET", "/admin/prices/<path:model>"): "viewer",
    ("PUT", "/admin/prices/<path:model>"): "admin",
    ("DELETE", "/admin/prices/<path:model>"): "admin",
    ("GET", "/admin/quota-groups"): "viewer",
    ("GET", "/admin/quota-groups/<path:name>"): "viewer",
    ("PUT", "/admin/quota-groups/<path:name>"): "admin",
    ("PATCH", "/admin/quota-groups/<path:name>"): "admin",
    ("DELETE", "/admin/quota-groups/<path:name>"): "admin",
    ("GET", "/admin/config/revisions"): "viewer",
    ("GET", "/admin/config/revisions/<int:number>"): "viewer",
    ("GET", "/admin/config/diff"): "viewer",
    ("GET", "/admin/config/export"): "viewer",
    ("POST", "/admin/config/import"): "admin",
    ("POST", "/admin/config/rollback"): "admin",
    ("POST", "/admin/explain"): "operator",
    ("GET", "/admin/requests"): "viewer",
    ("GET", "/admin/requests/<string:request_id>"): "viewer",
    ("GET", "/admin/stats"): "viewer",
    ("GET", "/admin/stats/instances"): "viewer",
    ("GET", "/admin/stats/health"): "viewer",
    ("GET", "/admin/usage"): "viewer",
}
# Without a key: they say nothing that is not in the documentation.
OPEN = ("/admin/docs", "/admin/openapi.json")
# Its own table is in tests/web/ui/test_blueprint.py.
CONSOLE = ("/admin/ui",)
RETIRED = (
    *("/admin/instances/new", "/admin/instances/migrate", "/admin/instances/implementation"),
)
RANKS = {role: rank for rank, role in enumerate(ROLES)}


@pytest.fixture(scope="module")
def admins(shared_world):
    """The header with a key of each role."""
    with shared_world.parts.database.session() as session:
        made = {r: admin_keys.add(session, f"the {r}", r, author=AUTHOR) for r in ROLES}
    shared_world.parts.snapshots.reload()
    return {role: {"X-Admin-API-Key": key} for role, key in made.items()}


def guarded(app):
    """(method, rule) of all that needs an admin key."""
    return {
        (method, rule.rule)
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/admin")
        and not rule.rule.startswith((*OPEN, *CONSOLE, *RETIRED))
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }


def ask(world, method, rule, headers, **arguments):
    path = re.sub(r"<path:\w+>", "nobody", rule).replace("<int:number>", "1")
    return world.client.open(path, method=method, headers=headers, **arguments)


def is_refused(answer):
    return answer.status_code == 403


def test_every_path_and_method_is_in_the_table(shared_world):
    assert guarded(shared_world.app) == set(NEEDED)


@pytest.mark.parametrize("method, rule", NEEDED)
def test_each_role_is_let_in_where_the_table_says(shared_world, admins, method, rule):
    needed = NEEDED[method, rule]
    for role, headers in admins.items():
        answer = ask(shared_world, method, rule, headers, json={"enabled": True})
        assert is_refused(answer) is (RANKS[role] < RANKS[needed]), role
        if is_refused(answer):
            error = answer.get_json()["error"]
            assert error["code"] == "role_not_sufficient"
            assert f"needs the role '{needed}'" in error["message"]
            assert f"'the {role}' has the role '{role}'" in error["message"]


@pytest.mark.parametrize("method, rule", NEEDED)
def test_nobody_is_let_in_without_a_key(shared_world, method, rule):
    assert ask(shared_world, method, rule, {}, json={}).status_code == 401


@pytest.mark.parametrize("method, rule", [each for each in NEEDED if each[0] == "GET"])
def test_who_may_get_may_get_the_head_and_all_may_ask_which_methods_there_are(
    shared_world, admins, method, rule
):
    viewer = admins["viewer"]
    assert is_refused(ask(shared_world, "HEAD", rule, viewer)) is is_refused(
        ask(shared_world, "GET", rule, viewer)
    )
    assert not is_refused(ask(shared_world, "OPTIONS", rule, viewer))
    for other in ("HEAD", "OPTIONS"):
        assert ask(shared_world, other, rule, {}).status_code == 401


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize("path", ["", "/config"])
@pytest.mark.parametrize(
    "body, lets_in",
    [
        ({"enabled": False}, True),
        ({"enabled": True}, True),
        ({"enabled": False, "weight": 1}, False),
        ({"weight": 1}, False),
        ({"api_key": "another-key-0123456789"}, False),
        ({}, False),
        ([], False),
        ([{"enabled": False}], False),
        ("enabled", False),
    ],
)
def test_an_operator_switches_instances_on_and_off_and_changes_nothing_else(
    shared_world, admins, method, path, body, lets_in
):
    before = shared_world.everything()
    answer = shared_world.client.open(
        f"/admin/instances/a{path}", method=method, headers=admins["operator"], json=body
    )
    assert answer.status_code == (200 if lets_in else 403)
    if not lets_in:
        assert shared_world.everything() == before


def test_an_operator_is_told_which_fields_are_not_for_the_role(shared_world, admins):
    answer = shared_world.client.patch(
        "/admin/instances/a",
        headers=admins["operator"],
        json={"enabled": False, "weight": 1, "priority": 2, "anything": 3},
    )
    message = answer.get_json()["error"]["message"]
    assert message.startswith("To change priority, weight needs the role 'admin';")


def test_it_is_the_same_with_the_config_wrapped(shared_world, admins):
    def put(body):
        return shared_world.client.put(
            "/admin/instances/a", headers=admins["operator"], json=body
        )

    assert put({"config": {"enabled": True}}).status_code == 200
    assert put({"config": {"enabled": True, "priority": 1}}).status_code == 403
    # Not the config's own field, but one beside it: nothing an operator may send.
    assert put({"config": {"priority": 1}, "enabled": True}).status_code == 403


def test_an_operator_clears_verifies_and_explains(shared_world, admins):
    def sent(method, path, body):
        return shared_world.client.open(
            path, method=method, headers=admins["operator"], json=body
        )

    assert sent("PUT", "/admin/instances/a/state", {"status": "healthy"}).status_code == 200
    assert (
        sent("POST", "/admin/instances/a/verify", {"model": CHAT["model"]}).status_code == 200
    )
    assert sent("POST", "/admin/explain", CHAT).status_code == 200


def test_the_document_says_which_role_it_takes(shared_world):
    document = shared_world.client.get("/admin/openapi.json").get_json()
    roles = {
        (method.upper(), path): operation["x-role"]
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    }
    expected = {
        (m, re.sub(r"<\w+:(\w+)>", r"{\1}", rule)): role for (m, rule), role in NEEDED.items()
    }
    assert roles == expected


def test_a_view_that_says_nothing_is_closed_to_all_but_admins(make_world):
    world = make_world()
    room = Blueprint("silent", __name__, url_prefix="/admin/silent")
    room.before_request(require_admin)

    @room.route("/resource")
    class Silent(MethodView):
        def get(self):
            return {}

    @room.route("/function")
    def silent():
        return {}

    world.app.register_blueprint(room)
    with world.parts.database.session() as session:
        key = admin_keys.add(session, "ann", "operator", author=AUTHOR)
    world.parts.snapshots.reload()
    for path in ("resource", "function"):
        statuses = [
            world.client.get(
                f"/admin/silent/{path}", headers={"X-Admin-API-Key": k}
            ).status_code
            for k in (key, ADMIN_KEY)
        ]
        assert statuses == [403, 200]


def test_a_blueprint_that_asks_for_no_key_is_not_registered():
    with pytest.raises(ValueError, match="'open' lacks before_request"):
        docs._check_that_it_is_guarded(Blueprint("open", __name__))
