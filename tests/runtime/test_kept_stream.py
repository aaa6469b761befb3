import json
import logging
import math
import time

import pytest

from proxy.core.response_events import ResponseWatcher
from proxy.runtime.broken_stream import StreamBroken
from proxy.runtime.kept_stream import KeptStreams
from proxy.runtime.line import Line
from proxy.runtime.lookup import Begun, Question
from proxy.runtime.upstream import UpstreamError
from tests.runtime.world import FakeAnswer


def event(number, kind="response.output_text.delta"):
    payload = {"type": kind, "sequence_number": number, "delta": "x"}
    return f"event: {kind}\ndata: {json.dumps(payload)}\n\n".encode()


LAST = event(9, "response.completed")
BROKEN = UpstreamError("it broke off its answer")


class World:
    """One stream that is taken up again, and what became of it."""

    def __init__(self, *pieces, ends_at=math.inf, after=-1):
        self.answer = FakeAnswer(200, pieces)
        self.line = self.answer.line
        self.closed = 0
        self.streams = KeptStreams()
        self.stream = self.streams.begin(
            Begun("a", self.answer),
            Question("responses/x", "GET", "", {}, "the-id", self.line, ends_at, True),
            ResponseWatcher(lambda data, _: data.replace(b"x", b"y"), after=after),
            silence_seconds=7.0,
            on_close=self.count,
        )

    def count(self):
        self.closed += 1

    def got(self):
        """What its client gets, and whether that ended well."""
        got = []
        try:
            got.extend(self.stream)
        except StreamBroken:
            return b"".join(got), False
        finally:
            self.stream.close()
        return b"".join(got), True


def error_in(data):
    words = data.rpartition(b"event: error\ndata: ")[2]
    return json.loads(words)


def test_it_is_passed_on_with_marks_and_closed_before_its_end_is_out():
    world = World(event(4) + event(5), LAST)
    assert world.got() == ((event(4) + event(5) + LAST).replace(b"x", b"y"), True)
    assert world.answer.closed >= 1
    assert world.closed >= 1
    assert world.streams.break_off() == 0


def test_it_may_be_silent_for_so_long_and_has_its_calls_time():
    world = World(LAST, ends_at=5e9)
    assert (world.answer.silences, world.answer.ends) == ([7.0], [5e9])
    assert (world.stream.stream.silence_seconds, world.stream.stream.ends_at) == (7.0, 5e9)


@pytest.mark.parametrize("pieces", [(), (event(4),)])
def test_it_may_end_before_the_response_does(pieces):
    got, is_well = World(*pieces).got()
    assert (got, is_well) == (b"".join(pieces).replace(b"x", b"y"), True)


def test_half_an_event_is_left_to_whoever_goes_on():
    assert World(event(4), event(5)[:60]).got() == (event(4).replace(b"x", b"y"), True)


def test_what_is_silent_in_its_time_is_told_of_as_its_instances_doing(caplog):
    silent = UpstreamError("it timed out in the middle of its answer", timed_out=True)
    got, is_well = World(event(4), silent).got()
    assert "the upstream timed out" in error_in(got)["message"]
    assert not is_well
    assert "in the middle of its stream" in caplog.text


def test_one_that_begins_while_the_worker_ends_is_broken_off_too():
    world = World(event(4))
    assert world.streams.break_off() == 1
    later = world.streams.begin(
        Begun("a", FakeAnswer(200, (event(4),))),
        Question("responses/x", "GET", "", {}, "other", Line(), math.inf, True),
        ResponseWatcher(lambda data, _: data),
        silence_seconds=7.0,
        on_close=world.count,
    )
    with pytest.raises(StreamBroken):
        list(later)
    later.close()


def test_an_event_that_lacks_its_last_line_is_passed_on_too():
    assert World(LAST.rstrip()).got() == (LAST.rstrip().replace(b"x", b"y"), True)


def test_if_it_breaks_its_client_and_the_log_are_told_with_the_number_to_go_on_after(caplog):
    got, is_well = World(event(4), BROKEN).got()
    assert not is_well
    error = error_in(got)
    assert (error["code"], error["sequence_number"]) == ("stream_interrupted", 4)
    assert error["message"] == "The answer broke off: the upstream broke off its answer."
    (record,) = caplog.records
    assert record.getMessage() == (
        "the-id a, in the middle of its stream: it broke off its answer"
    )


def test_if_it_breaks_at_once_it_is_gone_on_after_what_was_asked_for():
    got, _ = World(BROKEN, after=17).got()
    assert error_in(got)["sequence_number"] == 17


@pytest.mark.parametrize("pieces", [(LAST, BROKEN)])
def test_what_breaks_behind_its_last_event_is_whole(pieces):
    assert World(*pieces).got() == (LAST.replace(b"x", b"y"), True)


def test_who_has_left_is_told_nothing_and_nobody_else_is(caplog):
    world = World(event(4), event(5))
    world.line.cut()
    assert world.got() == (b"", True)
    assert not caplog.records


def test_when_its_calls_time_is_over_it_says_so(caplog):
    over = UpstreamError("it timed out", timed_out=True)
    got, _ = World(over, ends_at=time.monotonic() - 1).got()
    assert error_in(got)["message"] == "The answer broke off: the time for the call is over."
    assert not caplog.records


@pytest.mark.parametrize("what", [None, BROKEN])
def test_it_ends_when_the_worker_does(what, caplog):
    world = World(event(4), *([what] if what else []))
    caplog.set_level(logging.INFO)
    iterator = iter(world.stream)
    got = [next(iterator)]
    woken = []
    world.line.hold(lambda: woken.append(1))
    assert world.streams.break_off() == 1
    with pytest.raises(StreamBroken):
        got.extend(iterator)
    assert woken == [1]
    error = error_in(b"".join(got))
    assert "the gateway is being stopped or restarted" in error["message"]
    (record,) = caplog.records
    assert record.getMessage() == "the-id a was still answering when the worker ended"
    world.stream.close()
    assert world.streams.break_off() == 0
