"""docs/security.md names tests; they have to be there."""

import re

import pytest

from proxy.settings import ROOT

TEXT = (ROOT / "docs" / "security.md").read_text()
ROWS = [line for line in TEXT.splitlines() if line.startswith("| ") and "attack" not in line]


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`?(tests/[\w/]+\.py)", TEXT))))
def test_what_it_names_is_there(path):
    assert (ROOT / path).is_file()


@pytest.mark.parametrize("row", ROWS)
def test_each_threat_has_a_defence_and_a_test(row):
    _, attack, defence, shown = [cell.strip() for cell in row.strip("|").split("|")]
    assert attack
    assert defence
    assert "tests/" in shown
