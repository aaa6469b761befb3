import pytest

from tests.web.conftest import ADMIN, CHAT


def ask(world, method, path="", **arguments):
    return world.client.open(
        f"/admin/quota-groups{path}", method=method, headers=ADMIN, **arguments
    )


@pytest.fixture
def grouped(world):
    world.add("a", quota_group="east us", priority=1, max_tpm=0)
    world.add("b", quota_group="east us", priority=2, max_tpm=0)
    return world


def test_a_group_is_there_as_soon_as_an_instance_is_in_it(grouped):
    assert ask(grouped, "GET").get_json() == {
        "quota_groups": [
            {
                "name": "east us",
                "instances": ["a", "b"],
                "max_tpm": 0,
                "max_rpm": 0,
                "model_limits": {},
                "revision": None,
                "created_at": None,
                "updated_at": None,
            }
        ]
    }


def test_limits_are_set_shown_and_removed(grouped):
    limits = {"gpt-4o": {"max_tpm": 100}}
    answer = ask(grouped, "PUT", "/east us", json={"max_rpm": 60, "model_limits": limits})
    shown = answer.get_json()
    assert answer.status_code == 200
    assert (shown["max_tpm"], shown["max_rpm"], shown["model_limits"]) == (0, 60, limits)
    assert answer.headers["ETag"] == f'"{shown["revision"]}"'
    again = ask(grouped, "PUT", "/east us", json=shown)  # what GET shows may come back
    assert again.get_json() == ask(grouped, "GET", "/east us").get_json() == shown
    assert ask(grouped, "DELETE", "/east us").status_code == 204
    assert ask(grouped, "GET", "/east us").get_json()["max_rpm"] == 0


def test_a_groups_limit_bounds_its_instances_together(grouped):
    ask(grouped, "PUT", "/east us", json={"model_limits": {"gpt-4o": {"max_rpm": 6}}})
    assert [grouped.ask(CHAT).status_code for _ in range(2)] == [200, 429]
    explained = grouped.client.post("/admin/explain", json=CHAT, headers=ADMIN).get_json()
    for row in explained["instances"]:
        said = "100 % of max_rpm 6 of 'gpt-4o' in quota group 'east us' is used; room in "
        assert row["why"].startswith(said)


@pytest.mark.parametrize(
    "path, json, status, param",
    [
        ("/west", {"max_tpm": 1}, 409, "quota_group"),
        ("/east us", {"max_tpm": -1}, 422, "max_tpm"),
        ("/east us", {"max_tmp": 1}, 422, "max_tmp"),
        ("/east us", {"model_limits": {"m": {"max_tpm": "5"}}}, 422, None),
        ("/east us", [], 422, None),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_written(
    path, json, status, param, grouped
):
    before = grouped.everything()
    answer = ask(grouped, "PUT", path, json=json)
    error = answer.get_json()["error"]
    assert answer.status_code == status
    assert param is None or error["param"] == param
    assert grouped.everything() == before


def test_what_is_not_there_is_not_found(grouped):
    assert ask(grouped, "GET", "/west").status_code == 404
    assert ask(grouped, "DELETE", "/west").status_code == 404


def test_another_version_is_refused(grouped):
    ask(grouped, "PUT", "/east us", json={"max_tpm": 1})
    answer = grouped.client.put(
        "/admin/quota-groups/east us", json={"max_tpm": 2}, headers=ADMIN | {"If-Match": '"1"'}
    )
    assert answer.status_code == 412


def test_it_needs_the_admin_key(world):
    assert world.client.get("/admin/quota-groups").status_code == 401
