from sqlalchemy import delete, select

from proxy.store import revisions
from proxy.store.models import RevisionRow


def record(database, **changes):
    values = {"author": "admin", "action": "instance changed", "subject": "a", "changes": {}}
    with database.session() as session:
        return revisions.record(session, **(values | changes))


def newest(database):
    with database.read() as connection:
        return revisions.newest(connection)


def test_before_the_first_change_the_revision_is_0(database):
    assert newest(database) == 0


def test_every_change_has_the_next_number(database):
    assert [record(database), record(database)] == [1, 2]
    assert newest(database) == 2


def test_a_revision_says_who_changed_what_and_when(database, monkeypatch):
    monkeypatch.setattr(revisions.time, "time", lambda: 1234.5)
    record(database, author="me", action="x", subject="Käse", changes={"weight": [1, None]})
    with database.read() as connection:
        row = connection.execute(select(RevisionRow.__table__)).one()
    assert row == (1, 1234.5, "me", "x", "Käse", {"weight": [1, None]})


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
            revisions.record(session, author="a", action="b", subject="c", changes={})
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert newest(database) == 0
    assert record(database) == 1
