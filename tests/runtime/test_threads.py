import logging
import os
import threading
import time

import pytest

from proxy.runtime.threads import ThreadPool

WAIT_SECONDS = 5  # for what other threads do at once; it is reached only by a bug


@pytest.fixture
def make_pool():
    made = []

    def make(size, **options):
        made.append(ThreadPool(size, **options))
        return made[-1]

    yield make
    for pool in made:
        pool.shutdown()
        until(lambda pool=pool: pool.count == 0)


def until(is_so):
    ends_at = time.monotonic() + WAIT_SECONDS
    while not is_so():
        assert time.monotonic() < ends_at
        threading.Event().wait(0.001)


class Task:
    """Goes on until it is let go, and says which thread it has."""

    def __init__(self, done=None):
        self.begun, self.let_go = threading.Event(), threading.Event()
        self.thread = None
        self._done = done

    def __call__(self):
        self.thread = threading.current_thread()
        self.begun.set()
        assert self.let_go.wait(WAIT_SECONDS)
        if self._done is not None:
            self._done.append(self)


def ended(pool, task, *, idle):
    """The task was let go, and its thread waits for the next."""
    task.let_go.set()
    until(lambda: len(pool._idle) == idle)


def begun(pool, count=1):
    tasks = [Task() for _ in range(count)]
    for task in tasks:
        pool.submit(task)
    for task in tasks:
        assert task.begun.wait(WAIT_SECONDS)
    return tasks


def test_threads_are_made_when_they_are_needed(make_pool):
    pool = make_pool(3)
    assert pool.count == 0
    tasks = begun(pool, 2)
    assert pool.count == 2
    assert tasks[0].thread is not tasks[1].thread
    for task in tasks:
        task.let_go.set()


def test_it_is_known_how_many_are_busy(make_pool):
    pool = make_pool(4, ready=2)
    until(lambda: len(pool._idle) == 2)
    assert (pool.busy, pool.size) == (0, 4)
    tasks = begun(pool, 3)
    assert pool.busy == 3
    for idle, task in enumerate(tasks, start=1):
        ended(pool, task, idle=idle)
    assert pool.busy == 0


def test_some_are_ready_before_the_first_task(make_pool):
    pool = make_pool(10, ready=4)
    until(lambda: len(pool._idle) == 4)
    (task,) = begun(pool)
    assert pool.count == 4
    task.let_go.set()


def test_no_more_are_ready_than_there_may_be(make_pool):
    assert make_pool(2, ready=4).count == 2


def test_the_one_that_was_busy_last_is_asked_first(make_pool):
    pool = make_pool(3)
    one, two, three = begun(pool, 3)
    for number, task in enumerate((two, three, one), start=1):
        ended(pool, task, idle=number)
    again = [begun(pool)[0] for _ in range(3)]
    assert [t.thread for t in again] == [one.thread, three.thread, two.thread]
    for task in again:
        task.let_go.set()


def test_what_finds_all_busy_waits_and_is_begun_in_order(make_pool):
    pool, done = make_pool(1), []
    first, *others = [Task(done) for _ in range(4)]
    for task in others:
        task.let_go.set()
    for task in (first, *others):
        pool.submit(task)
    assert first.begun.wait(WAIT_SECONDS)
    assert pool.is_full
    assert not any(t.begun.is_set() for t in others)
    first.let_go.set()
    until(lambda: len(done) == 4)
    assert done == [first, *others]
    assert not pool.is_full
    assert pool.count == 1


def test_a_task_that_fails_is_told_and_its_thread_goes_on(make_pool, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("proxy"), "propagate", True)
    pool = make_pool(1)

    def fail():
        raise SystemExit

    pool.submit(fail)
    (task,) = begun(pool)
    assert "A request's thread failed." in caplog.text
    task.let_go.set()


def test_where_the_system_gives_no_thread_a_task_waits_for_one(make_pool, monkeypatch):
    pool, done = make_pool(2), []
    (first,) = begun(pool)
    second = Task(done)
    second.let_go.set()

    def refused(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    pool.submit(second)
    assert pool.count == 1
    first.let_go.set()
    until(lambda: done == [second])


def test_who_got_idle_while_no_thread_could_be_made_begins_the_task(make_pool, monkeypatch):
    pool, done = make_pool(2), []
    (first,) = begun(pool)
    second = Task(done)
    second.let_go.set()

    def refused(_thread):
        ended(pool, first, idle=1)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    pool.submit(second)
    until(lambda: done == [second])
    assert not pool.is_full


def test_where_there_was_no_thread_at_all_the_next_one_begins_with_what_waits(
    make_pool, monkeypatch
):
    pool, done = make_pool(2), []
    first, second = Task(done), Task(done)
    for task in (first, second):
        task.let_go.set()

    def refused(_thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        pool.submit(first)
    assert (pool.count, pool.is_full) == (0, True)
    pool.submit(second)
    until(lambda: done == [first, second])


def test_as_often_as_no_thread_can_be_made_the_order_stays(make_pool, monkeypatch):
    pool, done = make_pool(1), []
    tasks = [Task(done) for _ in range(5)]

    def refused(_thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        for task in tasks[:4]:
            task.let_go.set()
            pool.submit(task)
    tasks[4].let_go.set()
    pool.submit(tasks[4])
    until(lambda: len(done) == 5)
    assert done == tasks


def test_who_is_idle_for_long_ends_but_for_the_ready_ones(make_pool):
    pool = make_pool(5, ready=2, idle_seconds=0.01)
    for task in begun(pool, 5):
        task.let_go.set()
    until(lambda: pool.count == 2)
    until(lambda: len(pool._idle) == 2)
    (task,) = begun(pool)
    assert pool.count == 2
    task.let_go.set()


def test_at_its_end_what_waits_is_not_begun(make_pool):
    pool = make_pool(1)
    (first,) = begun(pool)
    second = Task()
    pool.submit(second)
    pool.shutdown(wait=False)
    first.let_go.set()
    until(lambda: pool.count == 0)
    assert not second.begun.is_set()


def test_no_thread_of_it_keeps_a_process_alive(make_pool):
    (task,) = begun(make_pool(1))
    assert task.thread.daemon
    task.let_go.set()


def test_a_thread_runs_where_the_first_one_may_whoever_made_it(make_pool):
    everywhere = os.sched_getaffinity(0)
    pool, found, over = make_pool(1), [], threading.Event()

    def task():
        found.append(os.sched_getaffinity(0))
        over.set()

    def elsewhere():
        os.sched_setaffinity(0, {min(everywhere)})
        pool.submit(task)

    maker = threading.Thread(target=elsewhere)
    maker.start()
    maker.join()
    assert over.wait(WAIT_SECONDS)
    assert found == [everywhere]
