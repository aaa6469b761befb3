import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.excerpt import ERROR_BYTES, excerpt, is_json, without_key
from proxy.core.types import ENTRA
from tests.builders import config


@pytest.mark.parametrize(
    "body, said",
    [
        (b'{"error": {"message": "no such thing"}}', "no such thing"),
        (b'{"statusCode": 500, "message": "flat"}', "flat"),  # Azure's other shape
        (b'{"error": "words"}', '{"error": "words"}'),
        (b'{"error": {"message": 5}}', '{"error": {"message": 5}}'),
        (b'["a list"]', '["a list"]'),
        (b"no healthy\r\n upstream\n", "no healthy upstream"),
        (b"<html>\n<b>502</b></html>", "<html> <b>502</b></html>"),
        (b"", ""),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"x" * (ERROR_BYTES + 1), "x" * ERROR_BYTES),
        (b"[" * 20_000, "[" * ERROR_BYTES),  # deeper than any parser goes
        (b'{"error": {"message": "\\ud800 half"}}', "? half"),  # cannot be written as UTF-8
    ],
    ids=lambda value: repr(value[:20]),
)
def test_an_error_answers_message_on_one_line(body, said):
    assert excerpt(body) == said


@given(st.binary())
def test_no_error_answer_is_too_strange_to_quote(body):
    excerpt(body).encode()


@pytest.mark.parametrize(
    "body, is_whole",
    [
        (b'{"a": 1}', True),
        (b"[]", True),
        (b'{"a": ', False),
        (b"", False),
        (b"[" * 20_000, False),
    ],
)
def test_what_broke_off_is_no_json(body, is_whole):
    assert is_json(body) is is_whole


def test_the_key_that_an_upstream_quotes_is_masked():
    asked = config("a", api_key="planted-key-of-a-0123456789")
    said = b"wrong key planted-key-of-a-0123456789, twice: planted-key-of-a-0123456789"
    assert without_key(said, asked, "") == b"wrong key ***6789, twice: ***6789"


def test_so_is_the_token_where_it_was_asked_with_one():
    asked = config("a", auth=ENTRA, api_key="")
    token = "planted-token-abcdefghij"
    assert without_key(f"no: {token}".encode(), asked, token) == b"no: ***ghij"


def test_where_there_is_no_key_all_stays():
    assert without_key(b"NONE is no key", config("a", api_key="NONE"), "") == b"NONE is no key"
