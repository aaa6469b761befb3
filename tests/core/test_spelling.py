import pytest

from proxy.core.spelling import did_you_mean

FIELDS = ("name", "api_key", "priority", "weight", "max_tpm", "timeout_seconds")


@pytest.mark.parametrize(
    "name, meant",
    [
        ("priorty", "priority"),
        ("wieght", "weight"),
        ("API-Key", "api_key"),  # as a header has it
        ("maxTpm", "max_tpm"),
        ("timeout", "timeout_seconds"),
    ],
)
def test_the_nearest_is_named(name, meant):
    assert did_you_mean(name, FIELDS) == f" Did you mean {meant!r}?"


@pytest.mark.parametrize("name", ["", "region", "x" * 10_000])
def test_where_none_is_near_nothing_is_said(name):
    assert did_you_mean(name, FIELDS) == ""
    assert did_you_mean(name, ()) == ""


def test_the_known_name_is_spelled_as_it_is():
    assert did_you_mean("east-us-2", ["East-US-1", "west"]) == " Did you mean 'East-US-1'?"


def test_how_like_it_has_to_be_may_be_said():
    # What all names begin with is no likeness.
    assert did_you_mean("PROXY_DIAL", ["PROXY_BIND"], likeness=0.75) == ""
    assert did_you_mean("PROXY_BIN", ["PROXY_BIND"], likeness=0.75) != ""
