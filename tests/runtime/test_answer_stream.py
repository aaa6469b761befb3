"""What a stream sends, and what becomes of it, is told by its attempt (test_attempt.py)."""

import contextlib
import gc
import time

import pytest
import requests

from proxy.core.sse import ENDLESS_BYTES, StreamWatcher
from proxy.runtime import answer_stream
from proxy.runtime.answer_stream import AnswerStream
from proxy.runtime.broken_stream import StreamBroken
from proxy.runtime.upstream import UpstreamError
from tests.builders import config
from tests.runtime.world import (
    BROKEN,
    DONE,
    ERROR,
    REAL,
    ROLE,
    USAGE_EVENT,
    WANTS_USAGE,
    World,
    stream,
    token,
    unreachable,
)

A = config("a")


# Read until it says something.


def answer_of(*pieces):
    """The stream of an answer, and the answer."""
    answer = stream(*pieces)
    return AnswerStream(answer, StreamWatcher(), ends_at=9e9, silence_seconds=60.0), answer


@pytest.mark.parametrize("said", [token(), ERROR, DONE])
def test_it_is_read_until_it_says_something_and_no_further(said):
    found, answer = answer_of(ROLE, said, token("never"))
    found.read_until_content(silent_until=5e9)
    assert len(answer.left) == 1
    assert found.sent_bytes == 0
    assert next(iter(found)) == ROLE + said
    assert found.sent_bytes == len(ROLE + said)


def test_until_then_its_silence_has_an_end_and_after_that_a_longest_time():
    found, answer = answer_of(ROLE, token())
    found.read_until_content(silent_until=5e9)
    assert (answer.ends, answer.silences) == ([5e9, 9e9], [60.0])


def test_its_silence_ends_with_its_calls_time_where_that_is_sooner():
    answer = stream(ROLE, token())
    found = AnswerStream(answer, StreamWatcher(), ends_at=4e9, silence_seconds=60.0)
    found.read_until_content(silent_until=5e9)
    assert answer.ends == [4e9, 4e9]


def test_one_that_says_nothing_until_its_end_is_broken():
    found, _ = answer_of(ROLE)
    with pytest.raises(UpstreamError, match=answer_stream.SAID_NOTHING):
        found.read_until_content(silent_until=5e9)


def test_what_is_held_back_has_a_largest_size(monkeypatch):
    monkeypatch.setattr(answer_stream, "MAX_HELD_BYTES", 3 * len(ROLE))
    found, _ = answer_of(*[ROLE] * 6, token(), DONE)
    found.read_until_content(silent_until=5e9)
    assert next(iter(found)) == ROLE * 4


def test_what_it_ends_with_in_the_middle_of_an_event_is_counted_too():
    last = DONE.rstrip()
    answer, watcher = (
        stream(token(), last),
        StreamWatcher(hide_usage=True),
    )  # which holds back what is no whole event
    found = AnswerStream(answer, watcher, ends_at=9e9, silence_seconds=60.0)
    found.read_until_content(silent_until=5e9)
    assert list(found) == [token()]
    assert (found.finish(), found.sent_bytes) == (last, len(token() + last))


ENDLESS_EVENT = b"data: " + b"x" * (ENDLESS_BYTES + 1)


@pytest.mark.parametrize(
    "pieces, left, broken",
    [
        ((token("one"), token("two")), 0, answer_stream.CUT_SHORT),
        ((token("one"), ENDLESS_EVENT, token("never")), 1, answer_stream.ENDLESS),
    ],
    ids=["cut short", "endless"],
)
def test_one_that_breaks_off_says_how_and_what_was_sent(pieces, left, broken):
    found, answer = answer_of(*pieces)
    found.read_until_content(silent_until=5e9)
    with pytest.raises(UpstreamError, match=broken):
        list(found)
    assert len(answer.left) == left
    assert found.sent_bytes == len(b"".join(pieces[:2]))


def test_one_that_was_read_to_its_end_is_not_watched_any_more():
    found, _ = answer_of(token(), DONE)
    found.read_until_content(silent_until=5e9)
    list(found)
    assert not found.is_over  # nobody looked
    assert found.watched() is None
    assert found.is_over


# Watched by who waits for many, and not iterated over.


def begun(*pieces, **fields):
    """An attempt whose first event was sent, and what iterates over it."""
    world = World(A, a=stream(token("one"), *pieces))
    attempt = world.attempt(**(WANTS_USAGE | fields))
    rest = iter(attempt)
    assert next(rest) == token("one")
    return attempt, rest


def test_what_arrives_of_a_stream_may_be_passed_on_by_another():
    attempt, rest = begun(token("two"), None, token("three"), USAGE_EVENT, DONE)
    assert attempt.stream.watched() is not None
    passed_on = [attempt.stream.pass_on()]
    with pytest.raises(BlockingIOError):
        attempt.stream.pass_on()
    passed_on += [attempt.stream.pass_on() for _ in range(3)]
    assert passed_on == [token("two"), token("three"), USAGE_EVENT, DONE]
    assert attempt.stream.is_over
    assert attempt.stream.watched() is None
    assert list(rest) == []
    assert (attempt.verdict.outcome, attempt.usage) == ("succeeded", REAL)
    assert attempt.stream.sent_bytes == len(token("one") + b"".join(passed_on))


def test_who_iterated_over_it_may_go_on_at_any_time():
    attempt, rest = begun(token("two"), token("three"), USAGE_EVENT, DONE)
    assert attempt.stream.pass_on() == token("two")
    assert b"".join(rest) == token("three") + USAGE_EVENT + DONE
    assert (attempt.verdict.outcome, attempt.usage) == ("succeeded", REAL)


def test_the_usage_event_is_hidden_from_that_one_too():
    attempt, rest = begun(USAGE_EVENT, DONE, stream_options=None)
    assert [attempt.stream.pass_on() for _ in range(2)] == [b"", DONE]
    assert list(rest) == []
    assert attempt.usage == REAL


@pytest.mark.parametrize(
    "end, error",
    [
        (lambda attempt: attempt.stream.fail(BROKEN), "it broke off its answer"),
        (lambda attempt: attempt.stream.fail(requests.ConnectionError("it fell")), "it fell"),
        (lambda attempt: attempt.stream.time_out(), "it timed out in the middle of its answer"),
    ],
)
def test_what_went_wrong_meanwhile_is_told_by_who_goes_on(end, error):
    attempt, rest = begun(token("two"), token("never"))
    assert attempt.stream.pass_on() == token("two")
    assert not attempt.stream.is_over
    end(attempt)
    assert attempt.stream.is_over
    assert error.replace("it", "the upstream", 1) in next(rest).decode()
    assert attempt.stream.watched() is None  # nothing more is waited for
    with pytest.raises(StreamBroken):
        next(rest)
    attempt.close()
    assert (attempt.verdict.outcome, attempt.error.message) == ("failed", error)


def test_what_comes_after_it_went_wrong_does_not_mend_it():
    """Who watched it may have been too slow to stop."""
    attempt, rest = begun(token("two"), token("never"))
    attempt.stream.time_out()
    attempt.stream.pass_on()
    assert attempt.stream.is_over
    with pytest.raises(StreamBroken):
        list(rest)
    attempt.close()


def test_a_stream_whose_call_has_no_time_left_meanwhile_is_no_failure(monkeypatch):
    attempt, rest = begun(token("never"), ends_at=time.monotonic() + 100)
    assert attempt.stream.ends_at == attempt.call.ends_at
    monkeypatch.setattr(time, "monotonic", lambda: attempt.stream.ends_at)
    attempt.stream.time_out()
    with pytest.raises(StreamBroken):
        list(rest)
    assert attempt.verdict.outcome == "expired"


def test_one_that_does_not_end_its_event_is_over():
    attempt, rest = begun(ENDLESS_EVENT, token("never"))
    attempt.stream.pass_on()
    assert attempt.stream.is_over
    assert attempt.stream.watched() is None
    with pytest.raises(StreamBroken):
        list(rest)


def left_over(**changes):
    """How many objects a stream leaves to the garbage collector that broke while it was
    watched."""
    gc.collect()
    broken = unreachable("it broke off its answer")  # its own: the other one is kept
    attempt, rest = begun(*changes.get("pieces", ()), broken)
    state = attempt._state  # outlives all calls
    if changes.get("is_left"):
        attempt.line.cut()
    try:
        while True:
            attempt.stream.pass_on()
    except UpstreamError as error:
        attempt.stream.fail(error)
    with contextlib.suppress(StreamBroken):
        list(rest)
    attempt.close()
    del attempt, rest, broken
    found = gc.collect()
    del state
    return found


@pytest.mark.parametrize("how", [{}, {"is_left": True}, {"pieces": (DONE,)}])
def test_one_that_broke_does_not_wait_for_the_garbage_collector(how):
    left_over(**how)  # what is made once
    gc.disable()
    try:
        assert left_over(**how) == 0
    finally:
        gc.enable()
