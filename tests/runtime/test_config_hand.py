import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.config_document import made, shown
from proxy.core.deltas import WHOLE_INSTANCE
from proxy.errors import NotFound, PreconditionFailed, ProxyError
from proxy.runtime.config_hand import ConfigHand, shown_outcome
from proxy.runtime.snapshot import Snapshots
from proxy.runtime.state import State
from proxy.runtime.syncer import Syncer
from proxy.store import instances, quota_groups, revisions
from proxy.store.db import Database
from proxy.web.config_import import wanted as meant
from tests.builders import AUTHOR, KEPT, VAULT, config, document, thing

KEY, OTHER = "sk-planted-secret-3f2a", "sk-planted-secret-9999"
A = thing("instance", "a", api_key=KEY)
ONE = document(instance=[A], client=[thing("client", "app")])


class Worker:
    """A process' memory over the database all share."""

    def __init__(self, database):
        self.database = database
        self.state = State()
        self.snapshots = Snapshots(database)
        self.hand = ConfigHand(database, self.state, self.snapshots)
        self.syncer = Syncer(
            database,
            self.state,
            self.snapshots,
            interval_seconds=0.2,
            kept=KEPT,
        )

    def bring(self, wanted, *, dry_run=False, **more):
        """`wanted`: a document, or a function from the present one."""
        function = wanted if callable(wanted) else lambda present: (wanted, [])
        return self.hand.bring(function, author=AUTHOR, dry_run=dry_run, **more)

    def roll_back(self, number, *, dry_run=False, **more):
        return self.hand.roll_back(number, author=AUTHOR, dry_run=dry_run, **more)

    def change(self, name, **values):
        with self.database.session() as session:
            instances.change(session, name, values, author=AUTHOR)

    @property
    def now(self):
        return self.hand.document()[0]

    @property
    def revision(self):
        return self.hand.document()[1]


@pytest.fixture
def worker(database):
    return Worker(database)


def test_the_config_becomes_the_wanted_one_in_one_revision(worker):
    outcome = worker.bring(ONE)
    assert (outcome.is_applied, outcome.revision) == (True, 1)
    assert worker.hand.document() == (ONE, 1)
    assert worker.snapshots.current.configs["a"].api_key == KEY


def test_a_dry_run_writes_nothing(worker):
    outcome = worker.bring(ONE, dry_run=True)
    assert [c.name for c in outcome.plan.changes] == ["a", "app"]
    assert (outcome.is_applied, outcome.revision) == (False, 0)
    assert worker.hand.document() == (document(), 0)


def test_what_is_equal_makes_no_revision(worker):
    worker.bring(ONE)
    outcome = worker.bring(ONE)
    assert (outcome.is_applied, outcome.revision, outcome.plan.changes) == (False, 1, ())


def test_who_refuses_a_document_leaves_all_as_it_was(worker):
    def refuse(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        worker.bring(refuse)
    assert worker.revision == 0


@pytest.mark.parametrize("act", ["bring", "roll_back"])
@pytest.mark.parametrize("dry_run", [True, False])
def test_of_two_writers_the_second_hears_of_the_first(worker, act, dry_run):
    worker.bring(ONE)
    worker.change("a", weight=3)
    target = ONE if act == "bring" else 1
    with pytest.raises(PreconditionFailed, match="is at revision 2, not 1: somebody changed"):
        getattr(worker, act)(target, dry_run=dry_run, if_match=1)
    assert worker.revision == 2
    assert getattr(worker, act)(target, dry_run=dry_run, if_match=2).plan.changes


def test_also_of_one_who_comes_between_the_plan_and_its_deed(worker, database_file):
    worker.bring(ONE)
    other = Worker(Database(f"sqlite:///{database_file}", VAULT))

    def slowly(present):
        if other.revision == 1:
            other.change("a", weight=3)
        return document(instance=[A | {"max_rpm": 7}]), []

    with pytest.raises(PreconditionFailed):
        worker.bring(slowly, if_match=1)
    assert worker.now["instances"] == [A | {"weight": 3}]
    other.database.dispose()


def test_who_sends_no_version_gets_a_plan_of_what_is_there_when_it_is_carried_out(
    worker, database_file
):
    worker.bring(ONE)
    other = Worker(Database(f"sqlite:///{database_file}", VAULT))

    def slowly(present):
        if other.revision == 1:
            other.change("a", weight=3)
        (a,) = present["instances"]
        return present | {"instances": [a | {"weight": a["weight"] + 1}]}, []

    outcome = worker.bring(slowly)
    assert outcome.revision == 3
    assert outcome.plan.changes[0].fields == {"weight": [3, 4]}
    assert worker.now["instances"] == [A | {"weight": 4}]
    other.database.dispose()


def test_another_worker_sees_all_of_it_after_one_round(worker, database_file):
    other = Worker(Database(f"sqlite:///{database_file}", VAULT))
    other.syncer.sync()
    worker.bring(ONE)
    assert other.snapshots.current.revision == 0
    other.syncer.sync()
    assert other.snapshots.current.revision == 1
    assert set(other.snapshots.current.configs) == {"a"}
    worker.roll_back(0)
    other.syncer.sync()
    assert set(other.snapshots.current.configs) == set()
    other.syncer.stop()
    other.database.dispose()


def test_rests_of_another_upstream_are_void_in_this_memory(worker):
    worker.bring(document(instance=[A, thing("instance", "b")]))
    for name in "ab":
        worker.state.rest(name, time.time() + 100)
    changed = [A | {"api_key": OTHER}, thing("instance", "b", weight=3)]
    worker.bring(document(instance=changed))
    assert worker.state.view("a").rests == {}
    assert WHOLE_INSTANCE in worker.state.view("b").rests


def test_back_at_a_revision_the_config_is_what_it_was_and_keys_are_what_they_were(worker):
    worker.bring(ONE)
    worker.change("a", api_key=OTHER, weight=3)
    outcome = worker.roll_back(1)
    assert (outcome.is_applied, outcome.revision) == (True, 3)
    assert worker.now == ONE
    with worker.database.read() as connection:
        assert revisions.one(connection, 3).action == "config rolled back to 1"


def test_a_rollback_can_be_rolled_back(worker):
    worker.bring(ONE)
    worker.roll_back(0)
    assert worker.now == document()
    worker.roll_back(1)
    assert worker.now == ONE


def test_back_at_the_newest_there_is_nothing_to_do(worker):
    worker.bring(ONE)
    assert worker.roll_back(1).plan.changes == ()
    assert worker.revision == 1


@pytest.mark.parametrize("number", [2, 10**12, -1])
def test_a_revision_that_there_is_not_is_not_found(worker, number):
    worker.bring(ONE)
    with pytest.raises(NotFound, match=f"no revision {number}: the newest is 1"):
        worker.roll_back(number)
    with pytest.raises(NotFound):
        worker.hand.difference(number, 1)
    with pytest.raises(NotFound):
        worker.hand.difference(1, number)


def test_what_becomes_of_clients_is_said(worker):
    worker.bring(ONE)
    back = worker.roll_back(0, dry_run=True)
    assert back.plan.notes == (
        "client 'app' is removed: its key is worth nothing from then on.",
    )
    worker.roll_back(0)
    again = worker.roll_back(1)
    assert again.plan.notes == (
        "client 'app' has no key yet: `flask keys rotate -- app` makes one.",
    )


def test_a_new_reference_that_leads_nowhere_is_said_before_and_after(worker, monkeypatch):
    monkeypatch.delenv("MISSING_KEY", raising=False)
    lost = document(instance=[thing("instance", "a", api_key="env:MISSING_KEY")])
    for dry_run in (True, False):
        (note,) = worker.bring(lost, dry_run=dry_run).plan.notes
        assert note.startswith("instance 'a': api_key: the gateway's environment has no")
        assert note.endswith("change the reference. Until then it is out of service.")
    another = document(instance=[thing("instance", "a", api_key="env:MISSING_KEY", priority=7)])
    assert worker.bring(another).plan.notes == ()  # it was said when it was new
    monkeypatch.setenv("PRESENT_KEY", KEY)
    found = document(instance=[thing("instance", "a", api_key="env:PRESENT_KEY")])
    assert worker.bring(found).plan.notes == ()
    assert worker.bring(document()).plan.notes == ()


def test_the_difference_of_two_revisions_is_what_a_plan_would_be(worker):
    worker.bring(ONE)
    worker.change("a", weight=3)
    worker.bring(document())
    (change,), newer = worker.hand.difference(1, 2)
    assert (change.fields, newer) == ({"weight": [100, 3]}, 2)
    everything, newer = worker.hand.difference(2, None)
    assert ([c.effect for c in everything], newer) == (["removed", "removed"], 3)
    assert [c.effect for c in worker.hand.difference(3, 1)[0]] == ["added", "added"]
    assert worker.hand.difference(0, 3)[0] == ()


def test_what_is_shown_of_it_holds_no_secret(worker):
    outcome = worker.bring(ONE)
    assert "planted" not in str(shown_outcome(outcome))
    assert shown_outcome(outcome)["plan"]["summary"] == "2 to add, 0 to change, 0 to remove."


NAMES = st.sampled_from("abc")
SECRETS = st.sampled_from([KEY, OTHER, "NONE", "env:A", "x", "sk-***-planted-key-0123"])
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "api_key": SECRETS,
        "proxy_url": st.sampled_from([None, "http://p:1", "http://u:v@p:1", "http://u:w@p:1"]),
        "weight": st.integers(0, 3),
        "enabled": st.booleans(),
        "quota_group": st.sampled_from([None, "g"]),
        "model_limits": st.sampled_from([{}, {"m": {"max_tpm": 1}}]),
        "supported_models": st.sampled_from([[], ["m"], ["m", "n"]]),
    },
)
CLIENTS = st.lists(
    st.builds(lambda n, r: {"name": n, "max_rpm": r}, NAMES, st.integers(0, 2)),
    unique_by=lambda c: c["name"],
    max_size=2,
)
PRICES = st.lists(
    st.builds(lambda n, p: thing("price", n, prompt_per_million=p), NAMES, st.just(0.1)),
    unique_by=lambda p: p["model"],
    max_size=2,
)
LIMITS = st.fixed_dictionaries({}, optional={"max_tpm": st.integers(0, 2)})
STEPS = st.one_of(
    st.tuples(st.just("add"), NAMES, VALUES),
    st.tuples(st.just("change"), NAMES, VALUES),
    st.tuples(st.just("remove"), NAMES, st.none()),
    st.tuples(st.just("limit"), st.just("g"), LIMITS),
    st.tuples(st.just("unlimit"), st.just("g"), st.none()),
    st.tuples(st.just("clients"), st.booleans(), CLIENTS),
    st.tuples(st.just("prices"), st.booleans(), PRICES),
    st.tuples(st.just("back"), st.integers(0, 5), st.none()),
)


def step(worker, what, name, values):
    with worker.database.session() as session:
        if what == "add":
            given = values | {"supported_models": tuple(values.get("supported_models", ()))}
            instances.add(session, [config(name, **given)], author=AUTHOR)
        elif what == "change":
            instances.change(session, name, values, author=AUTHOR)
        elif what == "remove":
            instances.remove(session, name, author=AUTHOR)
        elif what == "limit":
            quota_groups.put(session, name, values, author=AUTHOR)
        elif what == "unlimit":
            quota_groups.remove(session, name, author=AUTHOR)
    if what in ("clients", "prices"):
        worker.bring(lambda present: meant({what: values}, present, prune=name))
    elif what == "back":
        worker.roll_back(name)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(steps=st.lists(STEPS, min_size=1, max_size=14), choice=st.randoms(use_true_random=False))
def test_whatever_was_changed_each_revision_can_be_brought_back(migrated_file, steps, choice):
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        file = shutil.copy(migrated_file, Path(folder) / "proxy.db")
        worker = Worker(Database(f"sqlite:///{file}", VAULT))
        stack.callback(worker.database.dispose)
        known = {0: document()}
        for each in steps:
            try:
                step(worker, *each)
            except ProxyError:
                pass  # of that name there is one, or none
            found, number = worker.hand.document()
            assert known.setdefault(number, found) == found
        for number, then in known.items():
            changes, _ = worker.hand.difference(0, number)
            assert (
                made((c.kind, {f: v for f, (_, v) in c.fields.items()}) for c in changes)
                == then
            )
        number = choice.choice(sorted(known))
        worker.roll_back(number)
        assert worker.now == known[number]
        assert worker.roll_back(number).plan.changes == ()
        exported = shown(worker.now)
        again = worker.bring(lambda present: meant(exported, present, prune=True))
        assert (again.plan.changes, again.plan.notes) == ((), ())
