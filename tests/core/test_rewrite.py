import json
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.core.form import form_of
from proxy.core.rewrite import asks_for_usage, body_for, with_field, with_first_field
from tests.builders import call, config, serving

# Ways to write keys; after decoding, the first two are the field that is set.
SPELLED = [
    '"model"',
    r'"mod\u0065l"',
    r'"x\"model"',
    r'"\"model\""',
    '"models"',
    '"Model"',
    '""',
]
SPACE = st.sampled_from(["", "", " ", "\n\t", "\r\n  "])
VALUES = st.one_of(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["model", "a", "{"]) | st.text(), inner, max_size=3
            )
        ),
        max_leaves=6,
    ).map(json.dumps),
    st.text(max_size=5).map(lambda t: json.dumps(t, ensure_ascii=False)),
    st.sampled_from(
        [
            '"gpt-4o"',
            '"model"',
            r'"a \"model\": \"b\", c"',
            r'"\\"',
            '{ "model" : "nested" }',
            '[{"model":"nested"}, "model"]',
            "-1.50E+10",
            "123456789012345678901234567890",
        ]
    ),
)


@st.composite
def objects(draw):
    """A JSON object as text, and the same with its last own `model` set to NEW and no other."""
    members = draw(st.lists(st.tuples(st.sampled_from(SPELLED), VALUES), max_size=5))
    own = [n for n, (key, _) in enumerate(members) if json.loads(key) == "model"]
    before, lead = draw(SPACE) + "{", None
    after = before
    for number, (key, value) in enumerate(members):
        begin = ("," if number else "") + draw(SPACE)
        named, trail = key + draw(SPACE) + ":" + draw(SPACE), draw(SPACE)
        before += begin + named + value + trail
        lead = begin if lead is None else lead
        if number not in own[:-1]:
            after += lead + named + ('"NEW"' if number in own else value) + trail
            lead = None
        # Else it goes with all up to the next one, which stands where it stood.
    end = "}" + draw(SPACE)
    return before + end, (after + end if own else None)


def pairs(body):
    """The members in their order, also those that come twice."""
    return json.loads(body, object_pairs_hook=list)


@given(objects())
@example(("{}", None))
@example((' { "model" : 1 } ', ' { "model" : "NEW" } '))
def test_only_the_fields_own_value_changes(pair):
    body, expected = pair
    changed = with_field(body.encode(), "model", "NEW").decode()
    if expected is None:  # it was not there: now it comes first, before all that was
        head, brace, inner = body.partition("{")
        assert changed.startswith(head + brace)
        assert changed.endswith(inner.lstrip())
        assert pairs(changed) == [("model", "NEW"), *pairs(body)]
    else:
        assert changed == expected
    assert json.loads(changed) == json.loads(body) | {"model": "NEW"}


@pytest.mark.parametrize(
    "body, changed",
    [
        (b'{"model":"a","n":1}', b'{"model":"NEW","n":1}'),
        (b'{"n":1,"model" : "a" }', b'{"n":1,"model" : "NEW" }'),
        (b'{"model":null}', b'{"model":"NEW"}'),
        (b'{"model":{"a":[1]},"b":2}', b'{"model":"NEW","b":2}'),
        (b'{"model":1.5e3}', b'{"model":"NEW"}'),
        (b'{"model":"a\\"b"}', b'{"model":"NEW"}'),
        (rb'{"mod\u0065l":"a"}', rb'{"mod\u0065l":"NEW"}'),
        # Twice: parsers differ in which one they believe.
        (b'{"model":"a","x":0,"model":"b"}', b'{"x":0,"model":"NEW"}'),
        (rb'{"model":"a","mod\u0065l":"b"}', rb'{"mod\u0065l":"NEW"}'),
        (
            b'{ "model":1 , "model":{"a":2},\n"x":0,"model":3,"y":0}',
            b'{ "x":0,"model":"NEW","y":0}',
        ),
        # Not there, but somewhere in it: that one is somebody else's.
        (b'{"metadata":{"model":"a"}}', b'{"model":"NEW","metadata":{"model":"a"}}'),
        (b'{"tools":[{"model":"a"}]}', b'{"model":"NEW","tools":[{"model":"a"}]}'),
        (b'{"x":"model"}', b'{"model":"NEW","x":"model"}'),
        (rb'{"x\"model":"a"}', rb'{"model":"NEW","x\"model":"a"}'),
        (rb'{"x":"\"model\":\"a\""}', rb'{"model":"NEW","x":"\"model\":\"a\""}'),
        (b'{"Model":"a"}', b'{"model":"NEW","Model":"a"}'),
        # There and elsewhere.
        (b'{"m":{"model":"a"},"model":"b"}', b'{"m":{"model":"a"},"model":"NEW"}'),
        (b'{"model":{"model":"a"}}', b'{"model":"NEW"}'),
        (b"{}", b'{"model":"NEW"}'),
        (b" { } ", b' { "model":"NEW"} '),
        ('{"x":"€","model":"ü"}'.encode(), '{"x":"€","model":"NEW"}'.encode()),
        # Nobody looked at all of a long string.
        (b'{"x":"\xff\xc3","model":"a"}', b'{"x":"\xff\xc3","model":"NEW"}'),
        (b'{"x":"\n\x00","model":"a"}', b'{"x":"\n\x00","model":"NEW"}'),
        (b'{"n":' + b"9" * 400 + b',"model":"a"}', b'{"n":' + b"9" * 400 + b',"model":"NEW"}'),
    ],
)
def test_setting_a_field(body, changed):
    assert with_field(body, "model", "NEW") == changed


@pytest.mark.parametrize(
    "value, written",
    [
        ("a", b'"a"'),
        ('a"b\\', rb'"a\"b\\"'),
        ("€", rb'"\u20ac"'),
        ({"include_usage": True, "x": [1, None]}, b'{"include_usage":true,"x":[1,null]}'),
    ],
)
def test_any_value_can_be_set(value, written):
    assert with_field(b'{"f":0}', "f", value) == b'{"f":' + written + b"}"
    assert with_field(b'{"g":0}', "f", value) == b'{"f":' + written + b',"g":0}'


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b'"model"', b'{"a" 1}', b'{"model":', b"{\xff"]
)
def test_what_is_no_object_is_a_value_error(body):
    with pytest.raises(ValueError):  # noqa: PT011  # the words are json's
        with_field(body, "model", "NEW")


@pytest.mark.parametrize("depth", [900, 1_000, 1_024, 100_000])
def test_a_body_may_be_nested_deeper_than_python_follows(depth):
    inner = b'["]\\"}",{"model":"a"},' + b"[" * depth + b"]" * depth + b"]"
    body = b'{"a":' + inner + b',"model":"b"}'
    assert with_field(body, "model", "NEW") == b'{"a":' + inner + b',"model":"NEW"}'


def test_what_is_nested_so_and_does_not_end_is_a_value_error():
    with pytest.raises(ValueError, match="no end of the value at character 5"):
        with_field(b'{"a":' + b"[" * 100_000, "model", "NEW")


def test_a_body_that_repeats_a_field_does_not_grow_with_it():
    asked = b"{" + b'"f":0,' * 10_000 + b'"f":"' + b"x" * 10_000 + b'"}'
    changed = with_field(asked, "f", "x" * 10_000 + "y")
    assert changed == b'{"f":"' + b"x" * 10_000 + b'y"}'


def test_one_that_repeats_a_field_is_joined_at_once():
    image = "x" * 200_000
    body = '{"a":["' + image + '"],' + '"f":0,' * 100_000 + f'"b":"{image}","f":1}}'
    changed = with_field(body.encode(), "f", 2)
    assert changed == ('{"a":["' + image + f'"],"b":"{image}","f":2}}').encode()


@pytest.mark.parametrize("gathered", [bytes, bytearray])
def test_a_large_body_is_changed_in_one_place_and_not_copied_for_it(gathered):
    filler = b'"messages":["' + b"x" * 5_000_000 + b'"]'
    body = gathered(b"{" + filler + b',"model":"a"}')
    changed = with_field(body, "model", "NEW")
    expected = b"{" + filler + b',"model":"NEW"}'
    assert (bytes(changed), len(changed)) == (expected, len(expected))
    assert all(piece.obj is body for piece in changed.pieces[::2])


def test_a_large_body_is_changed_also_where_its_field_stands_between_long_strings():
    image = "data:image/png;base64," + "iVBORw0KGgo" * 60_000
    fields = [("a", image), ("model", "x"), ("b", [image, 1]), ("model", "y"), ("c", image)]
    body = "{" + ",".join(f"{json.dumps(n)}:{json.dumps(v)}" for n, v in fields) + "}"
    changed = bytes(with_field(body.encode(), "model", "NEW"))
    expected = [f for f in fields if f != ("model", "x")]
    expected[2] = ("model", "NEW")
    assert pairs(changed) == expected
    assert changed == body.replace('"model":"x",', "").replace('"y"', '"NEW"').encode()


TYPE = "multipart/form-data; boundary=xyz"


def of_form(*parts, gathered=bytes):
    """A call whose body is a form of these (name, content, more of its head)."""
    text = b"".join(
        b'--xyz\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
        % (name, more, content)
        for name, content, more in parts
    )
    body = gathered(text + b"--xyz--\r\n")
    form = form_of(body, TYPE)
    named = form.fields.get("model")
    return call(endpoint="audio/transcriptions", body=body, form=form, body_model=named)


SOUND = (b"file", b"\x00model\r\n" * 1000, b'; filename="model"')


@pytest.mark.parametrize("provider_type", ["azure_v1", "openai"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_form_names_the_deployment_where_its_model_stood(provider_type, place):
    parts = [SOUND, (b"prompt", b"a model", b"")]
    asked = of_form(*parts[:place], (b"model", b"gpt-4o", b""), *parts[place:])
    sent = body_for(
        asked, serving(config(provider_type=provider_type), "\u00f6st"), ask_usage=False
    )
    assert sent == asked.body.replace(b"\r\n\r\ngpt-4o\r\n", b"\r\n\r\n\xc3\xb6st\r\n")
    assert form_of(sent, TYPE).fields == {"model": "\u00f6st", "prompt": "a model"}


def test_a_form_without_a_model_gets_one_before_all_else():
    asked = of_form(SOUND)
    sent = body_for(asked, serving(config(provider_type="azure_v1"), "east"), ask_usage=False)
    assert sent.endswith(asked.body)
    assert form_of(sent, TYPE).fields == {"model": "east"}


@pytest.mark.parametrize(
    "provider_type, deployment",
    [("azure", "east"), ("azure_v1", "gpt-4o"), ("openai", "gpt-4o")],
)
def test_a_form_that_needs_no_change_is_passed_on_byte_for_byte(provider_type, deployment):
    asked = of_form((b"model", b"gpt-4o", b""), SOUND)
    instance = serving(config(provider_type=provider_type), deployment)
    assert body_for(asked, instance, ask_usage=False) is asked.body


def test_a_large_form_is_not_copied():
    sound = (b"file", bytes(5_000_000), b"; filename=a")
    asked = of_form(sound, (b"model", b"gpt-4o", b""), gathered=bytearray)
    sent = body_for(asked, serving(config(provider_type="azure_v1"), "east"), ask_usage=False)
    assert [len(piece) for piece in sent.pieces if isinstance(piece, bytes)] == [4]
    assert bytes(sent) == asked.body.replace(b"gpt-4o", b"east")


@pytest.mark.parametrize("lacks", [False, True])
def test_a_large_stream_names_its_deployment_and_asks_for_usage_without_being_copied(lacks):
    messages = [{"role": "user", "content": "x" * 2_000_000}]
    own = {} if lacks else {"stream_options": {"a": 1}}
    fields = {"messages": messages, "model": "gpt-4o", "stream": True} | own
    body = json.dumps(fields).encode()
    asked = call(
        body=body,
        stream=True,
        stream_options=own.get("stream_options"),
        lacks_stream_options=lacks,
    )
    sent = body_for(asked, serving(config(provider_type="azure_v1"), "east"), ask_usage=True)
    options = own.get("stream_options", {}) | {"include_usage": True}
    assert json.loads(bytes(sent)) == fields | {"model": "east", "stream_options": options}
    assert sum(len(piece) for piece in sent.pieces if isinstance(piece, bytes)) < 100


@pytest.mark.parametrize(
    "provider_type, model", [("azure", "gpt-4o"), ("azure_v1", "east"), ("openai", "east")]
)
def test_the_body_names_the_deployment_where_the_provider_reads_it_there(provider_type, model):
    asked = call(body_model="gpt-4o")
    body = body_for(
        asked, serving(config(provider_type=provider_type), "east"), ask_usage=False
    )
    assert json.loads(body) == json.loads(asked.body) | {"model": model}


@pytest.mark.parametrize("provider_type", ["azure", "azure_v1", "openai"])
def test_of_a_response_the_body_names_the_deployment_everywhere(provider_type):
    asked = call(endpoint="responses", body=b'{"input":"x"}', body_model=None)
    serves = serving(config(provider_type=provider_type), "east")
    assert body_for(asked, serves, ask_usage=False) == b'{"model":"east","input":"x"}'


@pytest.mark.parametrize("provider_type", ["azure", "azure_v1", "openai"])
def test_a_body_that_needs_no_change_is_passed_on_byte_for_byte(provider_type):
    asked = call(body=b' { "model" : "gpt-4o", "metadata":{"name":"\\u20ac"} } ')
    body = body_for(asked, serving(config(provider_type=provider_type)), ask_usage=False)
    assert body is asked.body


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"o1","n":1,"model":"gpt-4o"}',
        rb'{"mod\u0065l":"o1","n":1,"model":"gpt-4o"}',
        rb'{"\u006dodel":"o1","n":1,"mode\u006c":"gpt-4o"}',
    ],
)
def test_an_upstream_that_takes_the_first_of_two_models_gets_the_same(body):
    asked = call(body_model="gpt-4o", body=body)
    sent = body_for(asked, serving(config(provider_type="openai")), ask_usage=False)
    assert pairs(sent) == [("n", 1), ("model", "gpt-4o")]


def test_a_body_without_a_model_gets_one():
    asked = call(body_model=None, body=b'{"metadata":{"model":"mine"}}')
    body = body_for(asked, serving(config(provider_type="openai")), ask_usage=False)
    assert body == b'{"model":"gpt-4o","metadata":{"model":"mine"}}'


@pytest.mark.parametrize(
    "options, sent",
    [
        (None, {"include_usage": True}),
        ({}, {"include_usage": True}),
        ({"include_usage": False}, {"include_usage": True}),
        (
            {"include_obfuscation": False},
            {"include_obfuscation": False, "include_usage": True},
        ),
    ],
)
def test_asking_for_usage_keeps_the_clients_other_options(options, sent):
    asked = call(stream=True, stream_options=options)
    body = json.loads(body_for(asked, serving(), ask_usage=True))
    assert body == json.loads(asked.body) | {"stream_options": sent}


def test_both_fields_can_change_at_once():
    asked = call(stream=True)
    body = body_for(asked, serving(config(provider_type="azure_v1"), "east"), ask_usage=True)
    assert json.loads(body) == json.loads(asked.body) | {
        "model": "east",
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize(
    "asked, instance, asks",
    [
        ({"stream": True}, {}, True),
        ({"stream": True, "stream_options": {"include_usage": False}}, {}, True),
        # It asks itself, and sees what it asked for.
        ({"stream": True, "stream_options": {"include_usage": True}}, {}, False),
        ({"stream": False}, {}, False),
        # Of images and transcripts it comes by itself.
        ({"stream": True, "endpoint": "images/generations"}, {}, False),
        ({"stream": True, "endpoint": "completions"}, {}, True),
        ({"stream": True}, {"api_version": "2024-06-01"}, False),  # would be rejected
        ({"stream": True}, {"api_version": "2024-06-01", "provider_type": "openai"}, True),
    ],
)
def test_we_ask_for_a_streams_usage_if_we_may_and_the_client_does_not(asked, instance, asks):
    assert asks_for_usage(call(**asked), serving(config(**instance))) is asks


def test_stream_options_that_are_none_are_left_for_the_upstream_to_refuse():
    deep = []
    for _ in range(1_000):
        deep = [deep]
    for options in ("yes", {"x": deep}):
        asked = replace(call(stream=True), stream_options=options)
        assert not asks_for_usage(asked, serving())


@given(objects(), st.sampled_from([True, {"a": 1}, "x"]))
def test_a_field_that_is_surely_missing_is_added_as_if_it_had_been_looked_for(pair, value):
    body = pair[0].encode("utf-8", "surrogatepass")
    if json.loads(body):
        assert with_first_field(body, "missing", value) == with_field(body, "missing", value)


@pytest.mark.parametrize("body", [b"{}", b"[]", b'"a"', b"", b"{ }"])
def test_what_has_no_fields_gets_none_unseen(body):
    with pytest.raises(ValueError, match="no JSON object with fields"):
        with_first_field(body, "a", 1)
