import pytest

from proxy.core.renewal import next_after_seconds, retry_after_seconds


@pytest.mark.parametrize(
    "life, seconds",
    [
        (86_400, 86_100),  # five minutes early
        (3600, 3300),
        (600, 300),
        # It lives hardly longer: half of its life.
        (599, 299.5),
        (60, 30),
        # An endpoint that gives the same one until it is over is not asked in a circle.
        (10, 5),
        (1, 5),
        (0, 5),
    ],
)
def test_the_next_is_asked_for_five_minutes_before_a_token_expires(life, seconds):
    assert next_after_seconds(life) == seconds


@pytest.mark.parametrize(
    "failures, seconds",
    [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 32), (7, 60), (8, 60), (100_000, 60)],
)
def test_who_fails_is_asked_again_after_twice_as_long_up_to_a_minute(failures, seconds):
    assert retry_after_seconds(failures) == seconds
