from random import Random

from proxy.core.tally import Tally

A, B = ("a", "gpt"), ("b", "gpt")


def test_what_is_heard_first_is_new():
    assert Tally().hear(A, [(1, 10, 1), (2, 20, 2)]) == [(1, 10, 1), (2, 20, 2)]


def test_of_what_is_heard_again_the_difference_is_new():
    tally = Tally()
    tally.hear(A, [(1, 10, 1)])
    assert tally.hear(A, [(1, 4, 3), (2, 5, 1)]) == [(1, -6, 2), (2, 5, 1)]
    assert tally.hear(A, [(1, 4, 3)]) == [(1, 0, 0)]


def test_places_are_apart():
    tally = Tally()
    tally.hear(A, [(1, 10, 1)])
    assert tally.hear(B, [(1, 4, 1)]) == [(1, 4, 1)]
    assert tally.hear(A, [(1, 10, 1)]) == [(1, 0, 0)]


def test_what_is_forgotten_is_new_again():
    tally = Tally()
    tally.hear(A, [(1, 10, 1), (2, 20, 2), (3, 30, 3)])
    tally.forget(2)
    assert tally.hear(A, [(2, 20, 2), (3, 30, 3)]) == [(2, 20, 2), (3, 0, 0)]


def test_the_differences_add_up_to_what_was_heard_last():
    random, tally, added, last = Random(1), Tally(), {}, {}
    for _ in range(2000):
        place, second = random.choice([A, B]), random.randrange(5)
        row = (second, random.randrange(100), random.randrange(10))
        for at, tokens, requests in tally.hear(place, [row]):
            before = added.get((place, at), (0, 0))
            added[place, at] = (before[0] + tokens, before[1] + requests)
        last[place, second] = row[1:]
    assert added == last
