import re

import pytest

from tests.web.conftest import CHAT
from tests.web.ui.conftest import FRAGMENT


@pytest.fixture
def asked(world):
    """Two requests, of which one was sent on from an instance that failed; their ids."""
    world.add("a", priority=1, supported_models=["gpt-4o"])
    world.add("b", priority=2, supported_models=["gpt-4o", "o3"])
    world.simulator["a"].faults["*"] = "500"
    ids = []
    for model in ("gpt-4o", "o3"):
        answer = world.ask(CHAT | {"model": model})
        ids.append(answer.headers["x-request-id"])
    world.parts.log_writer.stop()  # all is written down
    return ids


def test_the_newest_requests_are_shown_with_whom_they_asked(asked, admin):
    text = admin.get("requests").text
    assert text.index(asked[1]) < text.index(asked[0])
    row = text[text.index(asked[0]) :]
    assert re.search(
        r'a <span class="muted">500</span>\s*<span class="muted">then</span>\s*b', row
    )


@pytest.mark.parametrize(
    "query, found",
    [
        ("model=o3", 1),
        ("instance=a", 1),
        ("client=app", 2),
        ("outcome=refused", 0),
        ("model=", 2),
    ],
)
def test_filters_leave_those_that_match(asked, admin, query, found):
    assert admin.get(f"live/requests?{query}").text.count("request?id=") == found


def test_each_has_a_story(asked, admin):
    text = admin.get(f"request?id={asked[0]}").text
    assert re.search(
        r"a \(deployment gpt-4o\) was asked: it answered 500 .* the next was tried", text
    )
    assert re.search(r"b \(deployment gpt-4o\) was asked: it answered 200", text)


def test_who_just_asked_is_told_when_it_is_written_down(asked, admin):
    story = admin.get(f"request/story?id={asked[1]}", headers=FRAGMENT)
    assert "b (deployment o3) was asked" in story.text
    assert admin.get("request/story?id=nothing", headers=FRAGMENT).status_code == 204
    assert admin.get("request?id=nothing").status_code == 404


def test_what_nobody_was_asked_for_is_shown_too(world, admin):
    """It has no first byte and no tokens."""
    world.add("a", supported_models=["gpt-4o"])
    refused = world.ask(CHAT | {"model": "made-up"}).headers["x-request-id"]
    unread = world.ask(b"{").headers["x-request-id"]
    world.parts.log_writer.stop()
    text = admin.get("live/requests?outcome=refused").text
    assert refused in text
    assert unread in text
    page = admin.get(f"request?id={refused}").text
    assert "No instance was asked." in page
    assert "The client got 404 (model_not_found)" in page
