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
            for sums in found
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
