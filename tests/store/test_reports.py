"""A report is compared with the plain sum of all that was counted."""

from collections import Counter
from itertools import product
from random import Random

import pytest

from proxy.core.deltas import Deltas
from proxy.core.report import MAX_ROWS, Question
from proxy.core.usage import COUNTERS
from proxy.store import reports, usage

DAY = 1_699_920_000
MINUTES = 3 * 1440
NOW = DAY + MINUTES * 60
REQUESTS = COUNTERS.index("requests")


@pytest.fixture
def counted(database):
    """Three days, of which the last half hour is not rolled up."""
    chance, rows, deltas = Random(11), [], Deltas()
    for number in range(300):
        minute = DAY + 60 * chance.randrange(MINUTES)
        key = (minute, chance.choice("ab"), chance.choice("mn"), chance.choice("xyz"))
        rows.append((*key, number))
        deltas.add_usage(key, {"requests": number})
    for recent in range(25):
        rows.append((NOW - 60 * recent, "a", "m", "x", 1000))
        deltas.add_usage(rows[-1][:4], {"requests": 1000})
    with database.write() as connection:
        usage.add(connection, deltas)
    more = True
    while more:
        with database.write() as connection:
            more = usage.roll_up(connection, NOW - 1800)
    return rows


def plain(rows, question):
    found = Counter()
    for minute, *names, requests in rows:
        who = dict(zip(("instance", "model", "client"), names, strict=True))
        if not question.since <= minute < question.until:
            continue
        if any(who[name] != value for name, value in question.where.items()):
            continue
        bucket = question.bucket_seconds
        at = minute // bucket * bucket if bucket else 0
        found[(at, *(who[name] for name in question.by))] += requests
    return {key: n for key, n in found.items() if n}


ASKED = [
    ({}, ()),
    ({}, ("model",)),
    ({"client": "x"}, ()),
    ({"client": "x"}, ("client",)),
    ({"client": "x"}, ("model",)),
    ({"client": "x", "model": "m"}, ("instance",)),
    ({}, ("instance", "model", "client")),
    ({"instance": "nobody"}, ()),
]
TIMES = [(DAY, NOW + 60), (DAY + 5 * 60, NOW - 3600 - 7 * 60)]


def test_a_report_says_what_was_counted(database, counted):
    for (where, by), (since, until), bucket in product(ASKED, TIMES, (0, 60, 3600, 86_400)):
        if bucket:
            since, until = since // bucket * bucket, -(-until // bucket) * bucket
        question = Question(since, until, where, by, bucket)
        with database.read() as connection:
            found = reports.answer(connection, question, MAX_ROWS)
        requests = {key: c[REQUESTS] for key, c in found.items() if c[REQUESTS]}
        assert requests == plain(counted, question), question


def test_of_days_that_are_over_two_dimensions_are_read_from_their_sums(
    database, counted, statements
):
    """And of the present day from whole rows."""
    asked = statements(database)
    with database.read() as connection:
        reports.answer(connection, Question(DAY, NOW, {"client": "x"}, ("model",)), MAX_ROWS)
    tables = [t for s in asked for t in ("usage_pair", "usage_day") if f"FROM {t}" in s]
    assert tables == ["usage_pair", "usage_day"]


def test_where_nothing_was_counted_there_is_no_row(database):
    with database.read() as connection:
        assert reports.answer(connection, Question(DAY, NOW), MAX_ROWS) == {}


def test_of_too_many_rows_no_more_are_read_than_it_takes_to_know_that(database, statements):
    made = Deltas()
    for number in range(50):
        made.add_usage((DAY, "a", f"model {number}", "x"), {"requests": 1})
        made.add_usage((NOW, "a", f"model {number}", "x"), {"requests": 1})
    with database.write() as connection:
        usage.add(connection, made)
        usage.roll_up(connection, NOW)
    asked = statements(database)
    with database.read() as connection:
        found = reports.answer(connection, Question(DAY, NOW + 60, {}, ("model",)), 10)
    assert len(found) == 11
    assert sum("FROM usage_" in each and "sum(" in each for each in asked) == 1
