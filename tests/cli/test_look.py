import logging
from contextlib import suppress

import pytest

from proxy import create_app
from proxy.cli import look
from proxy.context import parts
from proxy.errors import NotFound
from proxy.store import instances
from tests.builders import AUTHOR, config
from tests.web.conftest import log_kept


@pytest.fixture
def app(make_settings):
    with log_kept():
        app = create_app(make_settings())
    with app.app_context():
        yield app
        parts().database.dispose()


@pytest.fixture
def add(app, database):
    def add(*configs):
        with database.session() as session:
            instances.add(session, configs, author=AUTHOR)

    return add


def test_a_look_sees_what_others_wrote_and_who_is_asked_first_comes_first(add):
    add(config("b"), config("c", priority=1), config("a"))
    look.look()
    assert [found.config.name for found in look.in_order()] == ["c", "a", "b"]
    add(config("d", priority=0))
    look.look()
    assert look.in_order()[0] is look.stored("d")


def test_who_is_not_there_is_named(add):
    look.look()
    with pytest.raises(NotFound, match="There is no instance named 'east'") as refused:
        look.stored("east")
    assert refused.value.code == "instance_not_found"


def test_nothing_is_logged_during_a_look_and_as_much_as_before_after_it(app):
    before = look.LOGGER.level
    with suppress(NotFound), look.without_log():
        assert not look.LOGGER.isEnabledFor(logging.ERROR)
        look.stored("east")
    assert look.LOGGER.level == before


def test_tokens_are_needed_for_those_in_service_that_are_asked_with_one(add):
    add(config("a"), config("b", auth="entra", api_key="", enabled=False))
    look.look()
    assert not look.needs_token()
    add(config("c", auth="entra", api_key=""))
    look.look()
    assert look.needs_token()


def test_a_gateway_that_runs_may_say_that_it_has_no_token(add):
    add(config("a"), config("b", auth="entra", api_key=""))
    look.look()
    look.note_heard({"lacks_token": True})
    assert look.standing_of(look.stored("b")).reason.endswith(f"{look.LACK}.")
    assert look.standing_of(look.stored("a")).reason == ""


def test_an_instance_is_shown_as_the_admin_api_does_with_how_it_stands(add):
    add(config("a", api_key="planted-key-3f2a"))
    look.look()
    shown = look.seen(look.stored("a"), now=0.0)
    assert shown["config"]["api_key"] == "***3f2a"
    assert shown["standing"] == {
        "status": "healthy",
        "reason": "",
        "seconds_left": None,
        "deployments": [],
        "text": "",
    }


def test_what_asks_upstreams_is_ended_with_the_asking(app, monkeypatch):
    told = []
    mine = parts()
    for part, name in ((mine.tokens, "start"), (mine.upstream, "close"), (mine.tokens, "stop")):
        monkeypatch.setattr(part, name, lambda name=name: told.append(name))
    with suppress(NotFound), look.asking():
        assert told == ["start"]
        look.stored("east")
    assert told == ["start", "close", "stop"]
