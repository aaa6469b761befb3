"""Things with a life: a migrated database, and settings that point to it."""

import gc
import os
import shutil
import sqlite3
from dataclasses import replace

import pytest
from sqlalchemy import Engine, event

from proxy.settings import load_settings
from proxy.store import schema
from proxy.store.db import Database
from tests import planted
from tests.builders import SECRET_KEY, VAULT

# Also of the processes that tests start: none may touch the key of a gateway that runs here.
os.environ["PROXY_SECRET_KEY"] = SECRET_KEY


def pytest_collection_finish():
    """What collecting made stays: to look through it again and again takes a seventh of the
    CPU time of all tests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)  # as workers have it


def _forget_identity(patched):
    for name in [*os.environ]:
        if name.startswith(("AZURE_", "IDENTITY_", "MSI_", "IMDS_")):
            patched.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def nobodys_identity():
    """Tokens of Entra ID come from a port where nobody listens, and not from this machine."""
    with pytest.MonkeyPatch.context() as patched:
        _forget_identity(patched)
        patched.setenv("IDENTITY_ENDPOINT", "http://127.0.0.1:9/token")
        patched.setenv("IDENTITY_HEADER", "header-of-the-tests")
        yield


@pytest.fixture
def no_identity(monkeypatch):
    """An environment that says nothing of Entra ID."""
    _forget_identity(monkeypatch)


planted.watch()


@pytest.fixture(autouse=True)
def nothing_tells_a_secret(request):
    """Fails the test in which, or since the last, something told a secret (tests/planted.py).
    A test that has a reason to says so: `pytest.mark.tells_secrets(reason)`."""
    yield
    found = planted.taken()
    if request.node.get_closest_marker("tells_secrets") is None:
        assert not found, "told a secret:\n" + "\n".join(found)


@pytest.fixture(scope="session", autouse=True)
def nothing_told_a_secret_at_the_end():
    """What other threads still did, and fixtures when they ended."""
    yield
    found = planted.taken()
    assert not found, "told a secret:\n" + "\n".join(found)


@pytest.fixture(scope="module", autouse=True)
def nothing_stays_open():
    """Fails the last test of a module that leaves a connection to an SQLite database open.
    Python says so, too, from 3.13 on, but when and where its garbage collector finds it."""
    made = []

    def note(connection, _record):
        made.append(connection)

    event.listen(Engine, "connect", note)
    yield
    event.remove(Engine, "connect", note)
    assert not list(filter(is_open, made)), "connections that nobody closed"


def is_open(connection):
    try:
        return isinstance(connection, sqlite3.Connection) and connection.total_changes >= 0
    except sqlite3.ProgrammingError:
        return False


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory):
    """Migrating takes a quarter of a second; copying the result does not."""
    path = tmp_path_factory.mktemp("migrated") / "proxy.db"
    database = Database(f"sqlite:///{path}", VAULT)
    schema.upgrade(database)
    database.dispose()
    return path


@pytest.fixture
def database_file(migrated_file, tmp_path):
    """A database of this test alone, with our tables and nothing in them."""
    return shutil.copy(migrated_file, tmp_path / "proxy.db")


@pytest.fixture
def database(database_file):
    database = Database(f"sqlite:///{database_file}", VAULT)
    yield database
    database.dispose()


@pytest.fixture
def statements():
    """A function that gives the list of what a database's driver is asked from now on."""

    def listen(database):
        asked = []

        def trace(connection, *_):
            connection.set_trace_callback(asked.append)

        def trace_held(connection):
            trace(connection.connection.dbapi_connection)

        event.listen(database.engine, "checkout", trace)
        # Of connections that somebody has already; their first BEGIN is over then.
        event.listen(database.engine, "begin", trace_held)
        return asked

    return listen


@pytest.fixture
def make_settings(database_file):
    """The defaults and this test's database, but for what is named."""
    defaults = load_settings(environ={"PROXY_SECRET_KEY": SECRET_KEY}, env_file=None)

    def make(**changes):
        return replace(defaults, **{"database_url": f"sqlite:///{database_file}"} | changes)

    return make


def pytest_terminal_summary(terminalreporter):
    """How many inputs the fuzz tests tried."""
    reports = [r for reports in terminalreporter.stats.values() for r in reports]
    properties = [p for r in reports for p in getattr(r, "user_properties", ())]
    inputs = sum(number for name, number in properties if name == "fuzz inputs")
    if inputs:
        terminalreporter.write_line(f"fuzz: {inputs:,} inputs tried")
