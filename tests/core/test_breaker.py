import pytest

from proxy.core.breaker import (
    ALONE_SECONDS,
    ALONE_TRIAL_SECONDS,
    CLOSED,
    FIRST_OPEN_SECONDS,
    HEARSAY_SECONDS,
    LONGEST_OPEN_SECONDS,
    TRIAL_WAIT_SECONDS,
    UNTRIED_SECONDS,
    Breaker,
    BreakerNews,
)
from proxy.core.window import SET_BACK_SECONDS

NOW = 1_800_000_000.0
LONGEST_ATTEMPT = 65.0


def fail(breaker, now=NOW, *, trial=False, no_answer=False, chance=0.0):
    return breaker.fail(now, chance, is_trial=trial, no_answer=no_answer)


def succeed(breaker, now=NOW, *, trial=False):
    return breaker.succeed(now, is_trial=trial)


def opened(now=NOW):
    """One that opened a moment ago, for the first time."""
    breaker = Breaker()
    for _ in range(3):
        fail(breaker, now, no_answer=True)
    assert breaker.state(now) == "open"
    return breaker


def tried(breaker, now):
    assert breaker.wait_seconds(now) == 0.0
    assert breaker.start(now, LONGEST_ATTEMPT)


def test_a_new_one_is_closed_and_has_nothing_to_tell():
    breaker = Breaker()
    assert (breaker.state(NOW), breaker.wait_seconds(NOW), breaker.news) == (
        "closed",
        0,
        CLOSED,
    )
    assert breaker.start(NOW, LONGEST_ATTEMPT) is False


def test_three_times_no_answer_opens_it():
    breaker = Breaker()
    assert [fail(breaker, no_answer=True) for _ in range(3)] == [False, False, True]
    assert breaker.state(NOW) == "open"


def test_five_failures_in_a_row_open_it():
    breaker = Breaker()
    assert [fail(breaker) for _ in range(5)] == [False] * 4 + [True]


@pytest.mark.parametrize("between", [succeed, fail])
def test_in_a_row_means_without_anything_between(between):
    breaker = Breaker()
    for _ in range(2):
        fail(breaker, no_answer=True)
    between(breaker)
    assert [fail(breaker, no_answer=True) for _ in range(2)] == [False, between is fail]


def test_a_failure_that_answered_is_not_the_first_of_three_without_an_answer():
    breaker = Breaker()
    fail(breaker)
    assert [fail(breaker, no_answer=True) for _ in range(3)] == [False, False, True]


def test_half_of_ten_attempts_open_it_though_some_succeed():
    breaker = Breaker()
    for _ in range(4):
        succeed(breaker)
        assert not fail(breaker)
    succeed(breaker)
    assert fail(breaker)


def test_nine_attempts_are_too_few_to_judge_by():
    breaker = Breaker()
    for _ in range(3):
        fail(breaker)
        fail(breaker)
        succeed(breaker)
    assert breaker.state(NOW) == "closed"


def test_less_than_half_is_not_enough():
    breaker = Breaker()
    for _ in range(20):
        succeed(breaker)
        succeed(breaker)
        assert not fail(breaker)


def test_what_fails_after_it_was_answered_counts_as_one_attempt():
    breaker = Breaker()
    for number in range(1, 11):
        succeed(breaker)
        opened = breaker.fail(NOW, 0.0, is_trial=False, no_answer=False, was_answered=True)
        assert opened is (number == 10)


@pytest.mark.parametrize("seconds, counts", [(29, True), (30, False)])
def test_what_happened_half_a_minute_ago_does_not_count(seconds, counts):
    breaker = Breaker()
    for _ in range(4):
        fail(breaker)
        succeed(breaker)
    later = NOW + seconds
    succeed(breaker, later)
    assert fail(breaker, later) is counts


@pytest.mark.parametrize(
    "chance, seconds", [(0.0, FIRST_OPEN_SECONDS), (1.0, FIRST_OPEN_SECONDS * 0.75)]
)
def test_it_stays_open_for_a_time_that_chance_shortens(chance, seconds):
    breaker = Breaker()
    for _ in range(3):
        fail(breaker, no_answer=True, chance=chance)
    assert breaker.wait_seconds(NOW) == pytest.approx(seconds)
    assert breaker.state(NOW + seconds - 0.01) == "open"
    assert breaker.state(NOW + seconds) == "half_open"


def test_one_at_a_time_tries_a_half_open_one():
    breaker = opened()
    now = NOW + FIRST_OPEN_SECONDS
    tried(breaker, now)
    assert breaker.wait_seconds(now) == TRIAL_WAIT_SECONDS
    assert breaker.wait_seconds(now + LONGEST_ATTEMPT - 0.1) == pytest.approx(0.1)


def test_a_trial_that_nobody_ends_is_over_in_time():
    breaker = opened()
    tried(breaker, NOW + 1)
    tried(breaker, NOW + 1 + LONGEST_ATTEMPT)


def answered(breaker, now=NOW + 1):
    """By a trial, whose answer goes on."""
    tried(breaker, now)
    assert succeed(breaker, now, trial=True)
    assert breaker.state(now) == "closed"
    return breaker


def break_off(breaker, now):
    return breaker.fail(now, 0.0, is_trial=False, no_answer=False, was_answered=True)


def test_a_trial_that_is_answered_closes_it_and_at_the_answers_end_for_good():
    breaker = answered(opened())
    assert breaker.confirm(NOW + 2)
    assert not breaker.confirm(NOW + 2)
    assert breaker.news == BreakerNews(changed_at=NOW + 2)
    assert [fail(breaker, no_answer=True) for _ in range(3)] == [False, False, True]


def test_an_answer_that_breaks_off_before_any_came_to_its_end_opens_it_as_a_trial_that_fails():
    breaker, waits, now = opened(), [], NOW
    for _ in range(7):
        now += breaker.wait_seconds(now)
        assert not break_off(answered(breaker, now), now)  # that it fails was told
        waits.append(breaker.wait_seconds(now))
    assert waits == [2, 4, 8, 16, 32, 60, 60]


def test_after_that_one_that_breaks_off_is_one_failure_of_several():
    breaker = answered(opened())
    breaker.confirm(NOW + 2)
    assert not break_off(breaker, NOW + 2)
    assert breaker.is_closed


def test_on_probation_what_gives_no_answer_counts_as_ever_and_then_opens_it_for_longer():
    """It may have begun before the trial."""
    breaker = answered(opened())
    assert [fail(breaker, NOW + 1, no_answer=True) for _ in range(3)] == [False] * 3
    assert breaker.wait_seconds(NOW + 1) == 2 * FIRST_OPEN_SECONDS


def test_other_workers_hear_of_a_probation_and_of_its_end():
    found, other = answered(opened()), Breaker()
    other.hear(found.news, NOW + 1)
    assert not break_off(other, NOW + 1.5)
    assert other.wait_seconds(NOW + 1.5) == 2 * FIRST_OPEN_SECONDS
    found.confirm(NOW + 2)
    other.hear(found.news, NOW + 2)
    assert not break_off(other, NOW + 2)
    assert other.is_closed


def test_what_is_open_has_nothing_to_confirm():
    assert not opened().confirm(NOW)
    assert not Breaker().confirm(NOW)


def test_one_that_nobody_tries_is_closed_after_a_while_on_probation():
    breaker, over = opened(), NOW + FIRST_OPEN_SECONDS + UNTRIED_SECONDS
    breaker.doubt(over - 0.01)
    assert breaker.state(over) == "half_open"
    breaker.doubt(over)
    assert breaker.state(over) == "closed"
    assert break_off(breaker, over)
    assert breaker.wait_seconds(over) == 2 * FIRST_OPEN_SECONDS


def test_one_that_was_closed_because_nobody_tried_it_says_so_when_it_fails_again():
    """Days later, perhaps: for who was told of it then it was well again."""
    breaker, later = opened(), NOW + 86_400
    breaker.doubt(later)
    assert [fail(breaker, later, no_answer=True) for _ in range(3)] == [False, False, True]
    again = opened()
    again.doubt(later)
    assert break_off(again, later)


def test_a_closed_one_forgets_nothing_because_it_is_looked_at():
    breaker = Breaker()
    for _ in range(2):
        fail(breaker, no_answer=True)
        breaker.doubt(NOW)
        breaker.hear(CLOSED, NOW)
    assert fail(breaker, no_answer=True)


def test_while_it_is_tried_it_stays_as_it_is():
    breaker, over = opened(), NOW + FIRST_OPEN_SECONDS + UNTRIED_SECONDS
    tried(breaker, over - 1)
    breaker.doubt(over)
    assert breaker.state(over) == "half_open"
    breaker.doubt(over - 1 + LONGEST_ATTEMPT)
    assert breaker.is_closed


def test_what_opened_it_is_forgotten_when_a_trial_closes_it():
    breaker = Breaker()
    for _ in range(5):
        succeed(breaker)
        fail(breaker)
    assert breaker.state(NOW) == "open"
    tried(breaker, NOW + 1)
    succeed(breaker, NOW + 1, trial=True)
    fail(breaker, NOW + 1)
    assert breaker.is_closed


def test_a_trial_that_fails_doubles_the_time_up_to_a_minute():
    breaker = opened()
    waits, now = [], NOW
    for _ in range(8):
        now += breaker.wait_seconds(now)
        tried(breaker, now)
        assert not fail(breaker, now, trial=True)  # nobody needs to hear it again
        waits.append(breaker.wait_seconds(now))
    assert waits == [2, 4, 8, 16, 32, 60, 60, 60]
    assert max(waits) == LONGEST_OPEN_SECONDS


def test_a_trial_whose_client_left_lets_the_next_try():
    breaker = opened()
    tried(breaker, NOW + 1)
    breaker.give_back(NOW + 1.5, is_trial=True)
    tried(breaker, NOW + 1.5)


def test_a_client_that_leaves_another_attempt_does_not_end_the_trial():
    breaker = opened()
    tried(breaker, NOW + 1)
    breaker.give_back(NOW + 1.5, is_trial=False)
    assert breaker.wait_seconds(NOW + 1.5) > 0


def test_a_client_that_leaves_a_trial_after_the_breaker_closed_changes_nothing():
    breaker = opened()
    tried(breaker, NOW + 1)
    breaker.hear(BreakerNews(changed_at=NOW + 2), NOW)
    breaker.give_back(NOW + 3, is_trial=True)
    assert breaker.news == BreakerNews(changed_at=NOW + 2)


@pytest.mark.parametrize("end", [succeed, fail])
def test_what_began_before_it_opened_changes_nothing(end):
    breaker = opened()
    before = breaker.news
    assert not end(breaker, NOW + 0.5)
    assert not end(breaker, NOW + FIRST_OPEN_SECONDS + 1)  # half open
    assert breaker.news == before


def test_a_trial_that_ends_after_another_worker_closed_it_is_an_attempt_like_others():
    breaker = opened()
    tried(breaker, NOW + 1)
    breaker.hear(BreakerNews(changed_at=NOW + 2), NOW)
    assert not fail(breaker, NOW + 3, trial=True, no_answer=True)
    assert breaker.state(NOW + 3) == "closed"


# Where nobody else can be asked.


def alone(breaker, now):
    """A trial before its time."""
    assert breaker.alone_seconds(now) == 0.0
    assert breaker.start(now, LONGEST_ATTEMPT)


def test_where_nobody_else_is_a_trial_comes_a_moment_after_the_last():
    breaker = opened()
    assert breaker.alone_seconds(NOW) == ALONE_SECONDS < breaker.wait_seconds(NOW)
    now = NOW + ALONE_SECONDS
    alone(breaker, now)
    assert not fail(breaker, now + 0.1, trial=True)
    assert breaker.alone_seconds(now + 0.1) == pytest.approx(ALONE_SECONDS)


def test_a_trial_before_its_time_makes_nothing_longer():
    breaker = opened()
    until = breaker.news.open_until
    alone(breaker, NOW + ALONE_SECONDS)
    fail(breaker, NOW + 0.5, trial=True)
    assert breaker.news.open_until == until
    assert breaker.wait_seconds(NOW + FIRST_OPEN_SECONDS) == 0.0
    tried(breaker, NOW + FIRST_OPEN_SECONDS)
    fail(breaker, NOW + FIRST_OPEN_SECONDS, trial=True)
    assert breaker.wait_seconds(NOW + FIRST_OPEN_SECONDS) == 2 * FIRST_OPEN_SECONDS


def test_a_trial_before_its_time_that_is_answered_closes_it():
    breaker = opened()
    alone(breaker, NOW + ALONE_SECONDS)
    assert succeed(breaker, NOW + 0.5, trial=True)
    assert breaker.is_closed
    assert breaker.alone_seconds(NOW + 0.5) == 0.0


def test_a_trial_that_does_not_end_bars_the_next_for_some_seconds_only():
    breaker = opened()
    now = NOW + ALONE_SECONDS
    alone(breaker, now)
    assert breaker.alone_seconds(now) > 0
    assert breaker.alone_seconds(now + ALONE_TRIAL_SECONDS - 0.1) == pytest.approx(0.1)
    alone(breaker, now + ALONE_TRIAL_SECONDS)
    assert breaker.alone_seconds(now + ALONE_TRIAL_SECONDS + 1) > 0


def test_whoever_is_not_open_any_more_waits_for_nothing():
    breaker = opened()
    assert breaker.alone_seconds(NOW + FIRST_OPEN_SECONDS) == 0.0
    assert Breaker().alone_seconds(NOW) == 0.0


def test_an_early_trial_too_is_left_to_who_found_it_first():
    other = Breaker()
    other.hear(opened().news, NOW)
    assert other.alone_seconds(NOW) == pytest.approx(ALONE_SECONDS + HEARSAY_SECONDS)


# What workers tell each other.


def test_an_open_one_is_heard_of_and_the_first_trial_left_to_who_found_it():
    other = Breaker()
    other.hear(opened().news, NOW)
    assert other.state(NOW) == "open"
    assert other.wait_seconds(NOW) == pytest.approx(FIRST_OPEN_SECONDS + HEARSAY_SECONDS)


def test_a_trial_elsewhere_is_heard_of():
    found = opened()
    other = Breaker()
    tried(found, NOW + 1)
    other.hear(found.news, NOW)
    assert other.wait_seconds(NOW + 1 + HEARSAY_SECONDS) == TRIAL_WAIT_SECONDS


def test_a_trials_end_elsewhere_is_heard_of():
    found = opened()
    other = Breaker()
    other.hear(found.news, NOW)
    tried(found, NOW + 1)
    succeed(found, NOW + 1.1, trial=True)
    other.hear(found.news, NOW)
    assert other.wait_seconds(NOW + 1.1) == 0.0


def test_what_is_older_is_not_believed():
    breaker = opened()
    breaker.hear(BreakerNews(changed_at=NOW - 1), NOW)
    breaker.hear(breaker.news, NOW)  # its own, read back
    assert breaker.wait_seconds(NOW) == FIRST_OPEN_SECONDS


AHEAD = SET_BACK_SECONDS + 1


def test_what_a_clock_said_that_was_ahead_does_not_stand():
    breaker = opened()
    breaker.doubt(NOW - SET_BACK_SECONDS)
    assert not breaker.is_closed  # so much it may be corrected by
    breaker.doubt(NOW - AHEAD)
    assert (breaker.state(NOW - AHEAD), breaker.news) == ("closed", CLOSED)
    fail(breaker, NOW - AHEAD, no_answer=True)
    assert breaker.is_closed  # what failed then does not count


def test_nor_is_it_heard_of_and_what_is_told_now_is():
    breaker = Breaker()
    breaker.hear(opened().news, NOW - AHEAD)
    assert breaker.is_closed
    breaker = opened()
    told = BreakerNews(NOW - AHEAD + 5, 5.0, 0.0, NOW - AHEAD)
    breaker.hear(told, NOW - AHEAD)
    assert breaker.news == told


def test_one_that_hears_of_a_closing_begins_to_count_anew():
    breaker = Breaker()
    for _ in range(2):
        fail(breaker, no_answer=True)
    breaker.hear(BreakerNews(changed_at=NOW + 1), NOW)
    assert not fail(breaker, NOW + 2, no_answer=True)


def test_a_closed_one_keeps_nobody_waiting_whatever_was_written_of_a_trial():
    breaker = opened()
    breaker.hear(BreakerNews(trial_until=NOW + LONGEST_ATTEMPT, changed_at=NOW + 1), NOW)
    assert breaker.wait_seconds(NOW + 1) == 0.0


def test_the_next_opening_after_hearsay_is_twice_as_long_too():
    other = Breaker()
    other.hear(opened().news, NOW)
    now = NOW + FIRST_OPEN_SECONDS + HEARSAY_SECONDS
    tried(other, now)
    fail(other, now, trial=True)
    assert other.wait_seconds(now) == 2.0


def test_an_operator_can_reset_it():
    breaker = opened()
    breaker.reset(NOW + 0.1)
    assert (breaker.state(NOW + 0.1), breaker.news) == (
        "closed",
        BreakerNews(changed_at=NOW + 0.1),
    )
    breaker = Breaker()
    breaker.reset(NOW)
    assert breaker.news is CLOSED


def test_a_reset_forgets_the_failures_of_one_that_is_still_closed_too():
    breaker = Breaker()
    for _ in range(2):
        fail(breaker, no_answer=True)
    breaker.reset(NOW)
    assert not fail(breaker, no_answer=True)
