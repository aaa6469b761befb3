import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core import tokens
from proxy.core.endpoints import ENDPOINTS
from proxy.core.images import UNKNOWN_TOKENS
from proxy.core.prompt import NO_PROMPT, Prompt
from proxy.core.tokens import (
    MAX_TOKENS,
    choices,
    completion_limit_tokens,
    image_answer_tokens,
    prompt,
    sound_tokens,
)


def counted(text):
    return prompt({"prompt": text}, ("prompt",)).counts


def letters(value, field="messages"):
    return prompt({field: value}, (field,)).counts[1]


@pytest.mark.parametrize(
    "text, counts",
    [
        ("", (1, 0, 0, 0, 0, 0, 0)),
        ("Ab z", (1, 3, 1, 0, 0, 0, 0)),
        ("a\tb\r\nc", (1, 3, 3, 0, 0, 0, 0)),
        ("2026!", (1, 0, 0, 4, 1, 0, 0)),
        ("{}\x00", (1, 0, 0, 0, 3, 0, 0)),
        ("\u00e4\u0436", (1, 0, 0, 0, 0, 2, 0)),
        ("\u20ac\u4f60", (1, 0, 0, 0, 0, 0, 2)),
        ("\U0001f600", (1, 0, 0, 0, 0, 0, 1)),
        ("\ud800", (1, 0, 0, 0, 0, 0, 1)),  # half a pair has no UTF-8, and raises nothing
        ("Gr\u00fc\u00dfe, 5 \u4f60", (1, 3, 2, 1, 1, 2, 1)),
    ],
)
def test_a_text_is_counted_by_kinds_of_characters(text, counts):
    assert counted(text) == counts


def kind(character):
    number = ord(character)
    if number >= 0x800:
        return 6
    if number >= 0x80:
        return 5
    if character.isalpha():
        return 1
    return 2 if character in " \n\t\r" else 3 if character.isdigit() else 4


@given(st.text())
def test_every_character_is_counted_once_by_its_kind(text):
    expected = [1, 0, 0, 0, 0, 0, 0]
    for character in text:
        expected[kind(character)] += 1
    assert list(counted(text)) == expected


@given(st.lists(st.text(max_size=12), max_size=12), st.integers(1, 9))
def test_in_how_many_parts_it_is_counted_makes_no_difference(texts, size):
    whole = prompt({"input": "\n".join(texts)}, ["input"])
    before, tokens.PART_CHARACTERS = tokens.PART_CHARACTERS, size
    try:
        assert prompt({"input": texts}, ["input"]) == whole
    finally:
        tokens.PART_CHARACTERS = before


@pytest.mark.parametrize(
    "value, found",
    [
        (["abcd", "efgh"], 8),
        ({"abcd": {"efgh": ["ijkl"]}}, 12),  # keys are part of the prompt
        ([True, None, 1.5], 0),
        (None, 0),
        ([], 0),
    ],
)
def test_every_string_is_part_of_the_prompt(value, found):
    assert letters(value) == found


@pytest.mark.parametrize(
    "value, ready", [([1, 2, 3], 3), ([[1, 2], [3]], 3), (17, 1), ([True, 1.5], 0)]
)
def test_text_that_is_tokenized_already_counts_one_each(value, ready):
    assert prompt({"input": value}, ("input",)).ready_tokens == ready


def test_only_the_named_fields_count_and_they_need_not_be_there():
    body = {"messages": ["abcd"], "tools": ["efgh"], "user": "x" * 400}
    assert prompt(body, ("messages", "tools", "functions")).counts[1] == 8
    assert prompt({}, ("messages",)) == NO_PROMPT == Prompt()


def image(url="data:image/png;base64," + "A" * 100_000):
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.mark.parametrize(
    "part",
    [
        image(),
        {"type": "input_audio", "input_audio": {"data": "A" * 100_000, "format": "wav"}},
        {"type": "file", "file": {"file_data": "A" * 100_000}},
        {"type": "image_url", "image_url": "https://host/" + "a" * 100_000},
        {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 100_000},
        {"type": "computer_screenshot", "image_url": "https://host/" + "a" * 100_000},
        {"type": "input_file", "file_data": "A" * 100_000},
        {"type": "image_generation_call", "result": "A" * 100_000},
    ],
)
def test_a_medium_is_no_text_however_long_its_data(part):
    found = prompt({"messages": [{"content": [part]}]}, ("messages",))
    assert found.media_tokens == UNKNOWN_TOKENS
    assert sum(found.counts) < 100


def test_every_image_counts():
    low = {"type": "image_url", "image_url": {"url": "x", "detail": "low"}}
    body = {"messages": [{"content": [image(), image("x"), low]}]}
    assert prompt(body, ("messages",)).media_tokens == 2 * UNKNOWN_TOKENS + 85
    low = {"type": "input_image", "image_url": "x", "detail": "low"}
    assert prompt({"input": [{"content": [low]}]}, ("input",)).media_tokens == 85


@pytest.mark.parametrize("name", ["file", "image_url", "input_audio", "result"])
def test_a_tools_parameter_may_have_a_mediums_name(name):
    schema = {"type": "object", "properties": {name: {"type": "string"}}}
    assert prompt({"tools": [schema]}, ("tools",)).media_tokens == 0


def test_the_schema_of_an_answer_is_part_of_a_chats_prompt():
    schema = {"name": "trip", "schema": {"properties": {"city": {"type": "string"}}}}
    asked = {"type": "json_schema", "json_schema": schema}
    fields = ENDPOINTS["chat/completions"].prompt_fields
    found = prompt({"messages": [], "response_format": asked}, fields)
    words = ["type", "jsonschema", "jsonschema", "name", "trip", "schema", "properties", "city"]
    assert found.counts[1] == len("".join([*words, "type", "string"]))


def test_deep_nesting_is_no_obstacle():
    value = "abcd" * 2
    for _ in range(100_000):
        value = [value]
    assert letters(value, "input") == 8


@pytest.mark.parametrize(
    "body, tokens",
    [
        ({}, 16),  # what Azure counts
        ({"max_tokens": 100}, 100),
        ({"max_completion_tokens": 200}, 200),
        ({"max_tokens": 100, "max_completion_tokens": 200}, 200),
        ({"max_tokens": 100, "max_completion_tokens": None}, 100),
        ({"max_tokens": 1}, 1),
        ({"max_tokens": 100, "n": 3}, 300),
        ({"max_tokens": 100, "best_of": 4}, 400),
        ({"max_tokens": 100, "n": 3, "best_of": 4}, 400),  # the best n of best_of
        ({"max_tokens": 100, "n": 4, "best_of": 3}, 400),
        ({"n": 2}, 32),
        # Of a wrong type or size: the upstream refuses it.
        ({"max_tokens": 0}, 16),
        ({"max_tokens": -5}, 16),
        ({"max_tokens": "100"}, 16),
        ({"max_tokens": True}, 16),
        ({"max_tokens": 10.0}, 16),
        ({"max_tokens": [1]}, 16),
        ({"max_tokens": 100, "n": 0}, 100),
        ({"max_tokens": 100, "n": -1, "best_of": "x"}, 100),
        ({"max_tokens": 100, "n": True}, 100),
        ({"max_tokens": 100, "prompt": ["a", "b", "c"]}, 300),
        ({"max_tokens": 100, "prompt": [[1, 2], [3]], "n": 2}, 400),
        ({"max_tokens": 100, "prompt": [1, 2, 3]}, 100),  # one, tokenized already
        ({"max_tokens": 100, "prompt": []}, 100),
    ],
)
def test_the_most_an_answer_may_cost(body, tokens):
    """Also of each of several prompts."""
    assert completion_limit_tokens(body) == tokens


@pytest.mark.parametrize(
    "body",
    [{"max_tokens": 2**64 - 1, "n": 2**63}, {"max_tokens": 2**31}, {"n": 2**31}],
)
def test_no_client_can_name_a_number_that_the_database_cannot_add(body):
    assert completion_limit_tokens(body) == MAX_TOKENS
    assert MAX_TOKENS * 1_000_000_000 < 2**63


def test_no_limit_an_operator_can_set_is_above_the_largest_number():
    assert MAX_TOKENS == 2**31 - 1


def test_what_an_outline_left_out_counts_like_the_rest_of_its_text():
    text = "abc 1,\u00e4" * 1000
    whole = prompt({"input": [text * 4, "more"]}, ["input"])
    assert prompt({"input": [text, "more"]}, ["input"], {text: 3 * len(text)}) == whole
    assert prompt({"input": [text, "more"]}, ["input"], {"other": 99}) != whole


def test_of_an_image_that_an_outline_cut_nothing_more_counts():
    url = "data:image/png;base64,AAAA"
    image = {"messages": [{"content": [{"type": "image_url", "image_url": {"url": url}}]}]}
    found = prompt(image, ["messages"])
    assert prompt(image, ["messages"], {url: 10**6}) == found


@pytest.mark.parametrize(
    "fields, number",
    [
        ({}, 1),
        ({"n": 3}, 3),
        ({"n": None, "prompt": "x"}, 1),
        ({"n": "3"}, 1),
        ({"n": True}, 1),
        ({"n": 2, "prompt": ["a", "b"]}, 4),
        ({"prompt": [1, 2, 3]}, 1),  # one, in tokens
        ({"prompt": [[1], [2]]}, 2),
    ],
)
def test_an_answer_has_as_many_choices_as_were_asked_for(fields, number):
    assert choices(fields) == number


@pytest.mark.parametrize(
    "body, tokens",
    [
        ({}, 1056),
        ({"n": 3, "quality": "low"}, 816),
        ({"n": 0}, 1056),
        ({"n": "3"}, 1056),
        ({"n": 2**40}, MAX_TOKENS),
    ],
)
def test_the_most_that_images_may_cost(body, tokens):
    assert image_answer_tokens(body) == tokens


def wav(bytes_a_second, told=0):
    head = b"RIFF" + struct.pack("<I", 36) + b"WAVEfmt "
    return head + struct.pack(
        "<IHHIIHH", 16, 1, 1, bytes_a_second // 2, told or bytes_a_second, 2, 16
    )


@pytest.mark.parametrize(
    "head, size, tokens",
    [
        (b"ID3", 1_000_000, 1_000),
        (wav(32_000), 32_000 * 60, 1_000),
        (wav(192_000), 24_000_000, 2_083),
        (wav(0), 1_000_000, 1_000),
        (wav(32_000, told=2**32 - 1), 1_000_000, 1_000),
        (wav(32_000, told=1), 1_000_000, 1_000),
        (wav(32_000)[:-1], 1_000_000, 1_000),
        (b"", 0, 0),
    ],
)
def test_a_recording_costs_by_its_length_as_far_as_that_is_told(head, size, tokens):
    assert sound_tokens(head, size) == tokens
