import pytest

from proxy.core.door import (
    DISABLED,
    ELSEWHERE,
    EXPIRED,
    FOLLOWED,
    hindrance,
    is_allowed,
    known_key,
)
from proxy.core.sources import NotANetwork
from proxy.core.types import Client


def why_not(now=1000.0, valid_until=None, is_elsewhere=False, **fields):
    key = known_key(Client("app", **fields), valid_until)
    return hindrance(key, now, is_elsewhere=is_elsewhere)


def test_a_key_opens_at_any_time_from_anywhere_unless_something_is_said():
    assert why_not() is None


def test_not_for_a_client_that_is_disabled():
    assert why_not(enabled=False) == DISABLED


@pytest.mark.parametrize("now, why", [(999.9, None), (1000.0, EXPIRED), (1e9, EXPIRED)])
def test_not_from_the_moment_it_expires(now, why):
    assert why_not(now=now, expires_at=1000.0) == why


@pytest.mark.parametrize("now, why", [(999.9, None), (1000.0, FOLLOWED)])
def test_a_former_key_until_its_grace_is_over(now, why):
    assert why_not(now=now, valid_until=1000.0) == why


def test_a_moment_at_the_epoch_is_one_all_the_same():
    assert why_not(expires_at=0.0) == EXPIRED
    assert why_not(valid_until=0.0) == FOLLOWED


def test_only_from_its_networks():
    assert why_not(is_elsewhere=True) == ELSEWHERE


def test_networks_that_are_none_are_found_before_anybody_calls():
    with pytest.raises(NotANetwork):
        known_key(Client("app", allowed_networks=("10.0.0.0/99",)))


@pytest.mark.parametrize(
    "fields",
    [
        {"enabled": False},
        {"expires_at": 9e9},
        {"expires_at": 0.0},
        {"allowed_networks": ("10.0.0.0/8",)},
    ],
)
def test_a_key_is_plain_if_there_is_nothing_to_look_at(fields):
    assert known_key(Client("app", allowed_models=("gpt-4o",))).is_plain
    assert not known_key(Client("app", **fields)).is_plain
    assert not known_key(Client("app"), 9e9).is_plain
    assert not known_key(Client("app"), 0.0).is_plain


@pytest.mark.parametrize(
    "allowed, model, found",
    [
        ([], "anything", True),
        (["gpt-4o"], "gpt-4o", True),
        (["gpt-4o"], "GPT-4o", True),
        (["GPT-4O"], "gpt-4o", True),
        (["gpt-4o"], "gpt-4o-mini", False),
        (["gpt-4o*"], "gpt-4o-mini", True),
        (["gpt-4o*"], "gpt-4o", True),
        (["gpt-4o*"], "gpt-4", False),
        (["o3", "gpt-4o*"], "o3", True),
        (["o3", "gpt-4o*"], "o3-mini", False),
        (["*"], "anything", True),
        # Not a pattern of another language.
        (["gpt.4o"], "gpt-4o", False),
        (["gpt-?o"], "gpt-4o", False),
    ],
)
def test_a_model_is_allowed_by_its_name_or_the_beginning_of_it(allowed, model, found):
    assert is_allowed(tuple(allowed), model) is found
