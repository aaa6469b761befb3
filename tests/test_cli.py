import os
import subprocess
import sys

import pytest

from proxy import create_app
from proxy.settings import ROOT
from tests.web.conftest import log_kept

# `top` says less in the list than by itself.
COMMANDS = "admins config doctor instances keys legacy logs mock secrets usage".split()


@pytest.fixture
def app(make_settings):
    with log_kept():
        yield create_app(make_settings())


@pytest.fixture
def run(app):
    """A function from a command's arguments to its result."""
    return lambda *arguments: app.test_cli_runner().invoke(args=list(arguments))


def test_wrong_usage_has_a_code_of_its_own(run):
    result = run("nonsense")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error: " in result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_in_the_list_what_its_own_help_does(run, command):
    listed = {}
    for line in run("--help").stdout.splitlines():
        name, _, said = line.strip().partition("  ")
        listed[name] = said.strip()
    own = run(command, "--help")
    assert own.exit_code == 0
    # The list has as much of it as fits into a line.
    assert listed[command].removesuffix("...") in " ".join(own.stdout.split())


LATER = (
    "alembic",
    "azure",
    "concurrent_log_handler",
    "opentelemetry",
    "proxy.cli.",
    "proxy.demo",
    "proxy.simulator",
    "rich",
    "sqlalchemy.dialects.postgresql",
)


def loaded_after(make_settings, program):
    """Of what some may need those modules that are there then."""
    result = subprocess.run(
        [sys.executable, "-c", f"import sys\n{program}\nprint(*sys.modules)"],
        cwd=ROOT,
        env=os.environ | {"PROXY_DATABASE_URL": make_settings().database_url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.stderr == ""
    return {m for m in result.stdout.split() if m.startswith(LATER)}


def test_what_only_some_need_is_not_loaded_by_the_gateways_start(make_settings):
    program = "import proxy.__main__, proxy.gunicorn_conf, wsgi"
    assert loaded_after(make_settings, program) == set()


def test_what_only_some_commands_need_is_loaded_by_these_alone(make_settings):
    """Neither `flask --help` needs them, nor what prints plain lines."""
    program = """
from wsgi import app
for arguments in (["--help"], ["instances", "list"]):
    assert app.test_cli_runner().invoke(args=arguments).exit_code == 0
"""
    found = loaded_after(make_settings, program)
    assert "proxy.cli.instances" in found
    assert not any(m.startswith(("rich", "alembic", "proxy.simulator")) for m in found)
