from sqlalchemy import func, select

from proxy.store import signed_out
from proxy.store.models import SecretRow
from proxy.store.secrets import survey
from tests.builders import VAULT

NOW = 1000.0


def has(database, token):
    with database.read() as connection:
        return signed_out.has(connection, token)


def test_what_was_ended_stays_so_whoever_ends_it_again(database):
    for _ in range(2):
        with database.session() as session:
            signed_out.add(session, "mine", NOW + 60, NOW)
    assert has(database, "mine")
    assert not has(database, "another")


def test_those_whose_cookie_is_over_are_forgotten_and_nothing_else(database):
    with database.read() as connection:
        before = connection.execute(select(func.count(SecretRow.name))).scalar_one()
    for token, ends_at, now in (("old", NOW, NOW), ("new", NOW + 60, NOW + 1)):
        with database.session() as session:
            signed_out.add(session, token, ends_at, now)
    assert (has(database, "old"), has(database, "new")) == (False, True)
    with database.read() as connection:
        after = connection.execute(select(func.count(SecretRow.name))).scalar_one()
        assert after == before + 1
        assert survey(connection, VAULT).unopened == []
