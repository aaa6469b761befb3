from collections import Counter
from random import Random

import pytest
from sqlalchemy import select

from proxy.core.deltas import Deltas
from proxy.core.usage import Kept
from proxy.store import usage
from proxy.store.models import (
    UsageDayRow,
    UsageHourRow,
    UsagePairRow,
    UsageRow,
    UsageSeriesRow,
    UsageTotalRow,
)
from proxy.store.usage import COUNTERS

MINUTE = 1_700_000_040


def used(key=(), **counts):
    """One worker's; `key` replaces minute, instance, model, client from the left."""
    made = Deltas()
    made.add_usage((*key, *(MINUTE, "a", "gpt-4o", "app")[len(key) :]), counts)
    return made


@pytest.fixture
def add(database):
    def write(*workers):
        for each in workers:
            with database.write() as connection:
                usage.add(connection, each)

    return write


@pytest.fixture
def rows(database):
    """Counters other than 0, by key."""

    def read():
        with database.read() as connection:
            found = connection.execute(select(UsageRow.__table__)).mappings().all()
        return {
            tuple(row[c] for c in usage.KEY_COLUMNS): {c: row[c] for c in COUNTERS if row[c]}
            for row in found
        }

    return read


def test_counts_of_two_workers_add_up(add, rows):
    one = {counter: number for number, counter in enumerate(COUNTERS, 1)}
    two = {counter: 100 * number for counter, number in one.items()}
    add(used(**one), used(**two))
    assert rows() == {(MINUTE, "a", "gpt-4o", "app"): {c: 101 * n for c, n in one.items()}}


@pytest.mark.parametrize(
    "other",
    [
        (MINUTE + 60,),
        (MINUTE, "b"),
        (MINUTE, "a", "gpt-4o-mini"),
        (MINUTE, "a", "gpt-4o", "other"),
        (MINUTE, ""),  # no instance could be asked
    ],
)
def test_minute_instance_model_and_client_are_counted_apart(add, rows, other):
    add(used(requests=1), used(other, requests=1))
    assert [list(counts.values()) for counts in rows().values()] == [[1], [1]]


def test_one_worker_writes_many_rows_at_once(add, rows):
    both = used(requests=1)
    both.add(used((MINUTE + 60,), failed=1))
    add(both, both)
    assert [*rows().values()] == [{"requests": 2}, {"failed": 2}]


def test_no_usage_writes_nothing(add, rows):
    add(Deltas())
    assert rows() == {}


def test_a_failed_write_adds_nothing(database, rows):
    with pytest.raises(ZeroDivisionError), database.write() as connection:
        add_and_fail(connection)
    assert rows() == {}


def add_and_fail(connection):
    usage.add(connection, used(requests=1))
    raise ZeroDivisionError


# Sums.


def rolled(database, now):
    with database.write() as connection:
        return usage.roll_up(connection, now)


def all_of(database):
    """What is summed up of requests, by table and key."""
    found = {}
    with database.read() as connection:
        for model in (UsageHourRow, UsageDayRow, UsageTotalRow, UsageSeriesRow, UsagePairRow):
            table = model.__table__
            keys = list(table.primary_key)
            for *key, requests in connection.execute(select(*keys, table.c.requests)):
                found[(table.name, *key)] = requests
    return found


DAY = MINUTE // 86_400 * 86_400
HOUR = MINUTE // 3600 * 3600


def test_minutes_that_are_over_are_added_to_all_sums_once(add, database):
    add(used(requests=1), used((MINUTE, "b", "o1", "web"), requests=2))
    add(used((MINUTE + 60,), requests=100))  # not over yet
    for _ in range(2):
        assert not rolled(database, MINUTE + 60 + usage.GRACE_SECONDS)
    assert all_of(database) == {
        ("usage_hour", HOUR, "a", "gpt-4o", "app"): 1,
        ("usage_hour", HOUR, "b", "o1", "web"): 2,
        ("usage_day", DAY, "a", "gpt-4o", "app"): 1,
        ("usage_day", DAY, "b", "o1", "web"): 2,
        ("usage_total", "a", "gpt-4o", "app"): 1,
        ("usage_total", "b", "o1", "web"): 2,
    } | {
        ("usage_series", seconds, dimension, MINUTE // seconds * seconds, name): requests
        for seconds in (60, 3600, 86_400)
        for dimension, name, requests in (
            ("", "", 3),
            *(("instance", "a", 1), ("instance", "b", 2)),
            *(("model", "gpt-4o", 1), ("model", "o1", 2)),
            *(("client", "app", 1), ("client", "web", 2)),
        )
    }


def test_sums_are_the_same_whenever_it_was_written(database, add):
    """Minutes at random, among them some that were rolled up long ago."""
    random = Random(7)
    moments = [MINUTE + 60 * random.randrange(300) for _ in range(60)]
    for turn, moment in enumerate(moments):
        add(used((moment, random.choice("ab")), requests=1))
        if turn % 7 == 0:
            rolled(database, MINUTE + 60 * random.randrange(300))
    while rolled(database, MINUTE + 60 * 400):
        pass
    first_day = sum(moment < DAY + 86_400 for moment in moments)
    for pair in ("instance,model", "model,client"):
        assert sum(n for key, n in pairs(database).items() if key[0] == pair) == first_day
    found = {key: n for key, n in all_of(database).items() if key[0] != "usage_pair"}
    tables = {key[:3] if key[0] == "usage_series" else key[:1] for key in found}
    for table in tables:
        assert sum(n for key, n in found.items() if key[: len(table)] == table) == 60
    hours = Counter(moment // 3600 * 3600 for moment in moments)
    assert hours == {k[3]: n for k, n in found.items() if k[:3] == ("usage_series", 3600, "")}


def test_a_day_is_added_to_the_sums_of_pairs_when_it_is_over(database, add):
    """Whatever was counted before its end, at its end, or for it long after."""
    late = DAY + 86_400 - 60
    add(used(requests=1), used((MINUTE, "b"), requests=2), used((late,), requests=4))
    rolled(database, late)
    assert pairs(database) == {}
    add(used((MINUTE - 60,), requests=8))  # late, but its day is not over
    assert pairs(database) == {}
    add(used((DAY + 2 * 86_400 + 60,), requests=100))
    while rolled(database, DAY + 2 * 86_400 + 180):
        pass
    add(used((late,), requests=16))
    assert pairs(database) == {
        ("instance,model", DAY, "a", "gpt-4o"): 29,
        ("instance,model", DAY, "b", "gpt-4o"): 2,
        ("instance,client", DAY, "a", "app"): 29,
        ("instance,client", DAY, "b", "app"): 2,
        ("model,client", DAY, "gpt-4o", "app"): 31,
    }


def pairs(database):
    return {key[1:]: n for key, n in all_of(database).items() if key[0] == "usage_pair"}


def test_totals_hold_what_is_not_rolled_up_yet(database, add):
    add(used(requests=1, latency_upto_25_ms=1))
    rolled(database, MINUTE + 100)
    add(used((MINUTE + 120,), requests=2), used((MINUTE + 120, ""), requests=4))
    add(used(requests=8))  # late
    with database.read() as connection:
        found = usage.totals(connection)
    assert {key: counts["requests"] for key, counts in found.items()} == {
        ("a", "gpt-4o", "app"): 11,
        ("", "gpt-4o", "app"): 4,
    }
    assert found["a", "gpt-4o", "app"]["latency_upto_25_ms"] == 1


def test_a_long_time_is_rolled_up_in_several_steps(database, add):
    add(*[used((MINUTE + 3600 * n,), requests=1) for n in (0, 1, 5)])
    steps = [rolled(database, MINUTE + 6 * 3600) for _ in range(4)]
    assert steps == [True, True, False, False]
    assert all_of(database)["usage_total", "a", "gpt-4o", "app"] == 3


def test_many_rows_are_rolled_up_in_several_steps(database, add, monkeypatch):
    monkeypatch.setattr(usage, "MOST_ROWS", 3)
    for minute in range(3):
        at = MINUTE + 60 * minute
        add(*[used((at, name), requests=1) for name in "ab"])
    add(*[used((MINUTE + 180, name), requests=1) for name in "abcde"])  # one minute is one step
    steps = [rolled(database, MINUTE + 3600) for _ in range(5)]
    assert steps == [True, True, True, True, False]
    found = all_of(database)
    assert found["usage_series", 86_400, "", DAY, ""] == 11
    assert found["usage_total", "a", "gpt-4o", "app"] == 4


def test_late_rows_are_summed_up_before_they_are_added(database, add, statements):
    add(used(requests=1))
    rolled(database, MINUTE + 100)
    late = Deltas()
    for number in range(50):
        late.add_usage(
            (MINUTE, "a", "gpt-4o", f"client {number}"), {"requests": 1, "failed": 2}
        )
    asked = statements(database)
    add(late)
    of_series = [each for each in asked if each.startswith("INSERT INTO usage_series")]
    # By minute, hour and day: of all, the instance, the model, and each client.
    assert len(of_series) == 3 * (1 + 1 + 1 + 50)
    assert all_of(database)["usage_series", 60, "model", MINUTE, "gpt-4o"] == 51


def test_what_is_older_than_it_is_kept_is_deleted_and_totals_never(add, rows, database):
    kept = Kept(minutes=60, hours=2 * 3600, days=2 * 86_400)
    add(*[used((DAY + at,), requests=1) for at in (0, 86_400, 86_400 + 3600, 2 * 86_400)])
    now = DAY + 2 * 86_400 + 61
    with database.write() as connection:
        usage.forget_old(connection, now, kept)
    assert len(rows()) == 4  # none is in the sums
    while rolled(database, now + 60):
        pass
    with database.write() as connection:
        usage.forget_old(connection, DAY + 86_400 + 3 * 3600, kept)
    found = all_of(database)
    assert [key[0] for key in rows()] == [DAY + 2 * 86_400]
    of_series = [key[1:4:2] for key in found if key[0] == "usage_series" and key[2] == ""]
    assert of_series == [
        *((60, DAY + 2 * 86_400), (3600, DAY + 86_400 + 3600), (3600, DAY + 2 * 86_400)),
        *((86_400, DAY), (86_400, DAY + 86_400), (86_400, DAY + 2 * 86_400)),
    ]
    assert [key[1] for key in found if key[0] == "usage_hour"] == [
        *(DAY + 86_400 + 3600, DAY + 2 * 86_400)
    ]
    assert found["usage_total", "a", "gpt-4o", "app"] == 4
