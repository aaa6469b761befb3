from collections import Counter
from random import Random

import pytest

from proxy.core.routing import POLICIES, Turn, order, policy
from proxy.core.types import Candidate, Serving
from tests.builders import config

DRAWS = 4000


def candidate(name, *, in_flight=0, load=0.0, failing=False, **changes):
    serving = Serving(config(name, **changes), "gpt-4o")
    return Candidate(serving, in_flight=in_flight, load=load, failing=failing)


def names(candidates):
    return "".join(c.config.name for c in candidates)


def one_order(name, *candidates, number=0, seed=1):
    return names(order(name, candidates, Turn(Random(seed), number)))


def orders(name, *candidates):
    """How often each order came in 4,000 seeded draws."""
    rng = Random(1)
    return Counter(names(order(name, candidates, Turn(rng, n))) for n in range(DRAWS))


def firsts(name, *candidates):
    counts = Counter()
    for shown, times in orders(name, *candidates).items():
        counts[shown[0]] += times
    return counts


def test_there_are_four_policies():
    assert set(POLICIES) == {"failover", "weighted", "round_robin", "least_loaded"}


def test_two_policies_cannot_have_one_name():
    with pytest.raises(ValueError, match="two policies named 'weighted'"):
        policy("weighted")(POLICIES["failover"])
    assert POLICIES["weighted"] is not POLICIES["failover"]


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_keeps_everybody_and_changes_nothing_it_is_given(name):
    given = [candidate(n, priority=p) for n, p in (("c", 1), ("a", 3), ("b", 2))]
    before = list(given)
    assert sorted(one_order(name, *given)) == ["a", "b", "c"]
    assert given == before


@pytest.mark.parametrize("name", POLICIES)
def test_none_and_one_need_no_policy(name):
    assert one_order(name) == ""
    assert one_order(name, candidate("a", failing=True), number=7) == "a"


@pytest.mark.parametrize("name", POLICIES)
def test_those_that_failed_a_moment_ago_come_after_all_others(name):
    best = {"priority": 0, "weight": 1000, "load": 0.0}
    worst = {"priority": 9, "weight": 0, "load": 0.9}
    shown = orders(
        name,
        candidate("a", failing=True, **best),
        candidate("b", **worst),
        candidate("c", **worst),
    )
    assert {o[-1] for o in shown} == {"a"}


def test_failing_ones_keep_the_policys_order_among_themselves():
    failing = [candidate(n, priority=p, failing=True) for n, p in (("b", 2), ("a", 1))]
    assert one_order("failover", *failing, candidate("c", priority=3)) == "cab"


def test_failover_takes_the_lowest_priority_number_first():
    some = [candidate(n, priority=p) for n, p in (("b", 200), ("c", 300), ("a", -1))]
    assert set(orders("failover", *some)) == {"abc"}


def test_failover_draws_by_weight_among_equals():
    some = [
        candidate("a", priority=1, weight=3),
        candidate("b", priority=1, weight=1),
        candidate("c", priority=0, weight=1),
    ]
    shown = orders("failover", *some)
    assert set(shown) == {"cab", "cba"}
    assert shown["cab"] / DRAWS == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize(
    "weights, shares",
    [
        ((1, 1), (0.5, 0.5)),
        ((3, 1), (0.75, 0.25)),
        ((100, 100, 200), (0.25, 0.25, 0.5)),
        ((1, 0), (1.0, 0.0)),
        ((0, 0), (0.5, 0.5)),  # spares share what falls to them
        ((2**31 - 1, 2**31 - 1), (0.5, 0.5)),  # roots this high are all close to 1
    ],
)
def test_weights_are_proportions_of_who_comes_first(weights, shares):
    some = [candidate(n, weight=w) for n, w in zip("abc", weights, strict=False)]
    counts = firsts("weighted", *some)
    for c, share in zip(some, shares, strict=True):
        assert counts[c.config.name] / DRAWS == pytest.approx(share, abs=0.03)


def test_the_second_choice_is_in_proportion_too():
    some = [candidate(n, weight=w) for n, w in (("a", 6), ("b", 3), ("c", 1))]
    shown = orders("weighted", *some)
    second_after_a = shown["abc"] / (shown["abc"] + shown["acb"])
    assert second_after_a == pytest.approx(0.75, abs=0.03)


def test_weight_zero_comes_last():
    some = [candidate(n, weight=w) for n, w in (("z", 0), ("a", 1), ("y", 0), ("b", 9))]
    assert {o[:2] for o in orders("weighted", *some)} == {"ab", "ba"}


def test_chance_of_exactly_nothing_still_comes_before_weight_zero():
    class Least(Random):
        def random(self):
            return 0.0

    some = [candidate("z", weight=0), candidate("a", weight=5)]
    assert names(order("weighted", some, Turn(Least()))) == "az"


@pytest.mark.parametrize(
    "number, shown", [(0, "abc"), (1, "bca"), (2, "cab"), (3, "abc"), (10**9, "bca")]
)
def test_round_robin_goes_by_name_and_begins_one_further_each_turn(number, shown):
    some = [candidate(n, priority=p) for n, p in (("c", 0), ("a", 9), ("b", 5))]
    assert one_order("round_robin", *some, number=number) == shown


def test_least_loaded_takes_the_smallest_share_then_the_fewest_in_flight():
    some = [
        candidate("d", load=0.5, in_flight=0),
        candidate("c", load=0.2, in_flight=3),
        candidate("b", load=0.2, in_flight=1),
        candidate("a", load=0.1, in_flight=9),
    ]
    assert set(orders("least_loaded", *some)) == {"abcd"}


def test_least_loaded_leaves_equals_to_chance():
    counts = firsts("least_loaded", candidate("a"), candidate("b"))
    assert counts["a"] / DRAWS == pytest.approx(0.5, abs=0.03)


def test_turns_begin_at_nothing():
    assert Turn(Random()).number == 0


@pytest.mark.parametrize("name", POLICIES)
def test_the_same_chance_gives_the_same_order(name):
    some = [candidate(n) for n in "abcdef"]
    assert one_order(name, *some, seed=5) == one_order(name, *some, seed=5)
