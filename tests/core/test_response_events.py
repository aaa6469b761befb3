import json

import pytest

from proxy.core.response_events import MAX_EVENT_BYTES, ResponseWatcher, failure_of
from proxy.core.types import Usage

USAGE = {
    "input_tokens": 9,
    "output_tokens": 5,
    "input_tokens_details": {"cached_tokens": 2},
    "output_tokens_details": {"reasoning_tokens": 3},
}
CREATED = {"type": "response.created", "response": {"id": "resp_1", "error": None}}
DELTA = {"type": "response.output_text.delta", "item_id": "msg_1", "delta": "Hi\n\n"}
COMPLETED = {"type": "response.completed", "response": {"id": "resp_1", "usage": USAGE}}


def event(payload, end="\n"):
    data = json.dumps(payload)
    return f"event: {payload.get('type')}{end}data: {data}{end}{end}".encode()


def mark(body, payload):
    """Shouts."""
    return body.replace(b"_1", b"_ONE")


def watched(*payloads, end="\n"):
    watcher = ResponseWatcher(mark)
    for payload in payloads:
        watcher.feed(event(payload, end))
    return watcher


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 10_000])
def test_each_event_is_marked_wherever_it_is_split(size, end):
    stream = b"".join(event(p, end) for p in (CREATED, DELTA, COMPLETED))
    watcher = ResponseWatcher(mark)
    parts = [stream[at : at + size] for at in range(0, len(stream), size)]
    sent = b"".join(map(watcher.feed, parts))
    assert watcher.is_whole()
    assert sent + watcher.finish() == mark(stream, {})
    assert (watcher.events, watcher.usage) == (1, Usage(9, 5, 2, False, 3))


def test_of_an_event_nothing_is_sent_before_it_is_there():
    watcher = ResponseWatcher(mark)
    begun, rest = event(DELTA)[:20], event(DELTA)[20:]
    assert watcher.feed(begun) == b""
    assert not watcher.content
    assert watcher.feed(rest) == mark(event(DELTA), {})


def test_what_is_no_event_with_json_passes():
    watcher = ResponseWatcher(mark)
    for text in (b": keep-alive_1\n\n", b"data: [DONE]\n\n", b"data: no\n\n"):
        assert watcher.feed(text) == text
    assert not watcher.content


@pytest.mark.parametrize("last", ["completed", "incomplete", "cancelled"])
def test_its_last_event_ends_it_and_says_what_it_used(last):
    watcher = watched(CREATED, DELTA)
    assert not watcher.has_ended
    assert not watcher.is_whole()
    watcher.feed(event(COMPLETED | {"type": f"response.{last}"}))
    assert (watcher.done, watcher.has_ended, watcher.is_whole()) == (True, True, True)
    assert watcher.error is None
    assert watcher.usage == Usage(9, 5, 2, False, 3)


def test_a_last_event_may_lack_its_empty_line():
    watcher = watched(CREATED, DELTA)
    assert watcher.feed(event(COMPLETED)[:-2]) == b""
    assert watcher.is_whole()
    assert watcher.finish() == mark(event(COMPLETED)[:-2], {})


def test_half_an_event_is_no_end():
    watcher = watched(CREATED, DELTA)
    watcher.feed(event(COMPLETED)[:-5])
    assert not watcher.is_whole()


# What says something.


@pytest.mark.parametrize(
    "payload, says",
    [
        (CREATED, False),
        ({"type": "response.in_progress", "response": {}}, False),
        ({"type": "response.queued", "response": {"background": False}}, False),
        ({"type": "response.created", "response": {"background": True}}, True),
        ({"type": "response.output_item.added", "item": {"type": "message"}}, False),
        ({"type": "response.output_item.added", "item": {"type": "reasoning"}}, True),
        ({"type": "response.output_item.added", "item": None}, True),
        ({"type": "response.content_part.added", "part": {}}, False),
        (DELTA, True),
        (COMPLETED, True),
        ({"type": "response.brand_new"}, True),
        ({"no": "type"}, True),
        ({"type": ["response.created"]}, True),
        ({"type": {"a": 1}}, True),
    ],
)
def test_it_says_something_when_there_is_more_than_a_beginning(payload, says):
    assert watched(payload).content is says


def test_what_goes_on_in_the_background_does_so_until_it_ends():
    begun = {"type": "response.created", "response": {"background": True}}
    watcher = watched(begun, DELTA)
    assert watcher.goes_on
    watcher.feed(event(COMPLETED | {"response": {"background": True}}))
    assert not watcher.goes_on
    assert not watched(CREATED, DELTA).goes_on


# Errors.


@pytest.mark.parametrize(
    "payload, said, is_clients",
    [
        (
            {
                "type": "response.failed",
                "response": {"error": {"code": "server_error", "message": "Bad luck."}},
            },
            "Bad luck.",
            False,
        ),
        (
            {
                "type": "response.failed",
                "response": {"error": {"code": "image_parse_error", "message": "No image."}},
            },
            "No image.",
            True,
        ),
        ({"type": "response.failed", "response": {"error": None}}, "it failed", False),
        ({"type": "response.failed", "response": None}, "it failed", False),
        ({"type": "error", "code": "rate_limit_exceeded", "message": "Slow."}, "Slow.", False),
        ({"type": "error", "code": "invalid_prompt", "message": "No."}, "No.", True),
        ({"type": "error", "error": {"message": "Oh.", "code": None}}, "Oh.", False),
        ({"error": {"message": "Sorry.", "type": "server_error"}}, "Sorry.", False),
    ],
)
def test_an_error_is_told_with_whose_it_is(payload, said, is_clients):
    watcher = watched(CREATED, payload)
    assert (watcher.error, watcher.is_clients_error) == (said, is_clients)
    assert (watcher.content, watcher.has_ended) == (False, True)
    assert watcher.is_whole()


def test_an_error_with_a_clients_status_is_unclear():
    assert watched({"type": "error", "code": "422", "message": "x"}).is_unclear_error


def test_of_several_errors_the_first_is_told():
    first, second = ({"type": "error", "message": m, "code": "x"} for m in ("1st", "2nd"))
    assert watched(first, second).error == "1st"


def test_the_last_words_are_an_event_of_this_api_and_of_chats():
    watcher = watched(CREATED | {"sequence_number": 0}, DELTA | {"sequence_number": 4})
    watcher.feed(b"event: half")
    words = watcher.last_words(b'data: {"error":{"message":"It broke.","code":"cut"}}\n\n')
    assert words.startswith(b"event: error\ndata: ")
    assert words.endswith(b"\n\n")
    assert json.loads(words.split(b"data: ")[1]) == {
        "type": "error",
        "code": "cut",
        "message": "It broke.",
        "param": None,
        "sequence_number": 4,
        "error": {"message": "It broke.", "code": "cut"},
    }
    assert watcher.finish() == b""


def test_an_event_without_its_last_line_is_counted_once():
    watcher = watched(CREATED)
    watcher.feed(event(DELTA).rstrip())
    for _ in range(2):
        assert not watcher.is_whole()
    watcher.finish()
    assert watcher.events == 1


# Large ones.


def test_an_image_in_an_event_is_marked_and_waits_in_one_piece():
    image = "A" * 3_000_000
    payload = COMPLETED | {"response": COMPLETED["response"] | {"result": image}}
    whole = event(payload)
    watcher = ResponseWatcher(mark)
    sent = [watcher.feed(whole[at : at + 65_536]) for at in range(0, len(whole), 65_536)]
    assert [len(s) for s in sent if s] == [len(mark(whole, {}))]
    assert (watcher.done, watcher.endless) == (True, False)


def test_an_event_that_does_not_end_is_given_up():
    watcher = ResponseWatcher(mark)
    piece = b"x" * (MAX_EVENT_BYTES // 8)
    for _ in range(8):
        assert watcher.feed(piece) == b""
    assert not watcher.endless
    watcher.feed(b"x")
    assert watcher.endless
    assert not watcher.is_whole()


@pytest.mark.parametrize(
    "payload, error",
    [
        ({"status": "failed", "error": {"code": "x"}}, {"code": "x"}),
        ({"status": "completed", "error": None}, None),
        ({"status": "completed", "error": {"code": "x"}}, None),
        ({}, None),
    ],
)
def test_whether_a_plain_answer_failed(payload, error):
    assert failure_of(payload) == error
