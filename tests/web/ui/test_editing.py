import re

import pytest

from proxy.errors import Conflict, NotFound, PreconditionFailed, Unprocessable
from proxy.web.ui.editing import Editor
from proxy.web.ui.forms import Field, Group

GROUPS = (Group("All", (Field("name", "Name"), Field("weight", "Weight", "number"))),)
THERE = {"name": "a", "weight": 100}


def present(name):
    if name != "a":
        raise NotFound(f"There is no {name!r}.")
    return dict(THERE), 3


EDITOR = Editor("instance", "Add one", GROUPS, {"name": "", "weight": 1}, present)


def previewed(after):
    return EDITOR.preview(after, EDITOR.written()).get_data(as_text=True)


@pytest.fixture
def asking(world):
    """A request of one of the pages, with a form of these fields."""

    def asking(name="", **sent):
        path = f"/?name={name}" if name else "/"
        return world.app.test_request_context(path, method="POST", data=sent)

    return asking


def test_a_new_one_begins_with_what_holds_where_nothing_is_said(asking):
    with asking("a"):  # whatever it asks for
        text = EDITOR.new().get_data(as_text=True)
    assert "<h1>Add one</h1>" in text
    assert 'action="/admin/ui/instance/preview"' in text
    assert 'href="/admin/ui/instances"' in text
    assert 'name="revision" value="0"' in text


def test_one_that_is_there_is_shown_as_it_is(asking):
    with asking("a"):
        text = EDITOR.edit().get_data(as_text=True)
    assert "<h1>Edit a</h1>" in text
    assert 'action="/admin/ui/instance/preview?name=a"' in text
    assert 'href="/admin/ui/instance?name=a"' in text
    assert 'name="revision" value="3"' in text
    assert 'value="100"' in text
    for name in ("b", ""):
        with asking(name), pytest.raises(NotFound):
            EDITOR.edit()


def test_written_is_what_is_other_than_shown(asking):
    with asking(name="", weight="1"):
        assert EDITOR.written() == {}
    with asking("a", revision="3", weight="7"):
        assert EDITOR.written() == {"weight": 7}


def test_of_one_that_is_there_something_must_be_other_and_not_its_name(asking):
    with asking("a", revision="3", weight="100"), pytest.raises(Unprocessable):
        EDITOR.written()
    with asking("a") as context:
        context.request.form = {"revision": "3", "name": "b", "weight": "100"}
        with pytest.raises(Unprocessable):
            EDITOR.written()


def test_of_another_revision_nothing_is_taken(asking):
    with asking("a", revision="2", weight="7"), pytest.raises(PreconditionFailed):
        EDITOR.written()
    with asking("a", revision="2", weight="7"), pytest.raises(PreconditionFailed):
        EDITOR.previewed()


def test_what_is_saved_was_previewed(asking):
    with asking("a", revision="3", weight="7"):
        text = previewed(THERE | {"weight": 7})
    assert "<del>100</del>" in text
    assert "<ins>7</ins>" in text
    assert 'hx-post="/admin/ui/instance/save?name=a"' in text
    seal = re.search(r'name="seal" value="(\w+)"', text)[1]
    with asking("a", revision="3", weight="7", seal=seal):
        assert EDITOR.previewed() == {"weight": 7}
    with asking("a", revision="3", weight="8", seal=seal), pytest.raises(Conflict):
        EDITOR.previewed()
    with asking("a", revision="3", weight="7"), pytest.raises(Conflict):
        EDITOR.previewed()


def test_the_preview_of_a_new_one_shows_all_of_it(asking):
    with asking(weight="7"):
        text = previewed({"name": "n", "weight": 7})
    assert "<ins>n</ins>" in text
    assert "<del>nothing</del>" in text
