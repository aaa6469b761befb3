import math

import pytest

from proxy.core import contention as module
from proxy.core.contention import (
    HUNGRY_SECONDS,
    LATELY_SECONDS,
    MEMORY_SECONDS,
    MOST_TIMES,
    NOBODY,
    WANTING_SECONDS,
    Competitor,
)

NOW = 1_000.0


def competitor(had=0.0, *, waited=None, refused=None, wait_seconds=0.0, short=True, barred=()):
    """`waited` and `refused` are how long ago."""
    one = Competitor()
    if had:
        one.give(had, NOW)
    if waited is not None:
        one.wait(frozenset(barred), NOW - waited, short=short)
    if refused is not None:
        one.refuse(wait_seconds, frozenset(barred), NOW - refused, short=short)
    return one


def found(*workers, now=NOW, **clients):
    return module.contention([*workers, clients] if clients else workers, now)


def test_where_nobody_wants_more_there_is_none():
    assert found(a=competitor(100), b=competitor()) is None
    assert module.contention([], NOW) is None


def test_who_had_more_leaves_room_to_who_waits_and_had_less():
    seen = found(a=competitor(100), b=competitor(1, waited=0))
    assert seen.left_to("a") == NOBODY
    assert seen.left_to("b") is None


def test_who_had_nothing_yet_is_not_held_back():
    assert found(a=competitor(100), b=competitor(1, waited=0)).left_to("new") is None


def test_who_had_as_much_is_not_held_back():
    seen = found(a=competitor(5, waited=0), b=competitor(5, waited=0))
    assert (seen.left_to("a"), seen.left_to("b")) == (None, None)


def test_who_had_just_its_part_is_not_held_back_and_nobody_for_it():
    clients = {"a": competitor(30, waited=0), "b": competitor(20, waited=0)}
    assert found(c=competitor(10, waited=0), **clients).left_to("b") is None
    assert found(c=competitor(10, waited=HUNGRY_SECONDS), **clients).left_to("a") is None


def test_one_alone_is_never_held_back():
    seen = found(a=competitor(100, waited=0))
    assert seen.left_to("a") is None
    assert not seen.is_shared("a")


def test_to_be_hungry_is_no_help_to_who_had_more():
    seen = found(a=competitor(100, waited=0), b=competitor(1, waited=0))
    assert (seen.left_to("a"), seen.left_to("b")) == (NOBODY, None)


@pytest.mark.parametrize(
    "ago, held", [(0, True), (HUNGRY_SECONDS - 0.01, True), (HUNGRY_SECONDS, False)]
)
def test_one_that_waited_is_hungry_for_a_moment_after(ago, held):
    seen = found(a=competitor(100), b=competitor(1, waited=ago))
    assert (seen.left_to("a") == NOBODY) == held


@pytest.mark.parametrize(
    "ago, held",
    [
        (0, False),  # there is no room for it yet: nothing to leave to it
        (29.9, False),
        (30, True),
        (30 + HUNGRY_SECONDS - 0.01, True),
        (30 + HUNGRY_SECONDS, False),  # it does not come
    ],
)
def test_one_that_was_refused_is_hungry_when_it_was_told_to_come_back(ago, held):
    seen = found(a=competitor(100), b=competitor(1, refused=ago, wait_seconds=30))
    assert (seen is not None and seen.left_to("a") == NOBODY) == held


def test_what_the_hungry_would_not_take_is_left():
    b = competitor(1, waited=0, barred="xy")
    assert found(a=competitor(100), b=b).left_to("a") == {"x", "y"}
    c = competitor(2, waited=0, barred="yz")
    assert found(a=competitor(100), b=b, c=c).left_to("a") == {"y"}


def test_of_the_hungry_only_those_count_who_had_less_than_an_equal_part():
    clients = {
        "b": competitor(50, waited=0, barred="x"),
        "c": competitor(1, waited=0, barred="y"),
    }
    assert found(a=competitor(60), **clients).left_to("a") == {"y"}  # the part is 37


def test_who_had_most_is_held_back_before_who_had_just_more_than_its_part():
    clients = {"b": competitor(40, waited=0), "c": competitor(10, waited=0)}
    most = competitor(40 * MOST_TIMES + 1, waited=0)
    seen = found(a=most, **clients)  # the part is 32
    assert (seen.left_to("a"), seen.left_to("b"), seen.left_to("c")) == (NOBODY, None, None)
    seen = found(a=competitor(40 * MOST_TIMES, waited=0), **clients)
    assert (seen.left_to("a"), seen.left_to("b"), seen.left_to("c")) == (NOBODY, NOBODY, None)
    much = competitor(1000)  # and wants no more
    assert found(a=much, **clients).left_to("b") == NOBODY


def test_the_part_is_of_those_who_want_more_and_not_of_all():
    seen = found(a=competitor(60, waited=0), b=competitor(40, waited=0), much=competitor(1000))
    assert seen.left_to("a") == NOBODY
    satisfied = {f"s{number}": competitor(1) for number in range(100)}
    seen = found(a=competitor(60), b=competitor(40, waited=0), **satisfied)
    assert seen.left_to("a") == NOBODY
    assert seen.left_to("s1") is None


def test_who_wanted_more_a_moment_ago_still_counts_for_the_part():
    c = competitor(1, waited=HUNGRY_SECONDS)
    assert found(a=competitor(3), b=competitor(2), c=c).left_to("a") is None  # c is not hungry
    seen = found(a=competitor(3), b=competitor(1.9, waited=0), c=c)
    assert seen.left_to("a") == NOBODY  # the part is 1.97
    assert found(a=competitor(3), b=competitor(1.9, waited=0)).left_to("a") == NOBODY
    assert found(a=competitor(2), b=competitor(1.9, waited=0), c=c).left_to("a") is None


def test_what_all_workers_know_counts_together():
    seen = found(
        {"a": competitor(30), "b": competitor(20, waited=0)},
        {"a": competitor(15), "b": competitor(20, waited=HUNGRY_SECONDS, barred="x")},
    )
    assert seen.had == {"a": 45, "b": 40}
    assert seen.left_to("a") == NOBODY
    assert seen.left_to("b") is None


def test_a_client_bars_only_what_all_its_calls_would_not_take():
    seen = found(
        {"a": competitor(30), "b": competitor(1, waited=0, barred="xy")},
        {"b": competitor(0, waited=0, barred="yz")},
    )
    assert seen.left_to("a") == {"y"}


def test_what_a_client_had_is_forgotten_bit_by_bit():
    one = competitor(100)
    assert one.had_lately(NOW + LATELY_SECONDS) == pytest.approx(100 / math.e)
    one.give(50, NOW + LATELY_SECONDS)
    assert one.had_lately(NOW + LATELY_SECONDS) == pytest.approx(100 / math.e + 50)
    assert one.had_lately(NOW - 5) <= one.had  # a thread that read the clock before


def test_what_turned_out_to_cost_less_is_given_back_but_not_more():
    one = competitor(100)
    one.give(-30, NOW)
    assert one.had_lately(NOW) == 70
    one.give(-80, NOW)
    assert one.had_lately(NOW) == 0


def test_room_is_shared_evenly_while_another_is_short_of_it():
    seen = found(a=competitor(), b=competitor(waited=WANTING_SECONDS - 0.1))
    assert (seen.is_shared("a"), seen.is_shared("b")) == (True, False)
    assert found(a=competitor(waited=0), b=competitor(waited=0)).is_shared("b")
    assert found(b=competitor(waited=WANTING_SECONDS)) is None


def test_who_had_less_passes_who_shares_with_it():
    seen = found(a=competitor(2, waited=0), b=competitor(1, waited=0), c=competitor(2))
    assert seen.passes("b", "a")
    assert seen.passes("new", "a")
    assert not seen.passes("a", "b")
    assert not seen.passes("c", "a")  # as much
    assert not found(a=competitor(2, waited=0), b=competitor(1)).passes(
        "b", "a"
    )  # is not short


def calls(number, cost, **more):
    """The competitor of one that had so many calls."""
    one = competitor(**more)
    for _ in range(number):
        one.give(cost, NOW)
    return one


def test_each_leaves_of_each_second_what_those_use_who_had_less_and_half_as_much_again():
    b, c = calls(30, 1, waited=0), calls(20, 0.5, waited=0)
    clients = {"b": b, "c": c, "d": calls(60, 1)}
    seen = found(a=competitor(200, waited=0), **clients)
    kept = {name: seen.kept_from(name) for name in "abcd"}
    uses = {"b": 1.5 * 30 / LATELY_SECONDS, "c": 1.5 * 10 / LATELY_SECONDS}
    assert kept == {"a": sum(uses.values()), "b": uses["c"], "c": 0, "d": sum(uses.values())}
    assert found(a=competitor(200, waited=0)).kept_from("a") is None


def test_it_leaves_what_a_call_of_each_costs_at_least():
    b = calls(2, 5, waited=0)
    b.give(-4, NOW)  # what is settled is no call
    assert found(a=competitor(200), b=b).kept_from("a") == 5
    here, there = calls(1, 5, waited=0), calls(1, 7)
    assert found({"a": competitor(200), "b": here}, {"b": there}).kept_from("a") == 7


@pytest.mark.parametrize("ago", [0, 9, 60, 69])
def test_room_is_shared_evenly_when_one_that_was_refused_may_come_back(ago):
    b = competitor(refused=ago, wait_seconds=60)
    assert found(b=b).is_shared("a")
    assert not found(b=competitor(refused=ago, wait_seconds=60, short=False)).is_shared("a")


def test_between_a_refusal_and_the_time_to_come_back_nobody_is_in_the_way():
    assert found(b=competitor(refused=30, wait_seconds=60)) is None


def test_where_instances_rest_or_fail_room_is_not_what_is_short():
    seen = found(a=competitor(100), b=competitor(1, waited=0, short=False))
    assert not seen.is_shared("a")
    assert seen.left_to("a") == NOBODY  # who is first is another matter


def test_what_says_nothing_any_more_is_over():
    one = competitor(100)
    assert not one.is_over(NOW + MEMORY_SECONDS - 1)
    assert one.is_over(NOW + MEMORY_SECONDS)
    told = competitor(refused=0, wait_seconds=100)
    assert not told.is_over(NOW + 100 + WANTING_SECONDS - 1)
    assert told.is_over(NOW + 100 + WANTING_SECONDS)


def test_a_competitor_survives_its_way_to_another_worker():
    one = competitor(7, waited=1, refused=2, wait_seconds=3, barred="xy")
    other = Competitor.of_row(one.row())
    assert all(getattr(one, name) == getattr(other, name) for name in Competitor.__slots__)


def test_one_connection_gets_as_much_as_forty_though_it_is_away_while_it_is_answered():
    """Ten calls a second come free. The light client asks again a twentieth of a second after
    each answer, the heavy one takes whatever it may at any time."""
    had = {"heavy": 0, "light": 0}
    clients = {name: Competitor() for name in had}
    light_back_at, room, seconds = 0.0, 0, 120
    for tick in range(seconds * 100):
        now = NOW + tick / 100
        room = room + 10 if tick % 100 == 0 else room
        clients["heavy"].wait(NOBODY, now, short=True)
        for name in ("light", "heavy"):
            while room and (name == "heavy" or now >= light_back_at):
                if module.contention([clients], now).left_to(name) is not None:
                    break
                room -= 1
                had[name] += 1
                clients[name].give(1, now)
                if name == "light":
                    light_back_at = now + 0.05
        if now >= light_back_at:
            clients["light"].wait(NOBODY, now, short=True)
    assert sum(had.values()) >= 0.98 * 10 * seconds
    assert had["light"] == pytest.approx(had["heavy"], rel=0.1)
