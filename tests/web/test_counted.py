import time

import pytest

from proxy.core.deltas import Deltas
from proxy.store import usage
from proxy.store.db import StoreUnavailable
from proxy.web import counted
from proxy.web.counted import UNKNOWN, by_minute, recent, recent_of_console
from tests.web.conftest import ADMIN


def ten_minutes_ago():
    """When a test begins, and not when all were collected."""
    return int(time.time()) // 60 * 60 - 600


def count(world, *rows):
    deltas = Deltas()
    for at, instance, client, counts in rows:
        deltas.add_usage((at, instance, "gpt-4o", client), counts)
    with world.parts.database.write() as connection:
        usage.add(connection, deltas)


def test_the_last_minutes_are_what_the_admin_api_tells(world):
    minute = ten_minutes_ago()
    world.add("a")
    count(
        world,
        (minute, "a", "app", {"requests": 2, "attempts": 3, "throttled": 1, "succeeded": 2}),
        (minute + 60, "a", "other", {"requests": 1, "succeeded": 1, "prompt_tokens": 7}),
        (minute, "", "app", {"requests": 4, "mistaken": 4}),
        (minute - 900, "a", "app", {"requests": 99}),  # before
    )
    found = recent(world.parts)
    stats = world.client.get("/admin/stats?group_by=instance", headers=ADMIN).get_json()
    assert found.total == stats["total"]
    assert [{"name": n, **found.instances[n]} for n in ("", "a")] == stats["groups"]
    assert (found.total["requests"], found.of("a")["requests"]) == (7, 3)
    assert found.of("nobody asked it")["requests"] == 0


def test_consoles_see_it_read_once_in_a_few_seconds(world, monkeypatch):
    read = []
    monkeypatch.setattr(counted, "recent", lambda mine: read.append(1) or recent(mine))
    assert recent_of_console(world.parts) == recent_of_console(world.parts)
    assert len(read) == 1
    world.parts.fragments.forget()
    recent_of_console(world.parts)
    assert len(read) == 2


def test_without_the_database_a_console_says_that_it_does_not_know(world, monkeypatch):
    def fail(mine):
        raise StoreUnavailable("The disk is full.")

    monkeypatch.setattr(counted, "recent", fail)
    found = recent_of_console(world.parts)
    assert found == UNKNOWN
    assert found.of("a")["tokens"]["total"] is None


@pytest.mark.parametrize("is_rolled_up", [False, True])
def test_a_minute_has_the_sums_of_all_and_an_idle_one_nothing(world, is_rolled_up):
    minute = ten_minutes_ago()
    count(
        world,
        (minute, "a", "app", {"requests": 2, "prompt_tokens": 10, "completion_tokens": 5}),
        (minute, "b", "app", {"requests": 1, "throttled": 3}),
        (minute + 120, "", "app", {"requests": 4}),
        (minute - 60, "a", "app", {"requests": 99}),  # before
        (minute + 180, "a", "app", {"requests": 99}),  # not over yet
    )
    if is_rolled_up:
        with world.parts.database.write() as connection:
            usage.roll_up(connection, time.time())
    found = by_minute(world.parts, minute + 5, minute + 185)
    assert list(found) == [minute, minute + 60, minute + 120]
    assert [shown["requests"] for shown in found.values()] == [3, 0, 4]
    assert [shown["tokens"]["total"] for shown in found.values()] == [15, 0, 0]
    assert found[minute]["errors"]["upstream_429"] == 3


def test_before_the_first_minute_is_over_there_is_none(world):
    minute = ten_minutes_ago()
    assert by_minute(world.parts, minute, minute) == {}
