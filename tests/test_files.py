"""What every file of the project has in common."""

from pathlib import Path

import pytest

from proxy.settings import ROOT

TESTED_ROOMS = ("core", "store", "runtime", "web", "web/ui", "cli", "server", "simulator")
MODULES = sorted(
    path.relative_to(ROOT / "proxy")
    for room in TESTED_ROOMS
    for path in (ROOT / "proxy" / room).glob("*.py")
    if path.name != "__init__.py"
)

NOT_OURS = ("__pycache__", "instance")
KINDS = (".py", ".md", ".toml", ".txt", ".ini", ".mako", ".yml", ".yaml", ".example", "")
FORBIDDEN = {
    "/work/": "a path of one machine",
    "TODO": "do it, or write down in CHANGELOG or docs that it is not done",
    "FIXME": "fix it",
}


def _ours(path):
    parts = path.relative_to(ROOT).parts
    hidden = [p for p in parts[:-1] if p.startswith(".") and p != ".ci"]
    return not hidden and not set(NOT_OURS) & set(parts) and path.suffix in KINDS


FILES = sorted(
    str(path.relative_to(ROOT))
    for path in ROOT.rglob("*")
    # `.env` is the operator's, and `.git` is a file in a linked worktree; this file has to
    # name what is forbidden.
    if path.is_file() and _ours(path) and path.name not in (".env", ".git")
    if path != Path(__file__)
)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_every_module_has_a_test_file_of_its_name(module):
    expected = ROOT / "tests" / module.parent / f"test_{module.name}"
    assert expected.is_file(), f"proxy/{module} has no {expected.relative_to(ROOT)}"


def test_no_file_holds_a_forbidden_word():
    for file in FILES:
        for number, line in enumerate((ROOT / file).read_text().splitlines(), start=1):
            for word, remedy in FORBIDDEN.items():
                assert word not in line, f"{file}:{number} has {word!r}: {remedy}"


def test_every_module_of_the_proxy_says_what_it_is_for():
    for file in (f for f in FILES if f.startswith("proxy/") and f.endswith(".py")):
        first_line = (ROOT / file).read_text().partition("\n")[0]
        assert first_line.startswith('"""'), f"{file} begins without a sentence about itself"
