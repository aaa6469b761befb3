import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.outline import KEPT_BYTES, LONGEST_BYTES, MOST_QUOTES, outline

IMAGE = "data:image/png;base64," + "iVBORw0KGgo" * 20_000
assert len(IMAGE) > LONGEST_BYTES


def outlined(body):
    """What is parsed of a body that is valid JSON, and what it leaves out."""
    body = body if isinstance(body, bytes | bytearray) else json.dumps(body).encode()
    text, omitted, _ = outline(body)
    return json.loads(text), omitted


def test_a_long_string_is_cut_to_its_beginning_and_the_rest_is_counted():
    body = {"a": [1, {"url": IMAGE}], "b": "text"}
    found, omitted = outlined(body)
    kept = IMAGE[:KEPT_BYTES]
    assert found == {"a": [1, {"url": kept}], "b": "text"}
    assert omitted == {kept: len(IMAGE) - KEPT_BYTES}


def test_a_body_that_was_gathered_is_cut_as_well():
    body = bytearray(json.dumps([IMAGE]).encode())
    assert outlined(body)[0] == [IMAGE[:KEPT_BYTES]]
    assert json.loads(body) == [IMAGE]  # it goes on as it came


def test_several_are_cut_each():
    other = "x" * LONGEST_BYTES * 2
    found, omitted = outlined({"a": IMAGE, "b": other, "c": IMAGE + "1234"})
    assert found == {"a": IMAGE[:KEPT_BYTES], "b": other[:KEPT_BYTES], "c": found["a"]}
    # Of two that begin alike the longer one counts.
    assert omitted == {
        found["a"]: len(IMAGE) + 4 - KEPT_BYTES,
        found["b"]: len(other) - KEPT_BYTES,
    }


def test_a_string_in_which_nothing_is_to_be_left_out_is_not_touched():
    body = json.dumps({"a": "x" * LONGEST_BYTES}).encode()
    assert outline(body).text is body


@pytest.mark.parametrize(
    "body",
    [
        [("line\n" * 50_000)],  # of escapes, one must not be cut in two
        ['"' + "x" * 300_000],
        ["x" * 300_000 + "\\"],
        [list(range(50_000)), "a", [0] * 100_000],  # between two strings
        {"a": 1, "b" + "": [0.5] * 100_000, "c": 2},
        ["\u00e4" * 150_000],
    ],
)
def test_what_cannot_be_cut_safely_stays_whole(body):
    written = json.dumps(body).encode()
    assert outline(written).text is written
    written = json.dumps(body, ensure_ascii=False, separators=(", ", ": ")).encode()
    assert outline(written).text is written


def test_what_stands_in_the_outline_is_found_in_the_body():
    other = "y" * LONGEST_BYTES * 2
    body = json.dumps({"a": IMAGE, "b": 1, "c": [other], "d": 2}).encode()
    found = outline(body)
    text = bytes(found.text)
    for name in (b'"a"', b'"b"', b'"c"', b'"d"', b"2}", b'], "d"'):
        assert found.place_of(text.index(name)) == body.index(name)
    assert found.place_of(len(text)) == len(body)


def test_text_behind_an_escaped_quote_is_no_string():
    body = b'["say \\"' + b"x" * 200_000 + b'", 1]'
    assert outline(body).text is body


@pytest.mark.parametrize("broken", [b'"', b'{"a": "' + b"x" * 200_000, b"", b'"a" "b'])
def test_what_is_no_json_is_none_afterwards(broken):
    with pytest.raises(json.JSONDecodeError):
        json.loads(outline(broken).text)


def test_of_very_many_strings_nobody_looks_for_a_long_one_behind_them():
    body = json.dumps(["a"] * MOST_QUOTES + [IMAGE]).encode()
    assert outline(body).text is body


@given(st.data())
def test_whatever_the_json_it_says_the_same_but_for_what_is_omitted(data):
    text = st.sampled_from(
        (
            *("", "a", '"', "\\", ',:]}"', "\n", "\u00e4", IMAGE, "z" * 140_000),
            *("]" * 140_000, '\\"' * 70_000, "b" * 140_000 + '"', " " * 140_000),
            "\u00e4" + "c" * 140_000,
        )
    )
    value = data.draw(
        st.recursive(
            text | st.integers() | st.none(),
            lambda inner: (
                st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=3)
            ),
            max_leaves=8,
        )
    )
    separators = data.draw(st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")]))
    is_ascii = data.draw(st.booleans())
    body = json.dumps(value, separators=separators, ensure_ascii=is_ascii).encode()

    def cut(value):
        if isinstance(value, str):
            return value[:KEPT_BYTES] if value[:KEPT_BYTES] in omitted else value
        if isinstance(value, list):
            return [cut(each) for each in value]
        if isinstance(value, dict):
            return {cut(key): cut(each) for key, each in value.items()}
        return value

    found, omitted = outlined(body)
    assert cut(found) == cut(value)
    assert not any(len(kept) != KEPT_BYTES for kept in omitted)
