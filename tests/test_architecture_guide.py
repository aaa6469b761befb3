"""What docs/new_implementation.md says of the rooms is what is there."""

import re

import pytest

from proxy.settings import ROOT

GUIDE = (ROOT / "docs" / "new_implementation.md").read_text()


def listed(room: str) -> set[str]:
    """The modules that the guide names in a room, from its line to the next room's."""
    found = re.search(rf"^  {room}/ +[A-Z]+ +(.*?)(?=^  [a-z]+[/*])", GUIDE, re.M | re.S)
    assert found is not None, f"the guide has no room {room}"
    return set(re.findall(r"[a-z_0-9]+", found[1]))


@pytest.mark.parametrize("room", ["core", "store", "runtime", "web"])
def test_the_guide_names_every_module_of_a_room(room):
    modules = {path.stem for path in (ROOT / "proxy" / room).glob("*.py")} - {"__init__"}
    # schemas* stands for all of them.
    missing = {name for name in modules - listed(room) if not name.startswith("schemas")}
    assert not missing


@pytest.mark.parametrize("room", ["core", "store", "runtime"])
def test_what_the_guide_names_is_there(room):
    modules = {path.stem for path in (ROOT / "proxy" / room).glob("*.py")}
    assert not listed(room) - modules
