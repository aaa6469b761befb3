from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.days import day_at, month

moments = st.datetimes(
    min_value=datetime(1970, 1, 1), max_value=datetime(2400, 1, 1), timezones=st.just(UTC)
)


def seconds(*date):
    return int(datetime(*date, tzinfo=UTC).timestamp())


@given(moments)
def test_a_day_begins_at_midnight(moment):
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    assert day_at(moment.timestamp()) == midnight.timestamp()


@given(moments)
def test_a_month_is_what_the_calendar_says(moment):
    first = moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = (first + timedelta(days=32)).replace(day=1)
    assert month(moment.timestamp()) == (first.timestamp(), following.timestamp())


@pytest.mark.parametrize(
    "now, began, ends",
    [
        (seconds(2024, 2, 29, 23, 59), (2024, 2, 1), (2024, 3, 1)),  # a leap year
        (seconds(2100, 2, 28), (2100, 2, 1), (2100, 3, 1)),  # not one
        (seconds(2026, 12, 31), (2026, 12, 1), (2027, 1, 1)),
        (seconds(2027, 1, 1), (2027, 1, 1), (2027, 2, 1)),  # the first second is the new one's
    ],
)
def test_months_end_where_the_next_begins(now, began, ends):
    assert month(now) == (seconds(*began), seconds(*ends))
