import re

import pytest

from proxy.core import limiter
from proxy.core.metrics import COUNTER, FAMILIES, GAUGE, HISTOGRAM, left_of_model
from proxy.core.types import QuotaGroup
from tests.builders import MODEL, config

GROUP = ("group", "g", "")
# Units that Prometheus has a base unit instead of, and words that say what the type says.
NOT_IN_NAMES = (
    *("milliseconds", "microseconds", "ms", "minutes", "hours", "days", "kilobytes", "percent"),
    *("counter", "gauge", "histogram", "metric"),
)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_names_follow_prometheus_rules(family):
    assert re.fullmatch(r"gateway(_[a-z]+)+", family.name)
    assert family.kind in (COUNTER, GAUGE, HISTOGRAM)
    assert family.name.endswith("_total") is (family.kind == COUNTER)
    assert not family.name.endswith(("_bucket", "_count", "_sum"))
    assert not set(family.name.split("_")) & set(NOT_IN_NAMES)
    assert re.fullmatch(r"[A-Z1].*\.", family.help)
    # Prometheus gives these itself, or to histograms.
    assert not {"instance", "job", "le", "quantile"} & set(family.labels)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", label) for label in family.labels)


def test_each_family_is_there_once():
    names = [family.name for family in FAMILIES]
    assert len(names) == len(set(names))


def servings(*configs, groups=()):
    by_name = {group.name: group for group in groups}
    return [limiter.serving(each, MODEL, by_name) for each in configs]


def used(**tokens):
    """By instance; of everything else nothing."""
    found = {("instance", name, ""): number for name, number in tokens.items()}
    return type("Used", (dict,), {"__missing__": lambda *_: 0})(found)


A, B = config("a", max_tpm=1000), config("b", max_tpm=500)
LIMITED = {MODEL: {"max_tpm": 300}}
IN_GROUP = [config(name, max_tpm=1000, quota_group="g") for name in "ab"]


@pytest.mark.parametrize(
    "configs, groups, tokens, barred, expected",
    [
        ([A], (), {}, (), (1000, 1000)),
        ([A, B], (), {"a": 100}, (), (1500, 1400)),
        # What is used beyond a limit is no debt of the others'.
        ([A, B], (), {"a": 5000}, (), (1500, 500)),
        ([A, B], (), {"a": 100}, ("b",), (1500, 900)),
        # The least of several limits.
        ([config("a", max_tpm=1000, model_limits=LIMITED)], (), {"a": 900}, (), (300, 100)),
        # A group's is theirs together, and not each one's.
        (IN_GROUP, [QuotaGroup("g", max_tpm=1200)], {"a": 300}, (), (1200, 1200)),
        (IN_GROUP, [QuotaGroup("g", max_tpm=9000)], {"a": 300}, (), (2000, 1700)),
        (IN_GROUP, [QuotaGroup("g", max_tpm=1200)], {}, ("a", "b"), (1200, 0)),
        # Where one has no limit, there is none.
        ([A, config("b", max_tpm=0)], (), {}, (), None),
        ([A, config("b", rate_limit_enabled=False)], (), {}, (), None),
        ([], (), {}, (), None),
    ],
)
def test_what_a_model_has_left(configs, groups, tokens, barred, expected):
    found = left_of_model(servings(*configs, groups=groups), used(**tokens), barred)
    assert found == expected


def test_a_group_bounds_those_without_a_limit_of_their_own():
    both = servings(
        *(config(name, max_tpm=0, quota_group="g") for name in "ab"),
        groups=[QuotaGroup("g", max_tpm=1000)],
    )
    tokens = used()
    tokens[GROUP] = 400
    assert left_of_model(both, tokens, ()) == (1000, 600)
