import pytest

from proxy import errors
from proxy.web import openai
from proxy.web.counting import why


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
    counted = list(world.parts.state.take().usage.values())
    assert sum(c["requests"] for c in counted) == 1
    assert sum(c[counter] for c in counted) == 1
    assert sum(c["succeeded"] for c in counted) == 0


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
