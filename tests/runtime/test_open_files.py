import resource

import pytest

from proxy.runtime import open_files


@pytest.fixture
def limits(monkeypatch):
    """What the system says, and what it was told."""
    now = {"soft": 1024, "hard": 4096}

    def told(_kind, soft_and_hard):
        now["soft"], now["hard"] = soft_and_hard

    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (now["soft"], now["hard"]))
    monkeypatch.setattr(resource, "setrlimit", told)
    return now


def test_as_many_as_the_system_allows(limits):
    assert open_files.allow_all() == 4096
    assert limits == {"soft": 4096, "hard": 4096}
    assert open_files.allow_all() == 4096


def test_where_there_is_no_limit_there_are_enough(limits):
    limits["hard"] = resource.RLIM_INFINITY
    assert open_files.allow_all() > open_files.needed(10_000)


@pytest.mark.parametrize(
    "threads, files, clients",
    [
        (512, 1_000_000, 1124),
        (512, 1736, 1124),  # just enough
        (512, 1024, 412),
        (512, 256, 256),  # it will not do, and the start says so
    ],
)
def test_clients_leave_files_for_upstreams(threads, files, clients):
    assert open_files.connections(threads, files) == clients


def test_as_many_as_are_needed_are_enough():
    for threads in (1, 512, 4000):
        most = open_files.connections(threads, open_files.needed(threads))
        assert most == 2 * threads + open_files.SPARE


def test_a_shortage_is_told_once_a_minute_and_lasts_for_a_moment(logged):
    now = 100.0
    shortage = open_files.Shortage(clock=lambda: now)
    assert not shortage.is_on
    shortage.note(7)
    shortage.note(8)
    assert shortage.is_on
    now += open_files.PAUSE_SECONDS
    assert not shortage.is_on
    ((level, said),) = logged
    assert (level, "with 7 clients connected" in said) == ("ERROR", True)
    now += open_files.TOLD_SECONDS
    shortage.note(9)
    assert "with 9 clients connected" in logged[1][1]
