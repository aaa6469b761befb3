import re

import pytest
from sqlalchemy import delete, select

from proxy.core.roles import Admin
from proxy.errors import Conflict, NotFound, PreconditionFailed, Unprocessable
from proxy.store import admin_keys, keys, revisions
from proxy.store.keys import KeysClosed
from proxy.store.models import RevisionChangeRow, RevisionRow, SecretRow
from tests.builders import AUTHOR

NOW = 1_000_000.0


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    monkeypatch.setattr(admin_keys.time, "time", lambda: NOW)


def add(database, name="ann", role="admin", **more):
    with database.session() as session:
        return admin_keys.add(session, name, role, author=AUTHOR, **more)


def change(database, name, values, *, is_first_set=False, **more):
    with database.session() as session:
        admin_keys.change(
            session, name, values, author=AUTHOR, is_first_set=is_first_set, **more
        )


def remove(database, name, *, is_first_set=False, **more):
    with database.session() as session:
        admin_keys.remove(session, name, author=AUTHOR, is_first_set=is_first_set, **more)


def admins(database):
    with database.read() as connection:
        return admin_keys.load_all(connection)


def listed(database):
    with database.read() as connection:
        return admin_keys.listed(connection)


def revision(database):
    with database.read() as connection:
        return revisions.newest(connection)


def last_change(database):
    with database.read() as connection:
        row = connection.execute(
            select(RevisionChangeRow, RevisionRow.action, RevisionRow.author)
            .join(RevisionRow, RevisionRow.id == RevisionChangeRow.revision)
            .order_by(RevisionRow.id.desc())
        ).first()
    return row.action, row.kind, row.name, row.changes, row.secrets


def hash_of(database, key):
    with database.read() as connection:
        return keys.key_hash(keys.pepper(connection), key)


def test_an_admin_is_found_by_the_hash_of_the_key(database):
    key = add(database, "ann", "operator", expires_at=NOW + 1)
    assert admins(database) == {hash_of(database, key): Admin("ann", "operator", NOW + 1)}


def test_a_key_is_told_from_a_clients_and_each_is_another(database):
    made = {add(database, f"a{n}") for n in range(20)}
    assert len(made) == 20
    assert all(re.fullmatch(r"gwa_[0-9A-Za-z]{49}", key) for key in made)


def test_only_a_keyed_hash_reaches_the_disk(database, tmp_path):
    key = add(database)
    on_disk = b"".join(p.read_bytes() for p in tmp_path.iterdir())
    assert hash_of(database, key).encode() in on_disk
    assert key[4:24].encode() not in on_disk
    assert keys.digest(key).encode() not in on_disk


def test_the_list_is_by_name_and_shows_the_last_characters(database):
    b, a = add(database, "b", "viewer"), add(database, "a", expires_at=NOW + 9)
    assert listed(database) == [
        admin_keys.StoredAdmin(Admin("a", "admin", NOW + 9), a[-4:], NOW, NOW, 2),
        admin_keys.StoredAdmin(Admin("b", "viewer"), b[-4:], NOW, NOW, 1),
    ]


def test_a_name_is_given_once(database):
    add(database, "ann")
    with pytest.raises(Conflict, match="named 'ann' exists already") as caught:
        add(database, "ann", "viewer")
    assert caught.value.param == "name"
    assert revision(database) == 1


@pytest.mark.parametrize(
    "values, param",
    [
        ({"name": "admin"}, "name"),
        ({"name": " "}, "name"),
        ({"role": "owner"}, "role"),
        ({"role": "Admin"}, "role"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_name(database, values, param):
    with pytest.raises(Unprocessable, match=rf"^{param}: ") as caught:
        add(database, **values)
    assert caught.value.param == param
    assert (admins(database), revision(database)) == ({}, 0)


def test_no_key_is_made_while_none_can_be_checked(database):
    with database.session() as session:
        session.execute(delete(SecretRow))
    with pytest.raises(KeysClosed):
        add(database)


def test_role_and_expiry_are_changed_and_the_key_stays(database):
    add(database, "boss")
    key = add(database, "ann", "viewer")
    change(database, "ann", {"role": "operator"})
    change(database, "ann", {"expires_at": NOW + 5})
    assert admins(database)[hash_of(database, key)] == Admin("ann", "operator", NOW + 5)
    change(database, "ann", {"expires_at": None})
    assert admins(database)[hash_of(database, key)] == Admin("ann", "operator")
    assert listed(database)[0].revision == revision(database) == 5


def test_each_change_is_a_revision_without_key_or_hash(database):
    key = add(database, "ann", "admin", expires_at=NOW + 5)
    assert last_change(database) == (
        "admin key added",
        "admin_key",
        "ann",
        {"role": [None, "admin"], "expires_at": [None, NOW + 5]},
        None,
    )
    change(database, "ann", {"role": "viewer", "expires_at": NOW + 5}, is_first_set=True)
    assert last_change(database) == (
        "admin key changed",
        "admin_key",
        "ann",
        {"role": ["admin", "viewer"]},
        None,
    )
    remove(database, "ann")
    assert last_change(database) == (
        "admin key removed",
        "admin_key",
        "ann",
        {"role": ["viewer", None], "expires_at": [NOW + 5, None]},
        None,
    )
    assert (admins(database), revision(database)) == ({}, 3)
    assert key not in str(last_change(database))


def test_what_is_equal_already_makes_no_revision(database):
    add(database, "ann", "viewer")
    change(database, "ann", {"role": "viewer", "expires_at": None})
    assert revision(database) == 1


@pytest.mark.parametrize("is_first_set", [True, False])
def test_the_last_admin_is_neither_removed_nor_lowered_without_another_way_in(
    database, is_first_set
):
    add(database, "ann")
    add(database, "view", "viewer")
    add(database, "gone", "admin", expires_at=NOW + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(admin_keys.time, "time", lambda: NOW + 1)  # that one is expired
        if is_first_set:
            change(database, "ann", {"role": "operator"}, is_first_set=True)
            remove(database, "ann", is_first_set=True)
            return
        for last in (
            lambda: change(database, "ann", {"role": "operator"}),
            lambda: change(database, "ann", {"expires_at": NOW + 1}),
            lambda: remove(database, "ann"),
        ):
            with pytest.raises(Conflict, match="Add another with role admin first") as caught:
                last()
            assert caught.value.code == "last_admin_key"
        assert revision(database) == 3
        change(database, "ann", {"expires_at": NOW + 2})
        change(database, "gone", {"role": "viewer"})
        remove(database, "gone")
        remove(database, "view")
        assert [s.admin.name for s in listed(database)] == ["ann"]


def test_one_of_two_admins_may_go(database):
    add(database, "ann")
    add(database, "bob")
    change(database, "ann", {"role": "viewer"})
    with pytest.raises(Conflict):
        remove(database, "bob")
    change(database, "ann", {"role": "admin"})
    remove(database, "bob")
    assert [s.admin.name for s in listed(database)] == ["ann"]


def test_who_is_not_there_is_not_found(database):
    for act in (
        lambda: change(database, "x", {"role": "admin"}),
        lambda: remove(database, "x"),
    ):
        with pytest.raises(NotFound, match="no admin key named 'x'"):
            act()
    with pytest.raises(NotFound, match="ADMIN_API_KEY is changed in the environment"):
        remove(database, "admin")


def test_of_two_writers_the_second_hears_of_the_first(database):
    add(database, "boss")
    add(database, "ann", "viewer")
    change(database, "ann", {"role": "operator"}, if_match=2)
    for act in (
        lambda: change(database, "ann", {"role": "admin"}, if_match=2),
        lambda: remove(database, "ann", if_match=2),
    ):
        with pytest.raises(PreconditionFailed, match="is at revision 3, not 2"):
            act()
    remove(database, "ann", if_match=3)
