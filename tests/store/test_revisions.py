from sqlalchemy import delete, select

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
