from proxy.core.deltas import Deltas
from proxy.store import traffic, usage

MINUTE = 1_700_000_040


def test_a_minute_has_the_sums_of_all_and_an_idle_one_nothing(database):
    deltas = Deltas()
    for at, instance, model, counts in (
        (MINUTE, "a", "gpt-4o", {"requests": 2, "prompt_tokens": 10, "completion_tokens": 5}),
        (MINUTE, "b", "o3", {"requests": 1, "throttled": 3, "prompt_tokens": 1}),
        (MINUTE + 120, "", "o3", {"requests": 4}),
        (MINUTE - 60, "a", "o3", {"requests": 99}),  # before
        (MINUTE + 180, "a", "o3", {"requests": 99}),  # not over yet
    ):
        deltas.add_usage((at, instance, model, "app"), counts)
    with database.write() as connection:
        usage.add(connection, deltas)
    with database.read() as connection:
        found = traffic.by_minute(connection, MINUTE + 5, MINUTE + 185)
    assert found["at"] == [MINUTE, MINUTE + 60, MINUTE + 120]
    assert found["requests"] == [3, 0, 4]
    assert found["tokens"] == [16, 0, 0]
    assert found["throttled"] == [3, 0, 0]


def test_before_the_first_minute_is_over_there_is_none(database):
    with database.read() as connection:
        found = traffic.by_minute(connection, MINUTE, MINUTE)
    assert set(map(tuple, found.values())) == {()}
