"""Whose changes those of commands are, and why."""

import os
import sqlite3
from contextlib import contextmanager

import pytest
from sqlalchemy.exc import DBAPIError

from proxy import create_app
from proxy.cli import told
from proxy.store import lock_holder, revisions
from proxy.store.db import Database, translated
from proxy.store.revisions import REASON_CHARACTERS, Author
from tests.web.conftest import log_kept


@pytest.fixture
def run(make_settings, monkeypatch):
    monkeypatch.setenv("SUDO_USER", "ann")
    with log_kept():
        app = create_app(make_settings())
        yield lambda *arguments, **more: app.test_cli_runner().invoke(args=arguments, **more)


def test_the_author_is_who_gave_the_command_also_behind_sudo(monkeypatch):
    monkeypatch.setattr(told, "_name_of", lambda uid: "bob")
    monkeypatch.delenv("SUDO_USER", raising=False)
    assert told.author() == Author("command line (bob)")
    monkeypatch.setenv("SUDO_USER", "ann")
    assert told.author("why") == Author("command line (ann)", "why")
    monkeypatch.setenv("SUDO_USER", "a\nb")
    assert told.author().name == f"command line ({os.getuid()})"


def test_a_user_without_a_name_has_a_number():
    assert told._name_of(2**31 - 7) == str(2**31 - 7)


CHANGES = [
    ("keys", "add", "app"),
    ("keys", "change", "app", "--max-rpm", "5"),
    ("keys", "rotate", "app"),
    ("keys", "disable", "app"),
    ("keys", "enable", "app"),
    ("keys", "remove", "app"),
    ("admins", "add", "bob", "--role", "viewer"),
    ("admins", "change", "bob", "--role", "operator"),
    ("admins", "remove", "bob"),
]


def test_each_change_of_keys_says_who_and_why(run, database):
    for number, command in enumerate(CHANGES):
        assert run(*command, "--reason", f"reason {number}").exit_code == 0
    with database.read() as connection:
        found, total = revisions.page(connection, limit=50, author="command line")
    assert total == len(CHANGES)
    assert {each.author for each in found} == {"command line (ann)"}
    assert [each.reason for each in reversed(found)] == [
        f"reason {number}" for number in range(len(CHANGES))
    ]


def test_a_reason_that_cannot_be_kept_is_refused(run, database):
    for reason in ("x" * (REASON_CHARACTERS + 1), "a\nb"):
        result = run("keys", "add", "app", "--reason", reason)
        assert (result.exit_code, result.stdout) == (2, "")
        assert f"At most {REASON_CHARACTERS} printable characters." in result.stderr
    with database.read() as connection:
        assert revisions.newest(connection) == 0


def test_revisions_show_the_id_of_the_request_that_made_them(run, database):
    with database.session() as session:
        revisions.record(session, Author("bob", "why", "r-7"), "key added", ())
    assert run("config", "revisions").stdout.endswith("bob     key added (why) id=r-7\n")


LOOKS = [
    ("top", "--once"),
    ("usage",),
    ("instances", "list"),
    ("keys", "list"),
    ("admins", "list"),
    ("secrets", "check"),
    ("config", "export"),
    ("config", "revisions"),
    ("config", "diff", "0", "0"),
    ("config", "plan", "-"),
]


@pytest.mark.parametrize("command", LOOKS, ids=" ".join)
def test_what_only_looks_does_not_wait_for_who_writes(run, database, command):
    document = run("config", "export").stdout
    with database.write():
        result = run(*command, input=document)
    assert "cannot be written" not in result.stderr
    assert result.exit_code == 0, result.output


def test_what_writes_says_that_another_does_and_not_to_stop_the_gateway(
    run, database, monkeypatch
):
    busy = sqlite3.OperationalError("database is locked")
    busy.sqlite_errorcode = sqlite3.SQLITE_BUSY

    @contextmanager
    def locked(_self, **_):
        with translated():
            raise DBAPIError("BEGIN IMMEDIATE", None, busy)
        yield

    monkeypatch.setattr(Database, "write", locked)
    monkeypatch.setattr(lock_holder, "holders", lambda _: [os.getpid()])
    result = run("keys", "add", "app")
    assert result.exit_code == 1
    assert f"cannot be written now: process {os.getpid()} (" in result.stderr
    assert "the gateway need not be stopped" in result.stderr


def test_a_database_that_is_gone_while_a_gateway_runs_is_to_be_put_back(
    run, database_file, monkeypatch
):
    database_file.unlink()
    assert "alembic upgrade head" in run("keys", "list").stderr
    well = {"status": "ok", "problem": None, "calls": {}}
    monkeypatch.setattr("proxy.runtime.running.health", lambda *_, **__: well)
    result = run("keys", "list")
    assert result.exit_code == 1
    assert "restore --newest" in result.stderr
    assert "alembic" not in result.stderr
