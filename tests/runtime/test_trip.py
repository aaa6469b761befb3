from types import SimpleNamespace

import pytest

from proxy.core import verdict as verdicts
from proxy.core.record import Trail
from proxy.core.refusal import NO_ROOM, TOO_LONG, Refusal
from proxy.core.routing import Pool, Turn
from proxy.core.verdict import NO_DEPLOYMENT
from proxy.errors import UpstreamFailed
from proxy.runtime.line import Line
from proxy.runtime.trip import Trip, charge_nobody, queue_of
from proxy.runtime.upstream import UpstreamError
from tests.builders import call, config, serving

A, B = (serving(config(name)) for name in "ab")


def trip(*servings, left=2, barred=(), **changes):
    asked = call(**changes)
    pool = Pool(servings or (A, B), barred)
    way = queue_of(asked), Line(), Trail(), Turn(None), 0.0
    return Trip(asked, 0, pool, *way, charge_nobody, left)


def attempt(verdict, of=A):
    """One that ended so."""
    return SimpleNamespace(
        serving=of, verdict=verdict, error=UpstreamError("it broke"), trouble=lambda: "it broke"
    )


def refusal(of, reason):
    return Refusal(of, reason, 1.0)


def test_a_model_waits_in_one_queue_however_it_is_spelt():
    assert queue_of(call(model="GPT-4o")) == queue_of(call(model="gpt-4O"))


@pytest.mark.parametrize(
    "verdict, left, ends",
    [
        (verdicts.SUCCEEDED, 2, True),
        (verdicts.REJECTED, 2, True),
        (verdicts.FAILED, 2, False),
        (verdicts.FAILED, 0, True),
    ],
)
def test_it_ends_where_nobody_could_do_better_or_may_be_asked_any_more(verdict, left, ends):
    assert trip(left=left).ends_with(attempt(verdict)) is ends


@pytest.mark.parametrize(
    "verdict, failed, unknown, again, left, tells",
    [
        (verdicts.SUCCEEDED, set(), set(), None, 2, False),
        (verdicts.of(429, {}, 0.0), set(), set(), None, 2, False),
        (verdicts.of(401, {}, 0.0), set(), set(), None, 2, False),
        (verdicts.UNSUPPORTED, {"a"}, set(), None, 2, False),
        (verdicts.NO_SUCH_MODEL, {"a"}, {"a"}, None, 3, False),  # it was no attempt
        (verdicts.MODEL_ERROR, {"a"}, set(), None, 1, True),  # one more, and that is all
        (verdicts.FAILED, {"a"}, set(), A, 2, True),
        (verdicts.UNREACHABLE, {"a"}, set(), A, 2, True),
    ],
)
def test_an_attempt_tells_who_is_left(verdict, failed, unknown, again, left, tells):
    mine = trip()
    mine.note(attempt(verdict))
    assert (mine.failed, mine.unknown, mine.again, mine.left) == (failed, unknown, again, left)
    assert isinstance(mine.failure, UpstreamFailed) is tells


@pytest.mark.parametrize(
    "verdict, is_worth_it", [(verdicts.MODEL_ERROR, False), (verdicts.FAILED, True)]
)
def test_what_is_the_prompts_doing_is_not_to_be_repeated(verdict, is_worth_it):
    mine = trip()
    mine.note(attempt(verdict))
    assert mine.failure.is_worth_retrying is is_worth_it


def test_room_of_who_failed_or_takes_no_such_prompt_or_is_another_clients_is_none_for_it():
    short = serving(config("short", max_input_tokens=10))
    mine = trip(A, B, short, barred={"other"}, prompt_tokens=11)
    mine.note(attempt(verdicts.FAILED, B))
    assert mine.barred() == {"b", "short", "other"}


def test_it_costs_what_clients_compete_for():
    by_requests = serving(config("b", max_tpm=0, max_rpm=60))
    for servings, cost in (((A, by_requests), 70), ((by_requests,), 1.0)):
        mine = trip(*servings, reserved_tokens=70)
        assert (mine.cost, mine.waiter().cost) == (cost, cost)


@pytest.mark.parametrize("reason, is_short", [(NO_ROOM, True), (TOO_LONG, False)])
def test_who_waits_says_whether_it_only_lacks_room(reason, is_short):
    mine = trip()
    mine.refused.append(refusal(A, reason))
    assert mine.waiter().short is is_short


@pytest.mark.parametrize(
    "other, is_unknown",
    [
        (None, False),  # it could be asked
        (NO_ROOM, False),
        (TOO_LONG, True),
        (NO_DEPLOYMENT, True),
    ],
)
def test_a_model_is_none_where_all_that_could_be_asked_say_so(other, is_unknown):
    mine = trip()
    found = [None, other and refusal(B, other)]
    assert not mine.is_of_no_model(found)  # as long as nobody said so
    mine.note(attempt(verdicts.NO_SUCH_MODEL))
    assert mine.is_of_no_model(found) is is_unknown


def test_who_keeps_no_account_is_charged_nothing():
    assert charge_nobody(None, 5) is None
