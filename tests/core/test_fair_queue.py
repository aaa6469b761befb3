import random
from collections import Counter

import pytest

from proxy.core import fair_queue
from proxy.core.fair_queue import FairQueue


def filled(*calls):
    """A queue of (client, cost); items are the client with how many came before."""
    queue = FairQueue()
    for number, (client, cost) in enumerate(calls):
        queue.enter(f"{client}{number}", client, cost)
    return queue


def order(queue):
    return [ticket.item for ticket in queue]


def first(queue):
    return next(iter(queue))


def serve(queue):
    ticket = first(queue)
    queue.leave(ticket, served=True)
    return ticket.item


def test_of_one_client_who_came_first_is_first():
    assert order(filled(("a", 5), ("a", 1), ("a", 3))) == ["a0", "a1", "a2"]


def test_clients_take_turns_whoever_of_them_came_first():
    queue = filled(("a", 1), ("a", 1), ("a", 1), ("b", 1), ("c", 1), ("b", 1))
    assert order(queue) == ["a0", "b3", "c4", "a1", "b5", "a2"]


def test_who_costs_twice_as_much_has_half_as_many_turns():
    queue = filled(*[("a", 2)] * 3, *[("b", 1)] * 5)
    assert order(queue) == ["a0", "b3", "b4", "a1", "b5", "b6", "a2", "b7"]


def test_one_that_comes_later_is_behind_the_first_of_each_and_not_behind_all():
    queue = filled(("a", 1), ("a", 1), ("a", 1))
    serve(queue)
    queue.enter("b", "b", 1)
    assert order(queue) == ["b", "a1", "a2"]


def test_who_comes_back_after_a_while_has_gained_nothing_by_its_absence():
    queue = filled(("b", 1), *[("a", 1)] * 10)
    for _ in range(6):
        serve(queue)
    for number in range(3):
        queue.enter(f"b-again{number}", "b", 1)
    assert order(queue)[:5] == ["b-again0", "a6", "b-again1", "a7", "b-again2"]


def test_a_call_that_was_served_counts_for_the_next_of_its_client():
    queue = filled(("a", 10), ("b", 1))
    assert serve(queue) == "a0"
    queue.enter("a", "a", 1)
    queue.enter("b", "b", 1)
    assert order(queue) == ["b1", "b", "a"]


def test_a_call_that_gives_up_costs_its_client_nothing():
    queue = filled(("a", 5), ("a", 5), ("b", 1), ("b", 1))
    assert order(queue) == ["a0", "b2", "b3", "a1"]
    queue.leave(first(queue), served=False)
    assert order(queue) == ["a1", "b2", "b3"]


def test_who_moves_up_does_not_go_before_the_time_when_it_came():
    queue = filled(("a", 3), ("b", 1), ("b", 1))
    gives_up = first(queue)
    for ticket in [t for t in queue if t.client == "b"]:
        queue.leave(ticket, served=True)  # a bars what they took
    late = queue.enter("a-late", "a", 1)
    queue.leave(gives_up, served=False)
    assert late.start == late.entered_at == 1


def test_one_that_was_served_before_its_turn_is_not_forgotten():
    queue = filled(("a", 1), ("a", 1))
    before, early = queue
    queue.leave(early, served=True)
    queue.leave(before, served=True)
    assert queue.enter("a", "a", 1).start == 2


def test_time_does_not_go_back_to_one_that_is_served_after_its_turn():
    queue = filled(("a", 5), ("b", 1), ("b", 1), ("b", 1))
    late = first(queue)
    for ticket in [t for t in queue if t.client == "b"]:
        queue.leave(ticket, served=True)  # a bars what they took
    queue.leave(late, served=True)
    assert queue.enter("c", "c", 1).start == 2


@pytest.mark.parametrize("heavy, light", [(40, 1), (100, 2), (7, 7)])
def test_who_always_waits_gets_as_much_as_any_other_however_many_its_calls(heavy, light):
    queue, served = FairQueue(), Counter()
    rng = random.Random(1)
    costs = {"heavy": (1, 9), "light": (20, 60)}
    for client, number in (("heavy", heavy), ("light", light)):
        for _ in range(number):
            queue.enter(client, client, rng.randint(*costs[client]))
    for _ in range(5_000):
        ticket = first(queue)
        queue.leave(ticket, served=True)
        served[ticket.client] += ticket.cost
        queue.enter(ticket.client, ticket.client, rng.randint(*costs[ticket.client]))
    # What is ahead is one call at most of each.
    assert abs(served["heavy"] - served["light"]) <= 9 + 60


def test_clients_that_finished_before_now_are_forgotten(monkeypatch):
    monkeypatch.setattr(fair_queue, "FINISHES", 10)
    queue = filled(("a", 10**6), ("a", 1))
    serve(queue)
    for number in range(1_000):
        for _ in range(2):
            queue.enter("b", f"client-{number}", 1)
        serve(queue)
        serve(queue)
        assert len(queue._finishes) <= 11
    queue.enter("c", "c", 1)
    assert order(queue) == ["c", "a1"]  # it is still ahead


def test_it_knows_how_many_wait():
    queue = filled(("a", 1), ("b", 1))
    assert len(queue) == 2
    serve(queue)
    serve(queue)
    assert not queue
