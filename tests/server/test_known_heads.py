"""What is kept of heads that came before."""

import sys
from threading import Barrier, Thread

import pytest

from proxy.server.known_heads import (
    MOST_HEADS,
    MOST_SEEN,
    OF_CONNECTION,
    ONE_IN,
    KnownHeads,
)

TOLD = {"HTTP_HOST": "a.example", **dict.fromkeys(OF_CONNECTION, "of one")}


@pytest.fixture
def heads():
    return KnownHeads()


def test_a_head_is_to_be_kept_when_it_comes_again_until_it_is(heads):
    assert [heads.note(b"a") for _ in range(3)] == [False, True, True]
    heads.keep(b"a", TOLD)
    assert not heads.note(b"a")
    assert not heads.note(b"b")


def test_what_is_of_one_connection_is_not_kept(heads):
    heads.keep(b"a", TOLD)
    assert heads.get(b"a") == {"HTTP_HOST": "a.example"}
    assert set(OF_CONNECTION) < TOLD.keys()
    assert heads.get(b"b") is None


def test_the_first_makes_room_for_the_last(heads):
    for number in range(MOST_HEADS + 1):
        heads.keep(b"%d" % number, TOLD)
    assert len(heads._heads) == MOST_HEADS
    assert heads.get(b"0") is None
    assert heads.get(b"1")
    assert heads.get(b"%d" % MOST_HEADS)
    heads.keep(b"9", TOLD)  # as another thread did just before
    assert len(heads._heads) == MOST_HEADS


def test_of_more_that_come_in_turns_most_of_those_that_are_kept_stay(heads):
    """If each took the place of another, all would be gone before they come again."""
    hits = 0
    for turn in range(20):
        for number in range(MOST_HEADS + MOST_HEADS // 4):
            head = b"%d" % number
            hits += turn >= 2 and heads.get(head) is not None
            if heads.get(head) is None and heads.note(head):
                heads.keep(head, TOLD)
    assert hits > 18 * MOST_HEADS / 2
    heads.note(b"a new one")
    assert [heads.note(b"a new one") for _ in range(ONE_IN)].count(True) == 1


def test_what_came_once_is_bounded_too(heads):
    for number in range(3 * MOST_SEEN):
        heads.note(b"%d" % number)
        assert len(heads._seen) <= MOST_SEEN


@pytest.fixture
def hasty():
    """Threads take turns after each few steps."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty")
def test_many_threads_may_keep_at_the_same_time(heads):
    ready, done = Barrier(8), []

    def work(thread):
        ready.wait()
        for number in range(2 * MOST_HEADS):
            heads.keep(b"%d %d" % (thread, number), TOLD)
        done.append(thread)

    threads = [Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 8
    assert len(heads._heads) == MOST_HEADS
