import pytest
from sqlalchemy import select

from proxy.core.deltas import Deltas
from proxy.store import usage
from proxy.store.models import UsageRow
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


@pytest.mark.parametrize("counter", COUNTERS)
def test_counts_of_two_workers_add_up(add, rows, counter):
    add(used(**{counter: 3}), used(**{counter: 4}))
    assert rows() == {(MINUTE, "a", "gpt-4o", "app"): {counter: 7}}


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


def test_minutes_before_a_moment_are_forgotten(add, rows, database):
    add(*[used((MINUTE + offset,), requests=1) for offset in (-60, 0, 60)])
    with database.write() as connection:
        usage.forget_old(connection, before=MINUTE)
    assert [key[0] for key in rows()] == [MINUTE, MINUTE + 60]
