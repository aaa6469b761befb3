import pytest

from proxy.core.hints import LIMIT_TRUSTED_SECONDS, TRUSTED_SECONDS, Hint, hint
from proxy.core.window import SET_BACK_SECONDS

NOW = 1_800_000_000.0


def of(is_throttled=False, **values):
    headers = {f"x-ratelimit-{k.replace('_', '-')}": v for k, v in values.items()}
    return hint(headers, NOW, is_throttled=is_throttled)


def test_an_answer_says_what_is_left_and_what_the_limit_is():
    assert of(limit_tokens="1000", remaining_tokens="70", remaining_requests="5") == Hint(
        NOW, 1000, 70, 5
    )


@pytest.mark.parametrize("value", ["1", "9" * 15])
def test_any_number_that_can_be_meant_is_said(value):
    number = int(value)
    assert of(remaining_tokens=value, remaining_requests=value, limit_tokens=value) == Hint(
        NOW, number, number, number
    )


@pytest.mark.parametrize("value", ["-1", "0", "", "many", "1.5", "٣", "9" * 16])
def test_what_makes_no_sense_is_not_said(value):
    assert of(remaining_tokens=value, remaining_requests=value, limit_tokens=value) is None


def test_what_remains_beside_a_429_is_nothing_new():
    assert of(is_throttled=True, remaining_tokens="0", remaining_requests="7") is None
    assert of(is_throttled=True, remaining_tokens="7", limit_tokens="9") == Hint(NOW, 9)


def test_an_answer_that_says_nothing_is_no_hint():
    assert hint({"retry-after": "7"}, NOW, is_throttled=False) is None


@pytest.mark.parametrize(
    "given, tokens, wait",
    [
        (Hint(NOW, remaining_tokens=70), 70, 0.0),
        (Hint(NOW, remaining_tokens=70), 71, TRUSTED_SECONDS - 4),
        (Hint(NOW, remaining_requests=1), 71, 0.0),
        (Hint(NOW, remaining_requests=0), 1, TRUSTED_SECONDS - 4),
        (Hint(NOW, limit_tokens=1), 71, 0.0),
        (Hint(NOW + 4.5 - TRUSTED_SECONDS, remaining_tokens=70), 71, 0.5),
        (Hint(NOW - TRUSTED_SECONDS, remaining_tokens=70), 71, 0.0),  # stale
    ],
)
def test_a_call_that_needs_more_than_is_left_waits_until_that_says_nothing_any_more(
    given, tokens, wait
):
    assert given.wait_seconds(tokens, NOW + 4) == wait


def test_what_a_clock_heard_that_was_ahead_says_nothing():
    said = Hint(NOW + SET_BACK_SECONDS + 1, limit_tokens=10, remaining_tokens=70)
    assert (said.wait_seconds(71, NOW), said.lower_limit_tokens(NOW)) == (0.0, None)
    a_little = Hint(NOW + 1, limit_tokens=10, remaining_tokens=70)
    assert (a_little.wait_seconds(71, NOW), a_little.lower_limit_tokens(NOW)) == (11.0, 10)


def test_what_is_begun_is_taken_off():
    left = Hint(NOW, 1000, 70, 2).less(30)
    assert left == Hint(NOW, 1000, 40, 1)
    assert Hint(NOW, 1000).less(30) == Hint(NOW, 1000)


def test_a_limit_is_believed_for_a_while():
    said = Hint(NOW, limit_tokens=1000)
    assert said.lower_limit_tokens(NOW + LIMIT_TRUSTED_SECONDS - 1) == 1000
    assert said.lower_limit_tokens(NOW + LIMIT_TRUSTED_SECONDS) is None
