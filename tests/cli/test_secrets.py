import os
from contextlib import closing
from sqlite3 import connect

import pytest

from proxy import create_app
from proxy.context import EXTENSION
from proxy.store import admin_keys, instances, keys, revisions
from proxy.store.vault import Vault, new_key
from tests.builders import AUTHOR, SECRET_KEY, config
from tests.web.conftest import log_kept

SECRET = "sk-planted-secret-0123456789"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "secret.key"
    path.write_text(f"{SECRET_KEY}\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def make_app(make_settings, path, database_file):
    os.chmod(database_file, 0o600)
    with log_kept():
        yield lambda: create_app(make_settings(secret_key=(), secret_key_file=path))


@pytest.fixture
def app(make_app):
    return make_app()


@pytest.fixture
def given(make_settings):
    """With keys in the setting; as a function from these."""
    with log_kept():
        yield lambda *keys: create_app(make_settings(secret_key=keys))


def run(app, *arguments):
    result = app.test_cli_runner().invoke(args=["secrets", *arguments])
    return result.exit_code, result.output


def add(app, **fields):
    database = app.extensions[EXTENSION].database
    with database.session() as session:
        instances.add(session, [config(**fields)], author=AUTHOR)
    database.dispose()


def api_key(database_file):
    with closing(connect(database_file)) as connection:
        return connection.execute("SELECT api_key FROM instance_config").fetchone()[0]


def test_a_key_is_made_and_printed(app):
    code, output = run(app, "key")
    assert code == 0
    assert Vault([output.strip()]).open(Vault([output.strip()]).seal("x")) == "x"
    assert run(app, "key")[1] != output


def test_a_rotation_makes_a_key_and_keeps_the_old_one(app, path, database_file):
    add(app, api_key=SECRET)
    code, output = run(app, "rotate")
    assert code == 0
    assert output == (
        f"3 secrets are encrypted with the first key of the file {path}.\n"
        "The older keys are kept, because backups from before need them; `flask secrets rotate"
        " --forget-old` takes them away. The new key is in no backup: copy the file.\n"
    )
    new, old = path.read_text().split()
    assert old == SECRET_KEY
    assert Vault([new]).open(api_key(database_file)) == SECRET
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_interrupted_rotation_is_finished_without_another_key(app, path, database_file):
    add(app, api_key=SECRET)
    Vault(path=path).add_key()  # and no further
    before = path.read_text()
    assert run(app, "rotate")[0] == 0
    assert path.read_text() == before
    assert Vault([before.split()[0]]).open(api_key(database_file)) == SECRET
    assert run(app, "rotate")[0] == 0
    assert len(path.read_text().split()) == 3


def test_old_keys_are_taken_away_when_nothing_needs_them(app, path, database_file):
    add(app, api_key=SECRET)
    Vault(path=path).add_key()
    code, output = run(app, "rotate", "--forget-old")
    assert code == 0
    assert "Older keys taken away: 1. Backups from before need them." in output
    (only,) = path.read_text().split()
    assert Vault([only]).open(api_key(database_file)) == SECRET
    assert "taken away" not in run(app, "rotate", "--forget-old")[1]
    assert path.read_text().split() == [only]


def test_running_workers_read_all_before_and_after(app, path, database_file):
    """Who began before the rotation, and never heard of it."""
    add(app, api_key=SECRET)
    running = Vault(path=path)
    before = api_key(database_file)
    assert running.open(before) == SECRET
    run(app, "rotate")
    assert running.open(before) == running.open(api_key(database_file)) == SECRET


def test_with_keys_of_the_setting_the_gateway_has_to_know_the_new_one_first(
    given, database_file
):
    add(given(SECRET_KEY), api_key=SECRET)
    new = new_key()
    both = given(new, SECRET_KEY)
    code, output = run(both, "rotate")
    assert code == 2
    assert "start the gateway anew, then add --restarted" in output
    code, output = run(both, "rotate", "--restarted")
    assert code == 0
    assert "The older keys can leave PROXY_SECRET_KEY; backups from before" in output
    assert Vault([new]).open(api_key(database_file)) == SECRET
    assert run(given(new), "check")[0] == 0


def test_with_a_file_nothing_need_be_restarted_and_who_says_so_is_told(app, path):
    add(app, api_key=SECRET)
    before = path.read_text()
    code, output = run(app, "rotate", "--restarted")
    assert code == 2
    assert f"The key is in {path}" in " ".join(output.split())
    assert path.read_text() == before


def test_a_lost_file_is_told_and_not_made_anew(app, path, make_app):
    add(app, api_key=SECRET)
    path.unlink()
    code, output = run(app, "rotate")
    assert code == 1
    assert f"the key is missing: it belongs in the file {path}" in output
    assert not path.exists()
    code, output = run(make_app(), "check")
    assert code == 1
    assert "3 secrets are encrypted; 0 of them can be decrypted" in output
    assert "instance_config 'a': api_key cannot be decrypted: the key is missing" in output


def test_what_cannot_be_decrypted_is_left_by_a_rotation_and_told(app, path, database_file):
    add(app, api_key=SECRET)
    path.write_text(new_key())
    before = api_key(database_file)
    code, output = run(app, "rotate")
    assert code == 1
    assert "0 secrets are encrypted with the first key" in output
    assert "cannot be decrypted: it was encrypted with another key." in output
    assert api_key(database_file) == before


def test_check_says_that_all_is_well(app, path):
    add(app, api_key=SECRET)
    assert run(app, "check") == (
        0,
        f"3 secrets are encrypted; 3 of them can be decrypted with the file {path}.\n",
    )
    Vault(path=path).add_key()
    code, output = run(app, "check")
    assert code == 0
    assert "3 of them are not encrypted with its first key" in output


def test_check_names_references_that_lead_nowhere(app, tmp_path):
    add(app, name="a", api_key="file:/none/key")
    add(app, name="b", api_key="NONE", proxy_url="env:NO_SUCH_PROXY")
    (tmp_path / "key").write_text("k")
    (tmp_path / "key").chmod(0o644)
    add(app, name="c", api_key=f"file:{tmp_path}/key")
    code, output = run(app, "check")
    assert code == 1
    assert "instance 'a': api_key: /none/key cannot be read" in output
    assert "instance 'b': proxy_url: the gateway's environment has no variable" in output
    assert f"Note: {tmp_path}/key can be read by others than its owner." in output
    assert "instance 'c'" not in output


@pytest.mark.parametrize("which", ["key", "database"])
def test_check_tells_of_files_that_others_can_read(app, path, database_file, which):
    file = path if which == "key" else database_file
    os.chmod(file, 0o640)
    code, output = run(app, "check")
    assert code == 1
    assert f"{file} can be read by others; `chmod 600 {file}` keeps them out." in output


def test_where_thousands_cannot_be_decrypted_some_are_named(app, path):
    for n in range(30):
        add(app, name=f"i{n}", api_key=SECRET)
    path.write_text(new_key())
    code, output = run(app, "check")
    assert (code, output.count("cannot be decrypted:")) == (1, 20)
    assert "... and 41 more." in output


def test_no_secret_is_printed(app, path):
    add(app, api_key=SECRET)
    for arguments in (["rotate"], ["check"], ["rotate", "--forget-old"]):
        output = run(app, *arguments)[1]
        assert SECRET not in output
        assert not any(key in output for key in path.read_text().split())


@pytest.fixture
def lost(app, make_app, path):
    """An app of which the key is gone, with what it had."""
    add(app, name="east", api_key=SECRET)
    add(app, name="west", api_key="NONE", proxy_url=f"http://u:{SECRET}@127.0.0.1:1")
    add(app, name="free", api_key="env:FREE_KEY")
    database = app.extensions[EXTENSION].database
    with database.session() as session:
        keys.add(session, "shop", {"max_tpm": 7}, author=AUTHOR)
        keys.rotate(session, "shop", grace_seconds=60, author=AUTHOR)
        admin_keys.add(session, "ann", "viewer", author=AUTHOR)
    database.dispose()
    path.unlink()
    return make_app()


LOST = (
    "Clients that need a new key (`flask keys rotate NAME`): shop.\n"
    "Admin keys that are to be made anew (`flask admins add NAME`): ann.\n"
    "Instances whose secrets have to be set again (PATCH /admin/instances/NAME): east"
    " (api_key), west (proxy_url).\n"
)


def test_when_the_key_is_lost_for_good_one_can_go_on_without_it(lost, path):
    code, output = run(lost, "reset", "--yes")
    assert code == 0
    assert output == (
        f"Secrets are encrypted with the file {path} from now on; keep a copy of it.\n{LOST}"
    )
    assert path.stat().st_mode & 0o777 == 0o600
    database = lost.extensions[EXTENSION].database
    with database.session() as session:
        keys.rotate(session, "shop", grace_seconds=0, author=AUTHOR)
        admin_keys.add(session, "ann", "viewer", author=AUTHOR)
        instances.change(session, "east", {"api_key": "sk-planted-again"}, author=AUTHOR)
    with database.read() as connection:
        ((client, until),) = keys.load_all(connection).values()
        shown = revisions.page(connection, limit=50)[0]
    database.dispose()
    assert (client.name, client.max_tpm, until) == ("shop", 7, None)
    assert [r.action for r in shown].count("secrets reset") == 1
    code, output = run(lost, "check")
    # What is still to be set anew, and nothing else.
    assert (code, output.count("cannot be decrypted:")) == (1, 1)
    assert "proxy_url cannot be decrypted" in output


def test_a_reset_asks_first_and_says_what_is_lost(lost, path, database_file):
    with closing(connect(database_file)) as connection:
        before = list(connection.iterdump())
    code, output = run(lost, "reset")
    assert code == 1
    assert output.startswith(LOST)
    assert "Is the key lost for good, also in backups? [y/N]" in output
    assert not path.exists()
    with closing(connect(database_file)) as connection:
        assert list(connection.iterdump()) == before


def test_a_reset_takes_nothing_that_can_be_read(app, path, database_file):
    add(app, api_key=SECRET)
    assert run(app, "reset", "--yes") == (
        0,
        f"All secrets can be decrypted with the file {path}: nothing is lost.\n",
    )
    assert Vault(path=path).open(api_key(database_file)) == SECRET


def test_keys_that_can_still_be_checked_survive_a_reset(app, make_app, path):
    database = app.extensions[EXTENSION].database
    with database.session() as session:
        keys.add(session, "shop", author=AUTHOR)
    path.write_text(f"{new_key()}\n{SECRET_KEY}\n")
    add(app, api_key=SECRET)
    path.write_text(SECRET_KEY)
    assert "Clients" not in run(make_app(), "reset", "--yes")[1]
    with database.read() as connection:
        assert len(keys.load_all(connection)) == 1
    database.dispose()
