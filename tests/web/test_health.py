import threading
import time
from dataclasses import replace

import pytest

from proxy.runtime.roster import Entry
from proxy.runtime.syncer import LATE_SECONDS

IDLE = {"open": 0, "waiting": 0, "ceiling": 512}
FINE = {
    "status": "ok",
    "problem": None,
    "calls": IDLE,
    "workers": 1,
    "lacks_token": False,
    "secret_key": "there",
    "out_of_service": 0,
}
OTHER = Entry(3, 100, 2, 0.0, False, 7, {})


def test_a_running_gateway_is_healthy(world):
    answer = world.client.get("/health")
    assert (answer.status_code, answer.get_json()) == (200, FINE)


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_nobody_needs_a_key_to_ask_how_it_is(world, path):
    assert world.client.head(path).status_code != 401


def test_it_says_how_many_calls_it_is_at_and_can_hold(world):
    world.add("a")
    line = world.parts.open_calls.begin(None)
    assert world.client.get("/health").get_json()["calls"] == IDLE | {"open": 1}
    world.parts.open_calls.end(line)
    world.ask()
    assert world.client.get("/health").get_json()["calls"] == IDLE


def test_the_calls_are_those_of_all_workers(world, monkeypatch):
    mine = world.parts.roster.read()
    other = replace(OTHER, synced_at=time.time())
    monkeypatch.setattr(world.parts.roster, "read", lambda: mine | {5: other})
    answer = world.client.get("/health").get_json()
    assert answer["calls"] == {"open": 3, "waiting": 2, "ceiling": 612}
    assert (answer["workers"], answer["status"]) == (2, "ok")


@pytest.mark.parametrize(
    "late_seconds, failed, problem",
    [
        (30, False, "Of 2 workers 1 did not sync for "),
        (-2, False, None),
        (30, True, None),  # it says itself what is wrong
        (None, False, None),  # it begins just now
    ],
)
def test_a_worker_that_is_stuck_is_told_by_the_others(
    late_seconds, failed, problem, world, monkeypatch
):
    at = 0.0
    if late_seconds is not None:
        at = time.time() - world.parts.syncer.late_seconds - late_seconds
    mine, other = world.parts.roster.read(), replace(OTHER, synced_at=at, sync_failed=failed)
    monkeypatch.setattr(world.parts.roster, "read", lambda: mine | {5: other})
    told = world.client.get("/health").get_json()
    assert told["status"] == ("degraded" if problem else "ok")
    assert (told["problem"] or "").startswith(problem or "")
    assert bool(told["problem"]) == bool(problem)


def test_it_is_not_ready_when_it_is_about_to_stop(world):
    world.add("a")
    world.parts.draining.begin()
    answer = world.client.get("/ready")
    assert (answer.status_code, answer.get_json()["problem"]) == (
        503,
        "the gateway is stopping",
    )
    assert world.client.get("/health").status_code == 200
    assert world.ask().status_code == 200  # those who are here already are served


def test_it_is_ready_when_an_instance_is_enabled(world):
    answer = world.client.get("/ready")
    assert answer.status_code == 503
    assert answer.get_json()["ready"] is False
    assert "no instance" in answer.get_json()["problem"]
    world.add("a", enabled=False)
    assert world.client.get("/ready").status_code == 503
    world.admin("PUT", "/a", json={"enabled": True})
    answer = world.client.get("/ready")
    assert (answer.status_code, answer.get_json()) == (200, {"ready": True, "problem": None})


def test_a_worker_that_was_not_started_says_how_to_start_it(world):
    world.add("a")
    world.parts.syncer.synced_at = 0.0
    assert "scripts/run" in world.client.get("/health").get_json()["problem"]
    assert world.client.get("/ready").status_code == 503


def test_a_log_that_cannot_be_written_degrades_and_keeps_nobody_from_being_served(
    world, monkeypatch
):
    world.add("a")
    problem = "The log cannot be written to /x/proxy.log: No space left on device."
    monkeypatch.setattr(type(world.parts.log_writer), "problem", problem)
    answer = world.client.get("/health")
    assert (answer.status_code, answer.get_json()) == (
        200,
        FINE | {"status": "degraded", "problem": problem},
    )
    assert world.client.get("/ready").status_code == 200


@pytest.mark.parametrize("late_seconds, is_late", [(-5, False), (5, True)])
def test_a_syncer_that_is_stuck_is_noticed(make_world, late_seconds, is_late):
    world = make_world(sync_interval_ms=60_000)
    world.add("a")
    world.parts.syncer.synced_at -= 180 + late_seconds  # three intervals
    problem = world.client.get("/health").get_json()["problem"]
    assert bool(problem) is is_late
    assert world.client.get("/ready").status_code == (503 if is_late else 200)


def test_short_intervals_are_not_late_at_once(make_world):
    world = make_world(sync_interval_ms=10)
    world.parts.syncer.stop()
    world.parts.syncer.synced_at -= LATE_SECONDS - 5
    assert world.client.get("/health").get_json() == FINE
    world.parts.syncer.synced_at -= 10
    problem = world.client.get("/health").get_json()["problem"]
    assert problem.startswith("State was last synced 1")


def test_a_database_that_is_away_shows_and_passes(world, database_file):
    world.add("a")
    content = database_file.read_bytes()
    world.ask()
    world.parts.database.dispose()
    database_file.write_bytes(b"no database" * 100)
    world.parts.syncer.sync()
    answer = world.client.get("/health")
    assert (answer.status_code, answer.get_json()["status"]) == (200, "degraded")
    assert "database" in answer.get_json()["problem"]
    ready = world.client.get("/ready")
    assert (ready.status_code, ready.get_json()["ready"]) == (503, False)
    assert world.ask().status_code == 200
    world.parts.database.dispose()
    database_file.write_bytes(content)
    world.parts.syncer.sync()
    assert world.client.get("/health").get_json() == FINE
    assert world.client.get("/ready").status_code == 200
    assert world.state()["total_requests"] == 2


class Threads:
    """The server's, of which one fewer is busy at each look."""

    size = count = 3

    def __init__(self):
        self._looks = iter((3, 2, 1))

    @property
    def busy(self):
        return next(self._looks, 0)


@pytest.mark.parametrize(("cut_off", "left_busy"), [(2, 0), (0, 3)])
def test_a_worker_ends_when_all_that_it_cut_off_have_been_told(
    world, monkeypatch, cut_off, left_busy
):
    """Their answers are written by its threads; for nobody else it waits."""
    world.parts.roster.threads = threads = Threads()
    seen = []
    monkeypatch.setattr(world.parts.forward, "end_open", lambda seconds: cut_off)
    monkeypatch.setattr(world.parts.streams, "stop", lambda: seen.append(threads.busy))
    assert world.parts.stop() == cut_off
    assert seen == [left_busy]


def test_what_fails_at_the_end_keeps_nothing_else_from_ending(world, monkeypatch):
    ended = []
    monkeypatch.setattr(world.parts.upstream, "close", lambda: ended.append("upstream"))

    def fail():
        raise LookupError

    with monkeypatch.context() as patch:
        patch.setattr(world.parts.syncer, "stop", fail)
        with pytest.raises(LookupError):
            world.parts.stop()
    assert ended == ["upstream"]
    assert not any(t.name == "log" for t in threading.enumerate())
