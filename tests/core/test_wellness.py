from dataclasses import replace

import pytest

from proxy.core.outlook import Budget
from proxy.core.wellness import Watched, judge

WELL = Watched({"a": "healthy", "b": "healthy"}, [Budget("gpt-4o", 2, 2), Budget("o1", 1, 1)])


def of(**statuses):
    return replace(WELL, statuses=WELL.statuses | statuses)


def left(tokens):
    return replace(WELL, budgets=[Budget("o1", 1, 1, 1000, tokens)])


@pytest.mark.parametrize(
    "seen, status, reason",
    [
        (WELL, "healthy", None),
        (of(a="disabled"), "healthy", None),
        (of(a="rate_limited"), "degraded", "The instance a rests."),
        (
            replace(of(b="error"), budgets=[Budget("o1", 1, 0)]),
            "critical",
            "No instance that serves o1 can be asked now.",
        ),
        (
            of(a="error", b="misconfigured"),
            "critical",
            "None of the instances in service can be asked for all that it serves.",
        ),
        (of(a="disabled", b="disabled"), "critical", "No instance is in service."),
        (Watched({}), "critical", "No instance is in service."),
        (replace(WELL, problem="The disk is full."), "degraded", "The disk is full."),
        (replace(WELL, outage="No key can be read."), "critical", "No key can be read."),
        (left(99), "degraded", "o1 has 10 % of its budget left."),
        (left(100), "healthy", None),
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
        (replace(WELL, rate=0.5, judged=10), "degraded", None),
        (replace(WELL, rate=0.0, judged=9), "healthy", None),
        (replace(WELL, rate=0.95, judged=10), "healthy", None),
    ],
)
def test_the_worst_that_is_true_is_told_first(seen, status, reason):
    found = judge(seen)
    assert found.status == status
    assert reason is None or found.reasons[0] == reason
    assert bool(found.reasons) == (status != "healthy")
