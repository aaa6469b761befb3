from collections import Counter
from itertools import islice
from random import Random

import pytest

from proxy.core.routing import (
    COMPARED,
    EXPLORING_SHARE,
    POLICIES,
    Group,
    Pool,
    Turn,
    by_weight,
    order,
    policy,
)
from proxy.core.types import Candidate, Serving
from tests.builders import config

DRAWS = 10_000


def serving(name, **changes):
    return Serving(config(name, **changes), "gpt-4o")


def names(servings):
    return "".join(s.config.name for s in servings)


def looking(**loads):
    """What a turn sees of instances: name to the fields of its candidate."""
    return lambda servings: [Candidate(s, **loads.get(s.config.name, {})) for s in servings]


def one_order(name, *servings, number=0, seed=1, **turn):
    return names(order(name, Pool(servings), Turn(Random(seed), number, **turn)))


def orders(name, *servings, draws=DRAWS, **turn):
    """How often each order came in so many seeded draws."""
    rng, pool = Random(1), Pool(servings)
    return Counter(names(order(name, pool, Turn(rng, n, **turn))) for n in range(draws))


def firsts(name, *servings, draws=DRAWS, **turn):
    rng, pool = Random(1), Pool(servings)
    return Counter(
        next(order(name, pool, Turn(rng, n, **turn))).config.name for n in range(draws)
    )


def test_there_are_six_policies():
    assert set(POLICIES) == {
        "failover",
        "weighted",
        "round_robin",
        "least_loaded",
        "latency",
        "sticky",
    }


def test_two_policies_cannot_have_one_name():
    with pytest.raises(ValueError, match="two policies named 'weighted'"):
        policy("weighted")(POLICIES["failover"])
    assert POLICIES["weighted"] is not POLICIES["failover"]


def test_a_policy_is_still_a_function_by_its_own_name():
    assert by_weight is POLICIES["weighted"]


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("count", [2, 3, COMPARED, COMPARED + 5])
def test_every_policy_gives_everybody_once(name, count):
    some = [serving(f"{n:02}", priority=n % 3, weight=n % 4) for n in range(count)]
    for number in range(40):
        shown = list(order(name, Pool(some), Turn(Random(number), number)))
        assert sorted(s.config.name for s in shown) == [s.config.name for s in some]


@pytest.mark.parametrize("name", POLICIES)
def test_none_and_one_need_no_policy(name):
    assert one_order(name) == ""
    assert one_order(name, serving("a"), number=7) == "a"


@pytest.mark.parametrize("name", POLICIES)
def test_the_same_chance_gives_the_same_order(name):
    some = [serving(n) for n in "abcdef"]
    assert one_order(name, *some, seed=5) == one_order(name, *some, seed=5)


@pytest.mark.parametrize("name", ["failover", "latency", "sticky"])
def test_who_has_the_lowest_priority_number_comes_first_whatever_else(name):
    some = [serving(n, priority=p) for n, p in (("b", 200), ("c", 300), ("a", -1))]
    look = looking(a={"load": 0.9, "first_byte_ms": 900.0}, c={"first_byte_ms": 1.0})
    assert set(orders(name, *some, draws=300, affinity=b"x", look=look)) == {"abc"}


# By weight.


@pytest.mark.parametrize(
    "weights, shares",
    [
        ((1, 1), (0.5, 0.5)),
        ((3, 1), (0.75, 0.25)),
        ((100, 100, 200), (0.25, 0.25, 0.5)),
        ((70, 20, 9, 1), (0.7, 0.2, 0.09, 0.01)),
        ((1, 0), (1.0, 0.0)),
        ((2**31 - 1, 2**31 - 1), (0.5, 0.5)),
    ],
)
@pytest.mark.parametrize("name", ["weighted", "failover"])
def test_shares_are_exact_within_two_percent(name, weights, shares):
    some = [serving(n, weight=w) for n, w in zip("abcd", weights, strict=False)]
    counts = firsts(name, *some)
    for s, share in zip(some, shares, strict=True):
        assert counts[s.config.name] / DRAWS == pytest.approx(share, rel=0.02)


def test_shares_are_exact_after_few_draws_too():
    counts = firsts("weighted", serving("a", weight=3), serving("b", weight=1), draws=40)
    assert counts["a"] == pytest.approx(30, abs=1)


def test_spares_share_by_chance_what_falls_to_them():
    counts = firsts("weighted", serving("a", weight=0), serving("b", weight=0))
    assert counts["a"] / DRAWS == pytest.approx(0.5, abs=0.03)


def test_failover_draws_by_weight_among_equals():
    some = [
        serving("a", priority=1, weight=3),
        serving("b", priority=1, weight=1),
        serving("c", priority=0, weight=1),
    ]
    shown = orders("failover", *some)
    assert set(shown) == {"cab", "cba"}
    assert shown["cab"] / DRAWS == pytest.approx(0.75, rel=0.02)


def test_weighted_knows_no_priority():
    counts = firsts("weighted", serving("a", priority=1), serving("b", priority=2))
    assert counts["b"] / DRAWS == pytest.approx(0.5, rel=0.02)


def test_the_second_choice_is_in_proportion_too():
    some = [serving(n, weight=w) for n, w in (("a", 6), ("b", 3), ("c", 1))]
    shown = orders("weighted", *some)
    second_after_a = shown["abc"] / (shown["abc"] + shown["acb"])
    assert second_after_a == pytest.approx(0.75, abs=0.03)


def test_weight_zero_comes_last():
    some = [serving(n, weight=w) for n, w in (("z", 0), ("a", 1), ("y", 0), ("b", 9))]
    assert {o[:2] for o in orders("weighted", *some, draws=300)} == {"ab", "ba"}


def test_chance_of_exactly_nothing_still_comes_before_weight_zero():
    class Least(Random):
        def random(self):
            return 0.0

    pool = Pool([serving("z", weight=0), serving("a", weight=5), serving("b", weight=5)])
    assert names(order("weighted", pool, Turn(Least()))) == "abz"


@pytest.mark.parametrize(
    "point, name", [(0.0, "a"), (0.2499, "a"), (0.25, "b"), (0.9999, "b"), (1.0, "b")]
)
def test_a_point_falls_to_whose_share_it_lies_in(point, name):
    group = Group([serving("z", weight=0), serving("a", weight=1), serving("b", weight=3)])
    assert group.drawn(point).config.name == name


def test_of_weights_of_nothing_nobody_is_drawn():
    assert Group([serving("a", weight=0)]).drawn(0.5) is None


# The others.


@pytest.mark.parametrize(
    "number, shown", [(0, "abc"), (1, "bca"), (2, "cab"), (3, "abc"), (10**9, "bca")]
)
def test_round_robin_goes_by_name_and_begins_one_further_each_turn(number, shown):
    some = [serving(n, priority=p) for n, p in (("c", 0), ("a", 9), ("b", 5))]
    assert one_order("round_robin", *some, number=number) == shown


def test_least_loaded_takes_the_smallest_share_then_the_fewest_in_flight():
    look = looking(
        d={"load": 0.5, "in_flight": 0},
        c={"load": 0.2, "in_flight": 3},
        b={"load": 0.2, "in_flight": 1},
        a={"load": 0.1, "in_flight": 9},
    )
    some = [serving(n) for n in "dcba"]
    assert set(orders("least_loaded", *some, draws=300, look=look)) == {"abcd"}


def test_least_loaded_leaves_equals_to_chance():
    counts = firsts("least_loaded", serving("a"), serving("b"))
    assert counts["a"] / DRAWS == pytest.approx(0.5, abs=0.03)


def test_of_very_many_a_sample_is_compared():
    looked = []

    def look(servings):
        looked.append(len(servings))
        return [Candidate(s) for s in servings]

    some = [serving(f"{n:03}") for n in range(200)]
    first = list(islice(order("least_loaded", Pool(some), Turn(Random(1), look=look)), 1))
    assert (len(first), looked) == (1, [COMPARED])


def test_of_very_many_each_may_be_in_the_sample():
    some = [serving(f"{n:02}") for n in range(COMPARED + 5)]
    assert len(firsts("least_loaded", *some, draws=1000)) == len(some)


def test_latency_takes_the_fastest_and_sometimes_another_to_learn():
    look = looking(a={"first_byte_ms": 300.0}, b={"first_byte_ms": 100.0})
    counts = firsts("latency", serving("a"), serving("b"), look=look)
    assert counts["a"] / DRAWS == pytest.approx(EXPLORING_SHARE / 2, abs=0.01)


def test_latency_takes_first_whom_nobody_measured_yet():
    look = looking(a={"first_byte_ms": 1.0})
    assert firsts("latency", serving("a"), serving("b"), look=look)["b"] / DRAWS > 0.9


def test_sticky_takes_the_same_for_the_same_beginning():
    some = [serving(n) for n in "abcde"]
    for affinity in (b"", b"one", b"two"):
        assert len(orders("sticky", *some, draws=100, affinity=affinity)) == 1


def first_of_beginnings(*servings):
    """How often each came first for 4,000 beginnings of a prompt."""
    return Counter(one_order("sticky", *servings, affinity=b"%d" % n)[0] for n in range(4000))


def test_sticky_spreads_the_beginnings_by_weight():
    counts = first_of_beginnings(
        serving("a", weight=3), serving("b", weight=1), serving("c", weight=0)
    )
    assert counts["a"] / 4000 == pytest.approx(0.75, abs=0.03)
    assert counts["c"] == 0


def test_sticky_spreads_by_weight_among_many_too():
    counts = first_of_beginnings(
        serving("a", weight=6), *(serving(n, weight=1) for n in "bcdefg")
    )
    assert counts["a"] / 4000 == pytest.approx(0.5, abs=0.03)


def test_sticky_moves_only_the_share_of_who_leaves():
    some = [serving(n) for n in "abcd"]
    moved = 0
    for n in range(1000):
        before, after = (
            one_order("sticky", *group, affinity=b"%d" % n) for group in (some, some[:-1])
        )
        assert after == before.replace("d", "")
        moved += before[0] == "d"
    assert moved / 1000 == pytest.approx(0.25, abs=0.05)


def test_turns_begin_at_nothing():
    turn = Turn(Random())
    assert (turn.number, turn.affinity) == (0, b"")
    assert turn.look([serving("a")]) == [Candidate(serving("a"))]
