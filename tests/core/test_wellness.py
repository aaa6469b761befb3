from dataclasses import replace

import pytest

from proxy.core.wellness import Seen, judge, sentence

WELL = Seen({"a": "healthy", "b": "healthy"}, {"gpt-4o": ["a", "b"], "o1": ["b"]}, {})


def of(**statuses):
    return replace(WELL, statuses=WELL.statuses | statuses)


@pytest.mark.parametrize(
    "seen, status, reason",
    [
        (WELL, "healthy", None),
        (of(a="disabled"), "healthy", None),
        (of(a="rate_limited"), "degraded", "The instance a rests."),
        (of(b="error"), "critical", "No instance that serves o1 can be asked now."),
        (
            of(a="error", b="misconfigured"),
            "critical",
            "None of the instances in service can be asked now.",
        ),
        (of(a="disabled", b="disabled"), "critical", "No instance is in service."),
        (replace(WELL, statuses={}), "critical", "No instance is in service."),
        (replace(WELL, problem="The disk is full."), "degraded", "The disk is full."),
        (
            replace(WELL, budgets={"o1": 0.09, "gpt-4o": 0.1}),
            "degraded",
            "o1 has 9 % of its tokens a minute left.",
        ),
        (
            replace(WELL, rate=0.949, judged=10),
            "degraded",
            "Of the requests of the last minutes 94.9 % succeeded.",
        ),
        (
            replace(WELL, rate=0.499, judged=10),
            "critical",
            "Of the requests of the last minutes 49.9 % succeeded.",
        ),
        (replace(WELL, rate=0.0, judged=9), "healthy", None),
        (replace(WELL, rate=0.95, judged=10), "healthy", None),
    ],
)
def test_the_worst_that_is_true_is_told_first(seen, status, reason):
    found = judge(seen)
    assert (found.status, *found.reasons[:1]) == (status, *([reason] if reason else []))


@pytest.mark.parametrize(
    "statuses, budgets, expected",
    [
        ([], {}, "There is no instance."),
        (["healthy"], {}, "The only instance is well."),
        (["healthy"] * 3, {}, "All 3 instances are well."),
        (
            ["rate_limited"] * 2 + ["healthy"] * 3,
            {"gpt-4o": 0.61, "o1": 0.7},
            "2 of 5 instances rest; gpt-4o has 61 % of its budget left.",
        ),
        (["rate_limited", "error"], {}, "1 of 2 instances rests; 1 of 2 fails."),
    ],
)
def test_a_sentence_that_a_person_can_read(statuses, budgets, expected):
    named = {str(n): status for n, status in enumerate(statuses)}
    assert sentence(Seen(named, {}, budgets)) == expected
