import pytest

from proxy.core.log_lines import quoted, text_of


@pytest.mark.parametrize("plain", ["gpt-4o", "a:500,b:200", "/v1/chat/completions", 7, "a\\b"])
def test_what_is_plain_stands_as_it_is(plain):
    assert quoted(plain) == str(plain)


@pytest.mark.parametrize(
    "odd, written",
    [
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),  # or it would look like a field
        ('"quoted"', '"\\"quoted\\""'),
        ("line\nbreak\u2028", '"line\\nbreak\\u2028"'),
        ("\x1b[31m", '"\\u001b[31m"'),
        ("ü", '"\\u00fc"'),
        ("", '""'),
    ],
)
def test_what_could_break_a_line_is_quoted(odd, written):
    assert quoted(odd) == written


def test_fields_stand_in_their_order():
    assert text_of({"id": "x", "ms": 3, "client": "my app"}) == 'id=x ms=3 client="my app"'
