import pytest

from proxy.core.deltas import Deltas
from proxy.store import usage, usage_sums

MINUTE = 1_700_000_040


@pytest.fixture
def add(database):
    def write(key, **counts):
        made = Deltas()
        made.add_usage(key, counts)
        with database.write() as connection:
            usage.add(connection, made)

    return write


@pytest.fixture
def read(database):
    """Counters other than 0."""

    def read():
        with database.read() as connection:
            found = usage_sums.read(connection)
        return tuple(
            {key: {n: c for n, c in counts.items() if c} for key, counts in sums.items()}
            for sums in (found.served, found.clients)
        )

    return read


def test_nothing_was_counted_yet(read):
    assert read() == ({}, {})


def test_they_are_summed_up_by_instance_and_model_and_by_client(add, read):
    add((MINUTE, "a", "m", "one"), requests=1, attempts=2, cost_nano=5)
    add((MINUTE, "a", "m", "two"), requests=3, attempts=3)
    add((MINUTE + 60, "b", "m", "one"), requests=4, prompt_tokens=7)
    assert read() == (
        {
            ("a", "m"): {"requests": 4, "attempts": 5, "cost_nano": 5},
            ("b", "m"): {"requests": 4, "prompt_tokens": 7},
        },
        {
            ("one",): {"requests": 5, "cost_nano": 5, "prompt_tokens": 7},
            ("two",): {"requests": 3},
        },
    )


def test_they_are_the_same_before_and_after_a_roll_up_and_what_comes_late_is_added(
    database, add, read
):
    add((MINUTE, "a", "m", "one"), requests=1, failed=1)
    before = read()
    with database.write() as connection:
        usage.roll_up(connection, MINUTE + 600)
    assert read() == before
    add((MINUTE, "a", "m", "one"), requests=1)
    add((MINUTE + 600, "a", "m", "one"), requests=1)
    assert read()[0] == {("a", "m"): {"requests": 3, "failed": 1}}


def test_they_are_what_the_totals_are(database, add):
    add((MINUTE, "a", "m", "one"), **{name: at for at, name in enumerate(usage.COUNTERS)})
    with database.read() as connection:
        served = usage_sums.read(connection).served
        assert served == {("a", "m"): usage.totals(connection)["a", "m", "one"]}


def test_of_too_many_pairs_those_with_the_most_are_read_and_the_others_counted(
    database, add, monkeypatch
):
    """Before and after a roll-up. Times of a model are those of all its instances."""
    monkeypatch.setattr(usage_sums, "MOST_SERVED", 1)
    monkeypatch.setattr(usage_sums, "MOST_REFUSED", 1)
    times = {"latency_total_ms": 5}
    for name, number in (("a", 1), ("b", 2)):
        add((MINUTE, name, "m", "one"), attempts=number, **times)
        add((MINUTE, "", name, "one"), requests=number)
    for _ in range(2):
        with database.write() as connection:
            found = usage_sums.read(connection)
            usage.roll_up(connection, MINUTE + 600)
        assert set(found.served) == {("b", "m"), ("", "b")}
        assert (found.dropped, found.models["m",]["latency_total_ms"]) == (2, 10)
    add((MINUTE + 600, "c", "m", "one"), attempts=9, **times)
    add((MINUTE + 600, "b", "m", "one"), attempts=1, **times)
    with database.read() as connection:
        found = usage_sums.read(connection)
    assert {key: c["attempts"] for key, c in found.served.items() if key[0]} == {("b", "m"): 3}
    assert (found.dropped, found.models["m",]["latency_total_ms"]) == (3, 20)
