"""docs/clients.md: what it tells people to type does what it says."""

import re
import shlex

import pytest

from proxy.core.key_format import mistake
from proxy.settings import ROOT
from proxy.store.keys import FIELDS
from tests.web.conftest import ADMIN_KEY

GUIDE = (ROOT / "docs" / "clients.md").read_text()
BLOCKS = re.findall(r"^```\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
COMMANDS = [
    shlex.split(command)
    for block in BLOCKS
    for command in re.split(r"\n(?=curl |\.venv/)", block.replace("\\\n", " ").strip())
]
ORIGIN = "http://localhost:8000"


@pytest.fixture
def run(world):
    """A function that does what a shell would; it gives what is printed."""
    world.add("east-us")

    def flask(*arguments):
        result = world.app.test_cli_runner().invoke(args=arguments)
        assert result.exit_code == 0, result.stderr
        return result.stdout

    def curl(*words):
        words = list(words)
        method, data, headers = "GET", None, {}
        while words:
            word = words.pop(0)
            if word == "-X":
                method = words.pop(0)
            elif word == "-d":
                data = words.pop(0)
            elif word == "-H":
                name, _, value = words.pop(0).partition(": ")
                headers[name] = value.replace("your-admin-api-key", ADMIN_KEY)
            else:
                path = word.removeprefix(ORIGIN)
        answer = world.client.open(path, method=method, headers=headers, data=data)
        assert answer.status_code < 300, answer.text
        return answer.get_json() if answer.data else None

    return lambda program, *words: (curl if program == "curl" else flask)(*words)


def test_every_example_works_in_its_order(run):
    told = [run(*command) for command in COMMANDS]
    assert len(told) == 14
    (by_command, by_api) = told[0].strip(), told[1]["key"]
    assert mistake(by_command) is mistake(by_api) is None
    assert by_api not in str(told[2:])
    (crawler,) = [c for c in told[7]["keys"] if c["name"] == "crawler"]
    assert crawler["allowed_networks"] == ["10.20.0.0/16", "10.30.0.0/16"]
    assert told[8]["max_rpm"] == 300


def test_every_field_is_explained():
    rows = re.findall(r"^\| (`.*?) \|", GUIDE, re.MULTILINE)
    named = {n for row in rows for n in re.findall(r"`([a-z_]+)`", row)}
    shortened = {"max_tokens_per_month", "max_cost_per_month"}  # "…_month"
    assert set(FIELDS) - {"name"} - shortened <= named
