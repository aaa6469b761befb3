import pytest

from proxy.core import limiter
from proxy.core.outlook import BAD, POOR, WELL, Budget, bounding, budgets, outlook
from proxy.core.types import QuotaGroup
from tests.builders import MODEL, config

GPT = Budget("gpt-4o", 2, 2, 1000, 610)


@pytest.mark.parametrize(
    "statuses, budgets, level, sentence",
    [
        ([], [], BAD, "No instance is enabled: nobody can be served."),
        (["disabled"], [], BAD, "No instance is enabled: nobody can be served."),
        (["healthy"], [], WELL, "The one instance is well."),
        (["healthy"] * 5 + ["disabled"], [], WELL, "All 5 instances are well."),
        (
            ["healthy"] * 3 + ["rate_limited"] * 2,
            [GPT, Budget("whole", 1, 1, 10, 10)],
            POOR,
            "2 of 5 instances rest; gpt-4o has 61 % of its budget left.",
        ),
        (
            ["healthy", "rate_limited", "error", "misconfigured", "misconfigured"],
            [],
            POOR,
            "1 of 5 instances rests, 1 fails, 2 are misconfigured.",
        ),
        (["error"], [], BAD, "The one instance fails."),
        # Some are well, but not those who serve this model.
        (
            ["healthy", "error"],
            [Budget("o3", 1, 0, 100, 0)],
            BAD,
            "1 of 2 instances fails; nobody can be asked for o3 now.",
        ),
        (["healthy"], [Budget("o3", 1, 1, 1000, 999)], WELL, "The one instance is well."),
        # Well, but nearly spent.
        (
            ["healthy"],
            [Budget("o3", 1, 1, 100, 5)],
            POOR,
            "The one instance is well; o3 has 5 % of its budget left.",
        ),
    ],
)
def test_the_sentence_says_what_is_worst(statuses, budgets, level, sentence):
    found = outlook(statuses, budgets)
    assert (found.level, found.sentence) == (level, sentence)


def budget(*each, groups=(), **changes):
    """Of some that serve a model: of each its `max_tpm`, what is used of that, and whether it
    may be asked."""
    named = {group.name: group for group in groups}
    servings = [
        limiter.serving(config(str(n), max_tpm=most, **changes), MODEL, named)
        for n, (most, _, _) in enumerate(each)
    ]
    used = dict.fromkeys(bounding({MODEL: servings}), 0)
    for (_, tokens, _), serving in zip(each, servings, strict=True):
        for limit in serving.limits:
            used[limit.meter] += tokens
    may_ask = [may for _, _, may in each]
    (found,) = budgets({MODEL: servings}, used, lambda s: may_ask[int(s.config.name)])
    return found


def test_what_is_left_is_with_those_who_may_be_asked():
    found = budget((1000, 400, True), (1000, 0, False))
    assert (found.max_tpm, found.left, found.available, found.servings) == (2000, 600, 1, 2)
    assert found.left_share == 0.3


def test_more_than_all_of_a_limit_leaves_nothing_and_takes_nothing_from_others():
    assert budget((100, 150, True), (100, 0, True)).left_share == 0.5


def test_with_one_without_a_limit_all_is_left():
    assert budget((1000, 1000, True), (0, 50, True)).left_share == 1.0
    assert budget((1000, 1000, True), (0, 50, False)).left_share == 0.0
    assert budget((1000, 500, False), (0, 50, False)).left_share == 0.0


def test_a_limit_of_the_model_and_of_the_quota_group_bound_it_too():
    limits = {MODEL: {"max_tpm": 100}}
    assert budget((100_000, 54, True), model_limits=limits).left_share == 0.46
    group = QuotaGroup("g", max_tpm=1000)
    shared = budget((0, 200, True), (0, 300, True), quota_group="g", groups=[group])
    assert (shared.max_tpm, shared.left) == (1000, 500)
