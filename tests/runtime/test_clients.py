"""What clients use, in one worker and in several, on a clock that is told."""

from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.allowance import Denial
from proxy.core.client_deltas import ClientDeltas, SharedClients
from proxy.core.limiter import COUNTED_SECONDS
from proxy.core.types import Client, Usage
from proxy.runtime.clients import ClientState
from proxy.runtime.shared_counts import SharedCounts
from tests.runtime.world import Clock

NOON = datetime(2026, 11, 30, 12, 0, tzinfo=UTC).timestamp()


def client(name="app", number=1, **fields):
    return Client(name, number, **fields)


def used(tokens, cached=0):
    return Usage(tokens, 0, cached)


@dataclass
class Shop:
    """So many workers and what is between them; `round` is a worker's sync."""

    workers: int = 1
    clock: Clock = field(default_factory=lambda: Clock(NOON))
    number: int = 0

    def __post_init__(self):
        counts = SharedCounts(self.workers)
        self.states = []
        for owner in range(self.workers):
            mine = SharedCounts.__new__(SharedCounts)
            mine.__dict__.update(counts.__dict__)
            mine.take_row(owner)
            self.states.append(ClientState(mine, self.clock))
        self.used_at, self.since = {}, [None] * self.workers
        self.windows = defaultdict(lambda: [0, 0, 0])
        self.spending = defaultdict(lambda: [0, 0, 0])
        for worker in range(self.workers):
            self.round(worker)

    def write(self, deltas):
        self.number += 1
        for name, at in deltas.used_at.items():
            self.used_at[name] = max(at, self.used_at.get(name, 0.0))
        for table, rows in ((self.windows, deltas.windows), (self.spending, deltas.spending)):
            for key, (one, other) in rows.items():
                row = table[key]
                row[:] = row[0] + one, row[1] + other, self.number

    def read(self, since):
        def changed(table):
            found = defaultdict(list)
            for (at, name), (one, other, number) in table.items():
                if since is None or number > since:
                    found[name].append((at, one, other))
            return found

        is_whole = since is None
        tables = changed(self.windows), changed(self.spending)
        return SharedClients(self.used_at, *tables, self.number, is_whole)

    def round(self, worker=0):
        state = self.states[worker]
        deltas = state.take()
        if deltas:
            self.write(deltas)
        state.merge(self.read(self.since[worker]))
        self.since[worker] = self.number

    def start(self, client, *, worker=0, tokens=1, cost_nano=0):
        return self.states[worker].start(client, tokens, cost_nano)

    def view(self, client, worker=0):
        return self.states[worker].view(client)


def lets_in(got):
    return not isinstance(got, Denial)


def settled(shop, client, real, *, worker=0, reserved=None, cost_nano=0):
    """A call from its beginning to its end."""
    got = shop.start(client, worker=worker, tokens=reserved or real)
    got.settle(used(real), cost_nano)
    return got


# One worker.


def test_a_call_takes_what_it_may_use_and_gives_back_what_it_did_not():
    shop, app = Shop(), client(max_tpm=100)
    ticket = shop.start(app, tokens=90)
    assert not lets_in(shop.start(app, tokens=11))
    ticket.settle(used(30))
    assert lets_in(shop.start(app, tokens=70))


def test_it_counts_in_the_minute_in_which_it_began():
    shop, app = Shop(), client(max_tpm=100)
    ticket = shop.start(app, tokens=90)
    shop.clock.now += 50
    ticket.settle(used(100))
    assert shop.start(app, tokens=1).until == NOON + COUNTED_SECONDS
    shop.clock.now = NOON + COUNTED_SECONDS
    assert lets_in(shop.start(app, tokens=100))


def test_a_stream_that_ends_when_its_minute_is_over_changes_no_minute():
    shop, app = Shop(), client(max_tpm=100)
    ticket = shop.start(app, tokens=90)
    shop.clock.now += COUNTED_SECONDS
    ticket.settle(used(10))
    assert shop.view(app).current_tpm == 0
    assert lets_in(shop.start(app, tokens=100))


def test_a_ticket_is_settled_once():
    shop, app = Shop(), client(max_parallel_requests=2)
    ticket = shop.start(app)
    shop.start(app)
    ticket.settle(used(5))
    ticket.settle(used(5))
    assert (shop.view(app).in_flight, shop.view(app).tokens_today) == (1, 5)


def test_who_is_refused_has_taken_nothing():
    fields = {"max_tpm": 100, "max_rpm": 9, "max_parallel_requests": 9}
    shop, app = Shop(), client(**fields, max_tokens_per_day=150)
    for _ in range(20):
        assert not lets_in(shop.start(app, tokens=101))
    assert shop.view(app).in_flight == 0
    assert lets_in(shop.start(app, tokens=100))


def test_a_budget_is_held_by_what_is_in_flight_and_spent_by_what_was_used():
    shop, app = Shop(), client(max_tokens_per_day=100)
    ticket = shop.start(app, tokens=60)
    assert not shop.start(app, tokens=41).is_pointless
    ticket.settle(used(60))
    refused = shop.start(app, tokens=41)
    assert (refused.is_pointless, refused.until) == (True, NOON + 12 * 3600)
    shop.clock.now = refused.until
    assert lets_in(shop.start(app, tokens=100))


def test_money_is_held_by_what_it_may_cost_at_most():
    shop, app = Shop(), client(max_cost_per_month=1.0)
    ticket = shop.start(app, cost_nano=700_000_000)
    assert shop.start(app, cost_nano=400_000_000).limit == "max_cost_per_month"
    ticket.settle(used(1), 100_000_000)
    assert lets_in(shop.start(app, cost_nano=900_000_000))


def test_a_call_over_midnight_is_spent_on_the_day_it_ends():
    shop, app = Shop(), client()
    ticket = shop.start(app)
    shop.clock.now += 12 * 3600  # the next month, too
    ticket.settle(used(50))
    assert (shop.view(app).tokens_today, shop.view(app).tokens_this_month) == (50, 50)


def test_a_client_without_limits_is_counted_and_never_refused():
    shop, app = Shop(), client()
    for _ in range(50):
        settled(shop, app, 10**9, cost_nano=5)
    view = shop.view(app)
    assert (view.tokens_today, view.cost_today) == (50 * 10**9, 250 / 10**9)
    assert (view.current_tpm, view.current_rpm) == (None, None)
    assert view.last_used_at == NOON
    assert shop.states[0].take().windows == {}  # only limits ask for minutes
    assert shop.states[0].lines(app) == []


def test_a_client_that_never_called_has_used_nothing():
    view = Shop().view(client(max_rpm=1))
    assert (view.in_flight, view.current_tpm, view.current_rpm) == (0, 0, 0)
    assert (view.tokens_this_month, view.cost_this_month, view.last_used_at) == (0, 0, None)


def test_a_new_limit_counts_from_the_next_call_on():
    shop = Shop()
    ticket = shop.start(client(), tokens=500)
    limited = client(max_tpm=100)
    assert lets_in(shop.start(limited, tokens=100))
    ticket.settle(used(500))
    assert shop.view(limited).current_tpm == 100


def test_a_limit_that_was_taken_away_binds_nobody():
    shop = Shop()
    ticket = shop.start(client(max_parallel_requests=1), tokens=5)
    assert lets_in(shop.start(client()))
    ticket.settle(used(5))
    assert shop.view(client()).in_flight == 1


def test_a_name_with_another_number_goes_on_where_it_was():
    shop = Shop()
    ticket = shop.start(client(number=1, max_parallel_requests=1))
    again = client(number=2, max_parallel_requests=1)
    assert not lets_in(shop.start(again))
    ticket.settle()
    assert lets_in(shop.start(again))


def test_the_use_of_a_key_is_noted_though_nothing_is_counted():
    shop, app = Shop(), client(max_rpm=1)
    shop.states[0].note_use(app)
    assert shop.view(app).last_used_at == NOON
    assert lets_in(shop.start(app))


def test_to_ask_why_takes_nothing():
    shop, app = Shop(), client(max_rpm=1)
    for _ in range(3):
        assert shop.states[0].denial(app, 1) is None
    settled(shop, app, 1)
    assert shop.states[0].denial(app, 1).limit == "max_rpm"
    assert shop.states[0].denial(client("other", 2), 1) is None


def test_headers_tell_what_is_left_after_this_call():
    shop, app = Shop(), client(max_tpm=100)
    settled(shop, app, 30, reserved=90)
    assert ("x-ratelimit-remaining-tokens", "70") in shop.states[0].lines(app)


# What is written and read.


def test_what_was_measured_is_taken_once():
    shop, app = Shop(), client(max_tpm=100)
    settled(shop, app, 30, reserved=90, cost_nano=7)
    taken = shop.states[0].take()
    assert taken.used_at == {"app": NOON}
    assert taken.windows == {(int(NOON), "app"): (30, 1)}
    assert taken.spending == {(int(NOON) - 12 * 3600, "app"): (30, 7)}
    assert not shop.states[0].take()


def test_when_a_key_was_used_is_written_once_a_second():
    shop, app = Shop(), client()
    for _ in range(4):
        shop.start(app)
        shop.clock.now += 0.25
    assert shop.states[0].take().used_at == {"app": NOON}
    assert shop.view(app).last_used_at == NOON + 0.75
    shop.start(app)
    assert shop.states[0].take().used_at == {"app": NOON + 1}


def test_what_could_not_be_written_waits_with_what_came_meanwhile():
    shop, app = Shop(), client(max_tpm=100)
    settled(shop, app, 30)
    taken = shop.states[0].take()
    settled(shop, app, 20)
    shop.states[0].give_back(taken)
    assert shop.states[0].take().windows == {(int(NOON), "app"): (50, 2)}


def test_seconds_that_are_over_do_not_wait():
    shop, app = Shop(2), client(max_tpm=100)
    settled(shop, app, 30)
    shop.clock.now += COUNTED_SECONDS + 1
    shop.states[0].give_back(shop.states[0].take())
    taken = shop.states[0].take()
    assert (taken.windows, bool(taken.spending)) == ({}, True)
    assert lets_in(shop.start(app, worker=1, tokens=100))


def test_after_a_restart_all_is_as_it_was():
    shop, app = Shop(), client(max_tpm=100, max_tokens_per_month=150)
    settled(shop, app, 80)
    shop.round()
    shop.states[0] = ClientState(clock=shop.clock)
    shop.since[0] = None
    shop.round()
    assert shop.start(app, tokens=21).limit == "max_tpm"
    shop.clock.now += COUNTED_SECONDS
    assert shop.start(app, tokens=71).limit == "max_tokens_per_month"
    assert shop.view(app).last_used_at == shop.clock.now


def test_reading_all_again_counts_nothing_twice():
    shop, app = Shop(), client(max_tpm=100)
    settled(shop, app, 40)
    shop.round()
    settled(shop, app, 20)
    ticket = shop.start(app, tokens=10)
    shop.states[0].merge(shop.read(None))
    assert shop.view(app).current_tpm == 70
    assert shop.view(app).tokens_today == 60
    ticket.settle(used(10))
    assert shop.view(app).tokens_today == 70


# Several workers.


def test_others_hear_of_everything():
    shop, app = Shop(2), client(max_tpm=100)
    settled(shop, app, 40, cost_nano=9)
    shop.round(0)
    shop.round(1)
    view = shop.view(app, worker=1)
    assert (view.current_tpm, view.current_rpm) == (40, 1)
    assert (view.tokens_today, view.cost_today) == (40, 9 / 10**9)
    assert view.last_used_at == NOON


def test_what_nobody_heard_of_yet_counts_already():
    shop, app = Shop(2), client(max_tpm=100, max_rpm=2, max_tokens_per_day=100)
    settled(shop, app, 40)
    assert not lets_in(shop.start(app, worker=1, tokens=61))
    assert lets_in(shop.start(app, worker=1, tokens=60))
    assert shop.start(app, tokens=1).limit in ("max_tpm", "max_rpm", "max_tokens_per_day")


@pytest.mark.parametrize("budget", [{"max_tokens_per_day": 60}, {"max_cost_per_day": 6e-8}])
@pytest.mark.parametrize("rounds", [(), (0,), (1,), (0, 1), (0, 1, 0), (0, 1, 0, 1)])
def test_a_budget_that_one_worker_spent_is_spent_for_all_at_once(rounds, budget):
    shop, app = Shop(2), client(**budget)
    for worker in rounds:  # whatever was written and heard of before
        settled(shop, app, 1, worker=0, cost_nano=1)
        settled(shop, app, 1, worker=1, cost_nano=1)
        shop.round(worker)
    left = 60 - 2 * len(rounds)
    settled(shop, app, left, worker=0, cost_nano=left)
    for worker in (0, 1):
        denied = shop.start(app, worker=worker, tokens=5, cost_nano=5)
        assert (denied.is_pointless, denied.used) == (True, 60)


def test_what_another_worker_only_holds_of_a_budget_may_come_back():
    shop, app = Shop(2), client(max_tokens_per_day=60)
    settled(shop, app, 20)
    ticket = shop.start(app, tokens=40)
    denied = shop.start(app, worker=1, tokens=5)
    assert (denied.is_pointless, denied.used) == (False, 60)
    ticket.settle(used(36))
    denied = shop.start(app, worker=1, tokens=5)
    assert (denied.is_pointless, denied.used) == (True, 56)
    assert lets_in(shop.start(app, worker=1, tokens=4))


@pytest.mark.parametrize("rounds", [(), (0,), (0, 1), (0, 1, 0), (0, 1, 0, 1), (1, 0, 0, 1)])
def test_all_that_is_left_may_be_used_whoever_has_heard_of_what(rounds):
    shop, app = Shop(2), client(max_tpm=100, max_rpm=5, max_tokens_per_day=100)
    settled(shop, app, 40, reserved=50)
    for worker in rounds:
        shop.round(worker)
    for worker in (0, 1):
        assert shop.states[worker].denial(app, 61) is not None
        assert shop.states[worker].denial(app, 60) is None
    left = ("x-ratelimit-remaining-tokens", "60")
    assert left in shop.states[0].lines(app)
    assert left in shop.states[1].lines(app)


def test_calls_in_flight_are_counted_in_all_workers():
    shop, app = Shop(3), client(max_parallel_requests=2)
    tickets = [shop.start(app, worker=w) for w in (0, 1)]
    assert shop.start(app, worker=2).used == 2
    assert shop.view(app, worker=2).in_flight == 2
    tickets[0].settle()
    assert lets_in(shop.start(app, worker=2))


CALLS = st.lists(
    st.one_of(
        st.tuples(st.just("start"), st.integers(0, 2), st.integers(1, 110)),
        st.tuples(st.just("settle"), st.integers(0, 20), st.floats(0, 1)),
        st.tuples(st.just("round"), st.integers(0, 2), st.none()),
        st.tuples(st.just("wait"), st.integers(0, 1), st.floats(0, 40)),
    ),
    max_size=60,
)
LIMITED = {
    "max_tpm": 200,
    "max_rpm": 6,
    "max_parallel_requests": 4,
    "max_tokens_per_day": 400,
    "max_cost_per_month": 300 / 10**9,
}


@settings(deadline=None)
@given(CALLS)
def test_whatever_happens_in_whatever_order_no_limit_is_broken(calls):
    shop, app = Shop(3), client(**LIMITED)
    open_calls, begun = [], []  # of each: when it began, what it takes, its ticket
    for act, which, amount in calls:
        if act == "round":
            shop.round(which)
        elif act == "wait":
            shop.clock.now += amount
        elif act == "settle" and open_calls:
            call = open_calls.pop(which % len(open_calls))
            call[1] = int(call[1] * amount)
            call[2].settle(used(call[1]), call[1])
        elif act == "start":
            got = shop.start(app, worker=which, tokens=amount, cost_nano=amount)
            if lets_in(got):
                open_calls.append([shop.clock.now, amount, got])
                begun.append(open_calls[-1])
        minute = [taken for at, taken, _ in begun if at > shop.clock.now - 60]
        assert len(open_calls) <= LIMITED["max_parallel_requests"]
        assert len(minute) <= LIMITED["max_rpm"]
        assert sum(minute) <= LIMITED["max_tpm"]
        assert sum(taken for _, taken, _ in begun) <= 300
    for worker in (0, 1, 2, 0, 1, 2):  # in the end all know the same
        shop.round(worker)
    # But for when its key was used last, which is told to a second.
    views = {replace(shop.view(app, worker=w), last_used_at=None) for w in (0, 1, 2)}
    assert len(views) == 1
    assert views.pop().tokens_today == sum(t for _, t, ticket in begun) - sum(
        t for _, t, _ in open_calls
    )


def test_nothing_is_left_behind_when_all_is_over():
    shop, app = Shop(2), client(max_tpm=100, max_tokens_per_day=100)
    settled(shop, app, 40)
    for worker in (0, 1, 0, 1):
        shop.round(worker)
    assert [state.counts.about(state.counts.record(1)) for state in shop.states] == [
        (0, 0, 0, 0, 0)
    ] * 2
    assert [state.counts.settled(state.counts.record(1)) for state in shop.states] == [
        (0, 0)
    ] * 2


def test_an_empty_round_changes_nothing():
    shop = Shop()
    shop.states[0].merge(SharedClients(number=3, is_whole=False))
    assert shop.states[0].take() == ClientDeltas()


def test_what_was_heard_of_is_kept_as_long_as_it_counts():
    """And no longer: a worker would grow by all that its clients ever did."""
    shop, app = Shop(), client(max_tpm=100)
    settled(shop, app, 40)
    shop.round()
    heard = ("app", ""), [(int(NOON), 40, 1)]
    shop.clock.now += COUNTED_SECONDS - 1
    shop.round()
    assert shop.states[0]._seconds.hear(*heard) == [(int(NOON), 0, 0)]
    shop.clock.now += 1
    shop.round()
    assert shop.states[0]._seconds.hear(*heard) == [(int(NOON), 40, 1)]
