import threading
from datetime import UTC, datetime

import pytest

from proxy.simulator import Received, Resource
from proxy.simulator.resource import REMEMBERED_REQUESTS
from proxy.simulator.wire import Headers


def received(path="/"):
    return Received("GET", path, {}, Headers([]), b"", datetime.now(UTC))


@pytest.mark.parametrize(
    "headers, accepted",
    [
        ([("api-key", "right")], True),
        ([("Authorization", "Bearer right")], True),
        ([("api-key", "wrong")], False),
        ([("api-key", "wrong"), ("Authorization", "Bearer right")], False),
        ([("Authorization", "Bearer ")], False),
        ([("api-key", "é")], False),
        ([], False),
    ],
)
def test_a_key_is_looked_for_in_two_places(headers, accepted):
    assert Resource("a", api_key="right").accepts(Headers(headers)) is accepted


def test_without_a_key_everybody_is_let_in():
    assert Resource("a").accepts(Headers([]))


def test_its_key_is_not_in_its_repr():
    assert "secret" not in repr(Resource("a", api_key="secret"))


@pytest.mark.parametrize("option", ["tokens_per_minute", "requests_per_minute", "tokens"])
def test_an_option_below_one_is_refused(option):
    with pytest.raises(ValueError, match=f"{option} of 'a' is 0; it starts at 1"):
        Resource("a", **{option: 0})


def test_limits_are_those_of_each_deployment():
    resource = Resource("a", tokens_per_minute=10)
    assert resource.admit("x", 10).limited_by is None
    assert resource.admit("x", 10).limited_by == "token"
    assert resource.admit("y", 10).limited_by is None


def test_it_remembers_the_newest_requests():
    resource = Resource("a")
    for number in range(REMEMBERED_REQUESTS + 2):
        resource.note(received(f"/{number}"))
    assert len(resource.requests) == REMEMBERED_REQUESTS
    assert resource.requests[0].path == "/2"


def test_waiting_ends_when_it_comes_true_and_when_time_is_up():
    resource = Resource("a")
    assert not resource.wait_for(lambda r: r.requests, timeout_seconds=0.01)
    timer = threading.Timer(0.02, resource.note, [received()])
    timer.start()
    assert resource.wait_for(lambda r: len(r.requests) == 1)
    timer.join()


def test_reset_forgets_what_happened():
    resource = Resource("a", requests_per_minute=1)
    resource.note(received())
    resource.note_abort()
    resource.faults["*"] = "500"
    resource.admit("x", 1)
    resource.reset()
    assert (resource.requests, resource.aborted, dict(resource.faults)) == ([], 0, {})
    assert resource.admit("x", 1).limited_by is None


@pytest.mark.parametrize(
    "headers, accepted",
    [
        ([("Authorization", "Bearer token-2")], True),
        ([("Authorization", "Bearer token-3")], False),
        ([("Authorization", "token-2")], False),
        ([("api-key", "token-2")], False),
        ([("api-key", "right")], True),
        ([], False),
    ],
)
def test_a_token_of_entra_id_is_as_good_as_the_key(headers, accepted):
    resource = Resource("a", api_key="right", access_tokens=["token-1", "token-2"])
    assert resource.accepts(Headers(headers)) is accepted


def test_a_resource_may_have_tokens_alone():
    resource = Resource("a", access_tokens=["token-1"])
    assert resource.accepts(Headers([("Authorization", "Bearer token-1")]))
    assert not resource.accepts(Headers([("Authorization", "Bearer token-2")]))
    assert not resource.accepts(Headers([]))
    assert "token-1" not in repr(resource)
