import contextlib
import json
import re
import socket
import struct
import threading

import pytest
from urllib3 import encode_multipart_formdata
from werkzeug.test import EnvironBuilder

from proxy.core.outline import KEPT_BYTES
from proxy.core.tokens import prompt
from proxy.runtime.broken_stream import StreamBroken
from proxy.simulator import FAULTS, expected_usage, media, uploads
from proxy.simulator.asks import TOKENS
from proxy.simulator.media import image_usage, sound_usage
from proxy.store import keys
from proxy.store.models import InstanceRow
from proxy.web import openai
from proxy.web.openai import TIMEOUT_HEADER
from tests.builders import AUTHOR, MODEL
from tests.web.conftest import CHAT, STREAM

PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 512, 512)
OPERATIONS = ("chat/completions", "completions", "embeddings")
# What a client asks with, and what an upstream must be asked.
PATH_STYLES = {
    "openai": "/v1/{}",
    "azure v1": "/openai/v1/{}",
    "azure": f"/openai/deployments/{MODEL}/{{}}?api-version=1999-01-01",
    "azure without a deployment": "/openai/{}?api-version=1999-01-01",
}
UPSTREAMS = {
    "azure": ("/openai/deployments/east/{}", {"api-version": "2024-10-21"}),
    "azure_v1": ("/openai/v1/{}", {}),
    "openai": ("/v1/{}", {}),
}
# Everything here must arrive as it is: spaces, order, escapes, digits, unknown fields.
ODD_BODY = (
    b'{ "x_unknown": {"model":"gpt-4o","big": 12345678901234567890123, "1.0": 1.0, "e":1E2},\n'
    b'\t"messages":[{"role":"user","content":"\\u00fc \xc3\xbc \\"model\\": \\/"}],'
    b'"input":["a"],"prompt":"p", "model" : "gpt-4o" ,"logit_bias":{},"seed":null }\r\n'
)


def without_marks(data):
    """An answer without what differs each time: its id and moment."""
    return re.sub(rb'("id": ?"|"created": ?)[^",]*', rb"\1", data)


def error(answer):
    assert list(answer.get_json()) == ["error"]
    assert sorted(answer.get_json()["error"]) == ["code", "message", "param", "type"]
    return answer.get_json()["error"]


# Where a call goes, and what of it.


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("provider", UPSTREAMS)
@pytest.mark.parametrize("style", PATH_STYLES)
def test_every_path_style_reaches_every_kind_of_upstream(world, style, provider, operation):
    world.add("a", provider_type=provider, model_deployments={MODEL: "east"})
    answer = world.ask(ODD_BODY, PATH_STYLES[style].format(operation))
    assert answer.status_code == 200
    received = world.received()
    path, query = UPSTREAMS[provider]
    assert (received.path, received.query) == (path.format(operation), query)
    if provider == "azure":
        assert received.body == ODD_BODY
    else:
        assert received.body == ODD_BODY.replace(b'"model" : "gpt-4o"', b'"model" : "east"')
    key = world.simulator["a"].api_key
    bearer = received.headers.get("authorization"), received.headers.get("api-key")
    assert bearer == ((f"Bearer {key}", None) if provider == "openai" else (None, key))


@pytest.mark.parametrize("provider", UPSTREAMS)
def test_a_deployment_named_as_the_model_leaves_every_byte(world, provider):
    world.add("a", provider_type=provider)
    assert world.ask(ODD_BODY).status_code == 200
    assert world.received().body == ODD_BODY


@pytest.mark.parametrize("provider", ["azure_v1", "openai"])
def test_a_model_that_is_only_in_the_path_is_put_into_the_body(world, provider):
    world.add("a", provider_type=provider, model_deployments={MODEL: "east"})
    body = {k: v for k, v in CHAT.items() if k != "model"}
    assert world.ask(body, f"/openai/deployments/{MODEL}/chat/completions").status_code == 200
    assert world.received().json == body | {"model": "east"}


def test_the_paths_model_wins_over_the_bodys(world):
    world.add("a", supported_models=["in-path"])
    world.add("b", supported_models=["in-body"])
    path = "/openai/deployments/in-path/chat/completions"
    assert world.ask(CHAT | {"model": "in-body"}, path).status_code == 200
    assert world.asked() == (1, 0)


@pytest.mark.parametrize("provider", ["azure_v1", "openai"])
def test_a_model_in_the_body_is_replaced_by_the_deployment_of_the_paths(world, provider):
    world.add("a", provider_type=provider)
    path = "/openai/deployments/in-path/chat/completions"
    assert world.ask(CHAT | {"model": "in-body"}, path).status_code == 200
    assert world.received().json == CHAT | {"model": "in-path"}


@pytest.mark.parametrize(
    "provider, base, path",
    [
        ("azure", "", "/openai/deployments/gpt-4o/chat/completions"),
        ("azure", "/", "/openai/deployments/gpt-4o/chat/completions"),
        ("azure_v1", "/", "/openai/v1/chat/completions"),
        ("azure_v1", "/openai/v1", "/openai/v1/chat/completions"),
        ("azure_v1", "/openai/v1/", "/openai/v1/chat/completions"),
        ("openai", "/", "/v1/chat/completions"),
        ("openai", "/v1", "/v1/chat/completions"),
        ("openai", "/v1/", "/v1/chat/completions"),
    ],
)
def test_an_api_base_may_name_the_version_or_not(world, provider, base, path):
    world.add("a", provider_type=provider, api_base=world.simulator["a"].url + base)
    assert world.ask().status_code == 200
    assert world.received().path == path


def test_a_deployments_name_is_one_segment_of_the_path(world):
    world.add("a", model_deployments={MODEL: "east/us 1?x#y%2f"})
    assert world.ask().status_code == 200
    assert world.received().path == (
        "/openai/deployments/east%2Fus%201%3Fx%23y%252f/chat/completions"
    )


@pytest.mark.parametrize("provider", UPSTREAMS)
def test_the_key_none_sends_no_key(world, provider):
    world.simulator["a"].api_key = None
    world.add("a", provider_type=provider, api_key="NONE")
    assert world.ask().status_code == 200
    assert not {"api-key", "authorization"} & set(world.received().headers)


def test_nothing_of_the_client_that_is_secret_goes_upstream(world):
    world.add("a")
    secret = {
        "api-key": world.client_key,
        "Authorization": f"Bearer {world.client_key}",
        "Cookie": "session=planted",
        "X-Admin-API-Key": "planted",
        "Ocp-Apim-Subscription-Key": "planted",
        "Proxy-Authorization": "Basic planted",
        "X-Forwarded-For": "10.9.8.7",
        "X-Forwarded-Host": "planted",
        "X-Forwarded-Anything": "planted",
        "X-Real-IP": "10.9.8.7",
        "Forwarded": "for=10.9.8.7",
        "Via": "planted",
        "Connection": "x-named",
        "X-Named": "planted",
        "Transfer-Encoding-Not": "",
    }
    assert world.ask(path="/v1/chat/completions?key=planted", headers=secret).status_code == 200
    received = world.received()
    whole = f"{received.path} {received.query} {received.headers!r}"
    whole = whole.replace(world.simulator["a"].api_key, "")  # which it is meant to get
    for word in ("planted", "10.9.8.7", world.client_key):
        assert word not in whole


def test_what_else_the_client_says_goes_on(world):
    world.add("a")
    said = {
        "User-Agent": "app/1.0",
        "x-ms-client-request-id": "mine",
        "OpenAI-Beta": "assistants=v2",
    }
    assert world.ask(headers=said).status_code == 200
    assert {name: world.received().headers[name] for name in said} == said


# What comes back.


@pytest.mark.parametrize(
    "operation, body",
    [
        ("chat/completions", CHAT),
        ("completions", {"model": MODEL, "prompt": "Say hello."}),
        ("embeddings", {"model": MODEL, "input": ["a", "b"], "dimensions": 3}),
    ],
)
def test_an_answer_is_passed_on_byte_for_byte(world, operation, body):
    world.add("a")
    path = f"/openai/deployments/{MODEL}/{operation}?api-version=2024-10-21"
    expected = world.directly(path, body)
    answer = world.ask(body, f"/v1/{operation}")
    assert without_marks(answer.data) == without_marks(expected)
    assert int(answer.headers["content-length"]) == len(answer.data)


def test_azures_content_filter_results_are_passed_on(world):
    world.add("a")
    answer = world.ask().get_json()
    assert answer["prompt_filter_results"][0]["content_filter_results"]["hate"]
    assert answer["choices"][0]["content_filter_results"]["violence"]["severity"] == "safe"


def test_the_upstreams_headers_are_passed_on_but_for_its_connections(world):
    world.add("a")
    headers = world.ask().headers
    assert headers["x-ms-region"] == "East US"
    assert headers["x-ratelimit-remaining-tokens"]
    assert headers["content-type"] == "application/json"
    assert "strict-transport-security" not in headers


@pytest.mark.parametrize("fault", ["content-filter", "context-length", "bad-request"])
def test_what_an_upstream_says_of_the_clients_mistake_is_passed_on(world, fault):
    world.add("a")
    world.add("b")
    world.simulator["a"].faults["*"] = world.simulator["b"].faults["*"] = fault
    answer = world.ask()
    assert (answer.status_code, answer.data) == (400, FAULTS[fault].answer.body)
    assert sum(world.asked()) == 1


@pytest.mark.parametrize(
    "fault, status, text",
    [
        ("503-text", 503, "upstream connect error or disconnect/reset before headers"),
        ("502-html", 502, "<title>502 Bad Gateway</title>"),
        ("500-flat", 500, "Internal server error"),
    ],
)
@pytest.mark.parametrize("body", [CHAT, STREAM])
def test_an_error_in_another_shape_is_wrapped_in_openais(world, fault, status, text, body):
    world.add("a")
    world.simulator["a"].faults["*"] = fault
    answer = world.ask(body)
    assert answer.status_code == status
    assert answer.headers.getlist("content-type") == ["application/json"]
    assert text in error(answer)["message"]
    assert f"answered {status}" in error(answer)["message"]
    assert error(answer) | {"message": ""} == {
        "message": "",
        "type": "server_error",
        "param": None,
        "code": "upstream_error",
    }


def test_an_error_in_openais_shape_is_not_wrapped_again(world):
    world.add("a")
    world.simulator["a"].faults["*"] = "500"
    assert world.ask().data == FAULTS["500"].answer.body


@pytest.mark.parametrize("fault", ["401", "403", "404"])
def test_the_gateways_own_trouble_with_an_upstream_is_not_shown_as_the_clients(world, fault):
    world.add("a", supported_models=["gpt-4o"])
    world.simulator["a"].faults["*"] = fault
    answer = world.ask()
    assert (answer.status_code, error(answer)["code"]) == (502, "upstream_misconfigured")
    assert "www-authenticate" not in answer.headers


@pytest.mark.parametrize("fault", ["429", "500", "401", "404", "break-before-head"])
def test_another_instance_is_asked_where_that_can_help(world, fault):
    world.add("a", priority=1)
    world.add("b", priority=2)
    world.simulator["a"].faults["*"] = fault
    answer = world.ask()
    assert answer.status_code == 200
    assert "Hello from b" in answer.text
    assert world.asked() == (1, 1)


def test_when_all_are_throttled_the_client_learns_when_to_come_back(world):
    world.add("a")
    world.simulator["a"].faults["*"] = "429-ms"
    answer = world.ask()
    assert (answer.status_code, error(answer)["type"]) == (429, "rate_limit_error")
    assert 1000 < int(answer.headers["retry-after-ms"]) <= 1500
    assert answer.headers["retry-after"] == "2"


def ask_upstream_that_says(world, data):
    """What the client gets from an upstream that answers with these bytes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer_once():
            peer, _ = server.accept()
            with peer:
                peer.recv(65_536)
                peer.sendall(data)

        thread = threading.Thread(target=answer_once)
        thread.start()
        world.add("c", api_base="http://{}:{}".format(*server.getsockname()))
        answer = world.ask()
        thread.join()
    return answer


@contextlib.contextmanager
def redirecting(status, location):
    """The address of an upstream that sends everybody there."""
    says = f"HTTP/1.1 {status} Go\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            with contextlib.suppress(OSError):  # closed
                while True:
                    peer, _ = server.accept()
                    with peer:
                        peer.recv(65_536)
                        peer.sendall(says.encode())

        thread = threading.Thread(target=answer)
        thread.start()
        yield "http://{}:{}".format(*server.getsockname())
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
@pytest.mark.parametrize("how", ["plain", "stream", "verify"])
def test_a_redirect_is_neither_followed_nor_passed_on(world, status, how):
    """It would carry the instance's key, or the client's own, to wherever it points."""
    elsewhere = world.simulator["b"].url + "/openai/deployments/gpt-4o/chat/completions"
    with redirecting(status, elsewhere) as url:
        world.add("c", api_base=url, supported_models=[MODEL])
        if how == "verify":
            (check,) = world.admin("POST", "/c/verify").get_json()["checks"]
            assert (check["ok"], check["status"]) == (False, status)
        else:
            answer = world.ask(CHAT if how == "plain" else STREAM)
            assert (answer.status_code, error(answer)["code"]) == (502, "upstream_error")
            assert elsewhere not in f"{answer.headers} {answer.text}"
    assert world.asked() == (0, 0)


def test_an_answer_without_a_type_is_not_called_html(world):
    answer = ask_upstream_that_says(world, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
    assert (answer.data, answer.headers["content-type"]) == (b"{}", "application/json")


@pytest.mark.parametrize(
    "body, text",
    [
        (b"no\xff\nwords", "no\ufffd words"),
        (b'{"message": "flat"}', "flat"),
        (b'{"error": "text"}', '{"error": "text"}'),
        (b"[]", "[]"),
        (b"", "no message"),
        (b"x" * 10_000, "x" * 500),
    ],
)
def test_a_mistake_that_is_told_in_another_shape_is_wrapped_too(world, body, text):
    head = b"HTTP/1.1 400 Bad\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n"
    answer = ask_upstream_that_says(world, head % len(body) + body)
    assert answer.status_code == 400
    assert answer.headers.getlist("content-type") == ["application/json"]
    assert error(answer)["message"] == f"The upstream answered 400: {text}"
    assert error(answer)["type"] == "invalid_request_error"


def test_headers_that_occur_twice_arrive_twice(world):
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-ms-a: 1\r\nset-cookie: planted\r\nx-ms-a: 2"
    )
    answer = ask_upstream_that_says(world, head + b"\r\n\r\n{}")
    assert answer.headers.getlist("x-ms-a") == ["1", "2"]
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "operation, fields, status",
    [
        ("chat/completions", {"max_tokens": 10}, 200),
        ("chat/completions", {"max_tokens": 90}, 429),
        ("chat/completions", {"max_completion_tokens": 90}, 429),
        ("chat/completions", {"max_tokens": 30, "n": 3}, 429),
        ("completions", {"max_tokens": 90}, 429),
        ("embeddings", {"max_tokens": 90}, 200),  # nothing is completed there
        ("embeddings", {"input": "word " * 200}, 429),
    ],
)
def test_what_a_call_may_cost_must_fit_into_the_minute(world, operation, fields, status):
    world.add("a", max_tpm=100)
    world.ask()  # 23 tokens
    body = CHAT | {"prompt": "p", "input": "i"} | fields
    assert world.ask(body, f"/v1/{operation}").status_code == status
    assert world.asked() == (2 if status == 200 else 1, 0)


# Models.


@pytest.mark.parametrize("asked", ["gpt-4o", "GPT-4o", "gPt-4O"])
def test_a_models_name_is_found_whatever_its_case(world, asked):
    world.add("a", supported_models=["gpt-4o"], model_deployments={"GPT-4O": "east"})
    assert world.ask(CHAT | {"model": asked}).status_code == 200
    assert world.received().path == "/openai/deployments/east/chat/completions"


def test_the_exact_spelling_of_a_model_goes_before_another(world):
    deployments = {"GPT-X": "capitals", "gpt-x": "small"}
    world.add("a", supported_models=["GPT-X", "gpt-x"], model_deployments=deployments)
    for model, deployment in deployments.items():
        assert world.ask(CHAT | {"model": model}).status_code == 200
        assert deployment in world.received().path


def test_an_instance_without_models_serves_any(world):
    world.add("a", supported_models=[])
    assert world.ask(CHAT | {"model": "whatever/it is"}).status_code == 200
    assert world.received().path == "/openai/deployments/whatever%2Fit%20is/chat/completions"


@pytest.mark.parametrize(
    "path, body",
    [
        ("/v1/chat/completions", CHAT | {"model": "no such\nmodel"}),
        ("/openai/deployments/no%20such%22model/embeddings", {"input": "x"}),
        ("/v1/models/no such", None),
    ],
)
def test_an_unknown_model_is_a_404_that_names_it(world, path, body):
    world.add("a", supported_models=["gpt-4o"])
    if body is None:
        answer = world.client.get(path, headers={"api-key": world.client_key})
    else:
        answer = world.ask(body, path)
    assert answer.status_code == 404
    assert error(answer)["code"] == "model_not_found"
    assert error(answer)["param"] == "model"
    assert "no such" in error(answer)["message"]
    assert "\n" not in error(answer)["message"]


def test_a_model_whose_instances_are_disabled_is_unavailable(world):
    world.add("a", supported_models=["gpt-4o"], enabled=False)
    answer = world.ask()
    assert (answer.status_code, error(answer)["code"]) == (503, "unavailable")
    assert "'gpt-4o'" in error(answer)["message"]


MODEL_LISTS = ["/v1/models", "/openai/v1/models", "/openai/models?api-version=2024-10-21"]


@pytest.mark.parametrize("path", [*MODEL_LISTS, "/openai/deployments?api-version=2024-10-21"])
def test_the_models_of_enabled_instances_are_listed_once_each(world, path):
    world.add("a", supported_models=["gpt-4o", "b"])
    world.add("b", supported_models=["gpt-4o", "A"])
    world.add("any", model_deployments={"named": "x"})
    world.add("off", supported_models=["hidden"], enabled=False)
    answer = world.client.get(path, headers={"api-key": world.client_key})
    assert answer.get_json()["object"] == "list"
    rows = answer.get_json()["data"]
    assert [row["id"] for row in rows] == ["A", "b", "gpt-4o", "named"]
    for row in rows:
        assert sorted(row) == ["created", "id", "object", "owned_by"]
        assert row["object"] == "model"
        assert type(row["created"]) is int
    assert world.asked() == (0, 0)


@pytest.mark.parametrize("path", MODEL_LISTS)
@pytest.mark.parametrize("spelled", ["org/gpt%204o", "ORG/gpt%204O"])
def test_a_single_model_can_be_asked_for(world, path, spelled):
    world.add("a", supported_models=["org/gpt 4o"])
    with world.parts.database.session() as session:
        session.get(InstanceRow, "a").created_at = 1_700_000_000.9
    world.admin("PUT", "/a", json={"priority": 7})
    path = path.replace("models", f"models/{spelled}")
    answer = world.client.get(path, headers={"api-key": world.client_key})
    assert (answer.get_json()["id"], answer.get_json()["created"]) == (
        "org/gpt 4o",
        1_700_000_000,
    )


# Streams.


def tokens_served(world):
    return world.state()["total_tokens_served"]


@pytest.mark.parametrize(
    "operation, body",
    [
        ("chat/completions", STREAM),
        ("completions", {"model": MODEL, "prompt": "Say hello.", "stream": True}),
    ],
)
@pytest.mark.parametrize("provider", UPSTREAMS)
def test_a_stream_is_passed_on_byte_for_byte(world, provider, operation, body):
    world.add("a", provider_type=provider)
    body = body | {"stream_options": {"include_usage": True}}
    path, query = UPSTREAMS[provider]
    path = path.format(operation).replace("east", MODEL)
    path += "".join(f"?{name}={value}" for name, value in query.items())
    expected = world.directly(path, body)
    answer = world.ask(body, f"/v1/{operation}")
    assert answer.mimetype == "text/event-stream"
    assert answer.headers["x-accel-buffering"] == "no"
    assert "content-length" not in answer.headers
    assert without_marks(answer.data) == without_marks(expected)
    assert b'"usage":{' in answer.data
    assert world.received().json == body
    assert tokens_served(world) == expected_usage(body)["total_tokens"]


@pytest.mark.parametrize(
    "options", [None, {}, {"include_usage": False}, {"include_obfuscation": False}]
)
@pytest.mark.parametrize("provider", UPSTREAMS)
def test_usage_nobody_asked_for_is_counted_and_hidden(world, provider, options):
    world.add("a", provider_type=provider)
    body = STREAM if options is None else STREAM | {"stream_options": options}
    answer = world.ask(body)
    asked = (options or {}) | {"include_usage": True}
    assert world.received().json == STREAM | {"stream_options": asked}
    path, query = UPSTREAMS[provider]
    path = path.format("chat/completions").replace("east", MODEL)
    path += "".join(f"?{name}={value}" for name, value in query.items())
    events = world.directly(path, world.received().json).split(b"\n\n")
    expected = b"\n\n".join(e for e in events if b'"usage":{' not in e)
    assert without_marks(answer.data) == without_marks(expected)
    assert answer.data.endswith(b"data: [DONE]\n\n")
    assert tokens_served(world) == expected_usage(STREAM)["total_tokens"]


@pytest.mark.parametrize("version", ["2023-05-15", "2024-02-15-preview", "2024-06-01"])
def test_an_old_api_version_is_not_asked_for_usage_and_an_estimate_is_charged(world, version):
    world.simulator["a"].refuses_stream_options = True
    world.add("a", api_version=version)
    answer = world.ask(STREAM)
    assert answer.status_code == 200
    assert answer.data.endswith(b"data: [DONE]\n\n")
    assert world.received().json == STREAM
    assert world.received().query == {"api-version": version}
    guessed = world.parts.estimates.tokens(MODEL, prompt(STREAM, ["messages"]))
    completion = tokens_served(world) - guessed
    # About a token an event: those with text, and the few around them.
    assert 20 <= completion <= answer.data.count(b"data:")


def test_a_stream_is_counted_when_its_client_leaves(world):
    world.simulator["a"].event_interval_ms = 20
    world.add("a")
    answer = world.ask(STREAM, buffered=False)
    parts = answer.iter_encoded()
    next(parts)
    answer.close()
    assert world.simulator["a"].wait_for(lambda a: a.aborted == 1)
    assert world.state()["total_requests"] == 1
    assert world.state()["current_rpm"] == 1
    assert world.simulator["a"].wait_for(lambda a: a.open_streams == 0)


def test_a_stream_that_breaks_says_so_and_does_not_look_complete(world):
    world.add("a")
    world.simulator["a"].faults["*"] = "break-in-middle"
    answer = world.ask(STREAM, buffered=False)
    assert answer.status_code == 200
    parts = []
    with pytest.raises(ConnectionResetError):
        parts.extend(answer.iter_encoded())
    answer.close()
    received = b"".join(parts)
    last = json.loads(received.split(b"\n\n")[-2].removeprefix(b"data: "))
    assert last["error"]["code"] == "stream_interrupted"
    assert b"[DONE]" not in received
    assert world.state()["total_upstream_500_errors"] == 1


# Bad input.


def test_however_deep_a_body_is_nested_nothing_breaks(world):
    """Neither ours, which changes the body for some upstreams, nor what the upstream says."""
    for number, (provider, serves) in enumerate(
        zip(UPSTREAMS, ("v0", "v1", "v2"), strict=True)
    ):
        world.add(f"a{number}", provider_type=provider, model_deployments={serves: "east"})
        for field in ("messages", "tools", "stream_options", "unknown"):
            for depth in (100, 900, 990, 1_010, 1_022, 1_023, 1_024, 5_000):
                nested = {"stream_options": '{"a":', "unknown": '{"a":'}.get(field, "[")
                closing = {"{": "}", "[": "]"}[nested[0]]
                value = nested * depth + "1" + closing * depth
                body = CHAT | {"model": serves, "stream": True} | {field: "VALUE"}
                answer = world.ask(json.dumps(body).replace('"VALUE"', value).encode())
                assert answer.status_code in (200, 400), (provider, field, depth, answer.text)
                if depth > 1_023:
                    assert error(answer)["message"] == "The body is nested too deeply."


BAD_BODIES = [
    (b"", "no body", None),
    (b"no JSON", "not valid JSON", None),
    (b'{"model": "gpt-4o"', "not valid JSON", None),
    (b'{"model": "gpt-4o"} x', "not valid JSON", None),
    (b'{"model": NaN}', "not valid JSON", None),
    (b'{"model": "\xff"}', "not UTF-8", None),
    (b"[]", "not an object", None),
    (b'"model"', "not an object", None),
    (b"null", "not an object", None),
    (b"{}", "missing", "model"),
    (b'{"Model": "gpt-4o"}', "missing", "model"),
    (b'{"model": null}', "missing", "model"),
    (b'{"model": 5}', "must be a string, not 5", "model"),
    (b'{"model": true}', "must be a string, not true", "model"),
    (b'{"model": ["gpt-4o"]}', 'must be a string, not ["gpt-4o"]', "model"),
    (b'{"model": {"a": 1}}', 'must be a string, not {"a":1}', "model"),
    (b'{"model": "."}', "single or double dot", "model"),
    (b'{"model": ".."}', "single or double dot", "model"),
    (b'{"model": ""}', "must have 1 to 200 characters, not 0", "model"),
    (b'{"model": "' + b"x" * 201 + b'"}', "not 201", "model"),
    (b'{"model": "gpt-4o", "x": ' + b"[" * 5000 + b"]" * 5000 + b"}", "too deeply", None),
    (b'{"a":' * 1_000_000 + b"1" + b"}" * 1_000_000, "too deeply", None),
]


@pytest.mark.parametrize("body, text, param", BAD_BODIES)
def test_a_body_that_cannot_be_used_is_a_400_that_says_why(shared_world, body, text, param):
    answer = shared_world.ask(body)
    assert answer.status_code == 400
    assert error(answer)["type"] == "invalid_request_error"
    assert error(answer)["param"] == param
    assert text in error(answer)["message"]
    assert len(answer.data) < 500
    assert shared_world.asked() == (0, 0)


def test_a_name_of_two_hundred_characters_is_not_too_long(world):
    world.add("a")
    assert world.ask(CHAT | {"model": "x" * 200}).status_code == 200


def test_a_body_that_is_too_large_is_a_413_that_names_the_limit(make_world):
    world = make_world(max_body_bytes=2000)
    world.add("a")
    body = json.dumps(CHAT).encode()
    fitting = body + b" " * (2000 - len(body))
    assert world.ask(fitting).status_code == 200
    answer = world.ask(fitting + b" ")
    assert (answer.status_code, error(answer)["code"]) == (413, "request_too_large")
    assert "2000 bytes" in error(answer)["message"]
    assert sum(world.asked()) == 1


def with_image(characters, **more):
    url = "data:image/png;base64," + "iVBORw0KGgoA" * (characters // 12)
    part = {"type": "image_url", "image_url": {"url": url}}
    text = {"type": "text", "text": "What is this?"}
    return CHAT | {"messages": [{"role": "user", "content": [text, part]}]} | more


@pytest.fixture
def parsed(monkeypatch):
    """How much of each body was parsed."""
    sizes, parse = [], openai.parsed_json
    monkeypatch.setattr(
        openai, "parsed_json", lambda text: sizes.append(len(text)) or parse(text)
    )
    return sizes


def test_of_a_large_image_only_its_beginning_is_parsed_and_all_of_it_goes_on(world, parsed):
    world.add("a")
    body = json.dumps(with_image(3_000_000)).encode()
    assert world.ask(body).status_code == 200
    assert world.received().body == body
    assert parsed[0] < 2 * KEPT_BYTES


@pytest.mark.parametrize(
    "more",
    [{"user": "x" * 200_000}, {"x": json.loads("[" * 400 + "]" * 400)}],
    ids=["long", "deep"],
)
def test_what_is_no_prompt_is_understood_whole(world, parsed, more):
    world.add("a")
    body = json.dumps(with_image(3_000_000, **more)).encode()
    assert world.ask(body).status_code == 200
    assert world.received().body == body
    assert parsed[-1] == len(body)


def test_text_that_was_not_parsed_counts_as_well(world, monkeypatch):
    world.add("a")
    calls, forward = [], world.parts.forward.forward
    monkeypatch.setattr(
        world.parts.forward,
        "forward",
        lambda call, *more: calls.append(call) or forward(call, *more),
    )
    body = CHAT | {"messages": [{"role": "user", "content": "x1" * 1_500_000}]}
    assert world.ask(body).status_code == 200
    assert calls[0].prompt == prompt(body, ["messages"])


def test_of_a_body_that_ends_early_the_client_has_left(world):
    world.add("a")
    answer = world.ask(environ_overrides={"CONTENT_LENGTH": "1000"})
    assert answer.status_code == 499
    assert "ended before" in error(answer)["message"]
    assert world.asked() == (0, 0)


def _open(world):
    """Calls, attempts, what instances and clients are at."""
    mine = world.parts
    (known,) = mine.snapshots.current.keys.values()
    at = sum(mine.state.in_flight().values()), mine.clients.view(known.client).in_flight
    return mine.open_calls.count, len(mine.forward._open), *at


def _breaks(*_arguments):
    raise LookupError("no")


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["plain", "stream"])
class TestOfAnAnswerWhoseHeadCannotBeMadeNothingStaysOpen:
    def test_by_the_server(self, world, body):
        world.add("a")
        environ = EnvironBuilder(
            path="/v1/chat/completions",
            method="POST",
            json=body,
            headers={"Authorization": f"Bearer {world.client_key}"},
        ).get_environ()
        with pytest.raises(LookupError):
            world.app(environ, _breaks)
        assert _open(world) == (0, 0, 0, 0)

    def test_by_what_comes_after_the_call(self, world, body, monkeypatch):
        world.add("a")
        steps = world.app.after_request_funcs
        monkeypatch.setitem(steps, None, [*steps[None], _breaks])
        assert world.ask(body).status_code == 500
        assert world.asked() == (1, 0)
        assert _open(world) == (0, 0, 0, 0)


def test_nothing_that_could_fail_comes_behind_the_head(world):
    """Its answer would be lost, and open for ever."""
    assert not world.app.teardown_request_funcs
    assert not world.app.teardown_appcontext_funcs


@pytest.mark.parametrize("given", ["0", "000", "-1", "1.5", "soon", "²", ""])
def test_a_time_that_is_none_is_a_400_that_says_so(shared_world, given):
    answer = shared_world.ask(headers={TIMEOUT_HEADER: given})
    assert (answer.status_code, error(answer)["param"]) == (400, TIMEOUT_HEADER)
    assert "milliseconds, at least 1, not" in error(answer)["message"]


@pytest.mark.parametrize("given", ["2147483647", "9" * 5000, "0" * 30 + "9000"])
def test_a_time_that_is_longer_than_the_gateways_own_is_no_mistake(world, given):
    world.add("a")
    assert world.ask(headers={TIMEOUT_HEADER: given}).status_code == 200


class _Late:
    def read(self, _size):
        raise TimeoutError


@pytest.mark.parametrize("headers, repeats", [({}, None), ({TIMEOUT_HEADER: "500"}, "false")])
def test_a_body_that_comes_too_late_is_a_408(headers, repeats, world):
    world.add("a")
    late = {"wsgi.input": _Late(), "CONTENT_LENGTH": "9"}
    answer = world.ask(headers=headers, environ_overrides=late)
    assert (answer.status_code, error(answer)["code"]) == (408, "request_timeout")
    assert answer.headers.get("x-should-retry") == repeats
    assert world.parts.open_calls.count == 0


@pytest.mark.parametrize("length", ["", "-1", "many"])
def test_a_body_without_a_usable_length_is_a_400(shared_world, length):
    answer = shared_world.ask(environ_overrides={"CONTENT_LENGTH": length})
    assert answer.status_code == 400
    assert error(answer)["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_a_body_is_read_as_json_whatever_type_it_names(world, kind):
    world.add("a")
    assert world.ask(headers={"Content-Type": kind}).status_code == 200
    assert world.received().json == CHAT


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": -1},
        {"max_tokens": "many"},
        {"n": [1]},
        {"messages": "no list"},
        {"stream": "yes"},
        {"stream_options": "yes", "stream": True},
    ],
)
def test_what_is_wrong_with_other_fields_the_upstream_says(world, fields):
    world.add("a")
    world.ask(CHAT | fields)
    sent = world.received().json
    assert {name: sent[name] for name in fields if name != "stream_options"}
    assert sum(world.asked()) == 1


def test_enormous_numbers_do_no_harm(world):
    world.add("a", max_tpm=0)
    world.simulator["a"].faults["*"] = "bad-request"
    huge = {"max_tokens": 2**64 - 1, "n": 2**64 - 1, "best_of": 10**30}
    assert world.ask(CHAT | huge).status_code == 400
    world.parts.syncer.sync()
    assert world.parts.syncer.problem is None
    assert world.state()["total_requests"] == 1


# Each request's id.


@pytest.mark.parametrize(
    "method, path",
    [
        ("POST", "/v1/chat/completions"),
        ("GET", "/v1/models"),
        ("GET", "/health"),
        ("GET", "/ready"),
        ("GET", "/nothing"),
        ("PUT", "/health"),
        ("OPTIONS", "/v1/models"),
        ("GET", "/admin/instances"),
        ("GET", "/admin/openapi.json"),
        ("GET", "/instances"),
    ],
)
def test_every_answer_has_an_id(shared_world, method, path):
    mine = shared_world.client.open(path, method=method, headers={"x-request-id": "a.B-1_:"})
    assert mine.headers.getlist("x-request-id") == ["a.B-1_:"]
    first, second = (shared_world.client.open(path, method=method) for _ in range(2))
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{16}", first.headers["x-request-id"])


@pytest.mark.parametrize("body", [CHAT, STREAM, CHAT | {"n": 0}])
def test_an_answer_of_an_upstream_has_our_id_and_not_its_own(world, body):
    world.add("a")
    answer = world.ask(body, headers={"x-request-id": "mine"})
    assert answer.headers.getlist("x-request-id") == ["mine"]
    assert answer.headers["apim-request-id"]


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "ä", 'a"b', "a=b", "a;b"])
def test_an_id_that_is_not_sane_is_replaced(shared_world, given):
    answer = shared_world.client.get("/health", headers={"x-request-id": given})
    assert re.fullmatch("[0-9a-f]{16}", answer.headers["x-request-id"])


@pytest.mark.parametrize("stream", [True, False])
def test_a_call_has_its_place_until_its_last_byte_is_out(world, stream):
    world.add("a")
    calls = world.parts.open_calls
    response = world.ask({**CHAT, "stream": stream}, buffered=False)
    assert calls.count == 1
    response.close()
    assert calls.count == 0


def test_an_answer_whose_type_was_left_out_is_json_and_not_html():
    lines = [("x-ms-region", "East")]
    openai._add_missing_type(lines, "application/json")
    assert lines == [("x-ms-region", "East"), ("content-type", "application/json")]
    openai._add_missing_type(lines, "text/event-stream")
    assert len(lines) == 2


# What a client may use.


def only(world, **fields):
    """Headers of another client that may do this."""
    with world.parts.database.session() as session:
        key = keys.add(session, "bound", fields, author=AUTHOR)
    world.parts.snapshots.reload()
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def furnished(world):
    world.add("a", supported_models=["gpt-4o", "gpt-4o-mini", "o3"])
    world.add("b", supported_models=["o3", "o1"])
    return world


def listed(world, headers):
    answer = world.client.get("/v1/models", headers=headers)
    return [row["id"] for row in answer.get_json()["data"]]


def test_a_model_that_a_key_may_not_use_is_refused_as_openai_does(furnished):
    headers = only(furnished, allowed_models=["gpt-4o*"])
    assert furnished.ask(CHAT | {"model": "GPT-4o-mini"}, headers=headers).status_code == 200
    answer = furnished.ask(CHAT | {"model": "o3"}, headers=headers)
    assert answer.status_code == 403
    assert answer.get_json()["error"] == {
        "message": "This API key may not use the model 'o3'. Ask for /v1/models to see which.",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }
    assert furnished.asked() == (1, 0)


def test_a_model_that_does_not_exist_looks_to_a_bound_key_like_one_it_may_not_use(furnished):
    headers = only(furnished, allowed_models=["gpt-4o*"])
    answers = [furnished.ask(CHAT | {"model": m}, headers=headers) for m in ("o3", "o9")]
    assert [a.get_json()["error"]["code"] for a in answers] == ["model_not_found"] * 2
    assert [a.status_code for a in answers] == [403, 403]


def test_of_two_models_in_one_body_the_one_that_is_allowed_is_passed_on(world):
    world.add("a", provider_type="openai")
    headers = only(world, allowed_models=["gpt-4o"])
    body = b'{"model":"o1","messages":[{"role":"user","content":"x"}],"model":"gpt-4o"}'
    assert world.ask(body, headers=headers).status_code == 200
    sent = json.loads(world.received().body, object_pairs_hook=list)
    assert [name for name, _ in sent] == ["messages", "model"]
    assert sent[-1] == ("model", "gpt-4o")


def test_what_is_no_json_deep_in_a_long_string_is_for_the_upstream_to_refuse(world):
    world.add("a", provider_type="openai", model_deployments={"gpt-4o": "east"})
    text = "x" * 1_200_000 + "\n"
    body = f'{{"model":"gpt-4o","messages":[{{"role":"user","content":"{text}"}}]}}'
    assert world.ask(body.encode()).status_code == 400


@pytest.mark.parametrize("name", ["Model", "MODEL"])
@pytest.mark.parametrize(
    "bound",
    [{"allowed_models": ["gpt-4o"]}, {"max_cost_per_day": 9}, {"max_cost_per_month": 9}],
)
def test_no_other_spelling_of_model_passes_a_key_that_may_not_use_all(name, bound, furnished):
    body = CHAT | {"model": "gpt-4o", name: "o3"}
    answer = furnished.ask(body, headers=only(furnished, **bound))
    assert answer.status_code == 400
    assert answer.get_json()["error"]["param"] == name
    assert furnished.ask(body).status_code == 200  # who may use all may say what they like


def test_the_model_of_azures_path_is_the_one_that_counts(furnished):
    headers = only(furnished, allowed_models=["gpt-4o"])
    path = "/openai/deployments/{}/chat/completions?api-version=2024-10-21"
    body = CHAT | {"model": "gpt-4o"}
    assert furnished.ask(body, path=path.format("o3"), headers=headers).status_code == 403
    assert furnished.ask(body, path=path.format("gpt-4o"), headers=headers).status_code == 200


@pytest.mark.parametrize(
    "fields, models",
    [
        ({}, ["gpt-4o", "gpt-4o-mini", "o1", "o3"]),
        ({"allowed_models": ["gpt-4o*"]}, ["gpt-4o", "gpt-4o-mini"]),
        ({"allowed_models": ["o1", "O3"]}, ["o1", "o3"]),
        ({"allowed_instances": ["b"]}, ["o1", "o3"]),
        ({"allowed_instances": ["b"], "allowed_models": ["gpt*", "o3"]}, ["o3"]),
    ],
)
def test_models_are_those_the_key_may_use(furnished, fields, models):
    headers = only(furnished, **fields)
    assert listed(furnished, headers) == models
    for model in ("gpt-4o", "gpt-4o-mini", "o1", "o3"):
        answer = furnished.client.get(f"/v1/models/{model}", headers=headers)
        assert answer.status_code == (200 if model in models else 404)
        if model not in models:
            unknown = furnished.client.get("/v1/models/nobodys", headers=headers)
            assert answer.text.replace(model, "nobodys") == unknown.text


def test_a_client_is_served_by_its_instances_alone(furnished):
    headers = only(furnished, allowed_instances=["b"])
    for _ in range(3):
        assert furnished.ask(CHAT | {"model": "o3"}, headers=headers).status_code == 200
    assert furnished.asked() == (0, 3)
    answer = furnished.ask(CHAT, headers=headers)
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (403, "model_not_found")
    assert "No instance that this API key may use serves 'gpt-4o'." in answer.text
    unknown = furnished.ask(CHAT | {"model": "nobodys"}, headers=headers)
    assert unknown.status_code == 403
    assert unknown.text.replace("nobodys", "gpt-4o") == answer.text


# What Azure adds to OpenAI's answers.


@pytest.mark.parametrize("body", [CHAT, STREAM, STREAM | {"n": 2}])
def test_a_client_that_trips_over_what_azure_adds_gets_openais_shapes(furnished, body):
    headers = only(furnished, compat="openai_strict")
    raw = furnished.ask(body)
    strict = furnished.ask(body, headers=headers)
    assert b"content_filter" in raw.data
    assert b"prompt_filter" in raw.data
    assert b"filter" not in strict.data
    assert b'"choices":[]' not in strict.data
    for text in ("Hello", '"finish_reason":"stop"'):
        assert strict.text.count(text) == raw.text.replace('": "', '":"').count(text)
    assert ("data: [DONE]" in strict.text) is (body is not CHAT)


def test_a_strict_client_gets_the_usage_it_asked_for(furnished):
    body = STREAM | {"stream_options": {"include_usage": True}}
    answer = furnished.ask(body, headers=only(furnished, compat="openai_strict"))
    events = [json.loads(e[6:]) for e in answer.text.split("\n\n")[:-2]]
    assert [bool(e["choices"]) for e in events] == [True] * (len(events) - 1) + [False]
    assert events[-1]["usage"]["prompt_tokens"] > 0


def test_an_embedding_is_the_same_to_a_strict_client(furnished):
    body = {"model": "gpt-4o", "input": ["a"]}
    headers = only(furnished, compat="openai_strict")
    raw = furnished.ask(body, path="/v1/embeddings")
    assert furnished.ask(body, path="/v1/embeddings", headers=headers).data == raw.data


# What official clients would repeat, though it is in vain.


def test_what_a_person_has_to_mend_is_not_to_be_tried_again(world):
    world.add("a", enabled=False)
    disabled = world.ask()
    world.add("b")
    world.simulator["b"].faults["*"] = "401"
    refused = world.ask()
    for answer, status in ((disabled, 503), (refused, 502)):
        assert answer.status_code == status
        assert answer.headers["x-should-retry"] == "false"


def test_what_may_pass_says_nothing_of_it(world):
    world.add("a")
    world.simulator["a"].faults["*"] = "429"
    answer = world.ask()
    assert answer.status_code == 429
    assert "x-should-retry" not in answer.headers


# Forms with files, and images.

SOUND = b"RIFF" + bytes(range(256)) * 40
FORMS = ("images/edits", "audio/transcriptions", "audio/translations")


def form(fields=(("model", MODEL), ("prompt", "Say it")), files=(("file", SOUND),)):
    """A body and its content type."""
    named = [(name, ("a.wav", data)) for name, data in files]
    body, content_type = encode_multipart_formdata(
        [*fields, *named, ("image", ("a.png", b"x"))]
    )
    return body, {"Content-Type": content_type}


@pytest.mark.parametrize("operation", FORMS)
@pytest.mark.parametrize("provider", UPSTREAMS)
@pytest.mark.parametrize("style", PATH_STYLES)
def test_a_form_reaches_every_kind_of_upstream(world, style, provider, operation):
    world.add("a", provider_type=provider, model_deployments={MODEL: "east"})
    body, told = form()
    answer = world.ask(body, PATH_STYLES[style].format(operation), told)
    assert answer.status_code == 200, answer.text
    received = world.received()
    path, query = UPSTREAMS[provider]
    assert (received.path, received.query) == (path.format(operation), query)
    assert received.headers["content-type"] == told["Content-Type"]
    renamed = b"\r\n\r\neast\r\n"
    if provider != "azure":
        body = body.replace(b"\r\n\r\n" + MODEL.encode() + b"\r\n", renamed)
        assert renamed in body
    assert received.body == body


@pytest.mark.parametrize("provider", UPSTREAMS)
def test_images_are_made_by_every_kind_of_upstream(world, provider):
    world.add("a", provider_type=provider)
    asked = {"model": MODEL, "prompt": "A cat", "n": 2}
    answer = world.ask(asked, "/v1/images/generations")
    assert answer.get_json()["usage"] == image_usage(asked)
    assert tokens_served(world) == image_usage(asked)["total_tokens"]


def test_a_form_without_a_model_goes_by_its_path(world):
    world.add("a", provider_type="openai", model_deployments={MODEL: "east"})
    body, told = form(fields=())
    path = f"/openai/deployments/{MODEL}/audio/transcriptions"
    assert world.ask(body, path, told).status_code == 200
    assert world.received().body.endswith(body)
    assert uploads.parsed(world.received().body, told["Content-Type"])["model"] == "east"


def test_a_transcript_is_counted_as_the_upstream_says(world):
    world.add("a")
    body, told = form()
    assert world.ask(body, "/v1/audio/transcriptions", told).status_code == 200
    used = sound_usage({"prompt": "Say it", "file": SOUND, "image": b"x"}, TOKENS)
    assert tokens_served(world) == used["total_tokens"] > TOKENS


def test_a_transcript_that_is_text_is_passed_on_and_estimated(world):
    world.add("a")
    fields = [("model", MODEL), ("response_format", "srt")]
    body, told = form(fields)
    answer = world.ask(body, "/v1/audio/translations", told)
    assert (answer.content_type, answer.data[:5]) == ("text/plain; charset=utf-8", b"1\n00:")
    sound = (len(SOUND) + 1) // 1000
    assert tokens_served(world) == 1 + sound + len(answer.data) // 4


def test_a_transcript_may_be_streamed(world):
    world.add("a")
    body, told = form([("model", MODEL), ("stream", "true")])
    answer = world.ask(body, "/v1/audio/transcriptions", told)
    assert answer.content_type == "text/event-stream"
    events = [json.loads(e[6:]) for e in answer.text.split("\n\n") if e]
    assert events[-1]["type"] == "transcript.text.done"
    assert world.received().body == body  # of which no usage is asked for
    assert tokens_served(world) == events[-1]["usage"]["total_tokens"]


def test_images_may_be_streamed(world):
    world.add("a", provider_type="azure_v1")
    asked = {"model": MODEL, "prompt": "A cat", "stream": True, "partial_images": 1}
    answer = world.ask(asked, "/v1/images/generations")
    assert answer.text.count("event: image_generation.") == 2
    assert world.received().json == asked
    assert tokens_served(world) == image_usage(asked)["total_tokens"]


def test_a_form_is_asked_of_another_instance_when_one_fails(world):
    world.add("a", priority=1, provider_type="azure_v1", model_deployments={MODEL: "east"})
    world.add("b", priority=2, provider_type="azure_v1", model_deployments={MODEL: "west"})
    world.simulator["a"].faults["*"] = "500"
    body, told = form(files=[("file", bytes(3_000_000))])
    assert world.ask(body, "/v1/audio/transcriptions", told).status_code == 200
    for name, deployment in (("a", b"east"), ("b", b"west")):
        old, new = (b"\r\n\r\n%s\r\n" % m for m in (MODEL.encode(), deployment))
        assert world.received(name).body == body.replace(old, new)


@pytest.mark.parametrize(
    "operation, fields, files, least, most",
    [
        # A thousand bytes of sound a token, and a fifth as many for what is said.
        ("audio/transcriptions", [], [("file", bytes(100_000))], 120, 125),
        # The size of an image nobody can tell, and one that is made.
        ("images/edits", [("quality", "low"), ("n", "2")], [], 765 + 2 * 272, 765 + 550),
        ("images/edits", [], [("image", PNG)], 255 + 765 + 1056, 255 + 765 + 1060),
    ],
)
def test_what_a_form_needs_is_held_until_it_is_known(
    world, monkeypatch, operation, fields, files, least, most
):
    world.add("a")
    seen = []
    monkeypatch.setattr(
        world.parts.forward, "forward", lambda call, *_: seen.append(call) or 1 / 0
    )
    body, told = form([("model", MODEL), *fields], files)
    assert world.ask(body, f"/v1/{operation}", told).status_code == 500
    assert least <= seen[0].reserved_tokens <= most


@pytest.mark.parametrize("kind", ["application/jsonx", "application/json, multipart/form-data"])
def test_what_only_resembles_json_is_no_json(shared_world, kind):
    answer = shared_world.ask({"model": MODEL}, "/v1/images/edits", {"Content-Type": kind})
    assert error(answer)["param"] == "Content-Type"


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/v1/images/edits"])
@pytest.mark.parametrize(
    "body, told, message, param",
    [
        (b"", {}, "The request has no body; a form (multipart/form-data) is needed.", None),
        (
            b"a=b",
            {},
            "Content-Type: must be multipart/form-data with one boundary.",
            "Content-Type",
        ),
        (
            b"a=b",
            {"Content-Type": "multipart/form-data; boundary=x"},
            "The form does not",
            None,
        ),
        (*form([]), "model: the field is missing.", "model"),
        (*form([("model", "")]), "model: must have 1 to 200 characters, not 0.", "model"),
        (*form([("model", "a"), ("model", "b")]), "model: stands in the form more", "model"),
    ],
)
def test_a_form_that_cannot_be_understood_is_refused(
    shared_world, path, body, told, message, param
):
    answer = shared_world.ask(body, path, {"Content-Type": "application/x-url"} | told)
    assert answer.status_code == 400
    assert error(answer)["message"].startswith(message)
    assert error(answer)["param"] == param


def test_a_form_may_name_only_the_models_that_a_key_may_use(world):
    world.add("a")
    key = world.add_client("other", allowed_models=["gpt-4o"])
    for fields, status in (
        ([("model", MODEL)], 200),
        ([("model", "gpt-5")], 403),
        ([("model", MODEL), ("Model", "gpt-5")], 400),
    ):
        body, told = form(fields)
        asked = world.ask(
            body, "/v1/audio/transcriptions", told | {"Authorization": f"Bearer {key}"}
        )
        assert asked.status_code == status


def test_a_recording_is_sent_in_a_form_only(shared_world):
    answer = shared_world.ask({"model": MODEL, "file": "x"}, "/v1/audio/transcriptions")
    assert error(answer)["param"] == "Content-Type"
    assert error(answer)["message"].startswith("Content-Type: must be multipart/form-data")


def test_who_sends_no_image_as_a_file_may_send_json(world):
    world.add("a", provider_type="azure_v1", model_deployments={MODEL: "east"})
    asked = {"model": MODEL, "prompt": "A cat", "images": [{"image_url": "https://a/b.png"}]}
    answer = world.ask(asked, "/v1/images/edits")
    assert error(answer)["param"] == "image"  # says the upstream, which takes files only
    assert world.received().json == asked | {"model": "east"}


def test_calls_with_files_have_nothing_in_common_to_stick_to(make_world):
    world = make_world(policy="sticky")
    world.add("a")
    seen = []
    world.parts.forward.forward = lambda call, *_: seen.append(call.affinity) or 1 / 0
    for _ in range(2):
        body, told = form()
        world.ask(body, "/v1/audio/transcriptions", told)
    assert len(set(seen)) == 2


SAY = {"model": MODEL, "input": "Good morning", "voice": "alloy"}


@pytest.mark.parametrize("provider", UPSTREAMS)
@pytest.mark.parametrize("style", PATH_STYLES)
def test_speech_comes_from_every_kind_of_upstream(world, style, provider):
    world.add("a", provider_type=provider, model_deployments={MODEL: "east"})
    answer = world.ask(SAY, PATH_STYLES[style].format("audio/speech"))
    assert (answer.status_code, answer.content_type) == (200, "audio/mpeg")
    assert answer.data == TOKENS * media.MP3
    named = MODEL if provider == "azure" else "east"
    assert world.received().json == SAY | {"model": named}
    assert world.received().path == UPSTREAMS[provider][0].format("audio/speech")


def test_speech_is_passed_on_as_it_comes_and_counts_by_its_bytes(world):
    world.add("a")
    world.simulator["a"].event_interval_ms = 2
    answer = world.ask(SAY, "/v1/audio/speech", buffered=False)
    pieces = list(answer.iter_encoded())
    assert (len(pieces) > 1, b"".join(pieces)) == (True, TOKENS * media.MP3)
    answer.close()
    sound_tokens = TOKENS * len(media.MP3) // 1000
    assert sound_tokens < tokens_served(world) < sound_tokens + 6


def test_speech_as_events_says_what_it_used(world):
    world.add("a")
    answer = world.ask(SAY | {"stream_format": "sse"}, "/v1/audio/speech")
    assert answer.content_type == "text/event-stream"
    last = json.loads(answer.text.split("\n\n")[-2][6:])
    assert last["type"] == "speech.audio.done"
    assert tokens_served(world) == last["usage"]["total_tokens"]


def test_speech_that_breaks_off_is_cut_and_no_word_is_put_into_it(world):
    world.add("a")
    world.simulator["a"].faults["*"] = "break-in-middle"
    answer = world.ask(SAY, "/v1/audio/speech", buffered=False)
    got = []
    with pytest.raises(StreamBroken):
        got.extend(answer.iter_encoded())
    answer.close()
    assert b"".join(got) == 3 * media.MP3


@pytest.mark.parametrize(
    "fault", ["500", "error-event", "break-before-first-event", "502-html"]
)
def test_speech_is_asked_of_another_instance_while_nothing_was_said(world, fault):
    world.add("a", priority=1)
    world.add("b", priority=2)
    world.simulator["a"].faults["*"] = fault
    answer = world.ask(SAY, "/v1/audio/speech")
    assert (answer.status_code, answer.data) == (200, TOKENS * media.MP3)
    assert world.asked() == (1, 1)


def test_speech_that_cannot_be_is_told_by_the_upstream(world):
    world.add("a")
    answer = world.ask(SAY | {"input": ""}, "/v1/audio/speech")
    assert (answer.status_code, error(answer)["param"]) == (400, "input")


@pytest.mark.parametrize(
    "given",
    ["application/json; charset=utf-7", "application/json; charset=utf-8", "text/plain"],
)
def test_a_body_goes_on_as_the_json_that_it_was_read_as(world, given):
    """Or an upstream that goes by the charset could find another model in it."""
    world.add()
    assert world.ask(headers={"Content-Type": given}).status_code == 200
    assert world.received().headers["content-type"] == "application/json"
