import gc
import json
import re
import socket
import sqlite3
import sys
from contextlib import closing
from types import SimpleNamespace

import pytest

from proxy import __main__, create_app, gunicorn_conf, make_parts, start
from proxy.context import EXTENSION
from proxy.runtime import open_files
from proxy.settings import SettingError
from proxy.start import await_port, check_port, greeting, gunicorn_command, prepare
from proxy.store import admin_keys, instances, keys, schema
from tests.builders import AUTHOR, SECRET_KEY, config
from tests.runtime.world import OPENED_AT, Clock
from tests.store.test_lost import backup_of
from tests.web.conftest import ADMIN, ADMIN_KEY, log_kept


@pytest.fixture
def parts(make_settings):
    """A function from changed settings to the parts of an app."""
    made = []

    def make(**changes):
        made.append(make_parts(make_settings(**changes)))
        return made[-1]

    with log_kept():
        yield make
    for each in made:
        each.database.dispose()


def add_key(parts):
    with parts.database.session() as session:
        keys.add(session, "app", author=AUTHOR)


def add_instance(parts):
    with parts.database.session() as session:
        instances.add(session, [config("a")], author=AUTHOR)


def test_a_newcomer_is_told_all_that_is_to_be_done(parts):
    text = greeting(parts(port=8123, workers=3, threads=7))
    assert text.startswith(
        "Starting on http://127.0.0.1:8123 with 3 workers of up to 7 threads.\n"
    )
    assert "flask keys add NAME" in text
    assert "set ADMIN_API_KEY" in text
    assert "curl -X POST http://127.0.0.1:8123/admin/instances" in text
    assert "cost" not in text


def test_who_has_done_it_is_told_where_it_listens_and_nothing_else(parts):
    made = parts(admin_api_key=ADMIN_KEY)
    add_key(made)
    add_instance(made)
    assert greeting(made).count("\n") == 1
    assert ADMIN_KEY not in greeting(made)


def test_what_there_may_be_thousands_of_is_not_read_for_the_greeting(parts, statements):
    made = parts()
    add_key(made)
    add_instance(made)
    asked = statements(made.database)
    greeting(made)
    bounded = [sql for sql in asked if "LIMIT" in sql]
    assert len(bounded) == 2
    assert not any("api_key" in sql or "client_state" in sql for sql in asked)


@pytest.mark.parametrize(
    "done, changes, missing",
    [
        (add_instance, {"admin_api_key": ADMIN_KEY}, "flask keys add"),
        (add_key, {"admin_api_key": ADMIN_KEY}, "curl -X POST"),
    ],
)
def test_what_is_done_is_not_asked_for_again(parts, done, changes, missing):
    made = parts(**changes)
    done(made)
    text = greeting(made)
    asked = {"flask keys add", "curl -X POST", "set ADMIN_API_KEY"}
    assert {each for each in asked if each in text} == {missing}


def test_an_admin_key_is_as_good_as_the_environments(parts):
    made = parts()
    with made.database.session() as session:
        admin_keys.add(session, "ann", "admin", author=AUTHOR)
    assert "ADMIN_API_KEY" not in greeting(made)


@pytest.mark.parametrize(
    "key, is_weak",
    [("x" * 15, True), ("x" * 16, False), ("your-admin-api-key", True)],
)
def test_a_key_that_can_be_guessed_is_told_of_and_not_shown(parts, key, is_weak):
    text = greeting(parts(admin_api_key=key))
    assert ("can be guessed" in text) is is_weak
    assert key not in text


def test_open_doors_are_named_in_a_box_and_need_no_key(parts):
    text = greeting(parts(client_auth="off", bind="0.0.0.0", port=8123))
    assert "PROXY_CLIENT_AUTH=off: everybody who reaches http://127.0.0.1:8123" in text
    assert "at your cost" in text
    assert "keys add" not in text


def test_the_instance_in_the_greeting_can_be_added_as_it_stands(make_settings):
    settings = make_settings(admin_api_key=ADMIN_KEY)
    with log_kept():
        app = create_app(settings)
        made = app.extensions["proxy"]
        text = greeting(made)
        body = re.search(r"-d '(.*)'", text, re.DOTALL)[1]
        assert '-H "X-Admin-API-Key: YOUR-ADMIN-API-KEY"' in text
        made.start()
        try:
            answer = app.test_client().post("/admin/instances", data=body, headers=ADMIN)
        finally:
            made.stop()
    assert answer.status_code == 201
    assert answer.get_json()["config"]["name"] == json.loads(body)["name"]


def test_no_worker_is_replaced_while_the_next_could_read_no_config(
    make_settings, database_file, tmp_path, capsys
):
    done, aside = [], tmp_path / "aside"
    with log_kept():
        made = make_parts(make_settings())
        gunicorn_conf._reload(lambda: done.append(1), made)
        assert (done, made.database.engine.pool.checkedin()) == ([1], 0)
        database_file.rename(aside)
        gunicorn_conf._reload(lambda: done.append(2), made)
        assert "SIGHUP: no worker is replaced" in capsys.readouterr().err
        assert done == [1]
        assert not database_file.exists()
        aside.rename(database_file)
        gunicorn_conf._reload(lambda: done.append(3), made)
    assert done == [1, 3]


def test_a_worker_does_not_read_again_what_was_read_before_the_fork(
    make_settings, statements, tmp_path
):
    path = tmp_path / "secret.key"
    path.write_text(SECRET_KEY)
    with log_kept():
        app = create_app(make_settings(secret_key=(), secret_key_file=path))
    made = app.extensions[EXTENSION]
    add_key(made)
    add_instance(made)
    gunicorn_conf.on_starting(
        SimpleNamespace(
            cfg=SimpleNamespace(is_ssl=False),
            app=SimpleNamespace(wsgi=lambda: app),
            stop=None,
            reload=None,
        )
    )
    assert gc.isenabled()
    assert made.database.engine.pool.checkedin() == 0  # no connection crosses the fork
    asked = statements(made.database)
    made.syncer.sync()
    made.syncer.stop()
    made.database.dispose()
    assert (made.syncer.problem, list(made.snapshots.current.configs)) == (None, ["a"])
    assert asked
    assert not any("client_key" in sql or "instance_config" in sql for sql in asked)
    made.database.dispose()


def test_a_key_file_that_others_can_read_is_told_and_one_that_is_lost(parts, tmp_path):
    path = tmp_path / "secret.key"
    path.write_text(SECRET_KEY)
    path.chmod(0o644)
    assert f"chmod 600 {path}" in greeting(parts(secret_key=(), secret_key_file=path))
    path.chmod(0o600)
    assert str(path) not in greeting(parts(secret_key=(), secret_key_file=path))
    path.unlink()
    text = greeting(parts(secret_key=(), secret_key_file=path))
    assert f"the key is missing: it belongs in the file {path}" in text
    assert "Put the key back" in text
    assert not path.exists()


@pytest.fixture
def taken():
    """A port that somebody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_in_use_is_told_before_anything_is_done(
    make_settings, taken, tmp_path, monkeypatch
):
    path = tmp_path / "none.db"
    settings = make_settings(port=taken, database_url=f"sqlite:///{path}")
    monkeypatch.setattr(start, "RELEASE_SECONDS", 0.0)
    with pytest.raises(SettingError, match=f"^PORT: 127.0.0.1:{taken} .*; set PORT to a free"):
        start.serve(settings)
    assert not path.exists()


def test_a_port_is_waited_for_a_while_and_that_is_told_once(make_settings, taken, capsys):
    clock = Clock()

    def sleep(seconds):
        clock.now += seconds

    settings = make_settings(port=taken)
    with pytest.raises(SettingError):
        await_port(settings, clock, sleep)
    assert clock.now == OPENED_AT + start.RELEASE_SECONDS
    assert capsys.readouterr().err.count("; waiting 5 s for it ...\n") == 1


@pytest.mark.parametrize("bind", ["192.0.2.1", "no such host", "[::1]", "x" * 64])
def test_what_no_waiting_helps_against_is_told_at_once(make_settings, bind):
    def sleep(_):
        pytest.fail("waited")

    with pytest.raises(SettingError, match=r"^PROXY_BIND: .* address of this host"):
        await_port(make_settings(bind=bind), sleep=sleep)


def test_who_is_just_ending_lets_the_next_one_start(make_settings):
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings = make_settings(port=server.getsockname()[1])
        await_port(settings, sleep=lambda _: server.close())
    check_port(settings)


@pytest.mark.parametrize("variable", ["LISTEN_FDS", "GUNICORN_FD"])
def test_of_a_socket_that_is_handed_on_the_port_is_in_use(
    make_settings, taken, variable, monkeypatch
):
    class MadeParts(Exception):
        pass

    def make_parts(_settings):
        raise MadeParts

    monkeypatch.setenv(variable, "3")
    monkeypatch.setattr(start, "make_parts", make_parts)
    with pytest.raises(MadeParts):
        start.serve(make_settings(port=taken))


def test_no_secret_is_in_the_command_line(parts):
    """Whoever lists processes reads it. There is nothing in it but names of modules."""
    settings = parts(admin_api_key=ADMIN_KEY).settings
    command = gunicorn_command()
    assert command[0] == sys.executable
    for secret in (ADMIN_KEY, settings.database_url):
        assert secret not in " ".join(command)
    assert command[1:] == ["-m", "gunicorn", "-c", "python:proxy.gunicorn_conf", "wsgi:app"]


def test_a_new_database_is_made_and_only_its_owner_can_read_it(parts, tmp_path, capsys):
    path = tmp_path / "folder" / "new.db"
    made = parts(database_url=f"sqlite:///{path}")
    prepare(made)
    assert capsys.readouterr().err.startswith(f"Making the database {path} ...\n")
    schema.check(made.database)
    assert path.stat().st_mode & 0o777 == 0o600
    assert "keys add" in greeting(made)


def test_no_empty_database_takes_the_place_of_one_that_has_backups(parts, database_file):
    backup = backup_of(database_file)
    database_file.unlink()
    with pytest.raises(schema.DatabaseLost, match=f"the newest is {backup}"):
        prepare(parts())
    assert not database_file.exists()


def test_an_empty_one_beside_a_key_is_made_and_that_is_told(parts, tmp_path, capsys):
    """The key may be the demo's, which has a database of its own."""
    key = tmp_path / "secret.key"
    key.write_text(SECRET_KEY)
    path = tmp_path / "new.db"
    prepare(parts(database_url=f"sqlite:///{path}", secret_key=(), secret_key_file=key))
    said = capsys.readouterr().err
    assert f"the key of its secrets does ({key}): it was there" in said
    assert f"Making the database {path}, an empty one ..." in said
    assert path.exists()


def test_the_folder_that_came_with_the_checkout_becomes_private(
    parts, database_file, tmp_path, monkeypatch
):
    tmp_path.chmod(0o755)
    prepare(parts())
    assert tmp_path.stat().st_mode & 0o777 == 0o755  # somebody else's
    monkeypatch.setattr(start, "INSTANCE_FOLDER", tmp_path)
    prepare(parts())
    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_a_database_that_is_up_to_date_is_left_alone(parts, database_file, capsys):
    made = parts()
    add_key(made)
    prepare(made)
    assert capsys.readouterr().err == ""
    assert "keys add" not in greeting(made)


def test_another_programs_database_is_not_touched(parts, tmp_path):
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE other (id)")
        connection.commit()
    before = path.read_bytes()
    with pytest.raises(schema.SchemaProblem, match="another program"):
        prepare(parts(database_url=f"sqlite:///{path}"))
    with closing(sqlite3.connect(path)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
    assert tables == [("other",)]
    assert path.read_bytes()[100:] == before[100:]  # but for the header, which names WAL


@pytest.mark.parametrize("arguments", [[], ["--demo"]])
def test_a_setting_that_cannot_be_used_is_one_line_and_code_1(monkeypatch, capsys, arguments):
    monkeypatch.setattr(sys, "argv", ["proxy", *arguments])
    monkeypatch.setenv("PORT", "many")
    assert __main__.main() == 1
    shown = capsys.readouterr()
    assert shown.err.startswith("PORT: 'many' cannot be used")
    assert (shown.err.count("\n"), shown.out) == (1, "")


@pytest.mark.parametrize("argument", ["--dem0", "8000"])
def test_wrong_usage_of_the_program_is_code_2(monkeypatch, capsys, argument):
    monkeypatch.setattr(sys, "argv", ["proxy", argument])
    with pytest.raises(SystemExit) as caught:
        __main__.main()
    assert caught.value.code == 2
    assert "usage: python -m proxy" in capsys.readouterr().err


def test_too_few_open_files_are_told_of(parts, monkeypatch):
    made = parts(threads=512)
    prepare(made)
    assert "files" not in greeting(made)
    monkeypatch.setattr(open_files, "allow_all", lambda: 1024)
    assert "A worker may open 1024 files; for PROXY_THREADS=512 it may need 1736." in greeting(
        made
    )
