from threading import Barrier, Thread

import pytest

from proxy.core.wrong_keys import WrongKeys
from proxy.runtime import key_watch
from proxy.runtime.key_watch import KeyWatch

ADDRESS = "2001:db8::1"


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    monkeypatch.setattr(key_watch.time, "monotonic", lambda: 100.0)


def test_wrong_keys_are_counted_by_source_until_they_are_forgiven():
    watch = KeyWatch(WrongKeys())
    found = [watch.wrong(f"2001:db8::{n}").wait_seconds for n in range(1, 7)]
    assert found == [0.0] * 5 + [1.0]
    watch.forgive("2001:db8::99")
    assert watch.wrong(ADDRESS).wait_seconds == 0.0


def test_there_may_be_nothing_to_forgive():
    KeyWatch(WrongKeys()).forgive(ADDRESS)


def test_threads_lose_no_count():
    watch, barrier, found = KeyWatch(WrongKeys(free=10_000)), Barrier(8), []

    def guess():
        barrier.wait()
        found.extend(watch.wrong(ADDRESS) for _ in range(500))

    threads = [Thread(target=guess) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4_000
    assert watch._wrong_keys._sources["2001:db8::/64"].mistakes == 4_000
