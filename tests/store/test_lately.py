from proxy.core.deltas import Deltas
from proxy.store import lately, usage

MINUTE = 1_700_000_040


def test_the_last_minutes_are_summed_by_instance(database):
    made = Deltas()
    for minute, instance, client in (
        (MINUTE - 60, "a", "app"),  # before
        (MINUTE, "a", "app"),
        (MINUTE + 60, "a", "other"),
        (MINUTE, "b", "app"),
    ):
        made.add_usage((minute, instance, "gpt-4o", client), {"attempts": 1, "failed": 1})
    with database.write() as connection:
        usage.add(connection, made)
    with database.read() as connection:
        found = lately.by_instance(connection, MINUTE, ("attempts", "failed"))
    assert found == {"a": {"attempts": 2, "failed": 2}, "b": {"attempts": 1, "failed": 1}}
