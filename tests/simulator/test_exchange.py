"""Whole requests over real sockets: what a healthy resource does, then every fault."""

import json

import openai
import pytest
import requests

from proxy.simulator import FAULTS, Resource, expected_usage

CHAT = {"messages": [{"role": "user", "content": "How are you today?"}]}
CLASSIC = "/openai/deployments/{}/{}?api-version=2024-10-21"
KEY = {"api-key": "k"}


def post(resource, body=CHAT, deployment="gpt-4o", operation="chat/completions", **options):
    url = resource.url + CLASSIC.format(deployment, operation)
    return requests.post(url, json=body, timeout=5, **options)


def sse(response):
    return [line for line in response.text.split("\n\n") if line]


# --- healthy


def test_an_answer_of_azure_carries_azures_headers(resource):
    response = post(resource, headers={"x-ms-client-request-id": "mine"})
    assert response.status_code == 200
    assert response.headers["x-ms-region"] == "East US"
    assert response.headers["x-ms-client-request-id"] == "mine"
    assert response.headers["x-ratelimit-remaining-tokens"].isdecimal()
    assert {"apim-request-id", "azureml-model-session"} <= set(response.headers)


def test_a_plain_openai_answer_has_nothing_of_azure(resource):
    response = requests.post(
        f"{resource.url}/v1/chat/completions", json={**CHAT, "model": "m"}, timeout=5
    )
    assert response.json()["model"] == "m"
    assert {name.lower() for name in response.headers} == {"content-type", "content-length"}
    assert "filter" not in response.text


@pytest.mark.parametrize("depth", [400, 900, 990, 20_000])
def test_a_body_nested_too_deeply_is_the_clients_mistake(resource, depth):
    nested = "[" * depth + "]" * depth
    body = f'{{"messages": [{{"role": "user", "content": {nested}}}]}}'
    url = resource.url + CLASSIC.format("gpt-4o", "chat/completions")
    response = requests.post(url, data=body, timeout=5)
    assert response.status_code == (200 if depth == 400 else 400)


@pytest.mark.parametrize(
    "path, model",
    [
        ("/openai/deployments/my%20chat%2F1/chat/completions?api-version=1", "ignored"),
        ("/openai/v1/chat/completions", "my chat/1"),
        ("/v1/chat/completions", "my chat/1"),
    ],
)
def test_a_deployment_is_found_in_path_or_body(started, path, model):
    resource = started(Resource("a", deployments={"my chat/1"}))["a"]
    body = {**CHAT, "model": model}
    assert requests.post(resource.url + path, json=body, timeout=5).status_code == 200


@pytest.mark.parametrize(
    "path, headers, body, status, code",
    [
        (CLASSIC.format("gpt-4o", "chat/completions"), {}, CHAT, 401, "401"),
        (CLASSIC.format("gpt-4o", "chat/completions"), {"api-key": "x"}, CHAT, 401, "401"),
        (CLASSIC.format("other", "chat/completions"), KEY, CHAT, 404, "DeploymentNotFound"),
        ("/openai/v1/chat/completions", KEY, {**CHAT, "model": "x"}, 404, "DeploymentNotFound"),
        ("/openai/deployments/gpt-4o/chat/completions", KEY, CHAT, 404, "404"),
        ("/somewhere", KEY, CHAT, 404, "404"),
        (CLASSIC.format("gpt-4o", "chat/completions"), KEY, {}, 400, None),
        ("/openai/v1/chat/completions", KEY, [], 400, None),
    ],
)
def test_what_is_wrong_with_a_request_is_said_as_azure_says_it(
    started, path, headers, body, status, code
):
    resource = started(Resource("a", api_key="k", deployments={"gpt-4o"}))["a"]
    response = requests.post(resource.url + path, json=body, headers=headers, timeout=5)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


def test_stream_options_are_refused_as_old_api_versions_did(started):
    resource = started(Resource("a", refuses_stream_options=True))["a"]
    options = {"stream": True, "stream_options": {"include_usage": True}}
    assert post(resource, CHAT | {"stream": True}).status_code == 200
    assert post(resource, CHAT | options).status_code == 400


def test_over_the_limit_is_a_429_that_says_when_to_come_back(started):
    resource = started(Resource("a", tokens_per_minute=100))["a"]
    assert post(resource, CHAT | {"max_tokens": 80}).status_code == 200
    response = post(resource, CHAT | {"max_tokens": 80})
    assert response.status_code == 429
    assert 59_000 < int(response.headers["retry-after-ms"]) <= 60_000
    assert response.headers["retry-after"] == "60"
    assert response.headers["x-ratelimit-remaining-tokens"] == "15"
    assert "Please retry after 60 seconds." in response.json()["error"]["message"]


def test_the_same_429_without_azures_headers_on_the_plain_path(started):
    resource = started(Resource("a", requests_per_minute=1))["a"]
    url, body = f"{resource.url}/v1/chat/completions", {**CHAT, "model": "m"}
    codes = [requests.post(url, json=body, timeout=5) for _ in range(2)]
    assert [response.status_code for response in codes] == [200, 429]
    assert codes[1].headers["retry-after"] == "60"
    assert "x-ratelimit-limit-requests" not in codes[1].headers


def test_a_stream_is_sent_event_by_event_and_counted_while_it_lasts(started):
    resource = started(Resource("a", event_interval_ms=5, tokens=5))["a"]
    response = post(resource, CHAT | {"stream": True}, stream=True)
    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["transfer-encoding"] == "chunked"
    chunks = list(response.iter_content(None))
    assert len(chunks) == len(b"".join(chunks).split(b"\n\n")) - 1
    assert chunks[-1] == b"data: [DONE]\n\n"
    assert resource.wait_for(lambda r: r.open_streams == 0)
    assert resource.aborted == 0


def test_a_peer_that_leaves_a_stream_is_noticed_while_nothing_is_sent(started):
    resource = started(Resource("a", event_interval_ms=60_000))["a"]
    response = post(resource, CHAT | {"stream": True}, stream=True)
    assert resource.open_streams == 1
    response.close()
    assert resource.wait_for(lambda r: r.aborted == 1 and r.open_streams == 0, 1)


def test_a_peer_that_leaves_before_the_head_is_noticed(started):
    resource = started(Resource("a", latency_ms=60_000))["a"]
    with pytest.raises(requests.ReadTimeout):
        requests.post(f"{resource.url}/v1/chat/completions", json=CHAT, timeout=(5, 0.05))
    assert resource.wait_for(lambda r: r.aborted == 1, 1)


def test_latency_is_before_the_first_byte(started):
    resource = started(Resource("a", latency_ms=30))["a"]
    assert post(resource).elapsed.total_seconds() >= 0.03


@pytest.mark.parametrize(
    "path", ["/v1/models", "/openai/v1/models", "/openai/models?api-version=1"]
)
def test_models_are_listed(resource, path):
    body = requests.get(resource.url + path, timeout=5).json()
    assert "gpt-4o" in [row["id"] for row in body["data"]]


# --- with the official client


def clients(resource):
    """The official client in each of the three styles."""
    options = {"api_key": "k", "max_retries": 0, "timeout": 5}
    return [
        openai.AzureOpenAI(azure_endpoint=resource.url, api_version="2024-10-21", **options),
        openai.OpenAI(base_url=f"{resource.url}/openai/v1", **options),
        openai.OpenAI(base_url=f"{resource.url}/v1", **options),
    ]


@pytest.fixture(params=["azure", "azure_v1", "openai"])
def client(request, started):
    resource = started(Resource("east-us", api_key="k"))["east-us"]
    by_style = dict(zip(["azure", "azure_v1", "openai"], clients(resource), strict=True))
    with by_style[request.param] as client:
        yield client
    for other in by_style.values():
        other.close()


def test_the_official_client_reads_a_chat_answer(client):
    answer = client.chat.completions.create(model="gpt-4o", **CHAT)
    assert answer.choices[0].message.content.startswith(
        "Hello from east-us, deployment gpt-4o."
    )
    assert answer.usage.to_dict() == expected_usage(CHAT)


def test_the_official_client_reads_a_stream(client):
    with client.chat.completions.create(
        model="gpt-4o", stream=True, stream_options={"include_usage": True}, **CHAT
    ) as stream:
        chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text.startswith("Hello from east-us, deployment gpt-4o.")
    assert chunks[-1].usage.to_dict() == expected_usage(CHAT)


def test_the_official_client_reads_completions(client):
    answer = client.completions.create(model="gpt-4o", prompt="Hello", max_tokens=3)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (
        "Hello from east-us,",
        "length",
    )
    with client.completions.create(model="gpt-4o", prompt="Hello", stream=True) as stream:
        assert "".join(c.choices[0].text for c in stream if c.choices).startswith("Hello from")


def test_the_official_client_reads_embeddings_in_both_encodings(client):
    encoded = client.embeddings.create(model="e", input=["a", "b"])  # it asks for base64
    floats = client.embeddings.create(model="e", input=["a", "b"], encoding_format="float")
    assert [len(row.embedding) for row in encoded.data] == [8, 8]
    for one, other in zip(encoded.data, floats.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding)


def test_the_official_client_knows_a_429_when_it_sees_one(resource):
    resource.faults["gpt-4o"] = "429"
    for client in clients(resource):
        with client, pytest.raises(openai.RateLimitError):
            client.chat.completions.create(model="gpt-4o", **CHAT)


# --- faults

ERRORS = {
    # name: status, part of the body, headers that matter
    "429": (429, "Please retry after 2 seconds", {"retry-after": "2", "retry-after-ms": None}),
    "429-ms": (429, '"429"', {"retry-after": "2", "retry-after-ms": "1500"}),
    "429-reset": (429, '"429"', {"x-ratelimit-reset-tokens": "2", "retry-after": None}),
    "401": (401, "invalid subscription key", {}),
    "403": (403, "Virtual Network/Firewall", {}),
    "404": (404, "DeploymentNotFound", {}),
    "404-path": (404, "Resource not found", {}),
    "408": (408, "Timeout", {}),
    "504": (504, "Timeout", {}),
    "500": (500, "InternalServerError", {}),
    "500-flat": (500, '"statusCode": 500', {}),
    "503-text": (503, "upstream connect error", {"content-type": "text/plain"}),
    "502-html": (502, "<html>", {"content-type": "text/html"}),
    "content-filter": (400, "ResponsibleAIPolicyViolation", {}),
    "context-length": (400, "context_length_exceeded", {}),
    "bad-request": (400, "unsupported_parameter", {}),
    "redirect": (302, "", {"location": "/redirected"}),
    "empty": (200, "", {"content-length": "0"}),
}
BEHAVIOURS = {
    "hang",
    "break-before-head",
    "break-before-first-event",
    "break-before-content",
    "stall-before-content",
    "error-before-content",
    "break-in-middle",
    "stall-in-middle",
    "error-event",
    "slow-head",
}


def test_every_fault_is_tried_below():
    assert set(ERRORS) | BEHAVIOURS == set(FAULTS)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name, expected", ERRORS.items(), ids=list(ERRORS))
def test_a_fault_that_is_an_answer(resource, name, expected, stream):
    status, text, headers = expected
    response = post(
        resource, CHAT | {"stream": stream}, f"gpt-4o-fault-{name}", allow_redirects=False
    )
    assert response.status_code == status
    assert text in response.text
    assert {name: response.headers.get(name) for name in headers} == headers
    assert [r.path.rpartition("/")[2] for r in resource.requests] == ["completions"]


def test_a_fault_set_at_run_time_ends_when_it_is_removed(resource):
    resource.faults["gpt-4o"] = "500"
    assert post(resource).status_code == 500
    del resource.faults["gpt-4o"]
    assert post(resource).status_code == 200


def test_a_counted_fault_concerns_so_many_requests(resource):
    resource.faults["gpt-4o"] = "500*2"
    assert [post(resource).status_code for _ in range(3)] == [500, 500, 200]


def test_the_star_concerns_every_request(resource):
    resource.faults["*"] = "503-text"
    assert post(resource).status_code == 503
    assert requests.get(f"{resource.url}/v1/models", timeout=5).status_code == 503


def test_a_v1_deployments_fault_goes_by_the_model_of_the_body(resource):
    body = {**CHAT, "model": "fault-403"}
    url = f"{resource.url}/openai/v1/chat/completions"
    assert requests.post(url, json=body, timeout=5).status_code == 403


@pytest.mark.parametrize("stream", [False, True])
def test_hang_sends_nothing_until_the_peer_leaves(resource, stream):
    with pytest.raises(requests.ReadTimeout):
        requests.post(
            f"{resource.url}/v1/chat/completions",
            json=CHAT | {"model": "fault-hang", "stream": stream},
            timeout=(5, 0.05),
        )
    assert resource.wait_for(lambda r: r.aborted == 1, 1)


def raw_answer(resource, raw, fault, *, stream, is_enough):
    """Head and body of what comes, and whether the connection is "open" after it.

    Read until `is_enough(body)` or the end; then a moment longer, for what may not come.
    """
    sent = json.dumps(CHAT | {"model": f"fault-{fault}", "stream": stream}).encode()
    start = b"POST /openai/v1/chat/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n"
    peer = raw(resource, start % len(sent) + sent)
    came = b""
    try:
        while True:
            head, _, body = came.partition(b"\r\n\r\n")
            peer.settimeout(0.05 if is_enough(body) else 5)
            if not (part := peer.recv(65536)):
                return head, body, "closed"
            came += part
    except TimeoutError:
        return head, body, "open"


@pytest.mark.parametrize(
    "fault, stream, status, events, end",
    [
        ("break-before-head", False, b"", 0, "closed"),
        ("break-before-head", True, b"", 0, "closed"),
        ("break-before-first-event", False, b"HTTP/1.1 200 OK", 0, "closed"),
        ("break-before-first-event", True, b"HTTP/1.1 200 OK", 0, "closed"),
        # Azure's first event, and who speaks.
        ("break-before-content", True, b"HTTP/1.1 200 OK", 2, "closed"),
        ("stall-before-content", True, b"HTTP/1.1 200 OK", 2, "open"),
        ("error-before-content", True, b"HTTP/1.1 200 OK", 3, "open"),
        ("break-before-content", False, b"", 0, "closed"),
        ("break-in-middle", True, b"HTTP/1.1 200 OK", 3, "closed"),
        ("stall-in-middle", True, b"HTTP/1.1 200 OK", 3, "open"),
        ("hang", False, b"", 0, "open"),
        ("hang", True, b"", 0, "open"),
        # The stream is complete, so the connection is kept.
        ("error-event", True, b"HTTP/1.1 200 OK", 4, "open"),
    ],
)
def test_how_far_a_broken_answer_gets(resource, raw, fault, stream, status, events, end):
    def is_enough(body):
        return end == "open" and body.count(b"data: ") == events

    head, body, ended = raw_answer(resource, raw, fault, stream=stream, is_enough=is_enough)
    assert head.partition(b"\r\n")[0] == status
    assert (body.count(b"data: "), ended) == (events, end)
    assert b"[DONE]" not in body
    assert body.endswith(b"\r\n0\r\n\r\n") is fault.startswith("error-")
    assert resource.aborted == 0


@pytest.mark.parametrize(
    "fault, end", [("break-in-middle", "closed"), ("stall-in-middle", "open")]
)
def test_half_of_a_plain_answer(resource, raw, fault, end):
    full = len(post(resource, CHAT, "gpt-4o").content)
    head, body, ended = raw_answer(
        resource, raw, fault, stream=False, is_enough=lambda body: len(body) > full // 3
    )
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    assert (len(body), ended) == (length // 2, end)


def test_an_error_inside_a_stream_comes_after_some_text(resource):
    response = post(resource, CHAT | {"stream": True}, "fault-error-event")
    assert response.status_code == 200
    assert (
        json.loads(sse(response)[-1].removeprefix("data: "))["error"]["type"] == "server_error"
    )


def test_an_error_inside_a_stream_is_a_500_where_there_is_no_stream(resource):
    assert post(resource, CHAT, "fault-error-event").status_code == 500


@pytest.mark.parametrize("stream", [False, True])
def test_a_stall_ends_when_the_peer_leaves(resource, stream):
    response = post(resource, CHAT | {"stream": stream}, "fault-stall-in-middle", stream=True)
    response.close()
    assert resource.wait_for(lambda r: r.aborted == 1 and r.open_streams == 0, 1)


def test_a_slow_head_is_two_seconds_later(resource):
    assert FAULTS["slow-head"].delay_seconds == 2
    with pytest.raises(requests.ReadTimeout):
        requests.post(
            f"{resource.url}/v1/chat/completions",
            json=CHAT | {"model": "fault-slow-head"},
            timeout=(5, 0.05),
        )
