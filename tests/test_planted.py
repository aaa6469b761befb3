"""The watch itself: what it finds, and what it lets pass."""

import logging
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from flask import Response
from sqlalchemy import text

from proxy.errors import BadRequest
from proxy.settings import SettingError
from proxy.store import keys
from proxy.store.vault import new_key
from proxy.web.app import Gateway
from tests import planted
from tests.builders import AUTHOR, SECRET_KEY, VAULT

SECRET = "planted-0123"


@pytest.fixture
def found():
    """Where something was found since the test began; not held against this test."""

    def where():
        return [each.partition(": ...")[0] for each in planted.taken()]

    planted.taken()
    yield where
    planted.taken()


def answer(body, headers=(), path="/", method="GET"):
    """Of an app that answers so; read to its end."""
    app = Gateway(__name__)
    view = lambda: Response(body, headers=list(headers))  # noqa: E731
    app.add_url_rule(path, "view", view, methods=[method])
    return app.test_client().open(path, method=method).data


def test_a_body_is_looked_at(found):
    answer(f"the key is {SECRET}")
    assert found() == ["the answer to GET /"]


def test_a_body_in_pieces_is_looked_at_as_a_whole(found):
    answer(iter([b"=" * 200 + b"pl", b"an", b"ted"]))
    assert found()


def test_headers_are_looked_at(found):
    answer("", headers=[("x-key", SECRET)])
    assert found() == ["the answer to GET /"]


def test_what_tells_nothing_is_not_found(found):
    assert answer("***0123 gw-short") == b"***0123 gw-short"
    assert found() == []


@pytest.mark.parametrize("method, path, count", [("POST", "/admin/keys", 0), ("GET", "/a", 1)])
def test_a_clients_key_is_shown_once(database, found, method, path, count):
    with database.session() as session:
        key = keys.add(session, "app", author=AUTHOR)
    answer(key, path=path, method=method)
    assert len(found()) == count


def test_an_instances_key_is_not_even_shown_there(found):
    answer(SECRET, path="/admin/keys", method="POST")
    assert found() == ["the answer to POST /admin/keys"]


def test_a_line_of_any_log_is_looked_at(found):
    logging.getLogger("some.library").warning("the key is %s", SECRET)
    assert set(found()) == {"a line of the log some.library"}


def test_a_line_is_looked_at_when_it_is_put_into_words(found):
    class Late:
        def __str__(self):
            return SECRET

    record = logging.getLogRecordFactory()("late", 20, "f", 1, "%s", (Late(),), None)
    assert found() == []
    logging.Formatter().format(record)
    assert found() == ["a line of the log late"]


def test_a_traceback_is_looked_at_with_what_caused_it(found):
    try:
        try:
            raise ValueError(SECRET)
        except ValueError as error:
            raise RuntimeError("it failed") from error
    except RuntimeError:
        logging.getLogger("proxy").exception("Failed.")
    assert set(found()) == {"a traceback in the log proxy"}


@pytest.mark.parametrize("kind", [BadRequest, SettingError])
def test_an_error_is_looked_at_when_it_is_made(found, kind):
    kind(f"Given: {SECRET}.")
    assert found()


def test_what_a_database_is_given_is_looked_at(database, found):
    with database.read() as connection:
        connection.execute(text("SELECT :value"), {"value": SECRET})
        assert [each[:10] for each in found()] == ["a value of"]
        connection.execute(text("SELECT :value"), {"value": VAULT.seal(SECRET)})
        assert found() == []


def test_what_a_command_prints_is_looked_at(found):
    command = click.Command("tell", callback=lambda: click.echo(SECRET))
    CliRunner().invoke(command, [])
    assert found() == ["what `` printed"]


def test_what_a_process_prints_is_looked_at(found):
    program = f"import sys; sys.stderr.write({SECRET[:4]!r} + {SECRET[4:]!r})"
    subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert len(found()) == 1


@pytest.mark.parametrize(
    "secret", [SECRET_KEY, VAULT.seal("x"), "gw-" + new_key()[:40]], ids=("key", "sealed", "gw")
)
def test_secrets_of_our_own_form_are_known(found, secret):
    planted.look("somewhere", f"<{secret}>")
    assert found() == ["somewhere"]


def test_a_file_is_looked_at(found, tmp_path):
    (tmp_path / "log").write_text(SECRET)
    planted.look_at_file(tmp_path / "log")
    planted.look_at_file(tmp_path / "none")
    assert found() == [f"the file {tmp_path / 'log'}"]


def test_it_fails_the_test(pytester_folder):
    """The whole of it, in a run of its own."""
    result = pytester_folder(
        "import logging\n"
        "from tests.conftest import *\n"
        "def test_it(): logging.getLogger('a').warning('plan' + 'ted')\n"
        "@pytest.mark.tells_secrets('has to')\n"
        "def test_allowed(): logging.getLogger('a').warning('plan' + 'ted')\n"
    )
    assert result.returncode == 1
    assert "told a secret:" in result.stdout
    assert "a line of the log a" in result.stdout
    assert "2 passed" in result.stdout
    assert "1 error" in result.stdout


@pytest.fixture
def pytester_folder(tmp_path):
    def run(source):
        path = tmp_path / "test_it.py"
        path.write_text(source)
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-n",
            "0",
            str(path),
        ]
        # Not subprocess.run, which is watched.
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            output = process.communicate()[0]
        return subprocess.CompletedProcess(command, process.returncode, output)

    return run
