"""Gateway, token endpoint and simulated Azure together, with the real azure-identity."""

import threading

import pytest

from proxy.runtime import identity
from proxy.runtime.identity import NOT_INSTALLED
from tests.builders import MODEL
from tests.token_endpoint import HEADER, TokenEndpoint
from tests.web.conftest import CHAT, STREAM

pytestmark = pytest.mark.usefixtures("no_identity")

TOKENS = [f"access-token-{number}-of-entra" for number in range(1, 10)]


@pytest.fixture
def endpoint(monkeypatch):
    endpoint = TokenEndpoint()
    endpoint.as_app_service(monkeypatch)
    yield endpoint
    endpoint.close()


@pytest.fixture
def resource(simulator):
    """The simulated instance a, which takes no key."""
    resource = simulator["a"]
    resource.api_key = None
    resource.access_tokens = TOKENS
    return resource


@pytest.fixture
def entra(endpoint, resource, world):
    """A world whose instance a is asked with tokens."""
    add(world)
    return world


def by_token(world, name="a", **fields):
    config = world.config(name, auth="entra", supported_models=[MODEL]) | fields
    del config["api_key"]
    return config


def add(world, name="a", **fields):
    answer = world.admin("POST", json=by_token(world, name, **fields))
    assert answer.status_code == 201, answer.text


def refused(world, **fields):
    before = world.everything()
    answer = world.admin("POST", json=by_token(world, **fields))
    assert answer.status_code == 422
    assert world.everything() == before
    return answer.get_json()["error"]


@pytest.fixture
def not_installed(monkeypatch):
    monkeypatch.setattr(identity, "find_spec", lambda _name: None)


# Requests.


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["plain", "stream"])
def test_a_request_goes_up_with_a_token(entra, endpoint, resource, body):
    for _ in range(3):
        assert entra.ask(body).status_code == 200
    sent = {r.headers["authorization"] for r in resource.requests}
    assert sent == {f"Bearer {TOKENS[0]}"}
    assert not any("api-key" in r.headers for r in resource.requests)
    assert len(endpoint.asked) == 1


def test_the_token_is_there_before_the_first_request(entra, endpoint, resource):
    endpoint.wait_for(1)
    assert resource.requests == []


def test_who_has_keys_only_asks_for_no_token(endpoint, world):
    world.add("b")
    assert world.ask().status_code == 200
    assert (endpoint.asked, world.parts.tokens._thread) == ([], None)


def test_the_thread_ends_with_the_app(entra):
    assert entra.ask().status_code == 200
    assert "entra-token" in {t.name for t in threading.enumerate()}
    entra.parts.stop()
    assert "entra-token" not in {t.name for t in threading.enumerate()}


def test_a_token_that_was_withdrawn_is_replaced_and_the_client_sees_nothing(
    entra, endpoint, resource
):
    assert entra.ask().status_code == 200
    resource.access_tokens = TOKENS[1:]
    assert entra.ask().status_code == 200
    assert entra.ask().status_code == 200
    assert len(endpoint.asked) == 2
    assert entra.state()["status"] == "healthy"


def test_an_instance_that_refuses_each_token_is_misconfigured(entra, endpoint, resource):
    resource.access_tokens = ["another"]
    answer = entra.ask()
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (
        502,
        "upstream_misconfigured",
    )
    assert entra.state()["status"] == "misconfigured"
    assert len(endpoint.asked) == 2


@pytest.mark.parametrize("status, message", [(400, "No such identity"), (503, "Busy")])
def test_without_a_token_another_instance_serves(endpoint, resource, world, status, message):
    endpoint.answer = status, {"message": message}
    add(world, priority=1)
    world.add("b", priority=2)
    assert world.ask().status_code == 200
    assert world.asked() == (0, 1)
    looked(world)
    state = world.state()
    assert state["status"] == "misconfigured"
    assert state["last_error"].startswith("there is no token of Entra ID for it: 127.0.0.1:")
    assert state["last_error"].endswith(f" answered {status}: {message}.")


def test_who_finds_out_that_there_is_no_token_is_told_of_the_identity(
    endpoint, resource, world
):
    endpoint.answer = 400, {"message": "No such identity"}
    add(world)
    assert "its identity at Entra ID" in world.ask().get_json()["error"]["message"]


def test_without_a_token_it_is_misconfigured_until_one_comes(endpoint, resource, world):
    endpoint.answer = 400, {"message": "No such identity"}
    add(world)
    assert not world.admin("POST", "/a/verify").get_json()["ok"]  # it waits for the endpoint
    looked(world)
    state = world.state()
    assert state["status"] == "misconfigured"
    assert state["last_error"].startswith("there is no token of Entra ID for it: 127.0.0.1:")
    assert "Entra ID gives no token" in world.client.get("/health").get_json()["problem"]
    assert world.client.get("/ready").status_code == 503
    answer = world.ask()
    assert answer.status_code == 503
    assert "The gateway has no token of Entra ID" in answer.get_json()["error"]["message"]
    endpoint.answer = None
    assert world.admin("POST", "/a/verify").get_json()["ok"]
    looked(world)
    assert world.state()["status"] == "healthy"
    assert world.ask().status_code == 200


def looked(world):
    """Its worker did so, which it does once a second."""
    world.parts.snapshots._looked_at = 0.0
    world.parts.syncer.sync()


def test_a_client_does_not_read_what_is_wrong_with_our_identity(endpoint, resource, world):
    endpoint.answer = 503, {"message": "for-the-operator"}
    add(world)
    answer = world.ask()
    assert answer.status_code in (502, 503)
    assert "there is no token of Entra ID for it" in answer.text
    assert "for-the-operator" not in answer.text
    assert "127.0.0.1" not in answer.text


def test_neither_token_nor_secret_is_told_anywhere(endpoint, resource, make_world, tmp_path):
    world = make_world(log_dir=tmp_path, log_level="debug")
    add(world)
    told = [world.ask().text]
    resource.access_tokens = ["another"]
    endpoint.answer = 400, {"message": f"{HEADER} is not the header"}
    told.append(world.ask().text)
    told.append(world.admin("POST", "/a/verify").text)
    told.append(world.admin("GET").text)
    told.append(world.log())
    assert "Entra ID gives no token: " in told[-1]
    for text in told:
        for secret in (*TOKENS, HEADER):
            assert secret not in text


# The operator.


def test_it_is_shown_with_auth_and_without_a_key(entra):
    config = entra.admin("GET", "/a/config").get_json()
    assert (config["auth"], config["api_key"]) == ("entra", "NONE")


def test_an_instance_changes_from_key_to_token_and_back(endpoint, simulator, world):
    key, resource = simulator["a"].api_key, simulator["a"]
    world.add("a")
    assert world.ask().status_code == 200
    assert world.admin("PUT", "/a", json={"auth": "entra"}).status_code == 200
    resource.api_key, resource.access_tokens = None, TOKENS
    assert world.ask().status_code == 200
    assert world.received().headers["authorization"] == f"Bearer {TOKENS[0]}"
    assert world.admin("PUT", "/a", json={"auth": "key"}).status_code == 200
    resource.api_key, resource.access_tokens = key, ()
    assert world.ask().status_code == 200
    assert "authorization" not in world.received().headers


def test_verify_asks_with_a_token(entra):
    found = entra.admin("POST", "/a/verify").get_json()
    assert found["ok"], found


def test_verify_says_what_is_wrong_with_the_identity(endpoint, resource, world):
    endpoint.answer = 400, {"statusCode": 400, "message": "No such identity."}
    add(world)
    world.ask()
    (check,) = world.admin("POST", "/a/verify").get_json()["checks"]
    assert (check["check"], check["ok"]) == ("identity", False)
    assert check["detail"].endswith(" answered 400: No such identity.")
    endpoint.answer = None  # mended: at once, whenever the next try would have been
    assert world.admin("POST", "/a/verify").get_json()["ok"]


def test_without_the_library_it_is_refused_with_the_remedy(not_installed, world):
    error = refused(world)
    assert error["param"] == "auth"
    assert error["message"] == f"auth: entra cannot be used: {NOT_INSTALLED}."


def test_nor_can_an_instance_be_changed_to_it(not_installed, world):
    world.add("a")
    before = world.everything()
    answer = world.admin("PUT", "/a", json={"auth": "entra"})
    assert (answer.status_code, answer.get_json()["error"]["param"]) == (422, "auth")
    assert world.everything() == before


def test_in_a_list_it_is_said_which(not_installed, world):
    answer = world.admin("POST", json=[world.config("b"), by_token(world)])
    assert (answer.status_code, answer.get_json()["error"]["param"]) == (422, "1.auth")


def test_a_credential_whose_variables_are_missing_is_refused(make_world):
    world = make_world(entra_credential="client_secret")
    assert "AZURE_CLIENT_SECRET in the environment" in refused(world)["message"]


def test_a_kind_of_upstream_that_takes_no_tokens_is_refused(world):
    error = refused(world, provider_type="openai")
    assert error["param"] == "auth"
    assert "openai takes no such tokens, only azure or azure_v1" in error["message"]


def test_nor_can_an_instance_with_a_token_become_one(entra):
    answer = entra.admin("PUT", "/a", json={"provider_type": "openai"})
    assert (answer.status_code, answer.get_json()["error"]["param"]) == (422, "auth")


def test_where_the_library_is_gone_the_instance_is_out_of_service_and_says_so(
    entra, simulator, not_installed
):
    entra.add("b", supported_models=["other"])  # another revision: all is read again
    state = entra.state()
    assert state["status"] == "misconfigured"
    assert state["last_error"] == f"auth is entra, but {NOT_INSTALLED}."
    assert state["last_error_time"] is not None
    assert entra.ask().status_code == 503
    assert entra.ask(CHAT | {"model": "other"}).status_code == 200
    (check,) = entra.admin("POST", "/a/verify").get_json()["checks"]
    assert check["detail"] == f"auth is entra, but {NOT_INSTALLED}."
    assert entra.client.get("/ready").status_code == 200
    assert entra.admin("DELETE", "/b").status_code == 204
    assert entra.client.get("/ready").status_code == 503
