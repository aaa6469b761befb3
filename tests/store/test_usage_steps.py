"""What the statements do, tests/store/test_usage.py shows; here how they are made."""

import pytest

from proxy.core.usage import COUNTERS
from proxy.store import usage_steps
from proxy.store.usage_steps import steps, steps_of_pairs


def test_they_are_made_once():
    assert steps() is steps()
    assert steps_of_pairs() is steps_of_pairs()


@pytest.mark.parametrize("made", [steps, steps_of_pairs], ids=lambda made: made.__name__)
def test_each_adds_every_counter(database, made):
    for step in made():
        with database.write() as connection:
            sql = step.statement.compiled(connection).sql
        assert all(sql.count(f"SUM({c})") == 1 for c in COUNTERS)
        assert all(f"{c} = usage_" in sql and f".{c} + excluded.{c}" in sql for c in COUNTERS)


def test_moments_are_parameters(database):
    with database.write() as connection:
        values = steps()[0].statement.compiled(connection).given({"since": 7, "until": 9})
    assert values == (7, 9)


def test_a_pair_is_named_by_both():
    assert usage_steps.name_of(("model", "client")) == "model,client"
