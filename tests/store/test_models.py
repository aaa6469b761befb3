import pytest
from sqlalchemy import BigInteger, Integer
from sqlalchemy.dialects import postgresql, sqlite

from proxy.core.deltas import TOTALS
from proxy.core.verdict import OUTCOMES
from proxy.store.models import Base, InstanceRow, InstanceStateRow, UsageRow
from proxy.store.states import MOMENTS

TABLES = list(Base.metadata.tables.values())
COLUMNS = [c for table in TABLES for c in table.columns]


@pytest.mark.parametrize("table", TABLES, ids=str)
def test_every_constraint_has_a_name(table):
    assert [c for c in [*table.constraints, *table.indexes] if not c.name] == []


@pytest.mark.parametrize("table", TABLES, ids=str)
def test_nothing_depends_on_another_table(table):
    # Counts outlive the instance they were measured on.
    assert not table.foreign_keys


@pytest.mark.parametrize("column", [c for c in COLUMNS if c.type.python_type is int], ids=str)
def test_whole_numbers_have_64_bits(column):
    assert isinstance(column.type.dialect_impl(postgresql.dialect()), BigInteger)
    # SQLite's own INTEGER has as many, and is the only one it numbers rows by.
    assert type(column.type.dialect_impl(sqlite.dialect())) is Integer


def test_every_total_and_moment_has_a_column():
    assert {*TOTALS, *MOMENTS} <= set(InstanceStateRow.__table__.columns.keys())


def test_every_outcome_of_an_attempt_has_a_column_of_usage():
    assert set(OUTCOMES) <= set(UsageRow.__table__.columns.keys())


def test_every_counter_of_an_outcome_is_a_total():
    assert {counter for counter in OUTCOMES.values() if counter} <= set(TOTALS)


def test_config_and_state_share_no_column_but_the_name():
    config = set(InstanceRow.__table__.columns.keys())
    assert not config & set(InstanceStateRow.__table__.columns.keys())


def test_counters_are_columns_of_which_nobody_makes_attributes():
    """There are hundreds, and each attribute takes longer at a start than its column."""
    counting = [
        m for m in Base.registry.mappers if set(OUTCOMES) <= set(m.local_table.c.keys())
    ]
    assert len(counting) == 6
    for mapper in counting:
        assert mapper.column_attrs.keys() == [c.name for c in mapper.local_table.primary_key]
