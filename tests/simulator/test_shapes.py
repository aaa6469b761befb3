import base64
import json
import struct

import pytest

from proxy.simulator import shapes
from proxy.simulator.asks import Ask, expected_usage

VOICE = shapes.Voice("east-us", tokens=8, id="1", created=1700000000)
MESSAGES = [{"role": "user", "content": "How are you today?"}]


def ask(style="azure", operation="chat/completions", deployment="gpt-4o", **body):
    body = ({"messages": MESSAGES} if operation == "chat/completions" else {}) | body
    return Ask(style, operation, deployment, body)


def streamed(request, voice=VOICE):
    """The events read as JSON, without the last, which is not."""
    lines = [event.decode() for event in shapes.events(request, voice)]
    assert all(line.startswith("data: ") and line.endswith("\n\n") for line in lines)
    assert lines[-1] == "data: [DONE]\n\n"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_a_chat_answer_of_azure_tells_text_filter_results_and_usage():
    answer = shapes.whole(ask(), VOICE)
    (choice,) = answer["choices"]
    assert choice["message"]["content"].startswith("Hello from east-us, deployment gpt-4o.")
    assert choice["finish_reason"] == "stop"
    assert choice["content_filter_results"]["hate"] == {"filtered": False, "severity": "safe"}
    assert "jailbreak" in answer["prompt_filter_results"][0]["content_filter_results"]
    assert (answer["object"], answer["model"]) == ("chat.completion", "gpt-4o-2024-11-20")
    assert answer["usage"] == expected_usage({"messages": MESSAGES}, tokens=8)


@pytest.mark.parametrize("operation", ["chat/completions", "completions"])
def test_plain_openai_has_no_filter_results_anywhere(operation):
    request = ask("openai", operation, stream=True)
    assert "filter" not in json.dumps(shapes.whole(request, VOICE))
    assert "filter" not in json.dumps(streamed(request))


@pytest.mark.parametrize(
    "style, operation, deployment, model",
    [
        ("azure", "chat/completions", "gpt-4o", "gpt-4o-2024-11-20"),
        ("azure", "chat/completions", "gpt-4o-mini-eu", "gpt-4o-mini-2024-07-18"),
        ("azure_v1", "chat/completions", "our-chat", "gpt-4o-2024-11-20"),
        ("azure", "embeddings", "our-vectors", "text-embedding-3-small"),
        ("openai", "chat/completions", "our-chat", "our-chat"),
    ],
)
def test_azures_model_is_dated_and_not_the_deployment(style, operation, deployment, model):
    assert shapes.dated_model(ask(style, operation, deployment)) == model


@pytest.mark.parametrize(
    "maximum, words, finish",
    [(None, 8, "stop"), (8, 8, "stop"), (7, 7, "length"), (1, 1, "length")],
)
def test_a_maximum_cuts_the_text_and_says_so(maximum, words, finish):
    (choice,) = shapes.whole(ask(max_tokens=maximum), VOICE)["choices"]
    assert len(choice["message"]["content"].split()) == words
    assert choice["finish_reason"] == finish


def test_choices_are_as_many_as_asked_for():
    assert [c["index"] for c in shapes.whole(ask(n=3), VOICE)["choices"]] == [0, 1, 2]
    completions = ask(operation="completions", prompt=["a", "b"], n=2)
    assert len(shapes.whole(completions, VOICE)["choices"]) == 4


def test_a_stream_of_azure_goes_preamble_role_words_end():
    preamble, role, *words, end = streamed(ask(stream=True))
    assert (preamble["choices"], preamble["model"]) == ([], "")
    assert "prompt_filter_results" in preamble
    assert role["choices"][0]["delta"]["role"] == "assistant"
    assert len(words) == 8
    assert end["choices"][0]["delta"] == {}
    assert end["choices"][0]["finish_reason"] == "stop"
    assert not any("usage" in event for event in (preamble, role, *words, end))


@pytest.mark.parametrize("operation", ["chat/completions", "completions"])
@pytest.mark.parametrize("style", ["azure", "azure_v1", "openai"])
def test_streamed_or_whole_the_text_is_the_same(style, operation):
    request = ask(style, operation, stream=True, n=2)
    texts = {0: "", 1: ""}
    for event in streamed(request):
        for choice in event["choices"]:
            said = choice.get("delta", {}).get("content") or choice.get("text") or ""
            texts[choice["index"]] += said
    whole = shapes.whole(request, VOICE)["choices"]
    expected = [c["text"] if "text" in c else c["message"]["content"] for c in whole]
    assert list(texts.values()) == expected


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 3}},
    "required": ["city", "days"],
}
FITTING = {"city": "text", "days": 3}
FORMAT = {"type": "json_schema", "json_schema": {"name": "trip", "schema": SCHEMA}}
FUNCTION = {"name": "plan", "parameters": SCHEMA}
TOOL = {"tools": [{"type": "function", "function": FUNCTION}], "tool_choice": "required"}
LEGACY = {"functions": [FUNCTION], "function_call": {"name": "plan"}}


def joined(events):
    """Of each choice: what its deltas say, the name of its function, and why it ends."""
    said = {}
    for choice in (choice for event in events for choice in event["choices"]):
        delta, mine = choice["delta"], said.setdefault(choice["index"], ["", "", None])
        call = delta.get("function_call") or {}
        for each in delta.get("tool_calls", ()):
            assert each["index"] == 0
            call = each["function"]
        mine[0] += delta.get("content") or call.get("arguments", "")
        mine[1] += call.get("name", "")
        mine[2] = choice["finish_reason"] or mine[2]
    return said


def test_an_answer_in_json_fits_its_schema_whole_and_streamed():
    request = ask(response_format=FORMAT, n=2)
    answer = shapes.whole(request, VOICE)
    assert [json.loads(c["message"]["content"]) for c in answer["choices"]] == [FITTING] * 2
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["choices"][0]["content_filter_results"]["hate"]["severity"] == "safe"
    text = answer["choices"][0]["message"]["content"]
    events = streamed(request)
    assert joined(events) == {n: [text, "", "stop"] for n in (0, 1)}
    texts = [e["choices"][0]["delta"].get("content") for e in events if e["choices"]]
    assert len([t for t in texts if t]) == answer["usage"]["completion_tokens"]


def test_who_asks_for_json_gets_an_object():
    (choice,) = shapes.whole(ask(response_format={"type": "json_object"}), VOICE)["choices"]
    assert json.loads(choice["message"]["content"]) == {"answer": "text"}


def test_a_tool_is_called_with_arguments_that_fit():
    answer = shapes.whole(ask(**TOOL, n=2), VOICE)
    calls = [choice["message"].pop("tool_calls") for choice in answer["choices"]]
    assert [(c["message"], c["finish_reason"]) for c in answer["choices"]] == [
        ({"role": "assistant", "content": None, "refusal": None}, "tool_calls")
    ] * 2
    assert [[(c["type"], c["function"]["name"]) for c in each] for each in calls] == [
        [("function", "plan")]
    ] * 2
    assert json.loads(calls[0][0]["function"]["arguments"]) == FITTING
    assert calls[0][0]["id"] != calls[1][0]["id"]
    assert answer["choices"][0]["content_filter_results"] == {}


def test_a_function_is_called_as_before_there_were_tools():
    (choice,) = shapes.whole(ask(**LEGACY), VOICE)["choices"]
    call = choice["message"]["function_call"]
    assert (call["name"], json.loads(call["arguments"])) == ("plan", FITTING)
    assert choice["message"]["content"] is None
    assert choice["finish_reason"] == "function_call"


@pytest.mark.parametrize("body, finish", [(TOOL, "tool_calls"), (LEGACY, "function_call")])
def test_a_streamed_call_goes_name_arguments_end(body, finish):
    request = ask(**body, stream=True, n=2)
    preamble, *events = streamed(request)
    arguments = json.dumps(FITTING, separators=(",", ":"))
    assert preamble["choices"] == []
    assert joined(events) == {n: [arguments, "plan", finish] for n in (0, 1)}
    first = [events[at]["choices"][0]["delta"] for at in (0, 1)]
    assert all(d["role"] == "assistant" and d["content"] is None for d in first)
    if body is TOOL:
        assert first[0]["tool_calls"] == [
            {
                "index": 0,
                "id": "call_0_1",
                "type": "function",
                "function": {"name": "plan", "arguments": ""},
            }
        ]
    said = len(events) - 2  # the ends say nothing
    assert said == expected_usage(request.body)["completion_tokens"]
    assert all(e["choices"][0]["content_filter_results"] == {} for e in events)


@pytest.mark.parametrize("body", [TOOL, LEGACY, {"response_format": FORMAT}], ids=str)
@pytest.mark.parametrize("maximum", [1, 3])
def test_a_maximum_cuts_json_too(body, maximum):
    request = ask(**body, max_tokens=maximum)
    whole = shapes.whole(request, VOICE)
    (choice,) = whole["choices"]
    message = choice["message"]
    call = message.get("function_call") or message.get("tool_calls", [{}])[0].get("function")
    text = call["arguments"] if call else message["content"]
    assert text == '{"city":"tex'[: 4 * (maximum - 1 if call else maximum)]
    assert choice["finish_reason"] == "length"
    assert whole["usage"]["completion_tokens"] == maximum
    assert joined(streamed(request))[0] == [text, "plan" if call else "", "length"]


def test_a_maximum_that_is_enough_for_json_cuts_nothing():
    (choice,) = shapes.whole(ask(response_format=FORMAT, max_tokens=6), VOICE)["choices"]
    assert json.loads(choice["message"]["content"]) == FITTING
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "event, says",
    [
        (b'data: {"choices":[]}', False),
        (b'data: {"delta":{"role":"assistant","content":""}}', False),
        (b'data: {"delta":{"content":"{"}}', True),
        (b'data: {"function":{"name":"f","arguments":""}}', True),
        (b'data: {"function":{"arguments":"{"}}', True),
        (b'data: {"delta":{},"finish_reason":"tool_calls"}', True),
    ],
)
def test_a_call_says_something_too(event, says):
    assert shapes.says_something(event) is says


def test_usage_is_streamed_only_to_who_asked_and_is_null_before_the_end():
    request = ask(stream=True, stream_options={"include_usage": True})
    *before, last = streamed(request)
    assert [event["usage"] for event in before] == [None] * len(before)
    assert (last["choices"], last["usage"]) == ([], expected_usage(request.body, tokens=8))


@pytest.mark.parametrize(
    "given, vectors",
    [("a", 1), (["a"], 1), (["a", "b"], 2), ([1, 2, 3], 1), ([[1, 2], [3]], 2)],
)
def test_there_is_a_vector_for_each_input(given, vectors):
    answer = shapes.embeddings(ask(operation="embeddings", input=given), VOICE)
    assert [row["index"] for row in answer["data"]] == list(range(vectors))
    assert all(len(row["embedding"]) == 8 for row in answer["data"])


def test_base64_holds_the_same_vector_as_the_list():
    def vector(**body):
        return shapes.embeddings(ask(operation="embeddings", input="a", **body), VOICE)["data"][
            0
        ]

    encoded = vector(encoding_format="base64", dimensions=4)["embedding"]
    assert (
        list(struct.unpack("<4f", base64.b64decode(encoded)))
        == vector(dimensions=4)["embedding"]
    )


@pytest.mark.parametrize("style", ["azure", "azure_v1"])
def test_azure_lists_base_models_and_not_deployments(style):
    names = [row["id"] for row in shapes.models(style, ["mine"])["data"]]
    assert "gpt-4o" in names
    assert "mine" not in names


def test_plain_openai_lists_what_it_serves():
    assert [row["id"] for row in shapes.models("openai", ["mine"])["data"]] == ["mine"]
