import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.sse import (
    ENDLESS_BYTES,
    MAX_EVENT_BYTES,
    StreamWatcher,
    read_usage,
    usage_of_answer,
)
from proxy.core.tokens import MAX_TOKENS
from proxy.core.types import Usage

USAGE_JSON = {
    "prompt_tokens": 11,
    "completion_tokens": 5,
    "total_tokens": 16,
    "prompt_tokens_details": {"cached_tokens": 8},
}
USAGE = Usage(prompt_tokens=11, completion_tokens=5, cached_tokens=8)


def event(fields, end="\n\n"):
    return b"data: " + json.dumps(fields, ensure_ascii=False).encode() + end.encode()


def text(content, **fields):
    return {"choices": [{"index": 0, "delta": {"content": content}}], **fields}


PREAMBLE = event({"choices": [], "prompt_filter_results": [], "usage": None})
HELLO = event(text("Hello €"))
LAST = event({"choices": [], "usage": USAGE_JSON})
DONE = b"data: [DONE]\n\n"


def fed(chunks, *, hide_usage=False):
    """The watcher afterwards, and what went on, chunk by chunk."""
    watcher = StreamWatcher(hide_usage=hide_usage)
    passed = [watcher.feed(chunk) for chunk in chunks]
    return watcher, [*passed, watcher.finish()]


def split(data, cuts):
    places = [0, *sorted(c % (len(data) + 1) for c in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(places)]


EVENTS = st.one_of(
    st.text(max_size=8).map(text),
    st.sampled_from(
        [
            text('"usage": {"prompt_tokens": 9}'),  # the model writes about it
            text("data: x"),
            text("", usage=None),
            text("", usage={"prompt_tokens": 1, "completion_tokens": 2}),
            {"choices": [], "usage": None},
            {"choices": [], "usage": USAGE_JSON},
            {"choices": [], "nested": {"usage": {"prompt_tokens": 3}}},
            {"usage": {"prompt_tokens": 4}},
        ]
    ),
)


@st.composite
def streams(draw):
    """A stream's events, each as bytes, and what of it may be seen by who did not ask."""
    end = draw(st.sampled_from(["\n\n", "\r\n\r\n"]))
    whole, visible = [], []
    for fields in draw(st.lists(EVENTS, max_size=6)):
        if draw(st.booleans()):
            whole.append(b": keep-alive" + end.encode())
            visible.append(whole[-1])
        whole.append(event(fields, end))
        if fields.get("choices") or not fields.get("usage"):
            visible.append(whole[-1])
    rest = draw(
        st.sampled_from([b"data: [DONE]" + end.encode(), b"data: [DONE]\n", b"dat", b""])
    )
    return b"".join([*whole, rest]), b"".join([*visible, rest])


@given(streams(), st.lists(st.integers(0, 10_000), max_size=12))
def test_a_stream_reads_the_same_however_it_is_split(stream, cuts):
    whole, visible = stream
    for hide_usage, expected in ((False, whole), (True, visible)):
        at_once, _ = fed([whole], hide_usage=hide_usage)
        bytewise, passed_bytewise = fed(split(whole, range(len(whole))), hide_usage=hide_usage)
        watcher, passed = fed(split(whole, cuts), hide_usage=hide_usage)
        assert b"".join(passed) == b"".join(passed_bytewise) == expected
        assert watcher.usage == bytewise.usage == at_once.usage
        assert watcher.events == bytewise.events == at_once.events


@given(streams(), st.lists(st.integers(0, 10_000), max_size=12))
def test_unless_it_hides_the_usage_it_returns_every_chunk_as_it_came(stream, cuts):
    chunks = split(stream[0], cuts)
    assert fed(chunks)[1] == [*chunks, b""]


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n"])
def test_the_usage_event_is_read_and_hidden_if_told_so(end):
    before, last, done = (
        data.replace(b"\n\n", end.encode()) for data in (PREAMBLE + HELLO, LAST, DONE)
    )
    watcher, passed = fed([before + last + done])
    assert (b"".join(passed), watcher.usage) == (before + last + done, USAGE)
    watcher, passed = fed([before + last + done], hide_usage=True)
    assert (b"".join(passed), watcher.usage) == (before + done, USAGE)


def test_hiding_it_lets_whole_events_through_at_once():
    watcher = StreamWatcher(hide_usage=True)
    assert watcher.feed(HELLO + b"data: {") == HELLO
    assert watcher.feed(b'"a": 1}\n') == b""
    assert watcher.feed(b"\n" + HELLO[:3]) == b'data: {"a": 1}\n\n'
    assert watcher.finish() == HELLO[:3]
    assert watcher.finish() == b""


def test_the_shortest_comment_goes_on_at_once_too():
    assert StreamWatcher(hide_usage=True).feed(b":\n\ndata") == b":\n\n"


def test_nothing_is_hidden_unless_told_so():
    assert StreamWatcher().feed(LAST) == LAST


def test_an_end_with_carriage_returns_is_seen_when_it_is_complete():
    watcher = StreamWatcher(hide_usage=True)
    assert watcher.feed(b"data: 1\r\n\r") == b""
    assert watcher.feed(b"\ndata: 2\r\n") == b"data: 1\r\n\r\n"
    assert watcher.feed(b"\r\ndata") == b"data: 2\r\n\r\n"


@pytest.mark.parametrize("is_first", [False, True])
def test_the_usage_of_an_event_that_has_an_image_is_read(is_first):
    usage = '"usage":{"input_tokens":5,"output_tokens":1000,"total_tokens":1005}'
    image = f'"b64_json":"{"x" * 3_000_000}"'
    fields = f"{usage},{image}" if is_first else f"{image},{usage}"
    whole = f'event: image_edit.completed\ndata: {{"type":"i.completed",{fields}}}\n\n'.encode()
    chunks = split(whole, range(60_000, len(whole), 60_000))
    watcher, passed = fed(chunks)
    assert (b"".join(passed), watcher.usage) == (whole, Usage(5, 1000))
    assert watcher.is_whole()


def test_the_last_usage_counts():
    running = event(text("a", usage={"prompt_tokens": 11, "completion_tokens": 1}))
    assert fed([running + LAST + DONE])[0].usage == USAGE


@pytest.mark.parametrize(
    "fields",
    [
        text("a", usage={"prompt_tokens": 11}),  # some servers count along with the text
        {"choices": [], "usage": None},
        {"choices": [], "usage": 5},
        {"choices": [], "x": {"usage": {"prompt_tokens": 11}}},
        text('a "usage": {"prompt_tokens": 11}'),
    ],
)
def test_an_event_that_is_more_or_less_than_usage_is_never_hidden(fields):
    assert b"".join(fed([event(fields)], hide_usage=True)[1]) == event(fields)


@pytest.mark.parametrize(
    "data",
    [
        text('"usage": {"prompt_tokens": 9}'),
        {"choices": [], "x": {"usage": {"prompt_tokens": 9}}},
        {"choices": [], "usage": None},
        {"choices": [], "usage": [9]},
    ],
)
def test_only_the_events_own_usage_object_is_usage(data):
    assert fed([event(data)])[0].usage is None


@pytest.mark.parametrize(
    "raw",
    [
        b'data: {"usage": {"prompt_tokens": 9}\n\n',  # not JSON
        b'data: ["usage", {"usage": {"prompt_tokens": 9}}]\n\n',  # not an object
        b'event: x\n: "usage": {"prompt_tokens": 9}\n\n',  # a comment
        b'data: {"usage": {"prompt_tokens": 9, "x": "\xff"}}\n\n',  # not UTF-8
        b'data: {"usage": {"x": ' + b"[" * 100_000 + b"\n\n",  # nested without end
    ],
)
def test_what_cannot_be_read_is_passed_on(raw):
    for hide_usage in (False, True):
        watcher, passed = fed([raw, DONE], hide_usage=hide_usage)
        assert b"".join(passed) == raw + DONE
        assert watcher.usage is None


@pytest.mark.parametrize(
    "raw",
    [
        b'data:{"choices":[],"usage":{"prompt_tokens":9}}\n\n',  # no space
        b'event: message\nid: 1\ndata: {"choices": [], "usage" : {"prompt_tokens": 9}}\n\n',
        b'data: {"choices": [],\ndata: "usage": {"prompt_tokens": 9}}\n\n',  # two lines
        b': keep-alive\r\ndata: {"usage": {"prompt_tokens": 9}}\r\n\r\n',
    ],
)
def test_every_way_to_write_an_event_is_read(raw):
    watcher, passed = fed([HELLO + raw + DONE], hide_usage=True)
    assert watcher.usage == Usage(prompt_tokens=9)
    assert b"".join(passed) == HELLO + DONE


def test_events_are_counted_by_their_data_and_not_by_what_the_model_writes():
    watcher, _ = fed([b": keep-alive\n\n" + event(text("data: data:")) + HELLO[:5], HELLO[5:]])
    assert watcher.events == 2


def test_half_an_event_is_not_counted_and_one_without_its_empty_line_is():
    assert fed([HELLO + HELLO[:-4]])[0].events == 1
    assert fed([HELLO + HELLO[:-1]])[0].events == 2
    assert fed([HELLO + HELLO[:-2]])[0].events == 2


@pytest.mark.parametrize(
    "chunks, hide_usage, ending",
    [
        ([HELLO], False, b""),
        ([HELLO + b"data: {"], False, b"\n\n"),
        ([HELLO, b"data: {"], False, b"\n\n"),
        ([HELLO + b"data: {"], True, b""),  # of that nothing was sent
        ([], False, b""),
    ],
)
def test_an_interrupted_stream_ends_the_event_that_is_half_sent(chunks, hide_usage, ending):
    watcher = StreamWatcher(hide_usage=hide_usage)
    for chunk in chunks:
        watcher.feed(chunk)
    assert watcher.interrupt() == ending
    assert (watcher.interrupt(), watcher.finish()) == (b"", b"")


def test_an_event_of_the_largest_size_is_held_and_a_larger_one_is_let_go():
    head = b'data: {"x": "'
    watcher = StreamWatcher(hide_usage=True)
    assert watcher.feed(head + b"x" * (MAX_EVENT_BYTES - len(head))) == b""
    assert len(watcher.feed(b"x")) == MAX_EVENT_BYTES + 1
    assert watcher.feed(b'"}\n\n' + LAST + DONE) == b'"}\n\n' + DONE
    assert watcher.usage == USAGE


def test_only_what_is_held_counts_towards_the_largest_size():
    large = b": " + b"x" * (MAX_EVENT_BYTES - 10) + b"\n\n"
    watcher, passed = fed([large + LAST[:-1], LAST[-1:]], hide_usage=True)
    assert (b"".join(passed), watcher.usage) == (large, USAGE)


def test_a_megabyte_is_enough_for_an_event():
    assert MAX_EVENT_BYTES == 2**20


LARGE = b"x" * (MAX_EVENT_BYTES + 1)


@pytest.mark.parametrize("hide_usage", [True, False])
def test_a_line_without_an_end_is_not_kept_and_at_last_called_endless(hide_usage):
    watcher = StreamWatcher(hide_usage=hide_usage)
    watcher.feed(HELLO + b"data: ")
    fed_bytes = len(b"data: ")
    while fed_bytes <= ENDLESS_BYTES:
        assert not watcher.endless
        watcher.feed(LARGE)
        assert len(watcher._tail) <= MAX_EVENT_BYTES
        fed_bytes += len(LARGE)
    assert watcher.endless


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\n\ndata"])
def test_large_events_one_after_the_other_are_not_endless(end):
    watcher = StreamWatcher()
    for _ in range(2 * ENDLESS_BYTES // len(LARGE)):
        watcher.feed(b"data: " + LARGE)
        watcher.feed(end)
    assert not watcher.endless
    assert ENDLESS_BYTES >= 16 * MAX_EVENT_BYTES  # an image may be some megabytes


@pytest.mark.parametrize("hide_usage", [True, False])
@pytest.mark.parametrize("rest, ending", [(b"", b"\n\n"), (b"y", b"\n\n"), (b"\n\n", b"")])
def test_a_large_event_that_breaks_off_is_ended_too(hide_usage, rest, ending):
    watcher = StreamWatcher(hide_usage=hide_usage)
    watcher.feed(b"data: " + LARGE)
    watcher.feed(rest)
    assert watcher.interrupt() == ending
    assert watcher.interrupt() == b""


@pytest.mark.parametrize(
    "body, usage",
    [
        ({"choices": [{"message": {"content": "Hello"}}], "usage": USAGE_JSON}, USAGE),
        ({"usage": USAGE_JSON, "choices": [{"message": {"content": "Hello"}}]}, USAGE),
        ({"data": [{"embedding": [0.1]}], "usage": {"prompt_tokens": 3}}, Usage(3)),
        ({"choices": [{"message": {"content": '"usage": {"prompt_tokens": 9}'}}]}, None),
        # The word stands last, but not as the key.
        ({"usage": USAGE_JSON, "model": "usage"}, USAGE),
        ({"usage": USAGE_JSON, "choices": [{"text": 'my "usage'}]}, USAGE),
        ({"model": "usage"}, None),
        ({"usage": None}, None),
        ({"usage": []}, None),
        ({}, None),
        ({"usage": {}}, None),
        # Of another kind of object, behind it or before.
        ({"usage": USAGE_JSON, "x": {"usage": {"kind": "x"}}}, USAGE),
        ({"x": {"usage": {"kind": "x"}}, "usage": USAGE_JSON}, USAGE),
        ({"x": [{"usage": {"kind": "x"}}] * 99}, None),
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_a_plain_answers_usage(body, usage, indent):
    assert usage_of_answer(json.dumps(body, indent=indent).encode()) == usage


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no JSON",
        b'"usage"',
        b'{"usage": {"prompt_tokens": 9',  # cut short
        b'{"usage": {"prompt_tokens": 9, "x": "' + b"x" * 8192 + b'"}}',  # larger than any
        b'{"usage": {"x": ' + b"[" * 8000,
        b'{"usage": {"prompt_tokens": ' + b"9" * 5000 + b"}}",
    ],
)
def test_an_answer_whose_usage_cannot_be_read_has_none(body):
    assert usage_of_answer(body) is None


def test_usage_may_be_followed_by_anything():
    body = b'{"usage": {"prompt_tokens": 9}, "x": "' + "€".encode() * 5000 + b'"}'
    assert usage_of_answer(body) == Usage(prompt_tokens=9)


@pytest.mark.parametrize(
    "value, usage",
    [
        (USAGE_JSON, USAGE),
        ({"prompt_tokens": 3}, Usage(prompt_tokens=3)),
        ({"completion_tokens": 3}, Usage(completion_tokens=3)),
        ({"prompt_tokens": 3, "prompt_tokens_details": None}, Usage(prompt_tokens=3)),
        ({"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": None}}, Usage(3)),
        ({"prompt_tokens": 10.0, "completion_tokens": 1e300}, Usage(10, MAX_TOKENS)),
        ({"prompt_tokens": float("inf"), "completion_tokens": float("nan")}, Usage()),
        ({"prompt_tokens_details": {"cached_tokens": 5}}, None),
        # Of images and transcripts; Whisper counts in seconds.
        (
            {
                "input_tokens": 50,
                "input_tokens_details": {"cached_tokens": 5, "image_tokens": 40},
                "output_tokens": 60,
                "output_tokens_details": {"reasoning_tokens": 7},
            },
            Usage(50, 60, cached_tokens=5, reasoning_tokens=7),
        ),
        ({"type": "tokens", "input_tokens": 14, "output_tokens": 3}, Usage(14, 3)),
        ({"output_tokens": 3}, Usage(0, 3)),
        ({"prompt_tokens": 1, "input_tokens": 2, "completion_tokens": 3}, Usage(1, 3)),
        ({"prompt_tokens": None, "input_tokens": 5, "output_tokens": 7}, Usage(5, 7)),
        ({"type": "duration", "seconds": 9}, Usage(150, estimated=True)),
        ({"type": "duration", "seconds": 0.01}, Usage(1, estimated=True)),
        ({"type": "duration", "seconds": 2**31 - 2}, Usage(MAX_TOKENS, estimated=True)),
        ({"type": "duration", "seconds": -1}, None),
        ({"type": "duration", "seconds": float("inf")}, None),
        ({"type": "duration", "seconds": float("nan")}, None),
        ({"type": "duration", "seconds": "9"}, None),
        ({"type": "duration"}, None),
        ({"prompt_tokens": None}, None),
        ({"prompt_tokens": -1, "completion_tokens": "5"}, Usage()),
        ({"prompt_tokens": 1.5, "completion_tokens": None}, Usage()),
        # More than the database could add.
        ({"prompt_tokens": 10**30}, Usage(prompt_tokens=MAX_TOKENS)),
        (None, None),
        ([], None),
        (5, None),
    ],
)
def test_a_usage_object_is_read_as_far_as_it_makes_sense(value, usage):
    assert read_usage(value) == usage


def test_usage_that_was_read_is_not_estimated():
    assert read_usage(USAGE_JSON).estimated is False


@pytest.mark.parametrize(
    "stream, done",
    [
        (b'data: {"x": 1}\n\ndata: [DONE]\n\n', True),
        (b"data: [DONE]\r\n\r\n", True),
        (b"data:[DONE]\n\n", True),
        (b'data: {"content": "data: [DONE]"}\n\n', False),  # the model's own words
        (b'data: {"x": 1}\n\n', False),
    ],
)
def test_the_end_of_a_stream_is_known_by_its_last_event(stream, done):
    watcher = StreamWatcher()
    watcher.feed(stream)
    assert watcher.done is done


def test_a_usage_event_without_its_empty_line_is_noted_and_hidden_at_the_end():
    watcher = StreamWatcher(hide_usage=True)
    event = b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}\n'
    assert watcher.feed(event) == b""
    assert watcher.finish() == b""
    assert watcher.usage is not None
    assert watcher.usage.total_tokens == 7


# What an event says.


def chat(**delta):
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})


@pytest.mark.parametrize(
    "raw",
    [
        HELLO,
        chat(refusal="I cannot"),
        chat(reasoning_content="Let me think"),
        chat(tool_calls=[{"index": 0, "function": {"name": "f"}}]),
        chat(function_call={"name": "f"}),
        event({"choices": [{"delta": {}, "finish_reason": "stop"}]}),
        event({"choices": [{"index": 0, "text": "Hello"}]}),
        event({"choices": [{"delta": {}}, {"delta": {"content": "the second choice"}}]}),
        # Of a shape we do not know: nobody can say that nothing is in it.
        event({"type": "response.output_text.delta", "delta": "Hello"}),
        event({"choices": ["Hello"]}),
        b"data: Hello\n\n",
        b'data: {"choices": [\n\n',
    ],
)
def test_an_event_that_says_something_is_content(raw):
    for first in (raw, PREAMBLE + raw, raw + DONE, b": keep-alive\n\n" + raw):
        assert fed([first])[0].content
        assert fed([first[:-3], first[-3:]])[0].content


@pytest.mark.parametrize(
    "raw",
    [
        PREAMBLE,
        b": keep-alive\n\n",
        b"event: ping\n\n",
        chat(role="assistant"),
        chat(role="assistant", content="", refusal=None, tool_calls=[]),
        chat(content=None),
        event({"choices": [{"index": 0, "text": "", "finish_reason": None}]}),
        event({"choices": [{"content_filter_offsets": {"check_offset": 1}, "index": 0}]}),
        LAST,
        DONE,
    ],
)
def test_an_event_that_says_nothing_yet_is_none(raw):
    assert not fed([raw, raw])[0].content


def test_half_an_event_says_nothing_yet():
    watcher = StreamWatcher()
    watcher.feed(HELLO[:-1])
    assert not watcher.content
    watcher.feed(HELLO[-1:])
    assert watcher.content


ERROR = {"error": {"message": "The server had\nan error", "type": "server_error"}}


@pytest.mark.parametrize(
    "raw, message",
    [
        (event(ERROR), "The server had an error"),
        (event({"error": "out of order"}), "out of order"),
        (event({"error": {"code": "500"}}), "an error without a message"),
        (b'event: error\ndata: {"code": "x", "message": "out of order"}\n\n', "out of order"),
        (b"event: error\ndata: what\n\n", "what"),
        (event({"object": "error", "message": "too long", "code": 400}), "too long"),
        (event({"choices": [], "error": {"message": "x" * 1000}}), "x" * 300),
    ],
)
def test_an_error_event_is_noted_wherever_it_stands_and_is_no_content(raw, message):
    watcher, passed = fed([PREAMBLE + raw])
    assert (watcher.error, watcher.content) == (message, False)
    assert b"".join(passed) == PREAMBLE + raw
    watcher, _ = fed([HELLO, raw, event(ERROR)])
    assert (watcher.error, watcher.content) == (message, True)


@pytest.mark.parametrize(
    "raw",
    [
        HELLO,
        event(text('"error": {"message": "the model writes about it"}')),
        event(text("x", error=None)),
        event({"choices": [], "error": None}),
        event({"choices": [{"delta": {"content": "x"}, "error": {}}]}),
        b': "error": {"message": "a comment"}\n\n',
    ],
)
def test_what_is_no_error_event_is_none(raw):
    assert fed([HELLO, raw, DONE])[0].error is None


def test_a_last_event_without_its_empty_line_is_looked_into_too():
    watcher = StreamWatcher()
    watcher.feed(event(ERROR)[:-1])
    watcher.finish()
    assert watcher.error == "The server had an error"


def test_events_are_not_parsed_once_there_is_content(monkeypatch):
    watcher = StreamWatcher()
    watcher.feed(HELLO)
    monkeypatch.setattr("proxy.core.sse.json.loads", None)
    assert watcher.feed(HELLO + event(text("error"))) == HELLO + event(text("error"))


@pytest.mark.parametrize(
    "raw, finished",
    [
        (event({"choices": [{"delta": {}, "finish_reason": "stop"}]}), True),
        (b'data: {"choices":[{"delta":{},"finish_reason":"length"}]}\n\n', True),
        (event({"choices": [{"delta": {"content": "x"}, "finish_reason": None}]}), False),
        (event(text('"finish_reason": "stop"')), False),  # the model writes about it
        (HELLO, False),
        (event({"type": "response.created"}), False),  # an odd one among those with choices
    ],
)
def test_a_choice_says_that_it_ends(raw, finished):
    assert fed([PREAMBLE + raw])[0].finished is finished
    assert fed([PREAMBLE, raw[:-1]])[0].finished is finished


def test_nobody_knows_how_a_stream_without_choices_ends():
    assert fed([event({"type": "response.completed"})])[0].finished
    assert not fed([b": keep-alive\n\n"])[0].finished


def ends(index):
    return event({"choices": [{"index": index, "delta": {}, "finish_reason": "stop"}]})


def test_a_stream_ends_when_as_many_choices_ended_as_were_asked_for():
    watcher = StreamWatcher(choices=2)
    tool = {"tool_calls": [{"index": 1, "function": {"name": "f"}}]}
    watcher.feed(event({"choices": [{"index": 0, "delta": tool, "finish_reason": None}]}))
    for _ in range(2):
        watcher.feed(ends(0))
        assert not watcher.is_whole()
    watcher.feed(ends(1))
    assert watcher.is_whole()


@pytest.mark.parametrize("raw", [b"data: [DONE]\n", b"data: [DONE]", ends(0)[:-1]])
def test_a_last_event_may_lack_its_empty_line(raw):
    watcher = StreamWatcher()
    watcher.feed(HELLO + raw)
    assert watcher.is_whole()
    assert watcher.interrupt() == b"\n\n"  # it looks, and takes nothing


def test_half_a_character_in_an_error_becomes_one_that_can_be_written():
    watcher = StreamWatcher()
    watcher.feed(b'data: {"error": {"message": "half \\ud83d of it"}}\n\n')
    assert watcher.error == "half ? of it"


@pytest.mark.parametrize(
    "error, is_clients",
    [
        ({"type": "invalid_request_error"}, True),
        ({"type": "invalid_request_error", "code": "context_length_exceeded"}, True),
        ({"code": "content_filter"}, True),
        ({"code": "moderation_blocked", "type": "image_generation_user_error"}, True),
        ({"code": "content_policy_violation"}, True),
        ({"code": "x", "type": "user_error"}, True),
        ({"type": "invalid_request_error", "code": 400}, True),
        ({"type": "invalid_request_error", "code": "422"}, True),
        ({"type": "invalid_request_error", "code": "unsupported_parameter"}, True),
        ({"type": "invalid_request_error", "code": ""}, True),
        # With this some report whatever went wrong.
        ({"type": "BadRequestError", "code": 400}, False),
        ({"code": 400}, False),
        ({"type": "authentication_error", "code": "invalid_request_error"}, False),
        ({"type": "invalid_request_error", "code": 500}, False),
        ({"type": "invalid_request_error", "code": 401}, False),
        ({"type": "invalid_request_error", "code": "model_not_found"}, False),
        ({"code": 429}, False),
        ({"code": "500"}, False),
        ({"code": "9" * 5000}, False),
        ({"type": "server_error"}, False),
        ({"message": "invalid_request_error"}, False),
        ({"code": ["content_filter"], "type": {}}, False),
        ({}, False),
        ("invalid_request_error", False),
    ],
)
def test_an_error_event_says_whether_the_request_is_to_blame(error, is_clients):
    watcher, _ = fed([PREAMBLE, event({"error": error or {"x": 1}})])
    assert watcher.error is not None
    assert watcher.is_clients_error is is_clients
    # Where its status alone says so, it may be anything.
    is_unclear = isinstance(error, dict) and str(error.get("code")).startswith("4")
    is_unclear = is_unclear and not is_clients and error["code"] not in (401, 429)
    assert watcher.is_unclear_error is is_unclear


def test_a_flat_error_says_so_too_and_the_first_one_counts():
    watcher, _ = fed([event({"object": "error", "code": "context_length_exceeded"})])
    assert watcher.is_clients_error
    watcher, _ = fed([event(ERROR), event({"error": {"code": "content_filter"}})])
    assert not watcher.is_clients_error


def test_an_event_without_end_is_no_end_of_a_stream_whatever_came_before():
    watcher = StreamWatcher()
    watcher.feed(b'data: {"x":"')
    while not watcher.endless:
        watcher.feed(b"x" * 1_000_000)
    assert not watcher.is_whole()
    watcher = StreamWatcher()
    watcher.feed(HELLO + DONE + b"data: ")
    while not watcher.endless:
        watcher.feed(b"x" * 1_000_000)
    assert watcher.is_whole()


def test_the_only_event_may_lack_its_empty_line():
    end = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    for last, is_whole in ((end[:-2], True), (end[:-4], False), (HELLO[:-2], False)):
        watcher = StreamWatcher()
        watcher.feed(last)
        assert watcher.is_whole() is is_whole


@pytest.mark.parametrize("usage", [{}, {"total_tokens": 5}, {"seconds": 5}])
def test_an_event_of_usage_that_cannot_be_read_is_hidden_all_the_same(usage):
    watcher, passed = fed(
        [HELLO, event({"choices": [], "usage": usage}), DONE], hide_usage=True
    )
    assert b"".join(passed) == HELLO + DONE
    assert watcher.usage is None


@pytest.mark.parametrize(
    "said",
    [
        {"text": "so far", "usage": {"input_tokens": 3}},
        {"choices": [], "error": {"message": "boom"}, "usage": {"prompt_tokens": 1}},
        {"delta": {"text": "so far"}, "usage": {"output_tokens": 3}},
    ],
)
def test_an_event_that_says_something_else_is_not_hidden_for_its_usage(said):
    _, passed = fed([HELLO, event(said), DONE], hide_usage=True)
    assert b"".join(passed) == HELLO + event(said) + DONE


def test_an_event_of_usage_may_have_no_choices_at_all():
    told = {"id": "x", "model": "m", "usage": {"prompt_tokens": 3}}
    watcher, passed = fed([HELLO, event(told), DONE], hide_usage=True)
    assert (b"".join(passed), watcher.usage) == (HELLO + DONE, Usage(3))
