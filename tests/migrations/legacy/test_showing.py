"""What a report may show of what stands in old files: neither secrets nor whole books."""

import pytest

from migrations.legacy.showing import MAX_CHARACTERS, brief, cut, shown, told
from tests.migrations.legacy.files import KEY


@pytest.mark.parametrize(
    "text, shown_text",
    [
        ("ProxyError http://u:planted-pw@10.0.0.5:3128", "ProxyError http://***@10.0.0.5:3128"),
        ("bad key sk-planted0123456789", "bad key sk-***"),
        ("api-key: planted-key, retry", "api-key: ***, retry"),
        ("key=planted", "key=***"),
        ("429: call rate limit", "429: call rate limit"),
        (5, 5),
    ],
)
def test_an_old_error_text_is_told_without_the_secrets_it_quotes(text, shown_text):
    assert told(text) == shown_text


def test_values_within_others_are_told_alike():
    value = {"api_key": "planted", "x": ["token=planted", 5, {"url": "http://u:planted@h"}]}
    assert told(value) == {"api_key": "***", "x": ["token=***", 5, {"url": "http://***@h"}]}


@pytest.mark.parametrize(
    "value",
    [
        "many",
        5.5,
        True,
        None,
        "1_000",
        "9" * 30,
        "2025-03-17T08:00:00",
        {"gpt-4o": 5},
        [],
        "60s",
    ],
)
def test_a_short_plain_value_is_shown_as_it_stands(value):
    assert shown("max_tpm", value) == repr(value)


@pytest.mark.parametrize(
    "value, shown_value",
    [
        (KEY, "'sk-***'"),
        ("0123456789abcdef0123456789abcdef", "'***'"),  # as Azure's look
        (["x", "Fake-0123456789abcdef=="], "['x', '***']"),
        ({"u": "http://user:hunter2@host"}, "{'u': 'http://***@host'}"),
        ("password: hunter2", "'password: ***"),
        ("hunter2@10.0.0.5:3128", "'***@10.0.0.5:3128'"),  # the rest of an address
    ],
)
@pytest.mark.parametrize("field", ["max_tpm", "supported_models", "last_used"])
def test_what_looks_like_a_secret_is_masked_wherever_it_stands(field, value, shown_value):
    # Columns that were mixed up hold keys.
    assert shown(field, value) == shown_value


@pytest.mark.parametrize("field", ["max_tpm", "name", "api_base"])
def test_a_long_value_is_cut_and_says_how_long_it_was(field):
    value = "http://" + "a b " * 100_000
    found = shown(field, value)
    assert len(found) < MAX_CHARACTERS + 40
    assert found.endswith("... (400009 characters)")


def test_an_address_is_shown_without_the_secrets_in_it():
    assert shown("api_base", "https://a b/?x") == "text of 14 characters"
    assert shown("api_base", "https://a b/key=planted") == "'https://a b/key=***"


def test_a_name_is_shown_whatever_it_looks_like():
    # It is in every line about its instance.
    assert shown("name", "azure-east-us-2-gpt4") == "'azure-east-us-2-gpt4'"


def test_a_number_without_end_is_cut_too():
    assert brief(repr(10**1000)).endswith("... (1001 characters)")


def test_what_fits_is_not_cut():
    text = "x" * MAX_CHARACTERS
    assert cut(text) == text
    assert cut(text + "x") == f"{text}... ({MAX_CHARACTERS + 1} characters)"
