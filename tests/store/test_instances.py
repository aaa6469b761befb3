import json
from dataclasses import MISSING, fields
from types import SimpleNamespace

import marshmallow
import pytest
from sqlalchemy import select, text

from proxy.core.deltas import Deltas, Rest
from proxy.core.types import UPSTREAM_FIELDS, InstanceConfig
from proxy.errors import Conflict, NotFound, PreconditionFailed
from proxy.store import instances, revisions, states
from proxy.store.instances import CONFIG_FIELDS
from proxy.store.models import InstanceRow, RevisionChangeRow, RevisionRow
from proxy.web.schemas_instances import InstanceSchema
from tests.builders import AUTHOR, config

SECRET = "sk-planted-secret-0123456789"
NEXT_SECRET = "sk-another-secret-9876543210"
PROXY = "http://user:planted-password@proxy:3128"

# A value for each field that differs from the default and from config().
OTHER = {
    "api_base": "https://other.example",
    "api_key": NEXT_SECRET,
    "provider_type": "openai",
    "api_version": "v9",
    "proxy_url": PROXY,
    "priority": -1,
    "weight": 0,
    "max_tpm": 2**31 - 1,
    "max_input_tokens": 7,
    "supported_models": ["gpt-4o", "größer"],
    "model_deployments": {"gpt-4o": "dep/1"},
    "enabled": False,
    "timeout_seconds": 0.25,
    "retry_count": 0,
    "rate_limit_enabled": False,
    "max_rpm": 60,
    "model_limits": {"gpt-4o": {"max_tpm": 5, "max_rpm": 6}},
    "quota_group": "east us",
    "auth": "entra",
}


def add(database, *configs):
    with database.session() as session:
        return instances.add(session, configs, author=AUTHOR)


def change(database, name="a", if_match=None, **values):
    with database.session() as session:
        return instances.change(session, name, values, author=AUTHOR, if_match=if_match)


def remove(database, name="a", if_match=None):
    with database.session() as session:
        instances.remove(session, name, author=AUTHOR, if_match=if_match)


def loaded(database):
    with database.read() as connection:
        return {s.config.name: s for s in instances.load_all(connection)}


def everything(database):
    """All rows of both tables, to see that nothing at all was written."""
    with database.read() as connection:
        return [
            connection.execute(select(model.__table__)).all()
            for model in (InstanceRow, RevisionRow, RevisionChangeRow)
        ]


def newest_revision(database):
    with database.read() as connection:
        number = revisions.newest(connection)
        row = connection.execute(
            select(RevisionRow.__table__, RevisionChangeRow.__table__)
            .join(RevisionChangeRow, RevisionChangeRow.revision == RevisionRow.id)
            .where(RevisionRow.id == number)
        ).first()
    return SimpleNamespace(**row._mapping)


# Table, type and schema.


NOT_SET_BY_OPERATORS = {"created_at", "updated_at", "revision", "legacy_extra"}


def test_table_type_and_schema_have_the_same_fields():
    columns = set(InstanceRow.__table__.columns.keys())
    assert columns - NOT_SET_BY_OPERATORS == set(CONFIG_FIELDS)
    assert set(InstanceSchema().fields) == set(CONFIG_FIELDS)


def test_type_and_schema_have_the_same_defaults():
    required = {"name": "a", "api_base": "https://a.example", "api_key": "k"}
    values = InstanceSchema().load(required)
    values["supported_models"] = tuple(values["supported_models"])
    assert InstanceConfig(**values) == InstanceConfig(**required)


def test_type_and_schema_require_the_same_fields():
    required = {
        f.name
        for f in fields(InstanceConfig)
        if f.default is MISSING and f.default_factory is MISSING
    }
    # Whether a key is needed depends on another field, `auth`.
    required -= {"api_key"}
    assert {n for n, f in InstanceSchema().fields.items() if f.required} == required


def test_the_table_allows_nothing_where_the_type_does():
    columns = InstanceRow.__table__.columns
    nullable = {c.name for c in columns if c.nullable} - NOT_SET_BY_OPERATORS
    allow_none = {n for n, f in InstanceSchema().fields.items() if f.allow_none}
    assert nullable == allow_none == {"proxy_url", "quota_group"}


def test_the_schemas_longest_texts_fit_into_the_table():
    for name, field in InstanceSchema().fields.items():
        length = getattr(InstanceRow.__table__.columns[name].type, "length", None)
        lengths = [v for v in field.validators if isinstance(v, marshmallow.validate.Length)]
        assert length is None or name in ("provider_type", "auth") or lengths[0].max == length


def test_the_table_holds_no_default_of_its_own():
    # There is one, the type's: a second could come to differ.
    assert [
        c.name for c in InstanceRow.__table__.columns if c.default or c.server_default
    ] == []


def test_every_field_but_the_name_can_be_changed_in_these_tests():
    assert set(OTHER) == set(CONFIG_FIELDS) - {"name"}


# Adding.


def test_what_was_added_is_loaded_as_it_was(database):
    given = config("Käse/eu 1", **OTHER | {"supported_models": ("gpt-4o", "größer")})
    add(database, given)
    assert loaded(database)["Käse/eu 1"].config == given


def test_instances_are_loaded_by_name(database):
    add(database, config("b"), config("a"), config("c"))
    assert list(loaded(database)) == ["a", "b", "c"]


def test_an_instance_knows_its_revision_and_when_it_was_made(database, monkeypatch):
    monkeypatch.setattr(instances.time, "time", lambda: 1234.5)
    assert add(database, config("a"), config("b")) == 1
    stored = loaded(database)["b"]
    assert (stored.revision, stored.created_at, stored.updated_at) == (1, 1234.5, 1234.5)


def test_a_name_that_exists_is_a_conflict_and_nothing_of_the_list_is_added(database):
    add(database, config("b"))
    before = everything(database)
    with pytest.raises(Conflict, match="'b' exists") as caught:
        add(database, config("a"), config("b"), config("c"))
    assert (caught.value.param, caught.value.code) == ("name", "name_exists")
    assert everything(database) == before


def test_a_name_twice_in_a_list_is_a_conflict_too(database):
    before = everything(database)
    with pytest.raises(Conflict, match="The list names 'a' twice; none of it was added"):
        add(database, config("a"), config("a"))
    assert everything(database) == before


def test_names_differ_in_case(database):
    add(database, config("a"), config("A"))
    assert list(loaded(database)) == ["A", "a"]


def test_adding_makes_a_revision_that_says_what(database):
    add(database, config(weight=7))
    revision = newest_revision(database)
    who = revision.author, revision.action, revision.kind, revision.name
    assert who == ("test", "instance added", "instance", "a")
    assert set(revision.changes) == set(CONFIG_FIELDS)
    assert revision.changes["weight"] == [None, 7]


# Changing.


@pytest.mark.parametrize("field", OTHER)
def test_a_change_changes_that_field_alone_and_makes_one_revision(database, field):
    add(database, config())
    before = loaded(database)["a"]
    change(database, **{field: OTHER[field]})
    after = loaded(database)["a"]
    value = tuple(OTHER[field]) if field == "supported_models" else OTHER[field]
    differing = {
        f: getattr(after.config, f)
        for f in CONFIG_FIELDS
        if getattr(after.config, f) != getattr(before.config, f)
    }
    assert differing == {field: value}
    assert after.revision == newest_revision(database).id == before.revision + 1
    assert list(newest_revision(database).changes) == [field]


def test_a_change_returns_what_is_stored_now(database):
    add(database, config())
    assert change(database, weight=5).stored == loaded(database)["a"]


def test_a_change_notes_its_moment_and_keeps_the_first(database, monkeypatch):
    monkeypatch.setattr(instances.time, "time", lambda: 1000.0)
    add(database, config())
    monkeypatch.setattr(instances.time, "time", lambda: 2000.0)
    change(database, weight=5)
    stored = loaded(database)["a"]
    assert (stored.created_at, stored.updated_at) == (1000.0, 2000.0)


def test_what_is_equal_already_makes_no_revision(database):
    add(database, config(**OTHER))
    before = everything(database)
    changed = change(database, **OTHER)
    assert everything(database) == before
    assert not changed.is_another_upstream


def test_a_revision_holds_old_and_new(database):
    add(database, config(weight=1))
    change(database, weight=2, priority=3)
    assert newest_revision(database).changes == {"weight": [1, 2], "priority": [100, 3]}


def test_an_instance_that_is_not_there_cannot_be_changed_or_removed(database):
    before = everything(database)
    for act in (change, remove):
        with pytest.raises(NotFound, match="no instance named 'a'") as caught:
            act(database)
        assert caught.value.code == "instance_not_found"
    assert everything(database) == before


@pytest.mark.parametrize(
    "act",
    [lambda db, n: change(db, if_match=n, weight=5), lambda db, n: remove(db, if_match=n)],
)
def test_another_version_than_the_one_meant_is_not_touched(database, act):
    add(database, config())
    change(database, weight=2)
    before = everything(database)
    for stale in (0, 1, 3):
        with pytest.raises(PreconditionFailed, match=f"at revision 2, not {stale}"):
            act(database, stale)
    assert everything(database) == before
    act(database, 2)
    assert everything(database) != before


def test_a_change_that_fails_on_its_way_leaves_no_revision(database):
    add(database, config())
    before = everything(database)
    with pytest.raises(ZeroDivisionError), database.session() as session:
        change_and_fail(session)
    assert everything(database) == before


def change_and_fail(session):
    instances.change(session, "a", {"weight": 5}, author=AUTHOR)
    raise ZeroDivisionError


def test_a_change_of_one_instance_leaves_the_others_version(database):
    add(database, config("a"), config("b"))
    change(database, "a", weight=5)
    assert [s.revision for s in loaded(database).values()] == [2, 1]


# Another upstream.


@pytest.mark.parametrize("field", OTHER)
def test_rests_are_void_for_another_upstream_alone(database, field):
    add(database, config())
    rest(database, "a")
    rest(database, "b")
    changed = change(database, **{field: OTHER[field]})
    assert changed.is_another_upstream == (field in UPSTREAM_FIELDS)
    assert resting(database) == ({"b"} if field in UPSTREAM_FIELDS else {"a", "b"})


def test_a_new_instance_does_not_inherit_the_rests_of_an_old_one_of_its_name(database):
    add(database, config())
    rest(database, "a")
    rest(database, "b")
    remove(database)
    add(database, config())
    assert resting(database) == {"b"}


def rest(database, name):
    deltas = Deltas()
    deltas.add_rest((name, ""), Rest(until=2e10, reason="misconfigured", set_at=1e10))
    with database.write() as connection:
        states.add(connection, deltas)


def resting(database):
    with database.read() as connection:
        return {name for name, _ in states.read(connection, now=0.0).rests}


# Removing.


def test_what_was_removed_is_gone_and_its_revision_says_what_it_was(database):
    add(database, config("a", weight=7), config("b"))
    remove(database)
    assert list(loaded(database)) == ["b"]
    revision = newest_revision(database)
    assert (revision.action, revision.name) == ("instance removed", "a")
    assert set(revision.changes) == set(CONFIG_FIELDS)
    assert revision.changes["weight"] == [7, None]


def test_state_outlives_its_instance(database):
    add(database, config())
    deltas = Deltas()
    deltas.add_totals("a", {"total_requests": 3})
    with database.write() as connection:
        states.add(connection, deltas)
    remove(database)
    add(database, config())
    with database.read() as connection:
        assert states.read_one(connection, "a").totals["total_requests"] == 3


def test_a_removed_name_can_be_added_again_with_a_later_version(database):
    add(database, config())
    remove(database)
    add(database, config())
    assert loaded(database)["a"].revision == 3


# Secrets.


def test_no_revision_ever_holds_a_secret(database):
    add(database, config(api_key=SECRET, proxy_url=PROXY))
    change(database, api_key=NEXT_SECRET, proxy_url="https://u:next-planted-password@p")
    change(database, api_key=SECRET)
    change(database, api_key="short-secret")
    remove(database)
    with database.read() as connection:
        rows = connection.execute(text("SELECT * FROM config_revision")).all()
    assert len(rows) == 5
    told = json.dumps([list(row) for row in rows])
    for secret in (SECRET, NEXT_SECRET, "planted-password", "short-secret", "user:", "u:"):
        assert secret not in told
        assert secret[-5:] not in told


def test_a_revision_shows_enough_of_a_key_to_tell_which(database):
    add(database, config(api_key=SECRET, proxy_url=PROXY))
    change(database, api_key=NEXT_SECRET)
    assert newest_revision(database).changes == {"api_key": ["***6789", "***3210"]}


def test_what_is_loaded_does_not_show_its_secrets_by_accident(database):
    add(database, config(api_key=SECRET, proxy_url=PROXY))
    shown = repr(loaded(database))
    assert SECRET not in shown
    assert "planted" not in shown


def test_whether_there_is_any_is_known_without_reading_them(database):
    with database.read() as connection:
        assert not instances.is_any(connection)
    add(database, config("a", enabled=False))
    with database.read() as connection:
        assert instances.is_any(connection)
