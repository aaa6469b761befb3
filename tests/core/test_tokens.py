import pytest

from proxy.core.tokens import MAX_TOKENS, completion_limit_tokens, prompt_tokens

EURO = "€"  # three bytes in UTF-8


def image(url="data:image/png;base64," + "A" * 100_000):
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.mark.parametrize(
    "value, tokens",
    [
        ("", 1),  # nothing costs nothing upstream, but a reservation of 0 would be free
        ("abc", 1),
        ("abcd", 1),
        ("abcdefgh", 2),
        ("abcdefghijk", 2),  # rounded down
        ("a" * 4000, 1000),
        (EURO * 4, 3),  # bytes, not characters
        ("\ud800" * 4, 3),  # half a surrogate pair has no UTF-8, and raises nothing
        (["abcd", "efgh"], 2),
        ([1, 2, 3], 3),  # tokenized already
        ([[1, 2], [3]], 3),
        ([True, None, 1.5], 1),
        (None, 1),
        (17, 1),
        ({"abcd": {"efgh": ["ijkl"]}}, 3),  # keys are part of the prompt
        ([], 1),
    ],
)
def test_a_prompt_is_estimated_from_its_bytes(value, tokens):
    assert prompt_tokens({"prompt": value}, ("prompt",)) == tokens


def test_only_the_named_fields_count_and_they_need_not_be_there():
    body = {"messages": ["abcd"], "tools": ["efgh"], "user": "x" * 400}
    assert prompt_tokens(body, ("messages", "tools", "functions")) == 2


def test_bytes_are_added_before_they_are_divided():
    assert prompt_tokens({"messages": ["ab"] * 100}, ("messages",)) == 50


@pytest.mark.parametrize(
    "part",
    [
        image(),
        {"type": "input_audio", "input_audio": {"data": "A" * 100_000, "format": "wav"}},
        {"type": "file", "file": {"file_data": "A" * 100_000}},
        {"type": "image_url", "image_url": "https://host/" + "a" * 100_000},
    ],
)
def test_a_medium_costs_the_same_however_long_its_data(part):
    text = sum(len(k) for k in ("content", "type")) + len(part["type"])
    body = {"messages": [{"content": [part]}]}
    assert prompt_tokens(body, ("messages",)) == text // 4 + 765


def test_every_image_counts():
    body = {"messages": [{"content": [image(), image("x"), image("y")]}]}
    assert 3 * 765 <= prompt_tokens(body, ("messages",)) < 3 * 765 + 50


@pytest.mark.parametrize("name", ["file", "image_url", "input_audio"])
def test_a_tools_parameter_may_have_a_mediums_name(name):
    schema = {"type": "object", "properties": {name: {"type": "string"}}}
    assert prompt_tokens({"tools": [schema]}, ("tools",)) < 20


def test_deep_nesting_is_no_obstacle():
    value = "abcd" * 2
    for _ in range(100_000):
        value = [value]
    assert prompt_tokens({"input": value}, ("input",)) == 2


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
    ],
)
def test_the_most_an_answer_may_cost(body, tokens):
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
