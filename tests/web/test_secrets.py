"""Secrets and references, as operators and clients meet them."""

import pytest

from proxy.store.vault import Vault, new_key
from tests.builders import SECRET_KEY
from tests.web.conftest import ADMIN


@pytest.fixture
def key_file(tmp_path, simulator):
    path = tmp_path / "key"
    path.write_text(simulator["a"].api_key + "\n")
    return path


def view(world, name="a"):
    return world.admin("GET", f"/{name}").get_json()


def later(world):
    """Another second has come, and the syncer's next round."""
    world.parts.snapshots._looked_at -= 1
    world.parts.syncer.sync()


def test_a_reference_is_shown_as_it_was_written_and_its_secret_is_sent(world, key_file):
    answer = world.add("a", api_key=f"file:{key_file}")
    shown = answer.get_json()["config"]
    assert (shown["api_key"], shown["api_key_set"]) == (f"file:{key_file}", True)
    assert world.ask().status_code == 200
    assert world.received("a").headers["api-key"] == world.simulator["a"].api_key


def test_a_variable_is_one_of_the_gateways_environment(make_world, monkeypatch):
    monkeypatch.setenv("KEY_OF_A", "planted-key-of-resource-a-0123")
    world = make_world()
    world.add("a", api_key="env:KEY_OF_A")
    assert world.ask().status_code == 200


def test_a_reference_that_leads_nowhere_is_kept_and_told_and_the_instance_is_not_asked(
    world, key_file
):
    """It may come later: a volume that is mounted, a deployment that goes on."""
    key_file.rename(key_file.with_name("moved"))
    answer = world.add("a", api_key=f"file:{key_file}")
    reason = (
        f"api_key: {key_file} cannot be read: No such file or directory; put the secret there,"
        " readable for the gateway's user, or change the reference."
    )
    assert answer.status_code == 201
    for shown in (answer.get_json(), view(world)):
        state = shown["state"]
        assert (state["status"], state["last_error"]) == ("misconfigured", reason)
        assert state["last_error_time"] is not None
    assert [
        i["config"]["name"]
        for i in world.admin("GET", "?status=misconfigured").get_json()["instances"]
    ] == ["a"]
    refused = world.ask()
    assert (refused.status_code, refused.get_json()["error"]["code"]) == (503, "unavailable")
    assert "are out of service" in refused.get_json()["error"]["message"]
    assert world.asked() == (0, 0)
    assert world.client.get("/ready").status_code == 503
    (check,) = world.admin("POST", "/a/verify", json={"model": "gpt-4o"}).get_json()["checks"]
    assert (check["ok"], check["detail"]) == (False, reason)
    key_file.with_name("moved").rename(key_file)
    later(world)
    assert view(world)["state"]["status"] == "healthy"
    assert world.ask().status_code == 200
    assert world.client.get("/ready").status_code == 200


def test_health_tells_of_it_without_names_and_others_are_asked(world):
    world.add("a", api_key="file:/none/key")
    world.add("b")
    answer = world.client.get("/health")
    assert answer.get_json()["status"] == "degraded"
    assert answer.get_json()["problem"] == (
        "1 instance is out of service, because its secrets cannot be read; GET"
        " /admin/instances?status=misconfigured says why."
    )
    assert answer.get_json()["out_of_service"] == 1
    assert world.client.get("/ready").status_code == 200
    assert world.ask().status_code == 200
    assert world.asked() == (0, 1)
    world.admin("PUT", "/a", json={"enabled": False})
    answer = world.client.get("/health").get_json()
    assert (answer["problem"], answer["out_of_service"]) == (None, 0)


def test_health_tells_that_the_key_is_gone_and_that_all_are_served_without_it(
    make_world, tmp_path, monkeypatch
):
    path = tmp_path / "secret.key"
    path.write_text(SECRET_KEY)
    world = make_world(secret_key=(), secret_key_file=path)
    world.add("a")
    path.unlink()
    later(world)
    answer = world.client.get("/health").get_json()
    assert (answer["secret_key"], answer["out_of_service"]) == ("in memory", 0)
    assert world.ask().status_code == 200
    # As a worker has it that was started anew.
    monkeypatch.setattr(world.parts.database, "vault", Vault(path=path))
    assert world.client.get("/health").get_json()["secret_key"] == "gone"


def test_a_key_in_a_file_that_changes_ends_the_rest_of_the_old_one(world, key_file):
    right = key_file.read_text()
    key_file.write_text("wrong")
    world.add("a", api_key=f"file:{key_file}")
    assert world.ask().status_code >= 400
    assert view(world)["state"]["status"] == "misconfigured"
    assert world.ask().status_code == 503 or world.asked() == (1, 0)
    key_file.write_text(right)
    later(world)
    assert view(world)["state"]["rests"] == []
    assert world.ask().status_code == 200


@pytest.mark.parametrize(
    "field, value, said",
    [
        ("api_key", "file:key", "must be an absolute path"),
        ("api_key", "env:A B", "must be the name of a variable"),
        ("api_key", "env:PROXY_SECRET_KEY", "a setting of the gateway itself"),
        ("proxy_url", "file:proxy", "must be an absolute path"),
        ("proxy_url", "env:ADMIN_API_KEY", "a setting of the gateway itself"),
    ],
)
def test_a_reference_that_is_written_wrongly_is_refused(shared_world, field, value, said):
    answer = shared_world.admin("PUT", "/a", json={field: value})
    error = answer.get_json()["error"]
    assert (answer.status_code, error["param"]) == (422, field)
    assert said in error["message"]


def test_what_get_showed_of_a_reference_may_come_back_and_changes_nothing(world, key_file):
    world.add("a", api_key=f"file:{key_file}", proxy_url="env:NO_SUCH_PROXY")
    before = world.everything()
    shown = world.admin("GET", "/a/config").get_json()
    assert world.admin("PUT", "/a/config", json=shown).status_code == 200
    assert world.everything() == before


def test_the_gateways_own_key_is_sent_to_nobody(make_world, tmp_path):
    path = tmp_path / "secret.key"
    path.write_text(SECRET_KEY)
    world = make_world(secret_key=(), secret_key_file=path)
    for own in (path, world.parts.database.file):
        config = world.config("a", api_key=f"file:{own}")
        answer = world.admin("POST", json=config)
        assert (answer.status_code, answer.get_json()["error"]["param"]) == (422, "api_key")
        assert "a file of the gateway itself" in answer.get_json()["error"]["message"]
    link = tmp_path / "link"  # that leads elsewhere only later
    world.add("a", api_key=f"file:{link}")
    link.symlink_to(path)
    later(world)
    assert "is the gateway's own" in view(world)["state"]["last_error"]


@pytest.fixture
def locked_out(make_world, tmp_path):
    """A gateway whose instances were encrypted with a key that is gone."""
    path = tmp_path / "secret.key"
    path.write_text(f"{new_key()} {SECRET_KEY}")
    world = make_world(secret_key=(), secret_key_file=path)
    world.add("a", proxy_url="http://user:password@127.0.0.1:1")
    world.add("b", api_key="NONE")
    path.write_text(SECRET_KEY)  # with which clients' keys can be checked still
    later(world)
    return world


def test_a_key_that_cannot_be_decrypted_takes_its_instance_out_and_no_other(locked_out):
    shown = view(locked_out)
    assert shown["state"]["status"] == "misconfigured"
    assert shown["state"]["last_error"].startswith(
        "api_key: it cannot be decrypted, because it was encrypted with another key; put the"
        " right key back, or set api_key anew."
    )
    assert shown["config"]["api_key_set"] is False
    assert view(locked_out, "b")["state"]["status"] == "healthy"


def test_a_key_that_cannot_be_decrypted_can_be_set_anew(locked_out):
    change = {"api_key": "planted-key-of-resource-a-0123", "proxy_url": None}
    answer = locked_out.admin("PUT", "/a", json=change)
    assert answer.status_code == 200
    assert answer.get_json()["state"]["status"] == "healthy"
    assert view(locked_out)["config"]["api_key_set"] is True


def test_without_the_vaults_key_nothing_can_be_stored_and_that_is_said(make_world, tmp_path):
    path = tmp_path / "secret.key"
    path.write_text(SECRET_KEY)
    world = make_world(secret_key=(), secret_key_file=path)
    world.add("a")
    path.unlink()
    answer = world.admin("PUT", "/a", json={"api_key": "another"})
    error = answer.get_json()["error"]
    assert (answer.status_code, error["code"]) == (503, "secret_key_missing")
    assert f"it belongs in the file {path}" in error["message"]
    assert "secrets check" in world.client.get("/health", headers=ADMIN).get_json()["problem"]
    # What was read is still known: nobody who is served now is turned away.
    assert world.admin("PUT", "/a", json={"weight": 5}).status_code == 200
    assert world.ask().status_code == 200
    assert not path.exists()


def test_with_another_key_nobody_can_be_told_from_others_and_that_is_said(make_world, tmp_path):
    path = tmp_path / "secret.key"
    path.write_text(SECRET_KEY)
    world = make_world(secret_key=(), secret_key_file=path)
    world.add("a", api_key="env:KEY_OF_A")
    world.add("b", api_key="NONE")
    path.write_text(new_key())
    later(world)
    assert world.ask().get_json()["error"]["code"] == "keys_unreadable"
    ready = world.client.get("/ready")
    assert (ready.status_code, ready.get_json()["ready"]) == (503, False)
    health = world.client.get("/health").get_json()
    for problem in (ready.get_json()["problem"], health["problem"]):
        assert problem.startswith("No client can be served: the secret that keys are hashed")
    told = world.client.get("/admin/stats/health", headers=ADMIN).get_json()
    assert (told["status"], health["problem"] in told["reasons"]) == ("critical", True)
    path.write_text(SECRET_KEY)
    later(world)
    assert world.client.get("/ready").status_code == 200


def test_where_nobody_needs_a_key_they_are_served_with_any_key_of_the_vault(
    make_world, tmp_path
):
    path = tmp_path / "secret.key"
    path.write_text(SECRET_KEY)
    world = make_world(secret_key=(), secret_key_file=path, client_auth="off")
    world.add("b", api_key="NONE")
    path.write_text(new_key())
    later(world)
    assert world.client.get("/ready").status_code == 200
