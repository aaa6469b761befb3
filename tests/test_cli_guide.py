"""docs/cli.md lists every command with its options, and none that is not there."""

import re

import click
import pytest

from proxy import create_app
from proxy.settings import ROOT, load_settings
from tests.web.conftest import log_kept

TEXT = (ROOT / "docs" / "cli.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in TEXT.splitlines()
    if line.startswith("| `flask ")
]


def words(cell):
    """`flask keys add NAME` -> ("keys", "add")."""
    _, *rest = cell.strip("`").split()
    return tuple(word for word in rest if word.islower())


LIBRARYS = "openapi"  # flask-smorest adds it

GIVEN = {words(row[0]): row for row in ROWS}


def commands(group, before=()):
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*before, name))
        else:
            # One that is loaded later says what it takes when it is.
            loaded = command.make_context(name, [], resilient_parsing=True).command
            yield (*before, name), loaded


@pytest.fixture(scope="module")
def present():
    with log_kept():
        found = dict(commands(create_app(load_settings(environ={}, env_file=None)).cli))
    return {name: command for name, command in found.items() if name[0] != LIBRARYS}


def test_each_command_is_there_and_no_other(present):
    assert sorted(GIVEN) == sorted(present)


def test_each_has_its_options_and_no_other(present):
    def told(name):
        cell = GIVEN[name][1].lstrip("|").strip()
        if cell.startswith("as "):
            return told((*name[:-1], cell.removeprefix("as ").strip("`")))
        return re.findall(r"--[a-z-]+", cell)

    for name, command in present.items():
        options = [o for p in command.params for o in p.opts if o.startswith("--")]
        assert sorted(told(name)) == sorted(options), " ".join(name)


def test_each_command_says_what_it_does(present):
    assert [name for name, command in present.items() if not command.help] == []
