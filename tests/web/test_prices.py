import pytest

from proxy.core.prices import Price, find
from tests.web.conftest import ADMIN

USUAL = {"prompt_per_million": 2.5, "cached_per_million": 1.25, "completion_per_million": 10}


def admin(world, method, path="", headers=None, **arguments):
    return world.client.open(
        "/admin/prices" + path, method=method, headers=ADMIN | (headers or {}), **arguments
    )


def test_a_price_is_set_shown_and_removed(world):
    answer = admin(world, "PUT", "/gpt-4o", json=USUAL)
    shown = answer.get_json()
    assert answer.status_code == 200
    assert shown == USUAL | {k: shown[k] for k in ("updated_at", "revision")} | {
        "model": "gpt-4o"
    }
    assert answer.headers["ETag"] == f'"{shown["revision"]}"'
    assert admin(world, "GET", "/gpt-4o").get_json() == shown
    assert admin(world, "GET").get_json() == {"prices": [shown]}
    assert admin(world, "PUT", "/gpt-4o", json=shown).get_json() == shown
    assert admin(world, "DELETE", "/gpt-4o").status_code == 204
    assert admin(world, "GET", "/gpt-4o").status_code == 404


def test_a_price_counts_at_once_also_for_beginnings_of_names(world):
    assert admin(world, "PUT", "/gpt-4o*", json=USUAL).status_code == 200
    prices = world.parts.snapshots.current.prices
    assert find(prices, "gpt-4o-mini") == Price(2.5, 1.25, 10)
    admin(world, "DELETE", "/gpt-4o*")
    assert find(world.parts.snapshots.current.prices, "gpt-4o-mini") is None


@pytest.mark.parametrize("cached", [{}, {"cached_per_million": None}])
def test_cached_tokens_cost_as_much_as_others_unless_it_is_said(world, cached):
    json = {"prompt_per_million": 2, "completion_per_million": 8} | cached
    assert admin(world, "PUT", "/o3", json=json).get_json()["cached_per_million"] == 2


@pytest.mark.parametrize(
    "path, json, param",
    [
        ("/o3", {"prompt_per_million": 1}, "completion_per_million"),
        ("/o3", USUAL | {"prompt_per_million": -1}, "prompt_per_million"),
        ("/o3", USUAL | {"prompt_per_million": "1"}, "prompt_per_million"),
        ("/o3", USUAL | {"cached_per_million": 1e7}, "cached_per_million"),
        ("/o3", USUAL | {"output": 1}, "output"),
        ("/o*3", USUAL, "model"),
        ("/" + "x" * 201, USUAL, "model"),
        ("/o3", [], None),
    ],
)
def test_an_error_names_the_field(world, path, json, param):
    answer = admin(world, "PUT", path, json=json)
    assert (answer.status_code, answer.get_json()["error"]["param"]) == (422, param)
    assert admin(world, "GET").get_json() == {"prices": []}


def test_of_two_writers_the_second_hears_of_the_first(world):
    old = {"If-Match": admin(world, "PUT", "/o3", json=USUAL).headers["ETag"]}
    admin(world, "PUT", "/o3", json=USUAL | {"prompt_per_million": 3})
    for method in ("PUT", "DELETE"):
        assert admin(world, method, "/o3", json=USUAL, headers=old).status_code == 412


def test_another_spelling_is_a_conflict(world):
    admin(world, "PUT", "/o3", json=USUAL)
    assert admin(world, "PUT", "/O3", json=USUAL).status_code == 409


def test_every_path_and_method_needs_the_admin_key(world):
    rules = [r for r in world.app.url_map.iter_rules() if r.endpoint.startswith("prices.")]
    assert len(rules) == 2
    for rule in rules:
        for method in rule.methods - {"OPTIONS"}:
            path = rule.rule.replace("<path:model>", "o3")
            answer = world.client.open(path, method=method, json=USUAL)
            assert answer.status_code == 401, (method, path)
