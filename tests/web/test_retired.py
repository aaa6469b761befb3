import pytest

from tests.web.conftest import ADMIN

# Old path, its successor; "" where there is none.
MOVED = [
    ("/admin/instances/new", "/admin/instances"),
    ("/admin/instances/new/a", "/admin/instances/a"),
    ("/admin/instances/new/a/config", "/admin/instances/a/config"),
    ("/admin/instances/new/a/state", "/admin/instances/a/state"),
    ("/admin/instances/new/East%20US/1", "/admin/instances/East%20US/1"),
    ("/admin/instances/new/East%20US%2F1/config", "/admin/instances/East%20US/1/config"),
    ("/admin/instances/new/%C3%A4%3E%22%3B%7Bx%7D", "/admin/instances/%C3%A4%3E%22%3B%7Bx%7D"),
    ("/admin/instances/new/", "/admin/instances"),
    ("/admin/instances/new/a/", "/admin/instances/a"),
    ("/instances", "/admin/instances"),
    ("/instances/", "/admin/instances"),
    ("/instances/a", "/admin/instances/a"),
    ("/stats", "/admin/stats"),
    ("/stats/a/b", "/admin/stats/instances"),
    ("/config", "/admin/instances"),
    ("/config/a", "/admin/instances"),
]
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


@pytest.mark.parametrize("headers", [{}, ADMIN])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path, successor", MOVED)
def test_an_old_path_is_gone_and_names_its_successor(
    shared_world, path, successor, method, headers
):
    answer = shared_world.client.open(path, method=method, headers=headers, json={})
    assert answer.status_code == 410
    error = answer.get_json()["error"]
    assert (error["code"], error["param"]) == ("gone", None)
    assert error["message"].endswith(f"use {successor}.")
    assert answer.headers["link"] == f'<{successor}>; rel="successor-version"'


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "path", ["/admin/instances/migrate", "/admin/instances/implementation"]
)
def test_what_has_no_successor_says_what_to_do_instead(shared_world, path, method):
    answer = shared_world.client.open(path, method=method, headers=ADMIN)
    assert answer.status_code == 410
    assert "alembic upgrade head" in answer.get_json()["error"]["message"]
    assert "link" not in answer.headers


@pytest.mark.parametrize(
    "path", ["/instance", "/instancesx", "/statistics", "/configs", "/new"]
)
def test_a_path_that_never_was_is_not_gone_but_unknown(shared_world, path):
    assert shared_world.client.get(path).status_code == 404


def test_an_old_path_leaves_everything_as_it_is(shared_world):
    before = shared_world.everything()
    for path, _ in MOVED:
        shared_world.client.delete(path, headers=ADMIN)
        shared_world.client.put(path, headers=ADMIN, json={"priority": 1})
    assert shared_world.everything() == before
