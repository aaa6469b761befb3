"""Real processes, which share a page of memory."""

import os
import random
import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from proxy.core.allowance import NOTHING
from proxy.runtime import shared_counts
from proxy.runtime.shared_counts import CLIENTS, SharedCounts

ONE = (1, 0, 0, 0, 0)
LESS = (-1, 0, 0, 0, 0)
SOME = (1, 1, 900, 900, 70)
TWICE = (2, 2, 1800, 1800, 140)


@dataclass
class Child:
    """A forked worker. It does what it is told to and then waits to be ended."""

    pid: int
    done: int  # the end of a pipe: a byte when it did it

    def wait(self):
        assert os.read(self.done, 1) == b"."

    def end(self, number=signal.SIGKILL):
        os.kill(self.pid, number)
        os.waitpid(self.pid, 0)
        os.close(self.done)


@contextmanager
def forked(counts, owner, act):
    """A child with a row of its own that does `act(counts)`; killed at the end if it is not
    dead by then."""
    counts.take_row(owner)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            counts.start()
            act(counts)
            os.write(writer, b".")
            signal.pause()
        finally:
            os._exit(0)
    os.close(writer)
    child = Child(pid, reader)
    try:
        yield child
    finally:
        try:
            child.end()
        except (ProcessLookupError, ChildProcessError):
            pass  # the test did
        counts.free_row(owner)


def test_alone_there_are_no_others():
    counts = SharedCounts()
    counts.add(counts.record(1), SOME)
    assert counts.about(counts.record(1)) == counts.exactly(counts.record(1)) == NOTHING


def test_workers_see_what_others_took():
    counts = SharedCounts(4)
    record = counts.record(7)

    def take(mine):
        mine.add(mine.record(7), SOME)

    with forked(counts, 1, take) as one, forked(counts, 2, take) as two:
        one.wait()
        two.wait()
        counts.take_row(3)
        assert counts.about(record) == counts.exactly(record) == TWICE
        assert counts.about(counts.record(8)) == NOTHING


def test_what_a_killed_worker_held_is_free_and_its_row_is_the_next_ones():
    counts = SharedCounts(4)
    record = counts.record(7)
    with forked(counts, 1, lambda mine: mine.add(mine.record(7), SOME)) as child:
        child.wait()
        counts.take_row(2)
        assert counts.about(record) == SOME
        child.end()
        counts.free_row(1)
        assert counts.about(record) == NOTHING
    assert counts.free_row(1) is None  # idempotent
    assert counts.take_row(3) == 0
    assert counts.take_row(4) == 2


LIMIT, NUMBER, SECONDS = 5, 3, 0.5


def hammer(mine, ledger):
    """Opens and closes as fast as it can. What is open is in the ledger, of which there is
    never more than the limit."""
    random.seed(os.getpid())
    ledger._row = mine._row
    mine_open, record, most = 0, mine.record(NUMBER), 0
    ledger.record(NUMBER)
    ends_at = time.monotonic() + SECONDS
    while time.monotonic() < ends_at:
        if mine_open and random.random() < 0.5:
            ledger.add(record, LESS)
            mine.add(record, LESS)
            mine_open -= 1
            continue
        mine.add(record, ONE)
        if mine_open + mine.about(record)[0] >= LIMIT:
            mine.add(record, LESS)
            continue
        mine_open += 1
        ledger.add(record, ONE)
        most = max(most, sum(ledger._cells[1 + record :: shared_counts.STRIDE]))
        assert most <= LIMIT
    assert most > 1


def test_together_they_never_have_more_open_than_the_limit():
    """Also when one is killed in the middle of it."""
    counts, ledger = SharedCounts(4), SharedCounts(4)

    def act(mine):
        hammer(mine, ledger)

    with (
        forked(counts, 1, act) as one,
        forked(counts, 2, act) as two,
        forked(counts, 3, act) as three,
    ):
        three.end()
        ledger._clear(2)
        counts.free_row(3)
        one.wait()
        two.wait()


def test_clients_share_a_record_only_where_there_are_very_many():
    counts = SharedCounts()
    assert counts.record(1) != counts.record(CLIENTS)
    assert counts.record(1) == counts.record(1 + CLIENTS)


def test_where_rows_are_used_up_a_worker_knows_only_of_itself():
    counts = SharedCounts(1)
    assert (counts.take_row(1), counts.take_row(2)) == (0, None)
    counts.add(counts.record(1), SOME)
    counts.start()
    assert counts.about(counts.record(1)) == NOTHING
    assert counts._cells[counts._row + counts.record(1)] == 0


def test_a_client_with_another_number_takes_along_what_it_took():
    counts = SharedCounts(2)
    before, record = counts.record(1), counts.record(2)
    counts.add(before, SOME)
    counts.add(record, SOME)
    counts.move(before, record)
    counts._use_row(1)
    counts._cells[0] = 1 + 2 * shared_counts.STRIDE
    assert (counts.about(before), counts.about(record)) == (NOTHING, TWICE)


@pytest.fixture
def pair():
    """Two workers on the same memory, and where client 1 is."""
    counts = SharedCounts(2)
    counts.take_row(1)
    other = SharedCounts.__new__(SharedCounts)
    other.__dict__.update(counts.__dict__)
    other.take_row(2)
    return counts, other, counts.record(1)


def test_what_was_read_is_not_counted_twice(pair):
    one, two, record = pair
    one.add(one.record(1), TWICE)
    one.hear(5)
    one.begin_written(5)
    one.add_written(record, SOME)
    assert two.exactly(record) == TWICE  # it has heard of nothing yet
    two.hear(5)
    assert two.exactly(record) == SOME
    assert two.about(record) == TWICE  # sooner known, and never too little


def test_what_all_have_read_is_dropped(pair):
    one, two, record = pair
    one.add(one.record(1), SOME)
    one.begin_written(5)
    one.add_written(record, SOME)
    assert not one.all_heard()
    two.hear(4)
    assert not one.all_heard()
    two.hear(5)
    assert one.all_heard()
    one.drop_written(record)
    assert two.about(record) == two.exactly(record) == NOTHING


def test_nobody_waits_for_a_worker_that_has_gone(pair):
    one, two, _ = pair
    two.hear(4)
    one.begin_written(5)
    two.free_row(2)
    assert one.all_heard()
