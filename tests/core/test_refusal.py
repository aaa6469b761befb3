import math

import pytest

from proxy.core.refusal import (
    FAILING,
    FULL,
    LEFT_TO_OTHERS,
    NO_ROOM,
    SHARED_OUT,
    SHORT,
    TOO_LONG,
    UPSTREAM_SAYS,
    Refusal,
    is_short,
    only_failing_are_left,
    soonest_seconds,
    to_ask_all_the_same,
)
from proxy.core.verdict import NO_DEPLOYMENT
from tests.builders import config, serving


def refusal(reason, wait_seconds=1.0, **more):
    return Refusal(serving(), reason, wait_seconds, **more)


@pytest.mark.parametrize(
    "reason", [NO_ROOM, SHARED_OUT, LEFT_TO_OTHERS, UPSTREAM_SAYS, FAILING]
)
def test_time_mends_what_no_person_has_to(reason):
    assert refusal(reason).passes
    assert refusal("throttled").passes


@pytest.mark.parametrize("reason", [TOO_LONG, NO_DEPLOYMENT, "misconfigured"])
def test_time_mends_neither_a_prompt_nor_a_key(reason):
    assert not refusal(reason).passes
    assert soonest_seconds([refusal(reason)]) == math.inf


def test_only_limits_of_ours_make_it_short_of_room():
    assert {NO_ROOM, SHARED_OUT, LEFT_TO_OTHERS} == SHORT == FULL - {UPSTREAM_SAYS}
    assert is_short([refusal(FAILING), refusal(NO_ROOM)])
    assert not is_short([refusal(UPSTREAM_SAYS), refusal("throttled")])


def test_it_may_be_asked_sooner_where_it_is_alone():
    assert refusal(FAILING, 9.0).soonest_seconds == 9.0
    assert refusal(FAILING, 9.0, alone_seconds=0.5).soonest_seconds == 0.5


@pytest.mark.parametrize(
    "others, patience_seconds, soonest",
    [
        ([0.4], math.inf, 0.4),
        ([0.4], 1.0, 0.4),
        ([0.4], 0.1, 0.0),  # not in time: the failing one may be asked at once
        ([0.9], 1.0, 0.6),
        ([], 1.0, 0.0),
        ([], math.inf, 0.0),
    ],
)
def test_a_failing_one_is_back_sooner_where_nobody_else_is_in_time(
    others, patience_seconds, soonest
):
    refusals = [refusal("throttled", seconds) for seconds in others]
    refusals.append(refusal(FAILING, 0.6, alone_seconds=0.0))
    assert soonest_seconds(refusals, patience_seconds) == soonest
    assert soonest_seconds([*refusals, None], patience_seconds) == 0.0


def test_one_that_may_be_asked_is_no_failing_one():
    failing = refusal(FAILING, 0.6, alone_seconds=0.0)
    assert only_failing_are_left([failing])
    assert only_failing_are_left([failing, refusal(TOO_LONG, math.inf)])
    assert not only_failing_are_left([failing, None])
    assert not only_failing_are_left([failing, refusal("throttled", 2.0)])
    assert only_failing_are_left([failing, refusal("throttled", 2.0)], patience_seconds=1.0)


def named(name, reason, seconds):
    return Refusal(serving(config(name)), reason, seconds)


@pytest.mark.parametrize(
    "other, asked",
    [
        (named("c", TOO_LONG, 0.0), "ab"),
        (named("c", "throttled", 2.0), "ab"),
        (named("c", "throttled", 1.0), ""),
        (named("c", NO_ROOM, 0.5), ""),
    ],
)
def test_where_nobody_else_is_in_time_those_are_asked_that_fail_and_then_that_refuse(
    other, asked
):
    refusals = [named("b", "misconfigured", 300.0), named("a", FAILING, 60.0), other]
    found = to_ask_all_the_same(refusals, patience_seconds=1.0)
    assert [each.config.name for each in found] == list(asked)


def test_one_of_several_that_is_in_time_is_enough():
    rests = [named("c", "throttled", 0.5), named("d", "throttled", 9.0)]
    assert to_ask_all_the_same([named("a", FAILING, 60.0), *rests], patience_seconds=1.0) == []


def test_of_those_that_only_lack_room_nobody_is_asked_all_the_same():
    assert to_ask_all_the_same([named("c", NO_ROOM, 9.0)], patience_seconds=1.0) == []


def test_who_refuses_the_gateway_is_not_asked_where_another_was_not_refused():
    refusals = [named("a", FAILING, 60.0), named("b", "misconfigured", 300.0)]
    found = to_ask_all_the_same(refusals, are_all=False)
    assert [each.config.name for each in found] == ["a"]
