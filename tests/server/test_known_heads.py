"""What is kept of heads that came before."""

from threading import Barrier, Thread

import pytest

from proxy.server.known_heads import MOST_HEADS, MOST_SEEN, OF_CONNECTION, KnownHeads

TOLD = {"HTTP_HOST": "a.example", **dict.fromkeys(OF_CONNECTION, "of one")}


@pytest.fixture
def heads():
    return KnownHeads()


def test_a_head_is_wanted_when_it_comes_again_until_it_is_kept(heads):
    assert [heads.is_wanted(b"a") for _ in range(3)] == [False, True, True]
    heads.keep(b"a", TOLD)
    assert not heads.is_wanted(b"a")
    assert not heads.is_wanted(b"b")


def test_what_is_of_one_connection_is_not_kept(heads):
    heads.keep(b"a", TOLD)
    assert heads.get(b"a") == {"HTTP_HOST": "a.example"}
    assert heads.get(b"b") is None


def test_the_first_makes_room_for_the_last(heads):
    for number in range(MOST_HEADS + 1):
        heads.keep(b"%d" % number, TOLD)
    assert len(heads._heads) == MOST_HEADS
    assert heads.get(b"0") is None
    assert heads.get(b"1")
    assert heads.get(b"%d" % MOST_HEADS)


def test_what_came_once_is_bounded_too(heads):
    for number in range(3 * MOST_SEEN):
        heads.is_wanted(b"%d" % number)
        assert len(heads._seen) <= MOST_SEEN


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
