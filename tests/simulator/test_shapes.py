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
