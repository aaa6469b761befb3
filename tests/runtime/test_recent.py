import copy
import json

import pytest

from proxy.runtime.recent import MAX_BYTES, Recent


def workers(number, kept=4):
    """As after forks: the same memory, and a row for each."""
    recent = Recent(number, kept)
    each = [copy.copy(recent) for _ in range(number)]
    for row, worker in enumerate(each):
        worker.use_row(row)
    return each


def add(worker, at, request_id=None, **values):
    entry = {"id": request_id or f"at {at}", **values}
    worker.add(json.dumps(entry).encode(), float(at))


def ids(worker, *arguments, **named):
    return [each["id"] for each in worker.newest(*arguments, **named)]


def test_all_read_what_each_wrote_the_newest_first():
    one, two = workers(2)
    add(one, 1)
    add(two, 2)
    add(one, 3)
    assert ids(one) == ids(two) == ["at 3", "at 2", "at 1"]


def test_of_the_whole_host_the_last_are_kept():
    one, two = workers(2, kept=4)
    for at in range(10):
        add(one if at < 7 else two, at)
    assert ids(one) == ["at 9", "at 8", "at 7", "at 6"]


def test_not_more_are_given_than_are_asked_for():
    (one,) = workers(1)
    for at in range(4):
        add(one, at)
    assert ids(one, 2) == ["at 3", "at 2"]


@pytest.mark.parametrize(
    "asked, found",
    [
        ({"client": "app"}, ["at 2", "at 0"]),
        ({"model": "gpt-4o"}, ["at 2", "at 1"]),
        ({"outcome": "failed"}, ["at 1"]),
        ({"instance": "a"}, ["at 2", "at 1"]),  # also where another gave the answer
        ({"client": "app", "instance": "a"}, ["at 2"]),
        ({"client": "succeeded"}, []),  # the word is there, but it is no client
        ({"client": "ü"}, ["at 3"]),
    ],
)
def test_those_that_are_looked_for_are_found(asked, found):
    (one,) = workers(1)
    a, b = {"instance": "a"}, {"instance": "b"}
    add(one, 0, client="app", model="o3", outcome="succeeded", attempts=[b])
    add(one, 1, client="bot", model="gpt-4o", outcome="failed", attempts=[a, b])
    add(one, 2, client="app", model="gpt-4o", outcome="succeeded", attempts=[a])
    add(one, 3, client="ü", model="o3", outcome="refused")
    assert ids(one, **asked) == found


def test_one_is_found_by_its_id_and_the_newest_of_several():
    one, two = workers(2)
    add(one, 1, "mine", status=500)
    add(two, 2, "mine", status=200)
    add(one, 3, "other", client="mine")
    assert two.find("mine")["status"] == 200
    assert two.find("min") is None


def test_what_is_written_while_it_is_read_counts_as_nothing():
    one, two = workers(2)
    add(one, 1)
    add(one, 2)
    place = one._memory.find(b"at 2")
    one._memory[place : place + 1] = b"A"
    assert ids(two) == ["at 1"]


def test_what_a_worker_wrote_outlives_it_and_its_successor_goes_on():
    one, two = workers(2, kept=3)
    for at in range(3):
        add(two, at)
    successor = copy.copy(one)
    successor.use_row(1)
    assert ids(one) == ["at 2", "at 1", "at 0"]
    add(successor, 3)
    assert ids(one) == ["at 3", "at 2", "at 1"]


def test_what_came_since_is_read_the_oldest_first_as_far_as_it_is_kept():
    one, two = workers(2, kept=2)
    add(one, 1)
    before = one.counts()
    assert before == (1, 0)
    add(two, 2)
    add(one, 3)
    now = two.counts()
    add(one, 4)  # too late for `now`
    assert [each["id"] for each in two.between(before, now)] == ["at 2", "at 3"]
    for at in range(5, 9):
        add(one, at)
    found = [each["id"] for each in two.between(before, two.counts())]
    assert found == ["at 2", "at 7", "at 8"]


def test_a_worker_without_a_row_only_reads():
    one, two = workers(2)
    two.use_row(None)
    add(one, 1)
    add(two, 2)
    assert ids(two) == ["at 1"]


def test_what_is_too_large_is_not_taken():
    (one,) = workers(1)
    one.add(b"1" * (MAX_BYTES + 1), 1.0)
    one.add(b"", 1.0)
    assert ids(one) == []
    add(one, 2, text="x" * (MAX_BYTES - 40))
    assert ids(one) == ["at 2"]
