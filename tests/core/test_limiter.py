import pytest

from proxy.core.limiter import (
    accepts_prompt,
    limit_tokens,
    load,
    reservation_tokens,
    wait_seconds,
)
from proxy.core.window import Window
from tests.builders import config

NOW = 1_700_000_000


def used(*amounts):
    """A window with (age in seconds, tokens)."""
    window = Window()
    window.replace([(NOW - age, tokens) for age, tokens in amounts], NOW)
    return window


@pytest.mark.parametrize(
    "changes, limit",
    [
        ({"max_tpm": 1000}, 1000),
        ({"max_tpm": 1}, 1),
        ({"max_tpm": 0}, None),
        ({"max_tpm": -1}, None),  # old files hold anything
        ({"max_tpm": 1000, "rate_limit_enabled": False}, None),
    ],
)
def test_an_instance_is_limited_unless_it_is_told_not_to_be(changes, limit):
    assert limit_tokens(config(**changes)) == limit


@pytest.mark.parametrize(
    "changes, tokens, reserved",
    [
        ({"max_tpm": 1000}, 999, 999),
        ({"max_tpm": 1000}, 1000, 1000),
        ({"max_tpm": 1000}, 1001, 1000),
        ({"max_tpm": 0}, 10**9, 10**9),
    ],
)
def test_a_call_reserves_what_it_may_cost_and_at_most_the_whole_limit(
    changes, tokens, reserved
):
    assert reservation_tokens(config(**changes), tokens) == reserved


@pytest.mark.parametrize(
    "amounts, tokens, wait",
    [
        ([], 1000, 0),
        ([(0, 400)], 600, 0),  # exactly full is not too full
        ([(0, 400)], 601, 60),
        ([(59, 400)], 601, 1),
        ([(59, 400), (10, 300)], 601, 1),
        ([(59, 400), (10, 300)], 701, 50),
        ([(60, 1000)], 1000, 0),  # over
        # Estimated above the limit: it goes when nothing else does.
        ([], 5000, 0),
        ([(20, 1)], 5000, 40),
        # Real tokens may go above the limit, and then everybody waits.
        ([(30, 1500)], 1, 30),
        ([(30, 1500)], 0, 30),
        ([(30, 600), (20, 600)], 1, 30),
    ],
)
def test_a_call_waits_until_enough_of_the_minute_is_over(amounts, tokens, wait):
    assert wait_seconds(config(max_tpm=1000), used(*amounts), tokens, NOW) == wait


@pytest.mark.parametrize("changes", [{"max_tpm": 0}, {"rate_limit_enabled": False}])
def test_without_a_limit_nobody_waits_and_nothing_is_a_load(changes):
    full = used((0, 10**9))
    assert wait_seconds(config(**changes), full, 10**9, NOW) == 0
    assert load(config(**changes), full, NOW) == 0.0


@pytest.mark.parametrize(
    "amounts, share", [([], 0.0), ([(0, 250)], 0.25), ([(59, 250), (60, 500)], 0.25)]
)
def test_the_load_is_the_share_of_the_limit_in_use(amounts, share):
    assert load(config(max_tpm=1000), used(*amounts), NOW) == share


@pytest.mark.parametrize(
    "most, prompt, accepted",
    [(0, 10**9, True), (100, 99, True), (100, 100, True), (100, 101, False)],
)
def test_a_prompt_is_accepted_up_to_max_input_tokens(most, prompt, accepted):
    assert accepts_prompt(config(max_input_tokens=most), prompt) is accepted
