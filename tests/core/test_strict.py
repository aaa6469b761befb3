import json

import pytest

from proxy.core.sse import StreamWatcher
from proxy.core.strict import strict_answer, strict_event

SAFE = {"hate": {"filtered": False, "severity": "safe"}}
# As Azure sends them.
PREAMBLE = {
    "id": "",
    "object": "",
    "created": 0,
    "model": "",
    "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": SAFE}],
    "choices": [],
    "usage": None,
}
HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 5, "model": "gpt-4o"}
TEXT = {"index": 0, "delta": {"content": "Hallö \ud800"}, "finish_reason": None}
REMARK = {
    "index": 0,
    "finish_reason": None,
    "content_filter_results": SAFE,
    "content_filter_offsets": {"check_offset": 44, "start_offset": 44, "end_offset": 198},
}
DONE = b"data: [DONE]\n\n"


def event(payload):
    return b"data: " + json.dumps(payload).encode() + b"\n\n"


def strict(payload):
    """The payload of what is left of an event; None if nothing is."""
    left = strict_event(event(payload))
    if not left:
        return None
    assert left.startswith(b"data: ")
    assert left.endswith(b"\n\n")
    return json.loads(left[6:])


@pytest.mark.parametrize(
    "payload",
    [
        PREAMBLE,
        {**PREAMBLE, "prompt_annotations": PREAMBLE["prompt_filter_results"]},
        {"choices": []},
        {**HEAD, "choices": [], "usage": None},
        {**PREAMBLE, "choices": [REMARK]},
        {**PREAMBLE, "choices": [{**REMARK, "content_filter_raw": []}, {**REMARK, "index": 1}]},
    ],
)
def test_an_event_that_only_azure_sends_is_hidden(payload):
    assert strict(payload) is None


def test_fields_that_only_azure_has_are_left_out_and_the_rest_is_as_it_was():
    payload = {**HEAD, "choices": [{**TEXT, "content_filter_results": SAFE}], "usage": None}
    assert strict(payload) == {**HEAD, "choices": [TEXT], "usage": None}
    assert list(strict(payload)) == list(payload)


def test_the_usage_is_openais_event_without_choices():
    payload = {**HEAD, "choices": [], "usage": {"prompt_tokens": 9}}
    assert strict(payload) == payload
    assert strict({**payload, "prompt_filter_results": []}) == payload


def test_that_the_filter_ended_an_answer_is_told_as_openai_tells_it():
    remark = {**REMARK, "finish_reason": "content_filter"}
    ended = {"index": 0, "finish_reason": "content_filter", "delta": {}}
    assert strict({**HEAD, "choices": [remark]}) == {**HEAD, "choices": [ended]}


def test_a_completion_has_text_and_no_delta():
    choice = {"index": 0, "text": "", "finish_reason": None, "content_filter_results": {}}
    assert strict({"choices": [choice]})["choices"] == [
        {"index": 0, "text": "", "finish_reason": None}
    ]


def test_of_several_choices_the_remarks_go_alone():
    assert strict({**HEAD, "choices": [REMARK, TEXT]}) == {**HEAD, "choices": [TEXT]}


@pytest.mark.parametrize(
    "untouched",
    [
        DONE,
        b": keep-alive\n\n",
        b'data: {"choices" : [ {"index":0, "delta":{"content":"\\u00fc"}} ],"usage":null}\n\n',
        b'data: {"error": {"message": "no", "content_filter_result": {}}}\n\n',
        # What a model writes about it.
        b'data: {"choices":[{"delta":{"content":"\\"content_filter_results\\": {}"}}]}\n\n',
        # A part of an event too large to be held.
        b'data: {"choices":[{"content_filter_results": {}, "delta"',
        b'data: {"content_filter_results": ' + b"[" * 100_000,
        b"\n\n",
        b"",
    ],
)
def test_what_azure_added_nothing_to_is_not_touched(untouched):
    assert strict_event(untouched) == untouched


def test_other_lines_of_an_event_stay():
    left = strict_event(b"id: 7\r\n" + event({**HEAD, "choices": [REMARK, TEXT]}))
    assert left.startswith(b"id: 7\ndata: {")


# In a stream.

RAW = (
    event(PREAMBLE)
    + event({**HEAD, "choices": [{**TEXT, "content_filter_results": SAFE}]})
    + event({**PREAMBLE, "choices": [REMARK]})
    + event({**HEAD, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    + event({**HEAD, "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}})
    + DONE
)


def watched(data, size, **options):
    watcher = StreamWatcher(rewrite=strict_event, **options)
    pieces = [watcher.feed(data[at : at + size]) for at in range(0, len(data), size)]
    return watcher, b"".join([*pieces, watcher.finish()])


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
@pytest.mark.parametrize("hide_usage", [True, False])
def test_a_stream_is_strict_wherever_it_is_split(size, hide_usage):
    watcher, sent = watched(RAW, size, hide_usage=hide_usage)
    payloads = [json.loads(e[6:]) for e in sent.split(b"\n\n")[:-2]]
    texts, ends = payloads[:1], payloads[1:2]
    assert texts == [{**HEAD, "choices": [TEXT]}]
    assert ends[0]["choices"][0]["finish_reason"] == "stop"
    assert [p["choices"] for p in payloads[2:]] == ([] if hide_usage else [[]])
    assert sent.endswith(DONE)
    # What is seen of it is all of it.
    assert (watcher.usage.prompt_tokens, watcher.events) == (9, 6)
    assert watcher.is_whole()


def test_a_last_event_without_its_empty_line_is_strict_too():
    last = event({**HEAD, "choices": [{**TEXT, "content_filter_results": SAFE}]})[:-2]
    _, sent = watched(DONE + last, 50)
    assert b"content_filter" not in sent
    assert sent.endswith(b"}\n\n")


def test_of_what_breaks_off_in_the_middle_of_an_event_nothing_was_sent():
    watcher = StreamWatcher(rewrite=strict_event)
    assert watcher.feed(event(PREAMBLE)[:50]) == b""
    assert watcher.interrupt() == b""


# Plain answers.


def test_a_plain_answer_is_openais():
    choice = {"index": 0, "message": {"content": "ü"}, "finish_reason": "stop"}
    answer = {**HEAD, "choices": [choice], "usage": {"prompt_tokens": 1}}
    azures = {
        **HEAD,
        "prompt_filter_results": [],
        "choices": [{**choice, "content_filter_results": SAFE}],
        "usage": {"prompt_tokens": 1},
    }
    assert json.loads(strict_answer(json.dumps(azures).encode())) == answer


@pytest.mark.parametrize(
    "untouched",
    [
        b'{ "choices": [ {"message": {"content": "\\u00fc"}} ] }',
        b'{"object":"list","data":[{"embedding":[0.1,0.2]}]}',
        b'{"data":[],"prompt_filter_results":[]}',
        b'"content_filter_results": not JSON',
        b"",
    ],
)
def test_a_plain_answer_that_is_openais_already_is_not_touched(untouched):
    assert strict_answer(untouched) == untouched


def test_an_error_stays_as_it_is_also_in_an_event_without_choices():
    event = b'data: {"choices":[],"error":{"message":"x"}}\n\n'
    assert strict_event(event) == event
