import threading

from proxy.runtime.periodic import Periodic


def names():
    return {thread.name for thread in threading.enumerate()}


def test_it_acts_again_and_again_until_it_is_stopped():
    times = threading.Semaphore(0)
    periodic = Periodic("a-name", 0.001, times.release)
    periodic.start()
    assert all(times.acquire(timeout=5) for _ in range(3))
    assert "a-name" in names()
    periodic.stop()
    assert "a-name" not in names()
    periodic.stop()


def test_it_waits_before_it_acts_and_stops_at_once():
    acted = threading.Event()
    periodic = Periodic("a-name", 3600, acted.set)
    periodic.start()
    periodic.stop()
    assert not acted.is_set()


def test_it_can_be_started_again():
    acted = threading.Event()
    periodic = Periodic("a-name", 0.001, acted.set)
    periodic.start()
    periodic.stop()
    acted.clear()
    periodic.start()
    assert acted.wait(5)
    periodic.stop()


def test_what_it_raises_is_logged_once_and_it_goes_on(caplog):
    rounds, over = (
        iter([ValueError("one"), ValueError("two"), None, ValueError("three")]),
        threading.Event(),
    )

    def act():
        found = next(rounds, over)
        if isinstance(found, ValueError):
            raise found
        if found is over:
            over.set()

    periodic = Periodic("a-name", 0.001, act)
    periodic.start()
    assert over.wait(5)
    periodic.stop()
    assert [str(r.exc_info[1]) for r in caplog.records] == ["one", "three"]
    assert caplog.messages == ["The thread 'a-name' made a mistake, and goes on."] * 2
