import json

import pytest

from proxy.runtime.entra import NoToken, Tokens
from proxy.runtime.verify import DETAIL_CHARACTERS, MAX_MODELS, PROBES, verify
from proxy.simulator import FAULTS, Resource
from tests.builders import config
from tests.runtime.world import FakeAnswer, FakeUpstream, failed, ok, unreachable

KEY = "planted-key-of-a-0123456789"


@pytest.fixture
def resource(simulate):
    return simulate(Resource("a", api_key=KEY, deployments=["gpt-4o", "other"]))["a"]


def at(resource, **changes):
    defaults = {"api_base": resource.url, "api_key": KEY, "timeout_seconds": 5.0}
    return config("a", **(defaults | {"supported_models": ("gpt-4o",)} | changes))


def found(check):
    """What it was about, whether that is well, and the upstream's status."""
    return check.check, check.ok, check.status


@pytest.mark.parametrize("kind", ["azure", "azure_v1", "openai"])
def test_a_deployment_that_answers_is_well(kind, resource, upstream):
    (check,) = verify(upstream, at(resource, provider_type=kind), None)
    assert found(check) == ("deployment", True, 200)
    assert check.detail == "Answered chat/completions."
    assert (check.model, check.deployment) == ("gpt-4o", "gpt-4o")
    assert check.ms >= 0


def test_the_call_is_tiny(resource, upstream):
    verify(upstream, at(resource), None)
    (received,) = resource.requests
    assert received.json["max_tokens"] == 1
    assert received.json["messages"] == [{"role": "user", "content": "ping"}]


def test_each_model_is_tried_under_its_deployment(resource, upstream):
    instance = at(
        resource,
        supported_models=("gpt-4o", "gpt-4o-mini"),
        model_deployments={"gpt-4o-mini": "other"},
    )
    checks = verify(upstream, instance, None)
    assert [(c.model, c.deployment, c.ok) for c in checks] == [
        ("gpt-4o", "gpt-4o", True),
        ("gpt-4o-mini", "other", True),
    ]


def test_without_a_list_of_models_those_with_deployments_are_tried(resource, upstream):
    instance = at(resource, supported_models=(), model_deployments={"gpt-5": "other"})
    (check,) = verify(upstream, instance, None)
    assert (check.model, check.deployment, check.ok) == ("gpt-5", "other", True)


def test_a_model_that_is_named_twice_is_tried_once(resource, upstream):
    (check,) = verify(upstream, at(resource, supported_models=("gpt-4o", "gpt-4o")), None)
    assert check.ok


def test_a_model_may_be_named(resource, upstream):
    (check,) = verify(upstream, at(resource), "other")
    assert (check.model, check.ok) == ("other", True)


def test_of_an_instance_that_names_no_model_nothing_is_known(resource, upstream):
    (check,) = verify(upstream, at(resource, supported_models=()), None)
    assert not check.ok
    assert "names no model" in check.detail
    assert resource.requests == []


def test_not_more_models_are_tried_than_one_would_pay_for(resource, upstream):
    models = tuple(f"model-{n}" for n in range(MAX_MODELS + 2))
    *checks, last = verify(upstream, at(resource, supported_models=models), None)
    assert len(checks) == len(resource.requests) == MAX_MODELS
    assert (last.ok, last.detail) == (False, f"Not tried: {models[-2]}, {models[-1]}.")


def test_a_wrong_key_is_the_keys_fault(resource, upstream):
    (check,) = verify(upstream, at(resource, api_key="wrong-key-0123456789"), None)
    assert found(check) == ("key", False, 401)
    assert check.detail.startswith("The key was refused (401): Access denied")
    assert "wrong-key" not in check.detail


def test_a_deployment_that_does_not_exist(resource, upstream):
    (check,) = verify(upstream, at(resource), "unknown")
    assert found(check) == ("deployment", False, 404)
    assert "no such deployment or path (404): The API deployment" in check.detail


@pytest.mark.parametrize(
    "fault, expected, detail",
    [
        ("429", ("deployment", True, 429), "Key and deployment are right, but it is at its"),
        ("401", ("key", False, 401), "The key was refused (401)"),
        ("403", ("key", False, 403), "The key was refused (403): Access denied due to Virtual"),
        ("404", ("deployment", False, 404), "There is no such deployment"),
        ("408", ("deployment", False, 408), "HTTP 408: The operation was timeout."),
        ("500", ("deployment", False, 500), "HTTP 500: The server had an internal error."),
        ("500-flat", ("deployment", False, 500), "HTTP 500: Internal server error"),
        ("503-text", ("deployment", False, 503), "HTTP 503: upstream connect error"),
        ("502-html", ("deployment", False, 502), "HTTP 502: <html>"),
        ("redirect", ("connection", False, 302), "It redirects elsewhere (302)"),
        ("empty", ("deployment", False, 200), "Answered chat/completions with nothing."),
        ("bad-request", ("deployment", False, 400), "HTTP 400: Unsupported parameter"),
        ("content-filter", ("deployment", False, 400), "HTTP 400: The response was filtered"),
        (
            "break-before-head",
            ("connection", False, None),
            "No answer: it closed the connection",
        ),
        ("break-in-middle", ("connection", False, None), "No answer: it broke off its answer."),
        ("hang", ("connection", False, None), "No answer: it timed out while we waited"),
    ],
)
def test_each_fault_is_named(fault, expected, detail, resource, upstream):
    assert fault in FAULTS
    resource.faults["*"] = fault
    seconds = 0.05 if fault == "hang" else 5.0
    (check,) = verify(upstream, at(resource, timeout_seconds=seconds), None)
    assert found(check) == expected
    assert check.detail.startswith(detail)


def test_a_newer_model_is_asked_by_the_newer_name_of_the_limit(resource, upstream):
    resource.faults["gpt-4o"] = "bad-request*1"
    (check,) = verify(upstream, at(resource), None)
    assert found(check) == ("deployment", True, 200)
    assert "max_tokens" not in resource.requests[1].json
    assert resource.requests[1].json["max_completion_tokens"] == 16


def test_an_embedding_model_is_asked_for_an_embedding(resource, upstream):
    resource.faults["gpt-4o"] = "bad-request*2"
    (check,) = verify(upstream, at(resource), None)
    assert (check.ok, check.detail) == (True, "Answered embeddings.")
    assert resource.requests[2].json["input"] == "ping"


def test_a_model_for_something_else_is_there(simulate, upstream):
    resource = simulate(Resource("a", api_key=KEY, deployments=["whisper"]))["a"]
    (check,) = verify(upstream, at(resource), "whisper")
    assert found(check) == ("deployment", True, 400)
    assert check.detail.startswith("Is there, but not for chats and embeddings")
    assert len(resource.requests) == len(PROBES)


def test_so_it_is_where_openai_says_it(upstream):
    error = {"message": "No chat model", "type": "invalid_request_error", "param": "model"}
    other = failed(404, json.dumps({"error": error | {"code": None}}).encode())
    answers = iter([other, other, ok()])
    (check,) = verify(
        FakeUpstream(a=lambda: next(answers)), config("a", supported_models=("m",)), None
    )
    assert (check.ok, check.detail) == (True, "Answered embeddings.")
    unknown = failed(404, json.dumps({"error": error | {"code": "model_not_found"}}).encode())
    (check,) = verify(FakeUpstream(a=unknown), config("a", supported_models=("m",)), None)
    assert found(check) == ("deployment", False, 404)


def test_nobody_is_asked_more_than_each_probe_once(resource, upstream):
    resource.faults["*"] = "bad-request"
    verify(upstream, at(resource), None)
    assert len(resource.requests) == len(PROBES)


def test_nobody_is_there(upstream):
    instance = config("a", api_base="http://127.0.0.1:1", supported_models=("gpt-4o",))
    (check,) = verify(upstream, instance, None)
    assert found(check) == ("connection", False, None)
    assert check.detail == "No answer: the connection was refused."


def test_a_connection_that_fails_after_a_first_answer_is_the_connections_fault():
    answers = iter([failed(400, b"no"), unreachable()])
    upstream = FakeUpstream(a=lambda: next(answers))
    (check,) = verify(upstream, config("a", supported_models=("gpt-4o",)), None)
    assert found(check) == ("connection", False, None)


def test_what_an_upstream_says_is_cut():
    upstream = FakeUpstream(a=failed(500, b"x" * 10_000))
    (check,) = verify(upstream, config("a", supported_models=("gpt-4o",)), None)
    assert len(check.detail) == DETAIL_CHARACTERS


def test_each_answer_is_closed():
    upstream = FakeUpstream(a=ok())
    verify(upstream, config("a", supported_models=("gpt-4o", "gpt-5")), None)
    assert [a.closed for a in upstream.opened] == [1, 1]


def test_the_body_names_the_deployment_and_the_key_is_sent():
    upstream = FakeUpstream(a=ok())
    instance = config(
        "a",
        provider_type="openai",
        supported_models=("gpt-4o",),
        model_deployments={"gpt-4o": "its-name"},
    )
    verify(upstream, instance, None)
    (sent,) = upstream.sent
    assert json.loads(sent.body)["model"] == "its-name"
    assert sent.headers["Authorization"] == f"Bearer {instance.api_key}"
    assert sent.headers["Content-Type"] == "application/json"


# With a token of Entra ID.


class Source:
    def __init__(self, answer):
        self.answer = answer

    def problem(self):
        return None

    def fetch(self):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer, 3600.0


@pytest.fixture
def source():
    return Source("token-1-0123456789")


@pytest.fixture
def by_token(make_upstream, source):
    tokens = Tokens(source)
    tokens.start()
    yield make_upstream(tokens=tokens)
    tokens.stop()


def test_an_instance_that_takes_the_token_is_well(simulate, by_token, source):
    resource = simulate(Resource("a", access_tokens=[source.answer]))["a"]
    (check,) = verify(by_token, at(resource, auth="entra"), None)
    assert found(check) == ("deployment", True, 200)


@pytest.mark.parametrize("status", ["401", "403"])
def test_a_token_that_is_refused_is_the_identitys_fault(status, simulate, by_token, source):
    resource = simulate(Resource("a", access_tokens=[source.answer]))["a"]
    resource.faults["gpt-4o"] = status
    (check,) = verify(by_token, at(resource, auth="entra"), None)
    assert found(check) == ("identity", False, int(status))
    assert check.detail.startswith(
        f"The token was refused ({status}). The identity needs a role there, such as"
    )


def test_without_a_token_it_says_what_is_wrong_with_the_identity(simulate, by_token, source):
    resource = simulate(Resource("a", access_tokens=["token-1"]))["a"]
    source.answer = NoToken("no such identity", is_refused=True)
    (check,) = verify(by_token, at(resource, auth="entra"), None)
    assert found(check) == ("identity", False, None)
    assert check.detail == "There is no token of Entra ID for it: no such identity."
    source.answer = "token-1"  # mended, and asked before its time
    (check,) = verify(by_token, at(resource, auth="entra"), None)
    assert check.ok


def test_a_limit_is_none_of_the_tokens(simulate, by_token, source):
    resource = simulate(Resource("a", access_tokens=[source.answer]))["a"]
    resource.faults["gpt-4o"] = "429"
    (check,) = verify(by_token, at(resource, auth="entra"), None)
    assert check.detail.startswith("Token and deployment are right, but it is at its limit")


@pytest.mark.parametrize("auth, secret", [("key", KEY), ("entra", "token-of-entra-0123456789")])
def test_what_it_was_asked_with_is_not_told_though_the_upstream_quotes_it(auth, secret):
    body = b'{"error": {"message": "bad ' + secret.encode() + b'"}}'
    token = secret if auth == "entra" else ""
    upstream = FakeUpstream(a=FakeAnswer(500, (body,), token=token))
    (check,) = verify(upstream, config("a", api_key=KEY, auth=auth), "gpt-4o")
    assert secret not in check.detail
    assert "bad ***6789" in check.detail
