import pytest

from proxy.core.refusal import FAILING, NO_ROOM, Refusal
from proxy.core.types import ENTRA
from proxy.errors import NoRoom, Unavailable
from proxy.runtime import no_answer
from tests.builders import call, config, serving

CALL = call(model="gpt-4o", prompt_tokens=120)
OF_KEY = serving(config("a", max_input_tokens=100))
OF_ENTRA = serving(config("b", auth=ENTRA, api_key="", max_input_tokens=80))


def refused(*reasons):
    return [Refusal(OF_KEY, reason, 2.0) for reason in reasons]


def test_what_is_at_its_limit_is_counted_by_why():
    found = no_answer.no_room(CALL, refused("throttled", NO_ROOM, NO_ROOM, FAILING), 2.0)
    assert isinstance(found, NoRoom)
    assert found.retry_after_seconds == 2.0
    assert found.message == (
        "All instances that serve 'gpt-4o' are at their limit. 1 rests, 2 have no room left"
        " this minute, 1 is failing."
    )


def test_who_could_be_asked_by_now_is_counted_too():
    found = no_answer.no_room(CALL, refused("throttled", "throttled", NO_ROOM), 1.0, free=1)
    assert found.message == (
        "All instances that serve 'gpt-4o' were at their limit. 2 rest, 1 has no room left this"
        " minute, 1 can be asked again now."
    )
    assert isinstance(no_answer.no_room(CALL, refused(FAILING), 1.0, free=1), NoRoom)


def test_where_all_fail_no_limit_is_blamed_and_who_refuses_us_is_told():
    found = no_answer.no_room(CALL, refused(FAILING, "misconfigured"), 2.25)
    assert isinstance(found, Unavailable)
    assert found.retry_after_seconds == 2.25
    assert found.message == (
        "All instances that serve 'gpt-4o' are failing. The next attempt at one of them is in"
        " 2.2 s. 1 refuses the gateway, for its operator to mend."
    )


def test_of_the_only_one_that_keeps_something_it_is_told_alone():
    bound = call(model="gpt-4o", homes=("a",))
    found = [
        no_answer.no_room(bound, refused(FAILING), 2.0),
        no_answer.no_room(bound, refused(NO_ROOM), 2.0),
        no_answer.no_room(bound, [], 2.0, free=1),
    ]
    what = "The instance that keeps what this request refers to"
    assert [error.message for error in found] == [
        f"{what} is failing. The next attempt at it is in 2.0 s.",
        f"{what} is at its limit. 1 has no room left this minute.",
        f"{what} was at its limit. 1 can be asked again now.",
    ]


SMALL, LARGE = (serving(config(n, max_tpm=tpm)) for n, tpm in (("a", 100), ("b", 500)))
UNLIMITED, HUGE = (serving(config(n, max_tpm=tpm)) for n, tpm in (("c", 0), ("d", 100_000)))


def told_of(reserved_tokens, *servings_and_reasons):
    found = [Refusal(serving, reason, 2.0) for serving, reason in servings_and_reasons]
    return no_answer.no_room(call(reserved_tokens=reserved_tokens), found, 2.0).message


def test_a_call_that_is_larger_than_any_limit_is_told_so():
    told = told_of(501, (SMALL, NO_ROOM), (LARGE, NO_ROOM))
    assert "may need about 501 tokens, more than a whole minute of any of them (500)" in told


@pytest.mark.parametrize(
    "reserved_tokens, found",
    [
        (500, [(SMALL, NO_ROOM), (LARGE, NO_ROOM)]),
        # These take it as soon as their rest is over.
        (501, [(SMALL, NO_ROOM), (UNLIMITED, "throttled")]),
        (501, [(SMALL, NO_ROOM), (HUGE, FAILING)]),
        (501, [(LARGE, "throttled")]),
    ],
)
def test_a_call_that_somebody_will_take_is_not(reserved_tokens, found):
    assert "whole minute" not in told_of(reserved_tokens, *found)


def test_who_leaves_room_to_others_may_come_back_soon():
    found = no_answer.held_back(CALL)
    assert isinstance(found, NoRoom)
    assert found.retry_after_seconds == no_answer.SOON_SECONDS


def test_a_prompt_that_is_too_long_is_told_the_most_that_any_takes():
    found = no_answer.too_long(CALL, [OF_ENTRA, OF_KEY])
    assert (found.status, found.code) == (400, "context_length_exceeded")
    assert "about 120 tokens; for 'gpt-4o' at most 100" in found.message


@pytest.mark.parametrize(
    "servings, lacks_token, is_told",
    [([OF_ENTRA], True, True), ([OF_ENTRA], False, False), ([OF_KEY], True, False)],
)
def test_a_token_is_blamed_only_where_one_is_needed_and_lacks(servings, lacks_token, is_told):
    found = no_answer.out_of_service(CALL, servings, lacks_token=lacks_token)
    assert (found.status, found.is_worth_retrying) == (503, False)
    assert ("no token of Entra ID" in found.message) is is_told


@pytest.mark.parametrize(
    "servings, what",
    [
        ([OF_KEY], "gateway: their key, deployment"),
        ([OF_ENTRA], "gateway: its identity at Entra ID or its role there, deployment"),
        ([OF_KEY, OF_ENTRA], "gateway: their key, its identity at Entra ID or its role"),
    ],
)
def test_what_may_be_wrong_depends_on_how_they_are_asked(servings, what):
    found = no_answer.misconfigured(CALL, servings)
    assert (found.code, found.is_worth_retrying) == ("upstream_misconfigured", False)
    assert what in found.message


def test_a_model_that_nobody_serves_is_the_parameter_at_fault():
    found = no_answer.model_not_found(CALL)
    assert (found.status, found.param) == (404, "model")
