import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.limiter import (
    COUNTED_SECONDS,
    Lately,
    Meter,
    accepts_prompt,
    even_wait_seconds,
    has_plenty,
    is_left_to_others,
    largest_share,
    meters,
    request_window,
    reservation_tokens,
    serving,
    used_share,
    wait_seconds,
)
from proxy.core.types import Limit, QuotaGroup
from tests.builders import config

NOW = 1_700_000_000
KEY = ("instance", "a", "")


def used(*amounts, requests=()):
    """A meter with (age in seconds, tokens), and with requests of these ages."""
    meter = Meter()
    for age, tokens in amounts:
        meter.tokens.add(tokens, NOW - age)
    for age in requests:
        meter.requests.add(1, NOW - age)
    return meter


def limits(config, deployment="gpt-4o", *groups):
    found = serving(config, deployment, {g.name: g for g in groups}).limits
    return {limit.meter: (limit.max_tpm, limit.max_rpm) for limit in found}


# Which limits there are.


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"max_tpm": 1000}, {KEY: (1000, 0)}),
        ({"max_tpm": 1000, "max_rpm": 6}, {KEY: (1000, 6)}),
        ({"max_tpm": 0, "max_rpm": 6}, {KEY: (0, 6)}),
        ({"max_tpm": 1}, {KEY: (1, 0)}),
        ({"max_tpm": 0, "max_rpm": 1}, {KEY: (0, 1)}),
        ({"max_tpm": 0}, {}),
        ({"max_tpm": -1}, {}),  # old files hold anything
        ({"max_tpm": 1000, "rate_limit_enabled": False}, {}),
    ],
)
def test_an_instance_is_limited_unless_it_is_told_not_to_be(changes, expected):
    assert limits(config(**changes)) == expected


def test_a_deployment_may_have_limits_of_its_own():
    bounds = {"GPT-4o": {"max_tpm": 300}, "o3": {"max_rpm": 6}, "none": {"max_tpm": 0}}
    some = config(max_tpm=0, model_limits=bounds, model_deployments={"o3": "mine"})
    assert limits(some, "gpt-4o") == {("deployment", "a", "gpt-4o"): (300, 0)}
    assert limits(some, "mine") == {("deployment", "a", "mine"): (0, 6)}
    assert limits(some, "none") == limits(some, "other") == {}


def test_the_instances_of_a_group_have_its_limits_too():
    group = QuotaGroup("east", max_tpm=900, model_limits={"gpt-4o": {"max_rpm": 60}})
    member = config(max_tpm=100, quota_group="east", model_deployments={"gpt-4o": "x"})
    assert limits(member, "x", group) == {
        KEY: (100, 0),
        ("group", "east", ""): (900, 0),
        ("group", "east", "gpt-4o"): (0, 60),
    }
    assert limits(config(max_tpm=100, quota_group="west"), "x", group) == {KEY: (100, 0)}


def test_a_group_that_nobody_gave_limits_is_counted_all_the_same():
    assert limits(config(max_tpm=0, quota_group="east")) == {}
    assert meters(config(quota_group="east"), "gpt-4o")[2:] == (
        ("group", "east", ""),
        ("group", "east", "gpt-4o"),
    )


def test_a_call_counts_in_its_instance_and_its_deployment():
    assert meters(config(), "mine") == (KEY, ("deployment", "a", "mine"))


def test_deployments_of_a_model_count_together_in_a_group_whatever_they_are_called():
    one = config("a", quota_group="g", model_deployments={"GPT-4o": "x"})
    other = config("b", quota_group="g", model_deployments={"gpt-4o": "y"})
    assert meters(one, "x")[2:] == meters(other, "y")[2:]


# Room.


@pytest.mark.parametrize(
    "bounds, tokens, reserved",
    [
        ({"max_tpm": 1000}, 999, 999),
        ({"max_tpm": 1000}, 1000, 1000),
        ({"max_tpm": 1000}, 1001, 1000),
        ({"max_tpm": 1}, 1000, 1),
        ({"max_tpm": 0}, 10**9, 10**9),
        ({"max_tpm": 1000, "model_limits": {"gpt-4o": {"max_tpm": 50}}}, 900, 50),
        ({"max_tpm": 0, "max_rpm": 5}, 900, 900),
    ],
)
def test_a_call_reserves_what_it_may_cost_and_at_most_a_whole_limit(bounds, tokens, reserved):
    assert reservation_tokens(serving(config(**bounds), "gpt-4o"), tokens) == reserved


@pytest.mark.parametrize(
    "amounts, tokens, wait",
    [
        ([], 1000, 0),
        ([(0, 400)], 600, 0),  # exactly full is not too full
        ([(0, 400)], 601, 61),
        ([(59, 400)], 601, 2),
        ([(60, 400)], 601, 1),  # at the end of its second: it is not a minute old yet
        ([(59, 400), (10, 300)], 601, 2),
        ([(59, 400), (10, 300)], 701, 51),
        ([(61, 1000)], 1000, 0),  # over
        # Estimated above the limit: it goes when nothing else does.
        ([], 5000, 0),
        ([(20, 1)], 5000, 41),
        # Real tokens may go above the limit, and then everybody waits.
        ([(30, 1500)], 1, 31),
        ([(30, 1500)], 0, 31),
        ([(30, 600), (20, 600)], 1, 31),
    ],
)
def test_a_call_waits_until_enough_of_the_minute_is_over(amounts, tokens, wait):
    assert wait_seconds(Limit(KEY, 1000), used(*amounts), tokens, NOW) == wait


@pytest.mark.parametrize(
    "max_rpm, size, seconds",
    [(600, 100, 10), (60, 10, 10), (6, 1, 10), (10, 2, 12), (7, 2, 18), (1, 1, 60), (2, 1, 30)],
)
def test_requests_are_looked_at_over_about_ten_seconds(max_rpm, size, seconds):
    assert request_window(max_rpm) == (size, seconds)
    assert size / seconds * 60 <= max_rpm


@pytest.mark.parametrize(
    "ages, wait",
    [
        ([], 0),
        ([0], 0),
        ([0, 0], 11),  # a burst, though the minute has room for twelve
        ([9, 0], 2),
        ([10, 0], 1),  # at the end of its second: it is not ten seconds old yet
        ([11, 0], 0),
        ([9, 9, 0], 2),
        ([9, 0, 0], 11),
        ([30, 30, 30], 0),
    ],
)
def test_a_burst_of_requests_waits_though_the_minute_has_room(ages, wait):
    limit = Limit(KEY, max_rpm=12)
    assert request_window(12) == (2, 10)
    assert wait_seconds(limit, used(requests=ages), 10, NOW) == wait


def test_of_tokens_and_requests_the_longer_wait_counts():
    limit = Limit(KEY, 1000, 6)
    assert wait_seconds(limit, used((20, 1000), requests=[3]), 1, NOW) == 41
    assert wait_seconds(limit, used((20, 100), requests=[3]), 1, NOW) == 8


def test_the_smallest_limits_are_limits_too():
    full = used((0, 1), requests=[0])
    for limit in (Limit(KEY, max_tpm=1), Limit(KEY, max_rpm=1)):
        assert wait_seconds(limit, full, 1, NOW) == 61
        assert used_share(limit, full, NOW) == 1.0


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"max_tpm": 1000}, True),
        ({"max_tpm": 0, "max_rpm": 6}, False),
        # Without a limit of ours, the upstream's counts, which are of tokens.
        ({"max_tpm": 0}, True),
        ({"max_tpm": 0, "max_rpm": 6, "rate_limit_enabled": False}, True),
    ],
)
def test_clients_compete_for_tokens_unless_only_requests_are_limited(changes, expected):
    assert serving(config(**changes), "gpt-4o").counts_tokens is expected


def test_a_meter_counts_tokens_and_requests_apart():
    meter = Meter()
    meter.add(30, 1, NOW)
    meter.add(-20, 0, NOW)
    meter.add(0, 1, NOW)
    assert (meter.tokens.total(NOW), meter.requests.total(NOW)) == (10, 2)


def test_a_meter_tells_the_seconds_in_which_something_was_added():
    meter = Meter()
    meter.add(5, 1, 100)
    meter.add(-7, 0, 101)
    meter.add(0, 2, 130)
    meter.add(3, 0, 130 - COUNTED_SECONDS + 1)
    assert list(meter.seconds()) == [(70, 3, 0), (100, 5, 1), (101, -7, 0), (130, 0, 2)]
    meter.add(1, 1, 131)
    assert [at for at, _, _ in meter.seconds()] == [100, 101, 130, 131]


def test_a_meters_newest_second_is_that_of_tokens_or_of_requests():
    meter = Meter()
    meter.add(30, 0, NOW)
    meter.add(0, 1, NOW + 2)
    assert meter.newest == NOW + 2


def lately(amount, requests=0):
    """A meter in which this worker alone counted, since the others were heard of; and that."""
    mine = Lately()
    mine.add(amount, requests, NOW)
    return used((0, amount), requests=[0] * requests), mine


@pytest.mark.parametrize(
    "others, tokens, left",
    [
        (1, 400, False),  # 300 here, as many there, and the call
        (1, 401, True),
        (2, 100, False),
        (2, 101, True),
        (0, 700, False),
        (4, 1, True),
    ],
)
def test_what_others_may_have_taken_meanwhile_is_left_to_them(others, tokens, left):
    limit = Limit(KEY, max_tpm=1000)
    assert is_left_to_others(limit, *lately(300), tokens, NOW, others) is left
    assert not is_left_to_others(Limit(KEY), *lately(300), tokens, NOW, others)


@pytest.mark.parametrize(
    "requests, others, left", [(4, 1, False), (5, 1, True), (3, 2, False), (4, 2, True)]
)
def test_so_are_requests(requests, others, left):
    limit = Limit(KEY, max_rpm=60)  # ten in ten seconds
    assert is_left_to_others(limit, *lately(0, requests), 10, NOW, others) is left


def test_a_worker_that_did_nothing_lately_leaves_nothing():
    full = used((0, 990), requests=[0] * 9)
    assert not is_left_to_others(Limit(KEY, 1000, 60), full, Lately(), 10, NOW, 9)
    assert not is_left_to_others(Limit(KEY, 1000, 60), used(), Lately(), 5000, NOW, 9)


@pytest.mark.parametrize("others", [1, 3])
def test_however_long_nothing_is_heard_a_worker_has_its_own_part(others):
    """A database that is away for hours."""
    limit, meter, mine = Limit(KEY, max_tpm=1000, max_rpm=600), Meter(), Lately()
    taken = []
    for second in range(NOW, NOW + 600):
        for _ in range(50):
            room = wait_seconds(limit, meter, 10, second) == 0
            if room and not is_left_to_others(limit, meter, mine, 10, second, others):
                meter.add(10, 1, second)
                mine.add(10, 1, second)
                taken.append(second)
    of_the_last = [
        sum(1 for s in taken if m <= s < m + 61) for m in (NOW, NOW + 300, NOW + 539)
    ]
    assert of_the_last == [100 // (others + 1)] * 3


def test_what_was_given_back_is_nothing_that_others_take():
    assert not is_left_to_others(Limit(KEY, max_tpm=10), *lately(-100), 10, NOW, 9)


@given(
    added=st.lists(
        st.tuples(st.integers(0, 70), st.integers(-50, 400), st.integers(0, 4), st.booleans()),
        max_size=30,
    ),
    limit=st.builds(
        Limit, st.just(KEY), max_tpm=st.integers(0, 2_000), max_rpm=st.integers(0, 200)
    ),
    tokens=st.integers(0, 2_500),
    others=st.integers(0, 4),
)
def test_nothing_is_summed_up_where_it_could_not_matter(added, limit, tokens, others):
    """And the answer is as if it were."""
    meter, mine = Meter(), Lately()
    for age, amount, requests, is_mine in sorted(added, reverse=True):
        meter.add(amount, requests, NOW - age)
        if is_mine:
            mine.add(amount, requests, NOW - age)
    wait, left = 0, False
    if limit.max_tpm:
        room_for = limit.max_tpm - min(tokens, limit.max_tpm)
        wait = meter.tokens.seconds_until(room_for, NOW) or 0
        theirs = min(others * mine.tokens(NOW), limit.max_tpm * others // (others + 1))
        left = theirs > 0 and meter.tokens.total(NOW) + theirs > room_for
    if limit.max_rpm:
        size, seconds = request_window(limit.max_rpm)
        wait = max(wait, meter.requests.seconds_until(size - 1, NOW, seconds + 1) or 0)
        theirs = min(others * mine.requests(NOW, seconds + 1), size * others // (others + 1))
        had = meter.requests.recent(NOW, seconds + 1)
        left = left or (theirs > 0 and had + theirs + 1 > size)
    assert wait_seconds(limit, meter, tokens, NOW) == wait
    assert is_left_to_others(limit, meter, mine, tokens, NOW, others) is left
    if has_plenty(limit, meter, tokens, NOW, others):
        assert (wait, left) == (0, False)


@pytest.mark.parametrize(
    "limit, tokens, others, plenty",
    [
        (Limit(KEY), 10**9, 9, True),
        (Limit(KEY, max_tpm=1000), 700, 0, True),
        (Limit(KEY, max_tpm=1000), 701, 0, False),
        (Limit(KEY, max_tpm=1000), 200, 1, True),
        (Limit(KEY, max_tpm=1000), 201, 1, False),
        (Limit(KEY, max_rpm=60), 1, 0, True),
        (Limit(KEY, max_rpm=18), 1, 0, False),
        (Limit(KEY, max_rpm=60), 1, 1, True),
        (Limit(KEY, max_rpm=36), 1, 1, False),
        (Limit(KEY, max_tpm=1000, max_rpm=18), 1, 0, False),
    ],
)
def test_where_there_is_plenty_for_all_nothing_else_is_looked_at(limit, tokens, others, plenty):
    meter = used((5, 300), requests=[5, 5, 5])
    assert has_plenty(limit, meter, tokens, NOW, others) is plenty


# 61,000 tokens a minute: 1,000 for each of the seconds that count.
EVEN = Limit(KEY, max_tpm=61_000)


@pytest.mark.parametrize(
    "amounts, wait",
    [
        ([], 0),
        ([(0, 1999)], 0),
        ([(0, 2000)], 1),
        ([(1, 2999)], 0),
        ([(1, 3000)], 1),
        ([(0, 6500)], 5),
        ([(4, 6500)], 1),
        ([(5, 6500)], 0),
        ([(3, 1500), (2, 1500), (1, 1500), (0, 100)], 0),  # 1,600 are in the bucket
        ([(3, 1500), (2, 1500), (1, 1500), (0, 500)], 1),
        ([(9, 100), (0, 1999)], 0),  # what was not taken then is not there now
        ([(9, 50_000)], 40),
        ([(10, 50_000)], 0),
        ([(1, 5000), (0, -4000)], 0),  # it turned out to be less
    ],
)
def test_handed_out_evenly_each_second_has_its_part_of_the_minute(amounts, wait):
    assert even_wait_seconds(EVEN, used(*amounts), NOW, 0) == wait


def test_handed_out_evenly_all_of_the_minute_is_used_and_never_much_at_once():
    meter, taken = Meter(), []
    for second in range(NOW, NOW + 200):
        for _ in range(100):
            room = wait_seconds(EVEN, meter, 700, second) == 0
            if room and even_wait_seconds(EVEN, meter, second, 0) == 0:
                meter.add(700, 1, second)
                taken.append((second, 700))
    of_the_last = sum(tokens for at, tokens in taken if at >= NOW + 139)
    assert 0.98 * 61_000 <= of_the_last <= 61_000
    for first in range(NOW, NOW + 195):
        assert sum(n for at, n in taken if first <= at < first + 5) <= 5000 + 2000 + 700


def test_a_call_that_is_larger_than_any_part_goes_when_there_is_room():
    assert even_wait_seconds(EVEN, used(), NOW, 0) == 0
    assert wait_seconds(EVEN, used(), 50_000, NOW) == 0


@pytest.mark.parametrize(
    "level, kept, wait",
    [
        (1299, 700, 0),
        (1300, 700, 1),
        (1999, 0, 0),
        (9, 5000, 0),  # though more is kept than ever is there
        (11, 5000, 1),
        (1001, 5000, 1),
        (1011, 5000, 2),
    ],
)
def test_of_each_seconds_part_some_is_kept_for_others(level, kept, wait):
    assert even_wait_seconds(EVEN, used((0, level)), NOW, kept) == wait


def test_without_a_limit_nobody_waits():
    full = used((0, 10**9), requests=[0] * 99)
    assert even_wait_seconds(Limit(KEY), full, NOW, 0) == 0
    assert wait_seconds(Limit(KEY), full, 10**9, NOW) == 0
    assert used_share(Limit(KEY), full, NOW) == 0.0


@pytest.mark.parametrize(
    "amounts, share", [([], 0.0), ([(0, 250)], 0.25), ([(60, 250), (61, 500)], 0.25)]
)
def test_a_share_is_what_is_in_use_of_the_limit(amounts, share):
    assert used_share(Limit(KEY, 1000), used(*amounts), NOW) == share


def test_of_tokens_and_requests_the_larger_share_counts():
    assert used_share(Limit(KEY, 1000, 12), used((0, 100), requests=[0]), NOW) == 0.5
    assert used_share(Limit(KEY, 1000, 12), used((0, 900), requests=[0]), NOW) == 0.9


def test_the_load_is_the_largest_share_of_all_limits():
    group = ("group", "g", "")
    bounds = [Limit(KEY, 1000), Limit(group, 100)]
    assert largest_share(bounds, {KEY: used((0, 500)), group: used((0, 90))}, NOW) == 0.9
    assert largest_share(bounds, {KEY: used((0, 500))}, NOW) == 0.5
    assert largest_share((), {}, NOW) == 0.0


@pytest.mark.parametrize(
    "most, prompt, accepted",
    [(0, 10**9, True), (100, 99, True), (100, 100, True), (100, 101, False)],
)
def test_a_prompt_is_accepted_up_to_max_input_tokens(most, prompt, accepted):
    assert accepts_prompt(config(max_input_tokens=most), prompt) is accepted


def test_what_was_added_lately_is_counted_by_seconds():
    few = Lately()
    for ago, tokens in ((70, 1000), (61, 100), (60, 10), (0, 1)):
        few.add(tokens, 1, NOW - ago)
    assert (few.tokens(NOW), few.requests(NOW), few.requests(NOW, 10)) == (11, 2, 1)
    few.add(-50, 0, NOW)
    assert few.tokens(NOW) == 0


def test_without_a_sync_it_does_not_grow_for_ever():
    few = Lately()
    for second in range(10_000):
        few.add(1, 1, second)
    assert len(few._counts) <= 2 * COUNTED_SECONDS + 1
    assert few.tokens(9_999) == COUNTED_SECONDS
