import hashlib
import hmac
import re

import pytest

from proxy.core.key_format import mistake
from proxy.core.types import Client
from proxy.errors import Conflict, NotFound, PreconditionFailed
from proxy.store import instances, keys, revisions
from proxy.store.keys import KeysClosed
from proxy.store.models import ClientKeyRow, ClientStateRow, RevisionChangeRow, SecretRow
from tests.builders import AUTHOR, config

PEPPER = b"pepper"

# Another value than the default, of each field.
OTHER = {
    "enabled": False,
    "expires_at": 2_000_000_000.0,
    "allowed_models": ["gpt-4o*", "o3"],
    "allowed_instances": ["a"],
    "allowed_networks": ["10.0.0.0/8"],
    "max_tpm": 1000,
    "max_rpm": 60,
    "max_parallel_requests": 4,
    "max_tokens_per_day": 100_000,
    "max_tokens_per_month": 10**12,
    "max_cost_per_day": 1.5,
    "max_cost_per_month": 20.25,
    "compat": "openai_strict",
    "labels": {"team": "search"},
}


@pytest.fixture
def clock(monkeypatch):
    """A function that sets the time."""

    def set_to(now):
        monkeypatch.setattr(keys.time, "time", lambda: now)

    set_to(1000.0)
    return set_to


def add(database, name="app", **values):
    with database.session() as session:
        return keys.add(session, name, values, author=AUTHOR)


def add_and_fail(session):
    keys.add(session, "other", author=AUTHOR)
    raise ZeroDivisionError


def change(database, name="app", *, if_match=None, **values):
    with database.session() as session:
        keys.change(session, name, values, author=AUTHOR, if_match=if_match)


def rotate(database, name="app", *, grace_seconds=0.0, if_match=None):
    with database.session() as session:
        return keys.rotate(
            session, name, grace_seconds=grace_seconds, author=AUTHOR, if_match=if_match
        )


def remove(database, name="app", *, if_match=None):
    with database.session() as session:
        keys.remove(session, name, author=AUTHOR, if_match=if_match)


def opened(database, key):
    """The client that a key is found to be, and until when."""
    with database.read() as connection:
        hashed = keys.key_hash(keys.pepper(connection), key)
        return keys.load_all(connection).get(hashed)


def is_valid(database, key, *, at):
    found = opened(database, key)
    return found is not None and (found[1] is None or at < found[1])


def stored(database, name="app"):
    with database.read() as connection:
        return keys.stored(connection, name)


def names(database):
    with database.read() as connection:
        return sorted(client.name for client, _ in keys.load_all(connection).values())


def revision(database):
    with database.read() as connection:
        return revisions.newest(connection)


def last_change(database):
    with database.session() as session:
        row = session.get(RevisionChangeRow, (revisions.newest(session.connection()), 0))
        return row.kind, row.name, row.changes


def in_database(database, model):
    with database.session() as session:
        rows = session.query(model).all()
        session.expunge_all()
        return rows


def test_table_and_type_have_the_same_fields():
    columns = {c.name for c in ClientKeyRow.__table__.columns}
    own = set(Client._fields) - {"number"}
    assert set(keys.FIELDS) == own == set(OTHER) | {"name"}
    assert own <= columns


def test_fields_that_are_lists_are_next_to_each_other():
    """A row's are looked at together."""
    lists = Client._fields[keys._LISTS_AT]
    assert lists == keys._LISTS == tuple(n for n in Client._fields if n.startswith("allowed_"))


def test_table_and_type_have_the_same_defaults(database):
    with database.session() as session:
        session.add(
            ClientKeyRow(name="app", key_hash="0", created_at=0, updated_at=0, revision=1)
        )
    with database.read() as connection:
        assert keys.load_all(connection)["0"] == (Client("app", number=1), None)


def test_a_key_is_found_by_its_hash(database):
    key = add(database)
    assert opened(database, key) == (Client("app", number=1), None)


def test_a_client_is_loaded_as_it_was_added(database):
    with database.session() as session:
        instances.add(session, [config("a")], author=AUTHOR)
    client, _ = opened(database, add(database, **OTHER))
    assert client.allowed_models == ("gpt-4o*", "o3")
    assert {f: getattr(client, f) for f in OTHER} == OTHER | {
        f: tuple(OTHER[f]) for f in OTHER if f.startswith("allowed_")
    }


def test_a_key_is_new_each_time_and_has_its_checksum(database):
    made = {add(database, f"app-{n}") for n in range(20)}
    assert len(made) == 20
    assert all(re.fullmatch(r"gw_[0-9A-Za-z]{49}", key) for key in made)
    assert not any(map(mistake, made))


def test_a_key_without_a_checksum_that_was_made_before_there_was_one_stays_valid(database):
    add(database)
    old = "gw-" + "a" * 43
    with database.session() as session:
        row = session.query(ClientKeyRow).one()
        row.key_hash = keys.key_hash(keys.pepper(session.connection()), old)
    assert opened(database, old)[0].name == "app"


def test_only_a_hash_reaches_the_disk(database, tmp_path):
    first = add(database)
    second = rotate(database, grace_seconds=10)
    # With the write-ahead log, in which it would be first.
    on_disk = b"".join(p.read_bytes() for p in tmp_path.iterdir())
    with database.read() as connection:
        assert keys.key_hash(keys.pepper(connection), second).encode() in on_disk
    for key in (first, second):
        assert key[3:].encode() not in on_disk
        assert key[:20].encode() not in on_disk


def test_no_revision_holds_a_hash(database):
    add(database)
    rotate(database, grace_seconds=10)
    rotate(database)
    remove(database)
    told = str([(r.changes, r.secrets) for r in in_database(database, RevisionChangeRow)])
    assert "key_hint" in told
    assert not re.search(r"[0-9a-f]{32}", told)


def test_a_hash_differs_for_the_slightest_difference():
    assert keys.key_hash(PEPPER, "gw-a") == keys.key_hash(PEPPER, "gw-a")
    others = {keys.key_hash(PEPPER, k) for k in ("gw-a", "gw-A", "gw-a ", "", "gw-ä")}
    assert len(others | {keys.key_hash(b"another", "gw-a")}) == 6


def test_a_hash_is_the_hmac_of_the_keys_digest():
    # By another implementation, the standard library's in one go.
    for key in ("gw-a", "gw-b", "x" * 500):
        digest = hashlib.sha256(key.encode()).hexdigest().encode()
        expected = hmac.digest(PEPPER, digest, "sha256").hex()
        assert keys.key_hash(PEPPER, key) == expected


def test_a_key_that_is_no_text_has_a_hash_too():
    # Headers arrive as bytes; what is not UTF-8 becomes surrogates.
    assert len(keys.key_hash(PEPPER, b"\xff".decode("utf-8", "surrogateescape"))) == 64


def test_a_name_that_exists_is_a_conflict(database):
    key = add(database)
    with pytest.raises(Conflict, match="'app' has a key already") as caught:
        add(database)
    assert caught.value.param == "name"
    assert opened(database, key)
    assert revision(database) == 1


def test_names_are_compared_exactly(database):
    add(database, "app")
    add(database, "App")
    assert names(database) == ["App", "app"]


def test_numbers_are_small_and_a_clients_own(database):
    for name in "abc":
        add(database, name)
    remove(database, "b")
    add(database, "d")
    with database.read() as connection:
        numbers = [c.number for c, _ in keys.load_all(connection).values()]
    assert len(set(numbers)) == 3
    assert all(0 < n <= 4 for n in numbers)


@pytest.mark.parametrize("field", OTHER)
def test_a_change_changes_that_field_alone_and_makes_one_revision(database, clock, field):
    with database.session() as session:
        instances.add(session, [config("a")], author=AUTHOR)
    key = add(database)
    before = stored(database)
    clock(1001.0)
    change(database, **{field: OTHER[field]})
    after = stored(database)
    changed = {f for f in keys.FIELDS if getattr(after.client, f) != getattr(before.client, f)}
    assert changed == {field}
    assert (after.revision, revision(database)) == (3, 3)
    assert (after.created_at, after.updated_at) == (1000.0, 1001.0)
    kind, name, told = last_change(database)
    assert (kind, name, list(told)) == ("client", "app", [field])
    assert told[field][1] == OTHER[field]
    assert opened(database, key)[0] == after.client


def test_what_is_equal_already_makes_no_revision(database):
    add(database, max_tpm=5, allowed_models=["gpt-4o"])
    change(database, max_tpm=5, allowed_models=["gpt-4o"])
    assert revision(database) == 1


@pytest.mark.parametrize("act", [change, rotate, remove])
def test_a_client_that_is_not_known_cannot_be_changed(database, act):
    with pytest.raises(NotFound, match="no client named 'x'"):
        act(database, "x")
    assert revision(database) == 0


def test_a_client_that_is_not_known_cannot_be_read(database):
    with pytest.raises(NotFound, match="no client named 'x'"):
        stored(database, "x")


@pytest.mark.parametrize("act", [change, rotate, remove])
def test_another_version_than_the_one_meant_is_not_touched(database, act):
    key = add(database)
    change(database, max_rpm=1)
    with pytest.raises(PreconditionFailed, match="at revision 2, not 1"):
        act(database, if_match=1)
    assert opened(database, key)
    act(database, if_match=2)


@pytest.mark.parametrize("act", [add, change])
def test_an_instance_that_is_not_there_is_not_allowed_to_anybody(database, act):
    if act is change:
        add(database)
    with pytest.raises(Conflict, match="no instance named 'b'") as caught:
        act(database, allowed_instances=["b"])
    assert caught.value.param == "allowed_instances"
    with database.session() as session:
        instances.add(session, [config("east-us")], author=AUTHOR)
    with pytest.raises(Conflict, match=r"named 'east'\. Did you mean 'east-us'\? Add it"):
        act(database, allowed_instances=["east"])


def test_an_instance_that_went_away_does_not_keep_its_clients_from_being_changed(database):
    with database.session() as session:
        instances.add(session, [config("a"), config("b")], author=AUTHOR)
    add(database, allowed_instances=["a"])
    with database.session() as session:
        instances.remove(session, "a", author=AUTHOR)
    change(database, allowed_instances=["a", "b"])
    assert stored(database).client.allowed_instances == ("a", "b")


def test_a_rotated_key_has_a_follower_and_may_be_worth_nothing_at_once(database, clock):
    old = add(database, max_rpm=7)
    new = rotate(database)
    assert not is_valid(database, old, at=1000.0)
    client, valid_until = opened(database, new)
    assert (client.name, client.number, client.max_rpm, valid_until) == ("app", 1, 7, None)
    assert stored(database).key_hint == new[-4:]
    assert last_change(database) == ("client", "app", {"key_hint": [old[-4:], new[-4:]]})


def test_a_former_key_is_kept_until_its_grace_is_over(database, clock):
    old = add(database)
    rotate(database, grace_seconds=60)
    assert opened(database, old) == (Client("app", number=1), 1060.0)
    (former,) = stored(database).former_keys
    assert (former.key_hint, former.valid_until) == (old[-4:], 1060.0)


def test_several_rotations_keep_all_whose_grace_is_not_over(database, clock):
    first = add(database)
    second = rotate(database, grace_seconds=100)
    clock(1010.0)
    third = rotate(database, grace_seconds=20)
    clock(1020.0)
    fourth = rotate(database, grace_seconds=100)
    found = [opened(database, key)[1] for key in (first, second, third, fourth)]
    assert found == [1100.0, 1030.0, 1120.0, None]
    clock(1040.0)
    assert [k.valid_until for k in stored(database).former_keys] == [1100.0, 1120.0]


def test_a_rotation_without_grace_ends_all_former_keys(database, clock):
    first = add(database)
    second = rotate(database, grace_seconds=60)
    rotate(database)
    assert stored(database).former_keys == ()
    assert not any(is_valid(database, key, at=1000.0) for key in (first, second))


@pytest.mark.parametrize("act", [lambda d: change(d, max_rpm=1), rotate])
def test_a_former_key_is_known_for_a_while_after_its_grace(database, clock, act):
    old = add(database)
    rotate(database, grace_seconds=60)
    clock(1060.0)
    act(database)
    assert stored(database).former_keys == ()
    assert opened(database, old)[1] == 1060.0
    clock(1060.0 + keys.REMEMBERED_SECONDS)
    act(database)
    change(database, max_tpm=1)
    assert opened(database, old) is None


def test_of_the_former_keys_that_ended_the_last_are_known(database, clock):
    made = [add(database)]
    for second in range(1, 9):
        clock(1000.0 + second)
        made.append(rotate(database, grace_seconds=100 if second == 1 else 0.5))
    clock(1010.0)
    made.append(rotate(database, grace_seconds=60))
    assert [opened(database, key) is not None for key in made] == [
        True,  # its grace goes on
        *[False] * 2,
        *[True] * (keys.MOST_REMEMBERED + 2),  # in the end one in its grace and the present one
    ]


def test_a_change_keeps_former_keys_in_their_grace(database, clock):
    old = add(database)
    rotate(database, grace_seconds=60)
    change(database, max_rpm=1)
    assert opened(database, old)[1] == 1060.0


def test_a_client_without_a_key_can_be_given_one(database):
    with database.session() as session:
        session.add(ClientKeyRow(name="app", created_at=0, updated_at=0, revision=1))
    assert names(database) == []
    assert stored(database).key_hint is None
    key = rotate(database, grace_seconds=60)
    assert opened(database, key)[0].name == "app"
    assert stored(database).former_keys == ()


def test_a_removed_key_is_known_no_more_nor_are_those_before_it(database):
    first, other = add(database), add(database, "other")
    second = rotate(database, grace_seconds=60)
    remove(database)
    assert opened(database, first) is opened(database, second) is None
    assert opened(database, other)
    kind, name, told = last_change(database)
    assert (kind, name, told["max_tpm"]) == ("client", "app", [0, None])


def test_a_removed_client_can_get_a_new_key(database):
    old = add(database)
    remove(database)
    new = add(database)
    assert old != new
    assert (opened(database, old), opened(database, new)[0].name) == (None, "app")


def test_every_change_makes_a_revision_in_the_same_transaction(database):
    add(database)
    assert revision(database) == 1
    rotate(database)
    assert revision(database) == 2
    remove(database)
    assert revision(database) == 3
    with pytest.raises(ZeroDivisionError), database.session() as session:
        add_and_fail(session)
    assert revision(database) == 3
    assert names(database) == []


def test_without_what_keys_are_hashed_with_none_is_made(database):
    key = add(database)
    with database.session() as session:
        session.query(SecretRow).delete()
    with pytest.raises(KeysClosed):
        add(database, "other")
    with pytest.raises(KeysClosed):
        rotate(database)
    assert stored(database).key_hint == key[-4:]


def test_the_list_is_by_name_and_shows_the_last_characters(database, clock):
    b, a = add(database, "b"), add(database, "a")
    with database.read() as connection:
        listed = [(s.client.name, s.key_hint, s.created_at) for s in keys.listed(connection)]
    assert listed == [("a", a[-4:], 1000.0), ("b", b[-4:], 1000.0)]


@pytest.mark.parametrize("used_at, shown", [(None, None), (1500.0, 1500.0), (999.0, None)])
def test_it_is_known_when_a_client_was_last_seen(database, clock, used_at, shown):
    # Not when another was seen that had its name before.
    add(database)
    if used_at is not None:
        with database.session() as session:
            session.add(ClientStateRow(client_name="app", last_used_at=used_at))
    assert stored(database).last_used_at == shown


def test_whether_there_is_any_client_is_known_without_reading_them(database):
    with database.read() as connection:
        assert not keys.is_any(connection)
    add(database, enabled=False)
    with database.read() as connection:
        assert keys.is_any(connection)
