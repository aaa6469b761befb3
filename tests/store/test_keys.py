import re

import pytest

from proxy.core.types import Client
from proxy.errors import Conflict, NotFound
from proxy.store import keys, revisions
from tests.builders import AUTHOR


def add(database, name):
    with database.session() as session:
        return keys.add(session, name, author=AUTHOR)


def add_and_fail(session):
    keys.add(session, "other", author=AUTHOR)
    raise ZeroDivisionError


def remove(database, name):
    with database.session() as session:
        keys.remove(session, name, author=AUTHOR)


def clients(database):
    with database.read() as connection:
        return keys.load_all(connection)


def hashed(database, key):
    with database.read() as connection:
        return keys.key_hash(keys.pepper(connection), key)


def revision(database):
    with database.read() as connection:
        return revisions.newest(connection)


def test_a_key_is_found_by_its_hash(database):
    key = add(database, "app")
    assert clients(database) == {hashed(database, key): Client(name="app")}


def test_a_key_is_long_random_and_safe_in_a_header(database):
    made = {add(database, f"app-{n}") for n in range(20)}
    assert len(made) == 20
    # 32 random bytes are 43 characters of base64.
    assert all(re.fullmatch(r"gw-[A-Za-z0-9_-]{43}", key) for key in made)


def test_only_a_hash_reaches_the_disk(database, tmp_path):
    key = add(database, "app")
    # With the write-ahead log, in which it would be first.
    on_disk = b"".join(p.read_bytes() for p in tmp_path.iterdir())
    assert hashed(database, key).encode() in on_disk
    assert keys.digest(key).encode() not in on_disk
    assert key.removeprefix(keys.PREFIX).encode() not in on_disk
    assert key[:20].encode() not in on_disk


def test_a_hash_differs_for_the_slightest_difference():
    assert keys.key_hash(b"p", "gw-a") == keys.key_hash(b"p", "gw-a")
    made = {keys.key_hash(b"p", k) for k in ("gw-a", "gw-A", "gw-a ", "", "gw-ä")}
    assert len(made | {keys.key_hash(b"q", "gw-a")}) == 6


def test_a_key_that_is_no_text_has_a_hash_too():
    # Headers arrive as bytes; what is not UTF-8 becomes surrogates.
    assert len(keys.key_hash(b"p", b"\xff".decode("utf-8", "surrogateescape"))) == 64


def test_a_client_has_one_key(database):
    key = add(database, "app")
    with pytest.raises(Conflict, match="'app' has a key already") as caught:
        add(database, "app")
    assert caught.value.param == "name"
    assert list(clients(database)) == [hashed(database, key)]
    assert revision(database) == 1


def test_names_are_compared_exactly(database):
    add(database, "app")
    add(database, "App")
    assert {c.name for c in clients(database).values()} == {"app", "App"}


def test_a_removed_key_is_known_no_more(database):
    add(database, "app")
    key = add(database, "other")
    remove(database, "app")
    assert list(clients(database)) == [hashed(database, key)]


def test_a_removed_client_can_get_a_new_key(database):
    old = add(database, "app")
    remove(database, "app")
    new = add(database, "app")
    assert old != new
    assert list(clients(database)) == [hashed(database, new)]


def test_a_client_that_is_not_known_cannot_be_removed(database):
    with pytest.raises(NotFound, match="no client named 'x'"):
        remove(database, "x")
    assert revision(database) == 0


def test_every_change_makes_a_revision_in_the_same_transaction(database):
    add(database, "app")
    assert revision(database) == 1
    remove(database, "app")
    assert revision(database) == 2
    with pytest.raises(ZeroDivisionError), database.session() as session:
        add_and_fail(session)
    assert revision(database) == 2
    assert clients(database) == {}


def test_the_list_is_by_name_and_shows_the_last_characters(database, monkeypatch):
    monkeypatch.setattr(keys.time, "time", lambda: 1234.5)
    b, a = add(database, "b"), add(database, "a")
    with database.read() as connection:
        listed = keys.listed(connection)
    assert listed == [("a", a[-4:], 1234.5), ("b", b[-4:], 1234.5)]
