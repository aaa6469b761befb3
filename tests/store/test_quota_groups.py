import pytest

from proxy.core.types import QuotaGroup
from proxy.errors import Conflict, NotFound, PreconditionFailed
from proxy.store import instances, quota_groups, revisions
from proxy.store.models import RevisionChangeRow, RevisionRow
from tests.builders import AUTHOR, config


@pytest.fixture
def put(database):
    with database.session() as session:
        instances.add(session, [config("a", quota_group="east")], author=AUTHOR)

    def write(name="east", if_match=None, **values):
        with database.session() as session:
            quota_groups.put(session, name, values, author=AUTHOR, if_match=if_match)

    return write


def loaded(database):
    with database.read() as connection:
        return quota_groups.load_all(connection)


def newest(database):
    with database.read() as connection:
        return revisions.newest(connection)


LIMITS = {"gpt-4o": {"max_tpm": 50, "max_rpm": 6}}


def test_limits_are_loaded_as_they_were_set(put, database):
    put(max_tpm=100, model_limits=LIMITS)
    (stored,) = loaded(database)
    assert stored.group == QuotaGroup("east", 100, 0, LIMITS)
    assert stored.revision == newest(database)
    assert stored.created_at == stored.updated_at > 0


def test_what_is_not_said_stays(put, database):
    put(max_tpm=100, model_limits=LIMITS)
    put(max_rpm=60)
    (stored,) = loaded(database)
    assert stored.group == QuotaGroup("east", 100, 60, LIMITS)


def test_each_change_is_a_revision_and_what_is_equal_is_none(put, database):
    put(max_tpm=100)
    before = newest(database)
    put(max_tpm=100)
    assert newest(database) == before
    put(max_tpm=200)
    assert newest(database) == before + 1
    with database.session() as session:
        row = session.get(RevisionRow, before + 1)
        change = session.get(RevisionChangeRow, (before + 1, 0))
        assert (row.author, row.action) == ("test", "quota group changed")
        assert (change.kind, change.name) == ("quota_group", "east")
        assert change.changes == {"max_tpm": [100, 200]}


def test_a_group_that_no_instance_is_in_is_refused(put, database):
    before = newest(database)
    with pytest.raises(Conflict, match="no instance is in a group named 'west'") as caught:
        put("west", max_tpm=1)
    assert caught.value.param == "quota_group"
    assert (loaded(database), newest(database)) == ([], before)


def test_of_two_writers_the_second_hears_of_the_first(put, database):
    put(max_tpm=100)
    seen = loaded(database)[0].revision
    put(max_tpm=200, if_match=seen)
    with pytest.raises(PreconditionFailed, match="somebody changed it"):
        put(max_tpm=300, if_match=seen)
    with (
        pytest.raises(PreconditionFailed),
        database.session() as session,
    ):
        quota_groups.remove(session, "east", author=AUTHOR, if_match=seen)
    assert loaded(database)[0].group.max_tpm == 200


def test_limits_can_be_removed(put, database):
    put(max_tpm=100)
    with database.session() as session:
        quota_groups.remove(session, "east", author=AUTHOR)
    assert loaded(database) == []
    with database.session() as session, pytest.raises(NotFound, match="'east'"):
        quota_groups.remove(session, "east", author=AUTHOR)
