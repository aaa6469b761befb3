import time

import pytest
from sqlalchemy import select

from proxy.core.config_document import OF_KIND
from proxy.core.config_history import NotKept
from proxy.core.config_plan import Change, differences
from proxy.core.deltas import WHOLE_INSTANCE, Deltas, Rest
from proxy.store import config as all_config
from proxy.store import instances, keys, quota_groups, revisions, states
from proxy.store.db import StoreUnavailable
from proxy.store.models import ClientKeyRow, InstanceRow, RevisionChangeRow
from proxy.store.revisions import Author
from tests.builders import AUTHOR, config, document, thing

KEY = "sk-planted-secret-3f2a"
ALL = document(
    instance=[thing("instance", "a", api_key=KEY), thing("instance", "b", quota_group="east")],
    quota_group=[thing("quota_group", "east", max_rpm=7)],
    client=[thing("client", "app", allowed_models=["gpt-4o*"], labels={"team": "x"})],
    price=[thing("price", "gpt-4o*", prompt_per_million=2.5)],
)


def load(database):
    with database.read() as connection:
        return all_config.load(connection)


def as_of(database, number):
    with database.read() as connection:
        return all_config.as_of(connection, number)


def apply(database, wanted, *, author=AUTHOR):
    changes = differences(load(database), wanted)
    with database.session() as session:
        return all_config.apply(session, changes, author=author, action="config imported")


def newest(database):
    with database.read() as connection:
        return revisions.newest(connection)


@pytest.mark.parametrize("kind", all_config.ROWS)
def test_every_field_of_a_document_is_a_column(kind):
    columns = {c.key for c in all_config.ROWS[kind].__table__.columns}
    assert set(OF_KIND[kind].fields) <= columns


def test_all_kinds_have_rows():
    assert set(all_config.ROWS) == set(OF_KIND)


def test_what_is_applied_is_what_is_loaded(database):
    assert load(database) == document()
    apply(database, ALL)
    assert load(database) == ALL


def test_it_is_one_revision_with_all_changes(database):
    author = Author("ann", "a reason", "request-1")
    assert apply(database, ALL, author=author) == newest(database) == 1
    with database.read() as connection:
        revision = revisions.one(connection, 1)
        kept = connection.scalar(select(RevisionChangeRow.secrets).limit(1))
    assert (revision.author, revision.reason, revision.request_id) == (
        ("ann", "a reason", "request-1")
    )
    assert revision.action == "config imported"
    names = [(r.kind, r.name) for r in revision.records]
    assert names == [
        ("instance", "a"),
        ("instance", "b"),
        ("quota_group", "east"),
        ("client", "app"),
        ("price", "gpt-4o*"),
    ]
    assert revision.records[0].changes["api_key"] == [None, "***3f2a"]
    assert kept == {"api_key": [None, KEY], "proxy_url": [None, None]}


def test_rows_have_its_number_and_moment(database):
    before = time.time()
    apply(database, ALL)
    number = apply(database, ALL | {"instances": [ALL["instances"][0] | {"weight": 3}]})
    with database.read() as connection:
        (a,) = instances.load_all(connection)
    assert (a.revision, a.config.weight) == (number, 3)
    assert before <= a.created_at < a.updated_at


def test_what_other_functions_wrote_is_in_it_and_what_it_wrote_is_theirs(database):
    with database.session() as session:
        instances.add(session, [config("a", quota_group="east")], author=AUTHOR)
        quota_groups.put(session, "east", {"max_rpm": 7}, author=AUTHOR)
        keys.add(session, "app", author=AUTHOR)
    expected = document(
        instance=[
            thing("instance", "a", quota_group="east"),
        ],
        quota_group=[thing("quota_group", "east", max_rpm=7)],
        client=[thing("client", "app")],
    )
    assert load(database) == expected
    number = apply(database, ALL)
    with database.read() as connection:
        names = [s.config.name for s in instances.load_all(connection)]
    assert names == ["a", "b"]
    assert as_of(database, number - 1) == expected


def test_a_client_that_is_added_has_no_key_and_one_that_stays_keeps_its_own(database):
    with database.session() as session:
        keys.add(session, "app", author=AUTHOR)
    wanted = document(client=[thing("client", "app", max_rpm=1), thing("client", "new")])
    apply(database, wanted)
    with database.read() as connection:
        rows = connection.execute(select(ClientKeyRow.name, ClientKeyRow.key_hash)).all()
    assert {name: bool(hashed) for name, hashed in rows} == {"app": True, "new": False}


def test_a_failure_in_the_middle_leaves_nothing(database):
    apply(database, ALL)
    bad = Change("instance", "b", "changed", {"weight": [100, None]})  # no column for None
    good = Change("instance", "a", "changed", {"weight": [100, 5]})
    with pytest.raises(StoreUnavailable), database.session() as session:
        all_config.apply(session, [good, bad], author=AUTHOR, action="config imported")
    assert (load(database), newest(database)) == (ALL, 1)


def test_rests_of_another_upstream_are_void_and_others_stay(database):
    apply(database, ALL)
    deltas = Deltas()
    for name in "ab":
        deltas.add_rest((name, WHOLE_INSTANCE), Rest(time.time() + 100, "429", time.time()))
    with database.write() as connection:
        states.add(connection, deltas)
    a, b = ALL["instances"]
    apply(database, ALL | {"instances": [a | {"api_key": "k"}, b | {"weight": 3}]})
    with database.read() as connection:
        rests = states.read(connection, time.time()).rests
    assert [name for name, _ in rests] == ["b"]


def test_a_group_whose_row_has_no_limits_may_get_some(database):
    with database.session() as session:
        instances.add(session, [config("a", quota_group="east")], author=AUTHOR)
        quota_groups.put(session, "east", {}, author=AUTHOR)
    assert load(database)["quota_groups"] == []
    wanted = load(database) | {"quota_groups": [thing("quota_group", "east", max_tpm=5)]}
    apply(database, wanted)
    assert load(database) == wanted


def test_secrets_of_before_they_were_kept_are_known_by_their_masks(database):
    number = apply(database, ALL)
    apply(database, document())
    with database.write() as connection:
        connection.execute(RevisionChangeRow.__table__.update().values(secrets=None))
    a, b = as_of(database, number)["instances"]
    assert isinstance(a["api_key"], NotKept)
    assert a["api_key"] == "***3f2a"
    assert a | {"api_key": KEY} == ALL["instances"][0]
    assert b["name"] == "b"


def test_what_the_table_has_besides_is_left_alone(database):
    apply(database, ALL)
    with database.write() as connection:
        connection.execute(InstanceRow.__table__.update().values(legacy_extra={"tags": [1]}))
    a, b = ALL["instances"]
    apply(database, ALL | {"instances": [a | {"weight": 3}, b]})
    with database.read() as connection:
        extras = connection.scalars(select(InstanceRow.legacy_extra)).all()
    assert extras == [{"tags": [1]}, {"tags": [1]}]
