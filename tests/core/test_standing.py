import pytest

from proxy.core.deltas import Rest
from proxy.core.standing import Standing, countdown, standing

NOW = 1000.0
WELL = {"enabled": True, "rests": {}, "last_error": None, "open_until": None}


def rest(seconds, reason="throttled"):
    return Rest(NOW + seconds, reason, NOW)


def stands(status="healthy", **changes):
    return standing(status, **(WELL | changes))


def test_of_one_that_is_well_there_is_nothing_to_say():
    assert stands() == Standing("healthy")
    assert stands().in_words(NOW) == ""


def test_one_that_is_switched_off_is_that_whatever_else_it_is():
    assert stands("rate_limited", enabled=False, rests={"": rest(9)}) == Standing("disabled")


def test_a_rest_tells_why_and_for_how_long():
    found = stands("rate_limited", rests={"": rest(12)})
    assert found.in_words(NOW) == "its limit is reached (429), 12 s left"
    assert found.seconds_left(NOW + 20) == 0


def test_deployments_that_rest_alone_are_named_with_the_longest_of_their_rests():
    found = stands("rate_limited", rests={"b": rest(5), "a": rest(9)})
    assert found.deployments == ("a", "b")
    assert found.in_words(NOW) == "a, b: its limit is reached (429), 9 s left"


def test_a_rest_of_the_whole_instance_says_all():
    found = stands("rate_limited", rests={"": rest(3, "operator"), "a": rest(9)})
    assert found.in_words(NOW) == "an operator wants it so, 3 s left"


def test_what_a_person_has_to_mend_comes_before_what_time_does():
    found = stands("misconfigured", rests={"": rest(3), "a": rest(200, "no_deployment")})
    assert found.in_words(NOW) == "a: it has no such deployment, 3 min left"


def test_an_open_breaker_tells_the_last_error_and_when_it_is_tried():
    found = stands("error", last_error="no answer", open_until=NOW + 2)
    assert found.in_words(NOW) == "no answer, 2 s left"
    assert stands("error").in_words(NOW) == "it fails"


def test_an_open_breaker_keeps_away_more_than_a_rest_of_one_deployment():
    found = stands("error", open_until=NOW + 2, rests={"mini": rest(60)})
    assert found == Standing("error", "it fails", NOW + 2, deployments=())


def test_a_problem_of_its_secrets_is_not_over_by_itself():
    found = stands("misconfigured", last_error="api_key: /none cannot be read.")
    assert found.in_words(NOW) == "api_key: /none cannot be read."


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0, "0 s"),
        (0.1, "1 s"),  # there is something left
        (99.4, "99 s"),
        (100, "1 min"),
        (5999, "99 min"),
        (6000, "1 h"),
    ],
)
def test_a_countdown_is_read_at_a_glance(seconds, text):
    assert countdown(seconds) == text
