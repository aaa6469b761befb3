import sqlite3
from contextlib import closing, contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
from sqlalchemy import delete

from proxy.core.door import known_key
from proxy.core.prices import Price
from proxy.core.roles import Admin
from proxy.core.types import Client, Usage
from proxy.runtime.references import References
from proxy.runtime.snapshot import PREPARED_SECONDS, Problem, Snapshots
from proxy.store import admin_keys, instances, keys, prices
from proxy.store.db import Database, StoreUnavailable
from proxy.store.models import RevisionRow, SecretRow
from proxy.store.vault import Vault, new_key
from tests.builders import AUTHOR, MODEL, config

A, B = config("a", supported_models=("gpt-4o",)), config("b", enabled=False)


def add(database, *configs):
    with database.session() as session:
        instances.add(session, configs, author=AUTHOR)


def test_before_the_first_look_nothing_is_known(database):
    current = Snapshots(database).current
    assert (current.revision, current.instances, current.keys) == (0, {}, {})
    assert not current.catalog.serving("gpt-4o")


def test_it_holds_what_the_database_does(database):
    add(database, A, B)
    with database.session() as session:
        keys.add(session, "app", author=AUTHOR)
    snapshot = Snapshots(database).reload()
    assert snapshot.configs == {"a": A, "b": B}
    assert snapshot.revision == 2
    assert list(snapshot.keys.values()) == [known_key(Client("app", number=1))]


def test_it_holds_the_admins_by_the_hash_of_their_key(database):
    with database.session() as session:
        key = admin_keys.add(session, "ann", "viewer", author=AUTHOR)
    snapshot = Snapshots(database).reload()
    assert snapshot.admins == {keys.key_hash(snapshot.pepper, key): Admin("ann", "viewer")}


def test_the_enabled_are_apart_from_the_others(database):
    add(database, A, B)
    snapshot = Snapshots(database).reload()
    assert [s.config for s in snapshot.catalog.serving("gpt-4o")] == [A]
    assert [s.config for s in snapshot.disabled.serving("gpt-4o")] == [B]


def test_who_took_one_keeps_it_as_it_was(database):
    snapshots = Snapshots(database)
    before, changes = snapshots.reload(), snapshots.changes
    add(database, A)
    after = snapshots.reload()
    assert (list(before.instances), list(after.instances)) == ([], ["a"])
    assert snapshots.current is after
    assert snapshots.changes == changes + 1


def test_without_a_newer_revision_it_is_not_built_again(database, statements):
    add(database, A)
    snapshots = Snapshots(database)
    first, changes = snapshots.reload(), snapshots.changes
    asked = statements(database)
    assert snapshots.reload() is first
    assert snapshots.changes == changes
    assert len([sql for sql in asked if sql.startswith("SELECT")]) == 1


def test_of_two_threads_at_once_the_newer_revision_stays(database):
    add(database, A)

    @contextmanager
    def slowly():
        """Meanwhile somebody changes the config and another thread reloads it."""
        with database.read() as connection:
            yield Meanwhile(connection)

    class Meanwhile:
        def __init__(self, connection):
            self._connection = connection

        def __getattr__(self, name):
            return getattr(self._connection, name)

        def execute(self, statement):
            result = self._connection.execute(statement)
            if "model_price" in str(statement):  # the last of what is read
                snapshots._database = database
                add(database, config("late"))
                snapshots.reload()
            return result

    snapshots = Snapshots(SimpleNamespace(read=slowly, vault=database.vault))
    assert list(snapshots.reload().instances) == ["a", "late"]
    assert list(snapshots.current.instances) == ["a", "late"]


def test_while_the_database_is_away_it_stays_as_it_is(database):
    @contextmanager
    def away():
        raise StoreUnavailable("The database cannot be used: disk I/O error.")
        yield

    add(database, A)
    snapshots = Snapshots(database)
    before = snapshots.reload()
    snapshots._database = SimpleNamespace(read=away, vault=database.vault)
    with pytest.raises(StoreUnavailable):
        snapshots.reload()
    assert snapshots.current is before


def test_a_model_is_as_old_as_the_first_enabled_instance_that_serves_it(database):
    add(database, B)
    add(database, A)
    add(database, config("late", supported_models=("gpt-4o",)))
    snapshot = Snapshots(database).reload()
    ages = [snapshot.instances[name].created_at for name in ("b", "a", "late")]
    assert ages == sorted(set(ages))
    assert snapshot.created_at("gpt-4o") == snapshot.instances["a"].created_at
    assert snapshot.created_at("unknown") == 0.0


def test_each_change_is_logged_once(database, logged):
    add(database, A)
    snapshots = Snapshots(database)
    snapshots.reload()
    snapshots.reload()
    assert logged == [("INFO", "config is at revision 1")]


# Instances that need a token of Entra ID.


class FakeTokens:
    def __init__(self, problem=None):
        self.trouble = problem
        self.lacking = None
        self.wanted = []

    def problem(self):
        return self.trouble

    def lack(self):
        return self.lacking

    def want(self, is_wanted):
        self.wanted.append(is_wanted)


BY_TOKEN = config("t", auth="entra", supported_models=("gpt-4o",))


@pytest.mark.parametrize(
    "configs, is_wanted",
    [((A,), False), ((A, BY_TOKEN), True), ((A, replace(BY_TOKEN, enabled=False)), False)],
)
def test_tokens_are_told_whether_an_instance_needs_them(database, configs, is_wanted):
    tokens = FakeTokens()
    add(database, *configs)
    snapshot = Snapshots(database, tokens=tokens).reload()
    assert tokens.wanted == [is_wanted]
    assert (snapshot.problems, set(snapshot.configs)) == ({}, {c.name for c in configs})


def test_an_instance_for_which_there_can_be_no_token_is_out_of_service_and_no_other(
    database, logged
):
    tokens = FakeTokens("azure-identity is not installed")
    add(database, A, BY_TOKEN)
    snapshots = Snapshots(database, tokens=tokens, clock=lambda: 1000.0)
    snapshot = snapshots.reload()
    text = "auth is entra, but azure-identity is not installed."
    assert snapshot.problems == {"t": Problem(text, 1000.0)}
    assert snapshot.out_of_service == ["t"]
    assert (set(snapshot.instances), set(snapshot.configs)) == ({"a", "t"}, {"a"})
    assert [s.config for s in snapshot.catalog.serving("gpt-4o")] == [A]
    assert [s.config for s in snapshot.disabled.serving("gpt-4o")] == [BY_TOKEN]
    assert tokens.wanted == [False]
    add(database, B)
    snapshots.reload()
    assert [line for level, line in logged if level == "ERROR"] == [
        f"out of service: t: {text}"
    ]


def test_who_lacks_a_token_is_out_of_service_until_one_comes_and_goes_on_asking_for_it(
    database, clock, logged
):
    tokens = FakeTokens()
    add(database, A, BY_TOKEN)
    snapshots = Snapshots(database, tokens=tokens, clock=clock)
    snapshots.reload()
    tokens.lacking = "no such identity"
    clock.now += 1
    snapshots.follow()
    text = "there is no token of Entra ID for it: no such identity."
    assert snapshots.current.problems == {"t": Problem(text, clock.now)}
    assert [s.config for s in snapshots.current.catalog.serving("gpt-4o")] == [A]
    assert [s.config for s in snapshots.current.disabled.serving("gpt-4o")] == [BY_TOKEN]
    assert set(snapshots.current.configs) == {"a", "t"}  # it can be verified
    tokens.lacking = None
    clock.now += 1
    snapshots.follow()
    assert snapshots.current.problems == {}
    assert tokens.wanted == [True] * 3
    assert [line for _, line in logged if "service" in line] == [
        f"out of service: t: {text}",
        "no longer out of service: t",
    ]


def test_since_when_it_is_out_of_service_stays(database):
    clock = SimpleNamespace(now=1000.0)
    add(database, BY_TOKEN)
    snapshots = Snapshots(database, tokens=FakeTokens("no"), clock=lambda: clock.now)
    snapshots.reload()
    clock.now += 60
    add(database, A)
    assert snapshots.reload().problems["t"].since == 1000.0


# References.

REASON = (
    "api_key: the gateway's environment has no variable KEY_OF_A; set it (or in .env) and"
    " restart the gateway, or change the reference."
)


class Clock:
    now = 1_800_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "key"
    path.write_text("first-key\n")
    return path


def catalogued(snapshots):
    return [(s.config.name, s.config.api_key) for s in snapshots.current.catalog.serving(MODEL)]


def test_who_is_asked_has_the_secret_and_who_is_shown_what_was_written(database, key_file):
    add(database, config("a", api_key="env:KEY_OF_A"), config("b", api_key=f"file:{key_file}"))
    snapshots = Snapshots(database, References({"KEY_OF_A": "from-there"}))
    written = [s.config.api_key for s in snapshots.reload().instances.values()]
    assert written == ["env:KEY_OF_A", f"file:{key_file}"]
    assert catalogued(snapshots) == [("a", "from-there"), ("b", "first-key")]
    assert snapshots.current.configs["a"].api_key == "from-there"


def test_who_has_no_secret_is_never_asked_and_the_others_are(database, clock):
    add(database, config("a", api_key="env:KEY_OF_A"), config("b"))
    snapshots = Snapshots(database, References({}), clock=clock)
    snapshot = snapshots.reload()
    assert [name for name, _ in catalogued(snapshots)] == ["b"]
    assert list(snapshot.configs) == ["b"]
    assert snapshot.problems["a"].text == REASON
    assert snapshot.problems["a"].since == clock.now
    assert snapshot.out_of_service == ["a"]
    # It is known that somebody would serve it.
    assert [s.config.name for s in snapshot.disabled.serving(MODEL)] == ["a"]


def test_a_disabled_instance_without_a_secret_concerns_nobody(database, logged):
    add(database, config("a", api_key="env:KEY_OF_A", enabled=False))
    snapshot = Snapshots(database, References({})).reload()
    assert (list(snapshot.problems), snapshot.out_of_service) == (["a"], [])
    assert logged == [("INFO", "config is at revision 1")]


def test_a_file_that_changed_is_read_within_a_second_and_without_the_database(
    database, key_file, clock, statements
):
    add(database, config("a", api_key=f"file:{key_file}"))
    snapshots = Snapshots(database, References({}), clock=clock)
    snapshots.reload()
    snapshots.follow()
    key_file.write_text("second-key\n")
    asked = statements(database)
    clock.now += 0.9
    snapshots.follow()
    assert catalogued(snapshots) == [("a", "first-key")]
    clock.now += 0.1
    snapshots.follow()
    assert catalogued(snapshots) == [("a", "second-key")]
    assert asked == []
    assert snapshots.moved() == {"a"}
    snapshots.settled(["a"])
    assert snapshots.moved() == set()


def test_a_file_that_says_the_same_moves_nothing(database, key_file, clock):
    add(database, config("a", api_key=f"file:{key_file}"))
    snapshots = Snapshots(database, References({}), clock=clock)
    before = snapshots.reload().configs["a"]
    key_file.write_text(" first-key")
    snapshots.follow()
    assert snapshots.current.configs["a"] == before
    assert snapshots.moved() == set()


def test_a_clock_that_is_set_back_keeps_nobody_from_looking(database, key_file, clock):
    add(database, config("a", api_key=f"file:{key_file}"))
    snapshots = Snapshots(database, References({}), clock=clock)
    snapshots.reload()
    snapshots.follow()
    key_file.write_text("second-key")
    clock.now -= 3600
    snapshots.follow()
    assert catalogued(snapshots) == [("a", "second-key")]


def test_what_an_operator_changed_is_not_moved_once_more(database, key_file):
    add(database, config("a", api_key=f"file:{key_file}"))
    snapshots = Snapshots(database, References({}))
    snapshots.reload()
    with database.session() as session:
        instances.change(session, "a", {"api_key": "another"}, author=AUTHOR)
    snapshots.reload()
    assert snapshots.moved() == set()


def test_out_of_service_is_logged_when_it_begins_and_when_it_ends(
    database, key_file, clock, logged
):
    add(database, *(config(f"i{n:02}", api_key=f"file:{key_file}") for n in range(12)))
    snapshots = Snapshots(database, References({}), clock=clock)
    snapshots.reload()
    logged.clear()
    for text in ("", "", "first-key", "first-key"):
        key_file.write_text(text)
        clock.now += 1
        snapshots.follow()
    names = "i00, i01, i02, i03, i04, i05, i06, i07, i08, i09 and 2 more"
    assert logged == [
        (
            "ERROR",
            f"out of service: {names}: api_key: {key_file} is empty; put the secret there.",
        ),
        ("WARNING", f"no longer out of service: {names}"),
    ]
    assert len(snapshots.moved()) == 12


def test_who_is_removed_or_disabled_while_it_is_out_of_service_is_not_back(database, logged):
    add(database, *(config(name, api_key="env:NOT_SET") for name in ("a", "b", "c")))
    snapshots = Snapshots(database, References({}))
    snapshots.reload()
    logged.clear()
    with database.session() as session:
        instances.remove(session, "a", author=AUTHOR)
        instances.change(session, "b", {"enabled": False}, author=AUTHOR)
    snapshots.reload()
    assert snapshots.current.out_of_service == ["c"]
    assert [line for _, line in logged if "service" in line] == []


def test_a_key_of_the_vault_that_is_put_back_brings_all_back(database_file, tmp_path, clock):
    path = tmp_path / "secret.key"
    vault = Vault(path=path)
    vault.make_key()
    key = path.read_text()
    database = Database(f"sqlite:///{database_file}", vault)
    add(database, config("a", api_key="sealed-here"))
    path.write_text(new_key())
    snapshots = Snapshots(database, References({}), clock=clock)
    assert list(snapshots.reload().problems) == ["a"]
    assert "encrypted with another key" in snapshots.current.problems["a"].text
    path.write_text(key)
    clock.now += 1
    snapshots.follow()
    assert snapshots.is_outdated
    snapshots.reload()
    assert catalogued(snapshots) == [("a", "sealed-here")]
    assert not snapshots.is_outdated
    database.dispose()


def test_keys_that_cannot_be_checked_and_a_vault_that_is_closed_are_told_once(
    database_file, tmp_path, clock, logged
):
    path = tmp_path / "secret.key"
    vault = Vault(path=path)
    vault.make_key()
    key = path.read_text()
    database = Database(f"sqlite:///{database_file}", vault)
    with database.session() as session:
        # As the migration made it, with this vault's key.
        session.merge(SecretRow(name=keys.PEPPER, value="00" * 32))
        keys.add(session, "app", author=AUTHOR)
    snapshots = Snapshots(database, References({}), clock=clock)

    def told():
        logged.clear()
        for _ in range(2):
            clock.now += 1
            snapshots.follow()
            snapshots.reload()
        return [each for each in logged if each[0] != "INFO"]

    assert told() == []
    path.unlink()
    ((level, line),) = told()
    assert (level, f"it belongs in the file {path}" in line) == ("ERROR", True)
    path.write_text(new_key())
    back, (level, line) = told()
    assert back == ("WARNING", "The key for secrets is there again.")
    assert (level, f"not encrypted with the file {path}" in line) == ("ERROR", True)
    assert "No key of a client or admin can be checked" in line
    path.write_text(key)
    assert told() == [("WARNING", "Keys can be checked again.")]
    database.dispose()


@pytest.mark.parametrize(
    "was_read, said",
    [
        (True, "cannot be stored, nor read after the next start: "),
        (False, "stored, nor read: "),
    ],
)
def test_of_a_vault_that_is_closed_it_is_told_whether_secrets_can_still_be_read(
    database_file, tmp_path, clock, logged, was_read, said
):
    path = tmp_path / "secret.key"
    vault = Vault(path=path)
    vault.make_key()
    database = Database(f"sqlite:///{database_file}", vault if was_read else Vault(path=path))
    assert not was_read or vault.count
    path.unlink()
    snapshots = Snapshots(database, References({}), clock=clock)
    clock.now += 1
    snapshots.follow()
    (line,) = [line for level, line in logged if level == "ERROR"]
    assert said in line
    database.dispose()


# What was read before the fork.


def reads(asked):
    """Of the statements those that read more than the revision."""
    return [sql for sql in asked if sql.startswith("SELECT") and "max(" not in sql]


def test_what_was_read_before_the_fork_is_not_read_again(
    database_file, tmp_path, statements, clock, logged
):
    vault = Vault(path=tmp_path / "secret.key")
    vault.make_key()
    database = Database(f"sqlite:///{database_file}", vault)
    add(database, A, B)
    with database.session() as session:
        session.merge(SecretRow(name=keys.PEPPER, value="00" * 32))
        keys.add(session, "app", author=AUTHOR)
    snapshots = Snapshots(database, clock=clock)
    snapshots.prepare()
    assert (snapshots.current.revision, logged) == (0, [])  # each worker tells it
    snapshots.follow()  # as the syncer does before it looks
    asked = statements(database)
    clock.now += PREPARED_SECONDS - 1
    taken = snapshots.reload()
    assert reads(asked) == []
    assert logged == [("INFO", "config is at revision 2")]
    read = Snapshots(database, clock=clock).reload()
    for name in ("revision", "instances", "keys", "configs", "pepper", "vault_version"):
        assert getattr(taken, name) == getattr(read, name)
    assert [s.config for s in taken.catalog.serving("gpt-4o")] == [A]
    database.dispose()


def replaced(database, database_file, clock):
    """A backup is restored, of the same revision."""
    copy = database_file.with_name("restored.db")
    with closing(sqlite3.connect(database_file)) as source, closing(sqlite3.connect(copy)) as c:
        source.backup(c)
    copy.rename(database_file)


def changed(database, database_file, clock):
    add(database, config("late"))


def waited(database, database_file, clock):
    """A worker follows another that was killed."""
    clock.now += PREPARED_SECONDS


def set_back(database, database_file, clock):
    clock.now -= 1


@pytest.mark.parametrize("meanwhile", [replaced, changed, waited, set_back])
def test_what_may_have_changed_since_it_was_read_is_read_again(
    database, database_file, statements, clock, meanwhile
):
    add(database, A)
    snapshots = Snapshots(database, clock=clock)
    snapshots.prepare()
    meanwhile(database, database_file, clock)
    asked = statements(database)
    found = snapshots.reload()
    assert len(reads(asked)) > 1
    assert set(found.instances) == ({"a", "late"} if meanwhile is changed else {"a"})


def test_what_the_vault_could_not_open_before_the_fork_it_is_asked_for_again(
    database_file, tmp_path, clock
):
    path = tmp_path / "secret.key"
    vault = Vault(path=path)
    vault.make_key()
    key = path.read_text()
    database = Database(f"sqlite:///{database_file}", vault)
    add(database, config("a", api_key="sealed-here"))
    path.write_text(new_key())
    snapshots = Snapshots(database, clock=clock)
    snapshots.prepare()
    path.write_text(key)
    assert snapshots.reload().problems == {}
    assert catalogued(snapshots) == [("a", "sealed-here")]
    database.dispose()


def test_references_are_followed_after_the_fork(database, key_file, clock, logged):
    add(database, config("a", api_key=f"file:{key_file}"), config("b", api_key="env:KEY_OF_A"))
    snapshots = Snapshots(database, References({}), clock=clock)
    snapshots.prepare()
    key_file.write_text("second-key\n")
    assert snapshots.reload().out_of_service == ["b"]
    assert catalogued(snapshots) == [("a", "second-key")]
    assert ("ERROR", f"out of service: b: {REASON}") in logged


def test_what_was_read_before_the_fork_is_taken_once(database, statements, clock):
    """A database that is another one has another config, whatever its revision."""
    add(database, A)
    snapshots = Snapshots(database, clock=clock)
    snapshots.prepare()
    snapshots.forget()
    asked = statements(database)
    snapshots.reload()
    snapshots.forget()
    snapshots.reload()
    assert len([sql for sql in reads(asked) if "instance_config" in sql]) == 2


def test_a_config_that_goes_back_is_told_with_both_revisions(database, clock, logged):
    add(database, A)
    snapshots = Snapshots(database, clock=clock)
    had = snapshots.reload().revision
    snapshots.forget()
    snapshots.reload()
    assert [line for level, line in logged if level == "WARNING"] == []
    with database.write() as connection:
        connection.execute(delete(RevisionRow))  # as of one that was made anew
    snapshots.forget()
    snapshots.reload()
    said = f"the config went back from revision {had} to 0: the database is another one"
    assert ("WARNING", said) in logged


@pytest.mark.parametrize("error", [StoreUnavailable("It is away."), ValueError("no JSON")])
def test_a_start_does_not_fail_for_what_cannot_be_read_before_the_fork(database, error):
    @contextmanager
    def away():
        raise error
        yield

    add(database, A)
    snapshots = Snapshots(SimpleNamespace(read=away, vault=database.vault, file=None))
    snapshots.prepare()
    snapshots._database = database
    assert list(snapshots.reload().instances) == ["a"]


def test_a_model_asked_for_by_its_deployments_name_costs_the_same(database):
    add(database, config("a", model_deployments={"gpt-4o": "Prod-4o"}))
    with database.session() as session:
        prices.put(session, "gpt-4o*", Price(1.0, 1.0, 1.0), author=AUTHOR)
    snapshot = Snapshots(database).reload()
    usage = Usage(prompt_tokens=1_000_000)
    assert [snapshot.cost_nano(m, usage) for m in ("gpt-4o", "prod-4o", "PROD-4O", "x")] == [
        *[1_000_000_000] * 3,
        0,
    ]
    with database.session() as session:
        prices.put(session, "*", Price(5.0, 5.0, 5.0), author=AUTHOR)
    snapshot = Snapshots(database).reload()
    assert [snapshot.cost_nano(m, usage) for m in ("prod-4o", "x")] == [
        1_000_000_000,
        5_000_000_000,
    ]
