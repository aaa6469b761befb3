from collections import Counter

import pytest

from proxy import errors
from proxy.store import usage
from proxy.web import openai
from proxy.web.counting import why
from tests.web.conftest import CHAT


@pytest.mark.parametrize(
    "error, expected",
    [
        (errors.BadRequest, "mistaken"),
        (errors.Unauthorized, "mistaken"),
        (errors.ModelNotFound, "mistaken"),
        (errors.TooLarge, "mistaken"),
        (errors.LimitReached, "limited"),
        (errors.BudgetSpent, "limited"),
        (errors.NoRoom, "refused"),
        (errors.Saturated, "refused"),
        (errors.Unavailable, "refused"),
        (errors.UpstreamFailed, "refused"),  # the instances refuse the gateway
        (errors.ClientLeft, "abandoned"),
        (errors.RequestTimeout, "abandoned"),  # its body did not come in time
        (RuntimeError, "refused"),  # a mistake of ours
    ],
)
def test_who_is_at_fault(error, expected):
    assert why(error("why")) == expected


@pytest.mark.parametrize(
    "where, counter",
    [
        ("call_of", "refused"),  # before anybody was asked
        ("_response", "lost"),  # the answer was there
    ],
)
def test_a_500_of_our_own_is_an_error_of_one_request(where, counter, world, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError

    world.add("a")
    monkeypatch.setitem(world.app.config, "PROPAGATE_EXCEPTIONS", False)
    monkeypatch.setattr(f"proxy.web.openai.{where}", broken)
    assert world.ask().status_code == 500
    counted = [Counter(each) for each in world.parts.state.take().usage.values()]
    assert sum(c["requests"] for c in counted) == 1
    assert sum(c[counter] for c in counted) == 1
    assert sum(c["succeeded"] for c in counted) == 0


def kept(world):
    """Requests by the name of their model."""
    world.parts.syncer.sync()
    with world.parts.database.read() as connection:
        found = usage.totals(connection)
    sums = Counter()
    for (_, model, _), counts in found.items():
        sums[model] += counts["requests"]
    return sums


def test_names_that_clients_invent_are_counted_together(world):
    """Neither a limit of the key nor an instance that would serve any model keeps them."""
    world.add("a", supported_models=[])
    world.client_key = world.add_client("small", max_rpm=1)
    world.ask(CHAT | {"model": "real"})
    for number in range(3):
        world.ask(CHAT | {"model": f"made-up-{number}"})
    world.ask(CHAT | {"model": "real"})
    assert kept(world) == {"real": 2, "": 3}


def test_a_model_is_counted_in_the_configs_spelling(world):
    world.add("a", supported_models=["mini"])
    for model in ("MINI", "mini"):
        assert world.ask(CHAT | {"model": model}).status_code == 200
    world.admin("PATCH", "/a/config", json={"enabled": False})
    assert world.ask(CHAT | {"model": "Mini"}).status_code == 503
    assert kept(world) == {"mini": 3}


def test_times_count_from_the_requests_beginning(world, monkeypatch):
    """And not from when it had been read, or from the attempt that succeeded."""
    world.add("a")
    call_of = openai.call_of

    def late(*args, began_at, **more):
        return call_of(*args, began_at=began_at - 7, **more)

    monkeypatch.setattr(openai, "call_of", late)
    world.ask()
    (counts,) = world.parts.state.take().usage.values()
    assert counts["first_byte_upto_10000_ms"] == counts["latency_upto_10000_ms"] == 1
