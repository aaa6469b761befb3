import json

import pytest

from proxy.core.endpoints import ENDPOINTS
from proxy.simulator import asks
from proxy.simulator.errors import Refused
from proxy.simulator.routes import Route

CHAT = Route("openai", "chat/completions")
CLASSIC = Route("azure", "chat/completions", "gpt-4o")
MESSAGES = [{"role": "user", "content": "x" * 40}]


@pytest.mark.parametrize(
    "body, tokens",
    [
        ({"messages": [{"role": "user", "content": "x" * 40}]}, 10),
        ({"messages": [{"content": "x" * 40}, {"content": "x"}]}, 11),  # rounded up
        (
            {
                "messages": [
                    {"content": [{"type": "text", "text": "x" * 8}, {"type": "image_url"}]}
                ]
            },
            2,
        ),
        ({"messages": [{"role": "assistant", "content": None}]}, 1),  # never nothing
        ({"prompt": "x" * 8}, 2),
        ({"prompt": [1, 2, 3]}, 3),
        ({"input": ["x" * 4, "x" * 4]}, 2),
        ({"input": [[1, 2], [3, 4, 5]]}, 5),
        ({}, 1),
    ],
)
def test_four_characters_are_a_token_and_a_number_is_one(body, tokens):
    assert asks.prompt_tokens(body) == tokens


@pytest.mark.parametrize(
    "field, value, tokens",
    [
        ("tools", [{"a": "x" * 30}], 10),  # as JSON: [{"a":"..."}]
        ("functions", [{"a": "x" * 30}], 10),
        ("suffix", "x" * 40, 10),
        ("response_format", {"type": "json_schema", "json_schema": {"a": "x" * 32}}, 10),
        ("response_format", {"type": "json_schema", "json_schema": {"a": "\u00e9" * 32}}, 10),
        ("response_format", {"type": "json_object"}, 0),
        ("response_format", "text", 0),
        ("tools", [], 0),
        ("tool_choice", "none", 0),
        ("stop", "x" * 40, 0),
    ],
)
def test_what_is_defined_for_the_answer_is_part_of_the_prompt(field, value, tokens):
    body = {"messages": MESSAGES, field: value}
    assert asks.prompt_tokens(body) == 10 + tokens


@pytest.mark.parametrize("path", ENDPOINTS)
def test_every_field_that_the_gateway_counts_counts_here(path):
    fields = ("messages", "prompt", "input", "suffix", "tools", "functions", "instructions")
    said = {field: ["x" * 400] for field in (*fields, "stop", "user")}
    said["response_format"] = {"type": "json_schema", "json_schema": {"name": "x" * 400}}
    said["text"] = {"format": {"type": "json_schema", "schema": {"title": "x" * 400}}}
    counted = [f for f, value in said.items() if asks.prompt_tokens({f: value}) > 1]
    assert set(ENDPOINTS[path].prompt_fields) <= set(counted)
    every = {field for each in ENDPOINTS.values() for field in each.prompt_fields}
    assert set(counted) == every


@pytest.mark.parametrize(
    "body, tokens",
    [
        ({"messages": MESSAGES}, 10 + 16),
        ({"messages": MESSAGES, "max_tokens": 100}, 110),
        ({"messages": MESSAGES, "max_tokens": 100, "max_completion_tokens": 50}, 60),
        ({"messages": MESSAGES, "max_tokens": 100, "n": 3}, 310),
        ({"prompt": "x" * 40, "max_tokens": 100, "n": 1, "best_of": 2}, 210),
        ({"input": "x" * 40}, 10),
    ],
)
def test_admission_charges_prompt_and_maximum_times_choices(body, tokens):
    assert asks.estimated_tokens(body) == tokens


@pytest.mark.parametrize(
    "body, completion",
    [
        ({}, 20),
        ({"max_tokens": 5}, 5),
        ({"max_tokens": 500}, 20),
        ({"max_tokens": 500, "max_completion_tokens": 6}, 6),
        ({"n": 2, "max_tokens": 5}, 10),
        ({"n": 2, "prompt": ["a", "b", "c"]}, 120),
    ],
)
def test_the_usage_counts_every_choice_up_to_the_maximum(body, completion):
    usage = asks.expected_usage(body)
    assert usage["completion_tokens"] == completion
    assert usage["total_tokens"] == usage["prompt_tokens"] + completion


ENUM = {"type": "json_schema", "json_schema": {"name": "e", "schema": {"enum": ["x" * 38]}}}
CALL = {
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"const": 12345}}}],
    "tool_choice": "required",
}


@pytest.mark.parametrize(
    "body, completion",
    [
        ({"response_format": ENUM}, 10),  # with its quotes 40 characters
        ({"response_format": ENUM, "n": 3}, 30),
        ({"response_format": ENUM, "max_tokens": 4, "n": 3}, 12),
        (CALL, 1 + 2),  # the name, and five characters
        (CALL | {"max_tokens": 2}, 2),
        (CALL | {"tool_choice": "auto"}, 7),
    ],
)
def test_the_usage_counts_what_json_has_whatever_texts_have(body, completion):
    usage = asks.expected_usage({"messages": MESSAGES} | body, tokens=7)
    assert usage["completion_tokens"] == completion


@pytest.mark.parametrize("tokens, cached", [(1023, 0), (1024, 1024), (1200, 1152)])
def test_a_long_prompt_is_cached_in_steps(tokens, cached):
    usage = asks.expected_usage({"prompt": "x" * 4 * tokens})
    assert usage["prompt_tokens_details"]["cached_tokens"] == cached


def test_embeddings_have_no_completion_tokens():
    assert asks.expected_usage({"input": "x" * 8}) == {"prompt_tokens": 2, "total_tokens": 2}


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"[]", b"3", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_a_400(raw):
    with pytest.raises(Refused) as refused:
        asks.parsed(raw)
    assert refused.value.answer.status == 400


@pytest.mark.parametrize(
    "route, body, param",
    [
        (CHAT, {"messages": MESSAGES}, "model"),
        (CHAT, {"messages": MESSAGES, "model": 3}, "model"),
        (CLASSIC, {}, "messages"),
        (CLASSIC, {"messages": []}, "messages"),
        (CLASSIC, {"messages": ["hello"]}, "messages"),
        (CLASSIC, {"messages": MESSAGES, "n": 0}, "n"),
        (CLASSIC, {"messages": MESSAGES, "n": 129}, "n"),
        (CLASSIC, {"messages": MESSAGES, "max_tokens": "5"}, "max_tokens"),
        (CLASSIC, {"messages": MESSAGES, "max_tokens": True}, "max_tokens"),
        (CLASSIC, {"messages": MESSAGES, "tool_choice": "auto"}, "tool_choice"),
        (Route("azure", "embeddings", "e"), {}, "input"),
    ],
)
def test_a_field_nobody_can_use_is_a_400_that_names_it(route, body, param):
    with pytest.raises(Refused) as refused:
        asks.checked(route, body)
    assert json.loads(refused.value.answer.body)["error"]["param"] == param


def test_the_path_names_the_deployment_and_otherwise_the_body_does():
    body = {"messages": MESSAGES, "model": "mine"}
    assert asks.checked(CLASSIC, body).deployment == "gpt-4o"
    assert asks.checked(CHAT, body).deployment == "mine"
