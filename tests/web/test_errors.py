import pytest

from proxy import errors
from proxy.store.db import StoreUnavailable
from proxy.web import app
from proxy.web.admin import METHODS_OF_PARTS
from proxy.web.errors import AZURE_BELOW_V1, BASE_URL, message_and_path
from proxy.web.schemas_fields import RESERVED_ENDINGS


def classes(base=errors.ProxyError):
    """The class and all below it, wherever they are defined."""
    return [base, *(each for child in base.__subclasses__() for each in classes(child))]


def shape(answer):
    """The error, if the answer has OpenAI's shape and nothing else."""
    body = answer.get_json()
    assert list(body) == ["error"]
    assert sorted(body["error"]) == ["code", "message", "param", "type"]
    assert isinstance(body["error"]["message"], str)
    assert answer.mimetype == "application/json"
    assert answer.headers["x-request-id"]
    return body["error"]


def raise_in(world, error):
    """What the client gets when a view raises that."""

    def view():
        raise error

    world.app.add_url_rule("/raise", "raise", view)
    return world.client.get("/raise")


@pytest.fixture
def raised(make_world):
    return lambda error: raise_in(make_world(), error)


@pytest.mark.parametrize("kind", classes(), ids=lambda kind: kind.__name__)
def test_every_error_reaches_the_client_with_its_status_in_openais_shape(raised, kind):
    answer = raised(kind("What is wrong.", param="field", headers={"x-extra": "1"}))
    assert answer.status_code == kind.status
    assert shape(answer) == {
        "message": "What is wrong.",
        "type": kind.type,
        "param": "field",
        "code": kind.code,
    }
    assert answer.headers["x-extra"] == "1"


def test_there_are_errors_to_be_tested():
    assert len(classes()) >= 16
    assert StoreUnavailable in classes()


def test_an_error_says_when_to_come_back(raised):
    answer = raised(errors.NoRoom("Full.", retry_after_seconds=1.2341, code="mine"))
    assert (answer.headers["retry-after-ms"], answer.headers["retry-after"]) == ("1235", "2")
    assert shape(answer)["code"] == "mine"
    assert shape(answer)["param"] is None


def test_what_nobody_foresaw_is_a_500_that_tells_nothing(raised):
    answer = raised(RuntimeError("sensitive detail"))
    assert answer.status_code == 500
    error = shape(answer)
    assert (error["type"], error["code"]) == ("server_error", "internal_error")
    assert "sensitive" not in answer.text
    assert "Traceback" not in answer.text


def test_the_log_has_the_traceback_of_what_nobody_foresaw(make_world, tmp_path):
    world = make_world(log_dir=tmp_path)
    raise_in(world, RuntimeError("sensitive detail"))
    log = world.log()
    assert "Traceback" in log
    assert "RuntimeError: sensitive detail" in log
    assert "path=/raise status=500" in log


def test_what_nobody_foresaw_is_an_event_of_which_somebody_is_told(raised, monkeypatch):
    told = []
    monkeypatch.setattr(app, "tell", lambda _logger, event, *_, **__: told.append(event))
    raised(RuntimeError("sensitive detail"))
    assert told == ["unexpected_error"]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v1/",
        "/v1/nope",
        "/v2/models",
        "/v1//models",
        "/v1/models/",
        "/admin/",
        "/ä",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_where_nothing_is_there_is_a_404_that_names_the_path(shared_world, method, path):
    answer = shared_world.client.open(path, method=method)
    assert answer.status_code == 404
    error = shape(answer)
    assert error["code"] == "unknown_path"
    assert path in error["message"]


@pytest.mark.parametrize("path", ["/models", "/models/gpt-4o"])
def test_it_says_so_of_what_is_there_for_the_method_that_was_asked(shared_world, path):
    message = shape(shared_world.client.get(path))["message"]
    assert message.endswith(f"Did you mean /v1{path}?")


OTHERS = (
    "Of OpenAI's API the gateway passes on POST to chat/completions, completions, embeddings,"
    " images/generations, images/edits, audio/transcriptions, audio/translations, audio/speech,"
    " responses, responses/compact only."
)
EMPTY = "The deployment's name, which is the model, is empty."


@pytest.mark.parametrize(
    "path, hint",
    [
        ("/chat/completions", "Did you mean /v1/chat/completions?"),  # base_url without /v1
        ("/models/chat/completions", BASE_URL),
        ("/", "The console is at /admin/ui."),
        ("/admin", "The console is at /admin/ui."),
        ("/responses", "Did you mean /v1/responses?"),
        ("/v1/conversations", OTHERS),
        ("/openai/chat/completion", ""),
        ("/openai/embeddings/", "Did you mean /openai/embeddings?"),
        ("/v1/responses/resp_1/items", OTHERS),
        ("/openai/deployments/gpt-4o/responses/resp_1/cancel", OTHERS),
        ("/openai/v1/images/variations", OTHERS),
        ("/audio/transcriptions", "Did you mean /v1/audio/transcriptions?"),
        ("/v1/images/edits/", "Did you mean /v1/images/edits?"),
        ("/openai/deployments/gpt-4o/audio/voices", OTHERS),
        ("/openai/files", OTHERS),
        ("/v1/filesystem", ""),
        ("/v1/v1/chat/completions", BASE_URL),
        ("/v1/chat/completions/chat/completions", BASE_URL),
        ("/v1/chat/completions/", "Did you mean /v1/chat/completions?"),
        ("/embeddings/", "Did you mean /v1/embeddings?"),
        ("/admin/models", ""),
        ("/v1/openai/deployments/gpt-4o/embeddings", BASE_URL),
        ("/openai/openai/deployments/gpt-4o/chat/completions", BASE_URL),
        ("/v1/v1/models", BASE_URL),
        ("/openai/deployments//chat/completions", EMPTY),
        ("/v1/deployments/gpt-4o/chat/completions", AZURE_BELOW_V1.strip()),
        ("/openai/v1/deployments/gpt-4o/embeddings", AZURE_BELOW_V1.strip()),
        ("/v1/responses/input_tokens", OTHERS),
        ("/openai/responses/input_tokens/", OTHERS),
    ],
)
def test_it_says_where_what_was_looked_for_mostly_is(shared_world, path, hint):
    message = shape(shared_world.client.post(path))["message"]
    assert message == f"There is nothing at {path}. {hint}".rstrip()


@pytest.mark.parametrize(
    "path, hint",
    [
        ("/v1/v1/chat/completions", OTHERS),  # the stored ones
        ("/v1/v1/models", BASE_URL),
    ],
)
def test_so_it_does_of_what_is_only_looked_at(shared_world, path, hint):
    message = shape(shared_world.client.get(path))["message"]
    assert message == f"There is nothing at {path}. {hint}"


@pytest.mark.parametrize(
    "method, path, allowed",
    [
        ("GET", "/v1/chat/completions", {"POST", "OPTIONS"}),
        ("HEAD", "/v1/chat/completions", {"POST", "OPTIONS"}),
        ("DELETE", "/openai/v1/embeddings", {"POST", "OPTIONS"}),
        # Not mistaken for a question about a model of that name.
        ("GET", "/openai/deployments/gpt-4o/chat/completions", {"POST", "OPTIONS"}),
        ("POST", "/v1/models", {"GET", "HEAD", "OPTIONS"}),
        ("TRACE", "/health", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_a_wrong_method_is_a_405_that_names_the_right_ones(shared_world, method, path, allowed):
    answer = shared_world.client.open(path, method=method)
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == allowed
    if method != "HEAD":
        assert shape(answer)["code"] == "method_not_allowed"
        assert f"{path} does not accept {method}" in shape(answer)["message"]


def test_a_wrong_method_of_the_admin_api_is_a_405(shared_world):
    answer = shared_world.admin("DELETE")
    assert answer.status_code == 405
    assert shape(answer)["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    "method, part, allowed",
    [
        ("PATCH", "state", {"GET", "PUT"}),
        ("DELETE", "config", {"GET", "PATCH", "PUT"}),
        ("GET", "verify", {"POST"}),
    ],
)
def test_a_wrong_method_of_an_instances_part_is_none_of_an_instance_of_such_a_name(
    method, part, allowed, shared_world
):
    answer = shared_world.admin(method, f"/a/{part}")
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == allowed
    assert shape(answer)["code"] == "method_not_allowed"


def test_options_say_what_a_path_accepts(shared_world):
    answer = shared_world.client.options("/v1/chat/completions")
    assert answer.status_code == 200
    assert set(answer.allow) == {"POST", "OPTIONS"}


def test_a_head_without_sense_is_a_400(shared_world):
    answer = shared_world.client.get("/health", headers={"Host": "a..b"})
    assert answer.status_code == 400
    assert shape(answer)["code"] == "invalid_request"


@pytest.mark.parametrize(
    "messages, expected",
    [
        ({"name": ["Bad."]}, ("Bad.", ["name"])),
        ({"name": ["Bad.", "Worse."], "weight": ["Odd."]}, ("Bad.", ["name"])),
        ({"supported_models": {1: ["Bad."]}}, ("Bad.", ["supported_models", "1"])),
        ({"map": {"gpt-4.1": {"value": ["Bad."]}}}, ("Bad.", ["map", "gpt-4.1", "value"])),
        ({"_schema": ["Bad."]}, ("Bad.", [])),
        (["Bad."], ("Bad.", [])),
        ("Bad.", ("Bad.", [])),
    ],
)
def test_the_first_message_and_where_it_belongs(messages, expected):
    assert message_and_path(messages) == expected


def test_who_wants_a_websocket_is_told_that_there_is_none(shared_world):
    headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
    answer = shared_world.client.get("/v1/models", headers=headers)
    assert answer.status_code == 400
    assert shape(answer)["message"] == "The gateway speaks no WebSocket; ask without Upgrade."


def test_the_parts_of_an_instance_are_those_that_are_served(shared_world):
    served = {
        rule.rule.removeprefix("/admin/instances/<path:name>"): rule.methods
        for rule in shared_world.app.url_map.iter_rules()
        if rule.rule.startswith("/admin/instances/<path:name>/")
    }
    assert {part: set(methods) for part, methods in METHODS_OF_PARTS.items()} == {
        part: methods - {"HEAD", "OPTIONS"} for part, methods in served.items()
    }
    assert set(METHODS_OF_PARTS) == set(RESERVED_ENDINGS)
