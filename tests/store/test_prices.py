import pytest

from proxy.core.prices import Price, find
from proxy.errors import Conflict, NotFound, PreconditionFailed
from proxy.store import prices, revisions
from proxy.store.models import ModelPriceRow, RevisionChangeRow
from tests.builders import AUTHOR

CHEAP, DEAR = Price(1.0, 0.5, 2.0), Price(15.0, 7.5, 60.0)


def put(database, model="gpt-4o", price=CHEAP, if_match=None):
    with database.session() as session:
        prices.put(session, model, price, author=AUTHOR, if_match=if_match)


def remove(database, model="gpt-4o", if_match=None):
    with database.session() as session:
        prices.remove(session, model, author=AUTHOR, if_match=if_match)


def listed(database):
    with database.read() as connection:
        return {s.model: (s.price, s.revision) for s in prices.listed(connection)}


def last_change(database):
    with database.session() as session:
        row = session.get(RevisionChangeRow, (revisions.newest(session.connection()), 0))
        return row.kind, row.name, row.changes


def test_the_table_has_the_fields_of_the_type():
    columns = {c.name for c in ModelPriceRow.__table__.columns}
    assert columns == {*prices.FIELDS, "model", "updated_at", "revision"}


def test_a_price_is_set_changed_and_removed(database):
    put(database)
    put(database, "o3*", DEAR)
    assert listed(database) == {"gpt-4o": (CHEAP, 1), "o3*": (DEAR, 2)}
    put(database, price=DEAR)
    assert listed(database)["gpt-4o"] == (DEAR, 3)
    remove(database)
    assert list(listed(database)) == ["o3*"]


def test_what_is_loaded_is_ready_for_look_ups(database):
    put(database, "o3*", DEAR)
    with database.read() as connection:
        assert find(prices.load_all(connection), "o3-mini") == DEAR


def test_every_change_is_a_revision_that_says_what(database):
    put(database)
    told = {f: [None, getattr(CHEAP, f)] for f in prices.FIELDS}
    assert last_change(database) == ("price", "gpt-4o", told)
    put(database, price=Price(1.0, 0.25, 2.0))
    assert last_change(database) == ("price", "gpt-4o", {"cached_per_million": [0.5, 0.25]})
    remove(database)
    told = {f: [v, None] for f, v in zip(prices.FIELDS, (1.0, 0.25, 2.0), strict=True)}
    assert last_change(database) == ("price", "gpt-4o", told)


def test_what_is_equal_already_makes_no_revision(database):
    put(database)
    put(database)
    assert listed(database) == {"gpt-4o": (CHEAP, 1)}


def test_a_model_has_one_price_however_it_is_spelled(database):
    put(database)
    with pytest.raises(Conflict, match="'gpt-4o' has a price, and is the same model"):
        put(database, "GPT-4o")
    assert list(listed(database)) == ["gpt-4o"]


@pytest.mark.parametrize("act", [put, remove])
def test_another_version_than_the_one_meant_is_not_touched(database, act):
    put(database)
    put(database, price=DEAR)
    with pytest.raises(PreconditionFailed, match="is at revision 2, not at 1"):
        act(database, if_match=1)
    assert listed(database) == {"gpt-4o": (DEAR, 2)}
    act(database, if_match=2)


def test_what_is_not_there_is_at_no_version(database):
    with pytest.raises(PreconditionFailed, match="is not there"):
        put(database, if_match=1)


def test_what_has_no_price_cannot_lose_it(database):
    with pytest.raises(NotFound, match="'gpt-4o' has no price"):
        remove(database)
