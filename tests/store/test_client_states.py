from datetime import UTC, datetime

import pytest
from sqlalchemy import select

from proxy.core.client_deltas import ClientDeltas
from proxy.core.days import DAY_SECONDS, day_at
from proxy.core.limiter import COUNTED_SECONDS
from proxy.store import client_states, states
from proxy.store.client_states import KEPT_DAYS
from proxy.store.models import ClientSpendingRow, ClientStateRow, ClientWindowRow
from proxy.store.states import KEPT_WINDOW_SECONDS

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC).timestamp()
SECOND, TODAY = int(NOW), day_at(NOW)


def some(name="app", at=NOW, tokens=30):
    deltas = ClientDeltas()
    deltas.used_at[name] = at
    deltas.add_window((int(at), name), tokens, 1)
    deltas.add_spending((day_at(at), name), tokens, 7)
    return deltas


def add(database, deltas, number=None):
    with database.write() as connection:
        client_states.add(connection, deltas, number)


def read(database, since=None, now=NOW):
    with database.read() as connection:
        number = states.read(connection, now).number
        return client_states.read(connection, now, number, since)


def rows(database, model):
    with database.read() as connection:
        return connection.execute(select(model.__table__)).all()


def test_what_workers_measured_is_added_up(database):
    add(database, some())
    add(database, some(at=NOW + 0.5, tokens=-10))
    found = read(database)
    assert found.used_at == {"app": NOW + 0.5}
    assert found.windows == {"app": [(SECOND, 20, 2)]}
    assert found.spending == {"app": [(TODAY, 20, 14)]}
    assert (found.number, found.is_whole) == (2, True)


def test_the_latest_use_stays_whoever_writes_last(database):
    add(database, some(at=NOW + 5))
    add(database, some(at=NOW))
    assert read(database).used_at == {"app": NOW + 5}


def test_clients_are_apart(database):
    add(database, some("one"))
    add(database, some("two", tokens=5))
    assert read(database).windows == {"one": [(SECOND, 30, 1)], "two": [(SECOND, 5, 1)]}


def test_only_what_changed_since_is_read(database):
    add(database, some("one"))
    since = read(database).number
    add(database, some("two"))
    found = read(database, since)
    assert found.used_at.keys() == found.windows.keys() == found.spending.keys() == {"two"}
    assert (found.number, found.is_whole) == (since + 1, False)
    assert read(database, found.number).used_at == {}


def test_a_row_that_changed_is_read_with_its_sum(database):
    add(database, some())
    since = read(database).number
    add(database, some())
    found = read(database, since)
    assert found.windows == {"app": [(SECOND, 60, 2)]}
    assert found.spending == {"app": [(TODAY, 60, 14)]}


def test_a_transaction_has_one_number(database):
    with database.write() as connection:
        number = states.next_number(connection)
        client_states.add(connection, some(), number)
    assert read(database).number == number
    assert {row.write_number for row in rows(database, ClientStateRow)} == {number}


def test_nothing_measured_writes_nothing(database):
    add(database, ClientDeltas())
    assert read(database).number == 0


@pytest.mark.parametrize(
    "at, counts",
    [
        (NOW, True),
        (NOW - COUNTED_SECONDS + 1, True),
        (NOW - COUNTED_SECONDS, False),
        (NOW + COUNTED_SECONDS, False),  # counted by a clock that was set back since
    ],
)
def test_seconds_count_for_a_minute(database, at, counts):
    add(database, some(at=at))
    assert read(database).windows == ({"app": [(int(at), 30, 1)]} if counts else {})


def test_of_spending_this_month_is_read(database):
    first = TODAY - 29 * DAY_SECONDS
    add(database, some(at=first))
    add(database, some(at=first - 1))
    assert read(database).spending == {"app": [(first, 30, 7)]}


def test_old_rows_are_forgotten_and_young_ones_kept(database):
    for at in (NOW, NOW - KEPT_WINDOW_SECONDS - 1, NOW - (KEPT_DAYS + 1) * DAY_SECONDS):
        add(database, some(at=at))
    with database.write() as connection:
        client_states.forget_old_seconds(connection, NOW)
        client_states.forget_old_days(connection, NOW)
    assert [row.second_at for row in rows(database, ClientWindowRow)] == [SECOND]
    assert [row.day_at for row in rows(database, ClientSpendingRow)] == [TODAY]
    assert read(database).used_at == {"app": NOW}
