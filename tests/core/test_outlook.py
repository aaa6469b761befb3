import pytest

from proxy.core.outlook import BAD, POOR, WELL, Budget, budget, outlook

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


def test_what_is_left_is_with_those_who_may_be_asked():
    found = budget("gpt-4o", [(1000, 400, True), (1000, 0, False)])
    assert (found.max_tpm, found.left, found.available, found.servings) == (2000, 600, 1, 2)
    assert found.left_share == 0.3


def test_more_than_all_of_a_limit_leaves_nothing_and_takes_nothing_from_others():
    assert budget("gpt-4o", [(100, 150, True), (100, 0, True)]).left_share == 0.5


def test_with_one_without_a_limit_all_is_left():
    assert budget("gpt-4o", [(1000, 1000, True), (0, 50, True)]).left_share == 1.0
    assert budget("gpt-4o", [(1000, 1000, True), (0, 50, False)]).left_share == 0.0
