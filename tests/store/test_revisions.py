import pytest
from sqlalchemy import delete, select

from proxy.errors import PreconditionFailed
from proxy.store import revisions
from proxy.store.models import RevisionChangeRow, RevisionRow
from proxy.store.revisions import Author, Change
from tests.builders import AUTHOR

SECRET = "sk-planted-secret-0123456789"


def record(database, author=AUTHOR, action="instance changed", changes=()):
    with database.session() as session:
        return revisions.record(session, author, action, changes)


def record_and_fail(session):
    revisions.record(session, AUTHOR, "b", [])
    raise ZeroDivisionError


def newest(database):
    with database.read() as connection:
        return revisions.newest(connection)


def rows(database, model):
    with database.read() as connection:
        return connection.execute(select(model.__table__)).all()


def test_before_the_first_change_the_revision_is_0(database):
    assert newest(database) == 0


def test_every_change_has_the_next_number(database):
    assert [record(database), record(database)] == [1, 2]
    assert newest(database) == 2


def test_a_revision_says_who_changed_what_when_why_and_with_which_request(
    database, monkeypatch
):
    monkeypatch.setattr(revisions.time, "time", lambda: 1234.5)
    changes = [
        Change("instance", "Käse", {"weight": [1, None]}),
        Change("price", "gpt-4o", {"prompt_per_million": [None, 2.5]}),
    ]
    record(database, Author("me", "because", "request-1"), "x", changes)
    assert rows(database, RevisionRow) == [(1, 1234.5, "me", "x", "because", "request-1")]
    assert rows(database, RevisionChangeRow) == [
        (1, 0, "instance", "Käse", {"weight": [1, None]}, None),
        (1, 1, "price", "gpt-4o", {"prompt_per_million": [None, 2.5]}, None),
    ]


def test_secrets_are_masked_where_they_are_shown_and_sealed_where_they_are_kept(
    database, database_file
):
    fields = {"api_key": [None, SECRET], "proxy_url": [None, f"http://u:{SECRET}@h:1"]}
    record(database, changes=[Change("instance", "a", fields | {"weight": [None, 1]})])
    (row,) = rows(database, RevisionChangeRow)
    shown = {"api_key": [None, "***6789"], "proxy_url": [None, "http://***@h:1"]}
    assert row.changes == shown | {"weight": [None, 1]}
    assert row.secrets == fields
    on_disk = b"".join(p.read_bytes() for p in database_file.parent.iterdir())
    assert SECRET.encode() not in on_disk


def test_a_number_is_not_used_again_after_its_row_is_gone(database):
    record(database)
    with database.write() as connection:
        connection.execute(delete(RevisionRow))
    assert record(database) == 2


def test_the_newest_is_the_highest_number_however_many_are_left(database):
    record(database)
    record(database)
    with database.write() as connection:
        connection.execute(delete(RevisionRow).where(RevisionRow.id == 1))
    assert newest(database) == 2


def test_the_number_of_a_change_that_was_rolled_back_is_given_to_the_next(database):
    # Nobody saw it: snapshots are read from what is committed.
    try:
        with database.session() as session:
            record_and_fail(session)
    except ZeroDivisionError:
        pass
    assert newest(database) == 0
    assert record(database) == 1


def page(database, **query):
    with database.read() as connection:
        return revisions.page(connection, **{"limit": 100} | query)


@pytest.fixture
def some(database):
    """1: a by ann; 2: a and b by bob; 3: the client a by ann."""
    a, b = Change("instance", "a", {"weight": [1, 2]}), Change("instance", "b", {})
    record(database, Author("ann"), changes=[a])
    record(database, Author("bob", "why", "r-2"), changes=[a, b])
    record(database, Author("ann"), "client changed", [Change("client", "a", {})])
    return database


@pytest.mark.parametrize(
    "query, numbers, total",
    [
        ({}, [3, 2, 1], 3),
        ({"limit": 2}, [3, 2], 3),
        ({"limit": 2, "offset": 2}, [1], 3),
        ({"offset": 3}, [], 3),
        ({"author": "ann"}, [3, 1], 2),
        ({"kind": "instance"}, [2, 1], 2),
        ({"name": "a"}, [3, 2, 1], 3),
        ({"kind": "instance", "name": "b"}, [2], 1),
        ({"kind": "client", "name": "b"}, [], 0),  # of one thing, and not of two
        ({"author": "ann", "kind": "instance"}, [1], 1),
        ({"author": "nobody"}, [], 0),
        ({"author": "an"}, [], 0),
    ],
)
def test_a_page_has_those_that_match_the_newest_first(some, query, numbers, total):
    found, count = page(some, **query)
    assert ([each.number for each in found], count) == (numbers, total)


def test_a_revision_has_all_it_changed_in_that_order(some):
    found = page(some, author="bob")[0][0]
    assert (found.author, found.reason, found.request_id) == ("bob", "why", "r-2")
    assert [(r.kind, r.name) for r in found.records] == [("instance", "a"), ("instance", "b")]
    shown = revisions.shown_revision(found)
    assert shown["revision"] == 2
    assert shown["changes"][0] == {
        "kind": "instance",
        "name": "a",
        "effect": "changed",
        "fields": {"weight": [1, 2]},
        "changed_secrets": [],
    }


def test_one_is_found_by_its_number(some):
    with some.read() as connection:
        assert revisions.one(connection, 3).action == "client changed"
        assert revisions.one(connection, 4) is None


def test_what_was_changed_since_is_the_newest_first_with_its_secrets(database):
    record(database, changes=[Change("instance", "a", {"api_key": [None, SECRET]})])
    record(database, changes=[Change("price", "x", {}), Change("price", "y", {})])
    with database.read() as connection:
        every = list(revisions.after(connection, 0))
        later = list(revisions.after(connection, 1))
    assert [r.name for r in every] == ["y", "x", "a"]
    assert every[-1].secrets == {"api_key": [None, SECRET]}
    assert [r.name for r in later] == ["y", "x"]


def test_what_is_shown_of_a_revision_holds_no_secret(database):
    record(database, changes=[Change("instance", "a", {"api_key": [None, SECRET]})])
    assert SECRET not in str(page(database))


def test_who_asks_for_a_revision_gets_that_or_an_error():
    revisions.check_match("Instance 'a'", 3, None)
    revisions.check_match("Instance 'a'", 3, 3)
    with pytest.raises(PreconditionFailed, match="Instance 'a' is at revision 3, not 2"):
        revisions.check_match("Instance 'a'", 3, 2)
