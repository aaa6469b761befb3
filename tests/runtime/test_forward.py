import contextlib
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from proxy.core import breaker, contention, limiter
from proxy.core.breaker import ALONE_SECONDS
from proxy.core.contention import HUNGRY_SECONDS
from proxy.core.live import RETRY_SECONDS
from proxy.core.record import Trail
from proxy.core.refusal import SHARED_OUT
from proxy.core.routing import POLICIES
from proxy.core.types import Client, QuotaGroup
from proxy.core.verdict import MISCONFIGURED_REST_SECONDS, THROTTLED_REST_SECONDS
from proxy.errors import (
    BadRequest,
    ClientLeft,
    ModelNotAllowed,
    ModelNotFound,
    NoRoom,
    ProxyError,
    Saturated,
    Unavailable,
    UpstreamFailed,
    UpstreamTimeout,
)
from proxy.runtime import forward, waiting
from proxy.runtime.broken_stream import StreamBroken
from proxy.runtime.fairness import TELL_SECONDS, Fairness
from proxy.runtime.line import Line
from proxy.runtime.trip import Trip
from tests.builders import MODEL, call, config
from tests.runtime.world import (
    CACHED,
    COMPLETION,
    DONE,
    PROMPT,
    Clock,
    FakeAnswer,
    World,
    event,
    failed,
    ok,
    stream,
    token,
    unreachable,
)

A, B, C = (config(name, priority=number) for number, name in enumerate("abc"))
RESERVED = call().reserved_tokens
JSON = {"content-type": "application/json"}
ROBIN = "round_robin"
AS_RESERVED = ok(usage={"prompt_tokens": RESERVED})


def never_asked():
    raise AssertionError("this instance is not to be asked")


# Who is asked.


def test_the_first_by_the_policy_is_asked_and_nobody_else():
    world = World(B, A, b=never_asked)
    assert world.forward() == (200, ok().pieces[0])
    assert world.upstream.asked == ["a"]


@pytest.mark.parametrize(
    "trouble",
    [
        failed(500),
        failed(503, b"no healthy upstream"),
        failed(408),
        failed(429),
        failed(401),
        failed(403),
        failed(404),
        failed(302, location="https://elsewhere.example"),
        unreachable(),
        FakeAnswer(200, (b"half", unreachable("it broke off its answer")), JSON),
        FakeAnswer(200, (), JSON),  # an empty answer is none
        stream(unreachable("it broke off its answer")),
        stream(),
    ],
    ids=lambda trouble: str(getattr(trouble, "status", trouble)),
)
def test_what_another_could_do_better_is_asked_of_the_next(trouble):
    world = World(A, B, a=trouble, b=ok())
    assert world.forward(stream=True)[0] == 200
    assert world.upstream.asked == ["a", "b"]


def test_each_instance_is_asked_once_in_the_order_of_the_policy():
    world = World(C, B, A, a=failed(500), b=unreachable(), c=ok())
    world.forward()
    assert world.upstream.asked == ["a", "b", "c"]


def test_at_most_one_more_than_the_retry_count_of_the_first_is_asked():
    world = World(replace(A, retry_count=1), B, C, a=failed(500), b=failed(502, b"two"))
    assert world.forward() == (502, b"two")
    assert world.upstream.asked == ["a", "b"]


def test_a_retry_count_of_nothing_asks_one_only():
    world = World(replace(A, retry_count=0), B, a=failed(500, b"one"), b=never_asked)
    assert world.forward() == (500, b"one")


def test_the_retry_count_is_that_of_the_first_also_if_its_room_went_meanwhile(monkeypatch):
    first = replace(A, retry_count=0, max_tpm=RESERVED)
    world = World(first, B, C, policy="meddling", b=failed(500), c=never_asked)
    monkeypatch.setitem(POLICIES, "meddling", meddling(world, first))
    assert world.forward()[0] == 500
    assert world.upstream.asked == ["b"]


def test_one_that_does_not_answer_three_times_is_left_alone():
    world = World(A, B, a=unreachable())
    for _ in range(5):
        assert world.forward()[0] == 200
    assert world.upstream.asked == ["a", "b"] * 3 + ["b"] * 2
    world.upstream.answers["a"] = ok()
    world.clock.now += 1
    for _ in range(2):
        world.forward()
    assert world.upstream.asked[-2:] == ["a", "a"]


def test_that_the_gateway_lacks_what_it_needs_to_ask_is_no_fault_of_an_instance():
    ours = unreachable("the gateway can open no more connections (no files)", is_ours=True)
    world = World(A, B, a=ours, b=ours)
    for _ in range(4):
        with pytest.raises(
            Unavailable, match=r"The gateway can open no more .*\(no files\)"
        ) as e:
            world.forward()
        assert e.value.retry_after_seconds == 1
    for name in "ab":
        view = world.state.view(name)
        assert (view.breaker, view.last_error, view.totals["error_count"]) == (
            "closed",
            None,
            0,
        )
        assert view.totals["total_upstream_other_errors"] == 0
    assert world.upstream.asked.count("b") == 8  # once more, as what may pass
    world.upstream.answers["b"] = ok()  # over a connection that it kept
    assert world.forward()[0] == 200


def test_the_only_one_is_asked_once_more_when_it_fails():
    world = World(A, a=failed(500))
    world.upstream.answers["a"] = iter([failed(500), ok()]).__next__
    assert world.forward()[0] == 200
    assert world.upstream.asked == ["a", "a"]


def test_the_last_one_is_asked_once_more_when_all_fail():
    world = World(A, B, a=unreachable(), b=failed(503, b"no"))
    assert world.forward() == (503, b"no")
    assert world.upstream.asked == ["a", "b", "b"]


@pytest.mark.parametrize("last", [failed(401), failed(403), failed(429, retry_after="60")])
def test_what_may_pass_is_asked_once_more_whoever_came_last(last):
    world = World(A, B, a=failed(500), b=last)
    world.upstream.answers["a"] = iter([failed(500), ok()]).__next__
    assert world.forward()[0] == 200
    assert world.upstream.asked == ["a", "b", "a"]


@pytest.mark.parametrize(
    "first, told",
    [(failed(500), "of the last one: 500"), (unreachable(), "the connection was refused")],
)
def test_of_a_failure_and_a_limit_the_client_hears_of_the_failure(first, told):
    """It is nobody's limit that keeps it from an answer, and it need not wait for one."""
    one_more = replace(A, retry_count=1)
    world = World(one_more, B, a=first, b=failed(429, retry_after="60"))
    with pytest.raises(UpstreamFailed, match=told):
        world.forward()
    assert world.upstream.asked == ["a", "b"]


def test_a_prompt_that_an_instance_cannot_stand_is_tried_with_one_other():
    """Azure's `model_error` is mostly the prompt's doing."""
    poison = failed(500, b'{"error": {"code": "model_error", "message": "oh"}}')
    world = World(A, B, config("c"), a=poison, b=poison, c=ok())
    for _ in range(4):
        assert world.forward()[0] == 500
    assert world.upstream.asked == ["a", "b"] * 4
    assert world.state.view("a").breaker == "closed"
    for last in (failed(401), failed(404), failed(429)):
        told = World(A, B, a=poison, b=last)
        with pytest.raises(UpstreamFailed, match="of the last one: 500: oh"):
            told.forward()


@pytest.mark.parametrize("trouble", [failed(429), failed(401), failed(404), failed(400)])
def test_what_no_pause_would_mend_is_not_asked_once_more(trouble):
    world = World(A, a=trouble)
    with contextlib.suppress(ProxyError):
        world.forward()
    assert world.upstream.asked == ["a"]


def test_the_pause_before_is_within_the_calls_time():
    world = World(A, a=failed(500, b"no"), settings={"pause_seconds": (9.0, 9.0)})
    assert world.forward(ends_at=time.monotonic() + 5) == (500, b"no")
    assert world.upstream.asked == ["a"]


def test_a_client_that_leaves_during_the_pause_ends_it():
    line = Line()
    world = World(A, settings={"pause_seconds": (60.0, 60.0)})
    world.upstream.answers["a"] = lambda: line.cut() or failed(500)
    with pytest.raises(ClientLeft):
        world.forward(line=line)
    assert world.upstream.asked == ["a"]
    assert world.in_flight() == 0


def test_each_call_for_a_model_is_a_turn_of_its_own():
    world = World(A, B, policy="round_robin")
    for model in ("one", "one", "two", "one"):
        world.forward(model=model)
    assert world.upstream.asked == ["a", "b", "a", "a"]


def test_however_a_model_is_spelled_its_calls_take_turns():
    world = World(A, B, policy="round_robin")
    for model in ("gpt-4o", "GPT-4o", "Gpt-4O", "gpt-4O"):
        world.forward(model=model)
    assert world.upstream.asked == ["a", "b", "a", "b"]


@pytest.mark.parametrize("policy", ["round_robin", "weighted"])
def test_to_explain_who_would_be_asked_takes_nobodys_turn(policy):
    alone, watched = World(A, B, policy=policy), World(A, B, policy=policy)
    foreseen = []
    for _ in range(6):
        alone.forward()
        foreseen += [next(watched.gateway.explain(call()))[0].config.name for _ in range(3)][:1]
        watched.forward()
    assert foreseen == watched.upstream.asked == alone.upstream.asked
    assert set(foreseen) == {"a", "b"}


def test_workers_and_models_do_not_all_begin_with_the_same_instance():
    asked = Counter()
    for _ in range(40):
        world = World(A, B, policy="round_robin")
        world.gateway.start()
        world.forward()
        asked.update(world.upstream.asked)
    assert min(asked["a"], asked["b"]) > 0  # by luck in one of 5e11


def test_turns_of_models_that_clients_invent_are_not_kept_for_ever(monkeypatch):
    monkeypatch.setattr(forward, "MAX_TURNS", 3)
    world = World(A)
    for number in range(20):
        world.forward(model=f"model-{number}")
    assert len(world.gateway._turns) <= 4


def test_what_was_tried_is_noted_for_the_log():
    world = World(A, B, C, a=failed(429), b=unreachable(), c=failed(400))
    world.forward()
    assert world.tried == ["a:429", "b:unreachable", "c:400"]


def test_an_attempt_is_closed_before_the_next_is_made():
    seen = []
    world = World(A, B, a=failed(500))

    def look():
        seen.append((world.upstream.opened[0].closed, world.usage("a")["failed"]))
        return ok()

    world.upstream.answers["b"] = look
    world.forward()
    assert seen == [(1, 1)]


def test_the_deployments_name_and_the_instances_key_are_sent():
    a = replace(A, model_deployments={MODEL: "my deployment"}, api_key="its-own-key")
    world = World(a)
    world.forward(headers={"x-trace": "1"})
    (sent,) = world.upstream.sent
    assert sent.url == (
        "https://a.openai.azure.com/openai/deployments/my%20deployment/chat/completions"
        "?api-version=2024-10-21"
    )
    assert sent.headers == {"x-trace": "1", "api-key": "its-own-key"}
    assert (sent.method, sent.body) == ("POST", call().body)


# What the client did wrong.


@pytest.mark.parametrize("status", [400, 409, 413, 415, 422])
def test_the_clients_own_mistake_passes_at_once(status):
    world = World(A, B, a=failed(status, b"no"), b=never_asked)
    assert world.forward() == (status, b"no")


def test_the_clients_own_mistake_is_not_counted_against_the_instance():
    world = World(A, B, a=failed(400, b"no"))
    world.forward()
    view = world.state.view("a")
    assert (view.status, view.rests, view.last_error) == ("healthy", {}, None)
    assert view.totals["error_count"] == 0
    assert view.totals["total_upstream_400_errors"] == 1
    world.forward()
    assert world.upstream.asked == ["a", "a"]


def test_a_model_that_nobody_serves_is_unknown():
    world = World(replace(A, supported_models=("gpt-4o",)), a=never_asked)
    with pytest.raises(ModelNotFound, match="'gpt-5'") as caught:
        world.forward(model="gpt-5")
    assert (caught.value.status, caught.value.param) == (404, "model")


def test_a_model_that_only_disabled_instances_serve_is_not_unknown():
    world = World(replace(A, supported_models=("gpt-4o",), enabled=False), a=never_asked)
    with pytest.raises(Unavailable, match=r"No instance that serves 'gpt-4o' is in service\."):
        world.forward()


def test_a_model_that_is_served_only_by_who_serves_any_and_is_disabled_may_be_misspelt():
    world = World(
        replace(A, supported_models=("gpt-4o",)), replace(B, enabled=False), a=never_asked
    )
    with pytest.raises(Unavailable) as caught:
        world.forward(model="gpt-4p")
    assert caught.value.is_worth_retrying is False
    assert caught.value.message == (
        "No instance names the model 'gpt-4p', which may be misspelt, and those that serve any"
        " model are out of service."
    )


def test_a_disabled_instance_is_not_asked():
    world = World(replace(A, enabled=False), B, a=never_asked)
    world.forward()
    assert world.upstream.asked == ["b"]


def test_a_client_is_served_by_the_instances_it_may_use_and_by_no_other():
    world = World(A, B, C, a=never_asked, b=failed(500), c=ok())
    mine = Client("app", allowed_instances=("c", "b"))
    assert world.forward(client=mine) == (200, ok().pieces[0])
    assert world.upstream.asked == ["b", "c"]


def test_what_an_instance_keeps_it_alone_is_asked_for():
    world = World(A, B, C, a=never_asked, c=never_asked, b=failed(500))
    assert world.forward(homes=("b",))[0] == 500
    assert world.upstream.asked == ["b", "b"]


@pytest.mark.parametrize(
    "changes, kind, said",
    [
        ({"enabled": False}, Unavailable, "is out of service"),
        ({"supported_models": ("o3",)}, BadRequest, "does not serve 'gpt-4o'"),
    ],
)
def test_that_it_cannot_be_asked_is_told(changes, kind, said):
    world = World(A, replace(B, **changes), a=never_asked)
    with pytest.raises(kind, match=said):
        world.forward(homes=("b",))


def test_a_client_that_may_not_use_all_instances_is_not_told_what_others_serve():
    served, other = (
        replace(A, supported_models=("gpt-4o",)),
        replace(B, supported_models=("o3",)),
    )
    world = World(served, other, a=never_asked)
    mine = Client("app", allowed_instances=("b", "gone"))
    told = []
    for model in ("gpt-4o", "nobodys"):
        with pytest.raises(ModelNotAllowed) as caught:
            world.forward(client=mine, model=model)
        assert (caught.value.status, caught.value.param) == (403, "model")
        told.append(caught.value.message.replace(model, "MODEL"))
    assert told[0] == told[1]


def test_a_client_whose_instances_are_disabled_is_to_come_back():
    world = World(A, replace(B, enabled=False), a=never_asked)
    with pytest.raises(Unavailable, match=r"that this API key may use names .* out of service"):
        world.forward(client=Client("app", allowed_instances=("b",)))


def test_a_prompt_goes_only_to_those_who_accept_one_so_large():
    world = World(replace(A, max_input_tokens=99), replace(B, max_input_tokens=100))
    world.forward(prompt_tokens=99)
    world.forward(prompt_tokens=100)
    assert world.upstream.asked == ["a", "b"]


def test_a_prompt_larger_than_anybody_accepts_is_the_clients_mistake():
    world = World(replace(A, max_input_tokens=99), replace(B, max_input_tokens=100))
    with pytest.raises(BadRequest, match=r"about 101 tokens; .* at most 100 ") as caught:
        world.forward(prompt_tokens=101)
    assert caught.value.code == "context_length_exceeded"
    assert world.upstream.asked == []


# Who rests.


@pytest.mark.parametrize(
    "headers, seconds",
    [
        ({"retry_after": "7"}, 7.0),
        ({"retry_after_ms": "1500", "retry_after": "7"}, 1.5),
        ({}, THROTTLED_REST_SECONDS),
    ],
)
def test_a_throttled_instance_is_left_alone_for_as_long_as_it_asked(headers, seconds):
    world = World(A, B, a=failed(429, **headers), b=ok())
    world.forward()
    world.upstream.answers["a"] = ok()
    world.clock.now += seconds - 0.1
    world.forward()
    world.clock.now += 0.1
    world.forward()
    assert world.upstream.asked == ["a", "b", "b", "a"]


@pytest.mark.parametrize("status", [429, 403, 404])
def test_other_deployments_of_an_instance_go_on(status):
    names_both = replace(A, supported_models=("gpt-4o", "gpt-4o-mini"))
    world = World(names_both, B, a=failed(status), b=ok())
    world.forward(model="gpt-4o")
    world.upstream.answers["a"] = ok()
    world.forward(model="gpt-4o-mini")
    world.forward(model="gpt-4o")
    assert world.upstream.asked == ["a", "b", "a", "b"]


def test_a_refused_key_rests_all_deployments_of_the_instance():
    world = World(A, B, a=failed(401), b=ok())
    world.forward(model="gpt-4o")
    world.upstream.answers["a"] = ok()
    world.clock.now += MISCONFIGURED_REST_SECONDS - 1
    world.forward(model="gpt-4o-mini")
    world.clock.now += 1
    world.forward(model="gpt-4o")
    assert world.upstream.asked == ["a", "b", "b", "a"]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_our_wrong_key_or_deployment_is_never_shown_as_the_clients(status):
    named = config("a", supported_models=("GPT-4o",))
    world = World(named, a=failed(status, b"Access denied due to invalid subscription key"))
    for _ in range(2):  # asked, then resting
        with pytest.raises(UpstreamFailed, match="for the gateway's operator") as caught:
            world.forward()
        assert (caught.value.status, caught.value.code) == (502, "upstream_misconfigured")
        assert "Access denied" not in caught.value.message
    assert world.upstream.asked == ["a"]


REFUSED = failed(401), failed(403), failed(404)


@pytest.mark.parametrize("refused", REFUSED, ids=lambda answer: str(answer.status))
def test_when_all_refuse_the_gateway_one_request_now_and_then_finds_out_whether_still(refused):
    names = [replace(each, supported_models=(MODEL,)) for each in (A, B)]
    world = World(*names, a=refused, b=refused)
    for _ in range(3):
        for _ in range(5):
            with pytest.raises(UpstreamFailed, match="for the gateway's operator"):
                world.forward()
        world.clock.now += RETRY_SECONDS
    assert world.upstream.asked == ["a", "b"] * 3
    world.upstream.answers["b"] = ok()
    assert [world.forward()[0] for _ in range(3)] == [200] * 3
    assert world.upstream.asked[6:] == ["a", "b", "b", "b"]
    assert [world.state.view(name).status for name in "ab"] == ["misconfigured", "healthy"]


def test_what_is_at_its_limit_takes_the_gateway_again_too():
    world = World(A, a=failed(401))
    with pytest.raises(UpstreamFailed):
        world.forward()
    world.clock.now += RETRY_SECONDS
    world.upstream.answers["a"] = failed(429)
    with pytest.raises(NoRoom, match="1 rests"):
        world.forward()
    assert world.state.view("a").status == "rate_limited"


def test_what_answers_an_error_tells_nothing_of_whether_it_takes_the_gateway():
    world = World(A, a=failed(401))
    with pytest.raises(UpstreamFailed):
        world.forward()
    world.clock.now += RETRY_SECONDS
    world.upstream.answers["a"] = failed(400)
    assert world.forward()[0] == 400
    assert world.state.view("a").status == "misconfigured"


@pytest.mark.parametrize("trouble", [failed(500), failed(429, retry_after="1")])
def test_who_refuses_the_gateway_takes_no_turn_from_one_that_was_asked(trouble):
    first = replace(A, retry_count=1)
    world = World(first, B, b=failed(401), policy=ROBIN)
    world.forward()
    world.forward()
    assert world.upstream.asked == ["a", "b", "a"]
    world.clock.now += RETRY_SECONDS
    world.upstream.answers["a"] = iter([trouble, ok()]).__next__
    with contextlib.suppress(NoRoom):
        world.forward()
    assert "b" not in world.upstream.asked[3:]


def test_nor_is_it_asked_where_the_others_are_left_to_who_had_less():
    contested = Contested(A, B, b=failed(401), a=AS_RESERVED)
    contested.world.state.rest("a", contested.clock.now + 1)
    with pytest.raises(NoRoom):
        contested.world.forward(client=HEAVY)
    contested.clock.now += RETRY_SECONDS
    asked = len(contested.world.upstream.asked)
    contested.waits(LIGHT, barred=frozenset("b"))
    contested.had(HEAVY, 1000)
    with pytest.raises(NoRoom, match="left to other clients"):
        contested.world.forward(client=HEAVY)
    assert len(contested.world.upstream.asked) == asked


def test_of_one_that_was_tried_all_the_same_the_record_does_not_say_that_it_was_not():
    world = World(A, a=failed(401))
    with pytest.raises(UpstreamFailed):
        world.forward()
    world.clock.now += RETRY_SECONDS
    world.upstream.answers["a"] = ok()
    world.trail = Trail()
    world.forward()
    assert world.trail.passed_over == {}


def test_while_somebody_else_is_back_in_time_nobody_that_refuses_the_gateway_is_asked():
    world = World(A, B, a=failed(401), b=ok(), settings={"max_wait_seconds": 5.0})
    world.forward()
    world.clock.now += RETRY_SECONDS
    world.state.rest("b", world.clock.now + 4)
    with pytest.raises(Saturated):  # it would wait, but there is no place
        world.forward()
    assert world.upstream.asked == ["a", "b"]
    world.state.rest("b", world.clock.now + 6)
    with pytest.raises(NoRoom, match=r"1 rests\. 1 refuses"):
        world.forward()
    assert world.upstream.asked == ["a", "b", "a"]


def test_a_model_that_only_the_client_named_is_unknown_if_no_upstream_knows_it():
    world = World(A, B, a=failed(404), b=failed(404))
    for _ in range(2):
        with pytest.raises(ModelNotFound, match="'gpt-9'"):
            world.forward(model="gpt-9")
    assert world.upstream.asked == ["a", "b"] * 2
    # A client makes up names: that is nothing for the instance's operator.
    assert (world.state.view("a").status, world.state.view("a").rests) == ("healthy", {})


def test_a_model_that_an_instance_did_answer_is_none_that_a_client_made_up():
    world = World(A, B, a=ok(), b=ok())
    world.forward()
    world.upstream.answers["a"] = failed(404)
    assert world.forward()[0] == 200
    assert world.state.view("a").status == "misconfigured"


def test_a_model_that_one_config_names_is_none_that_a_client_made_up():
    world = World(replace(A, supported_models=(MODEL,)), B, a=ok(), b=failed(404), policy=ROBIN)
    assert [world.forward()[0] for _ in range(20)] == [200] * 20
    assert world.upstream.asked.count("b") == 1
    assert world.state.view("b").status == "misconfigured"


def test_who_does_not_know_a_made_up_model_costs_no_attempt():
    others = [config(name, priority=number) for number, name in enumerate("bcde")]
    a = replace(A, retry_count=0)
    world = World(a, *others, a=failed(404), b=failed(404), c=failed(404), d=ok())
    assert world.forward(model="gpt-9")[0] == 200


def test_one_who_does_not_know_a_made_up_model_is_not_waited_for():
    world = World(A, replace(B, max_tpm=1), a=failed(404), b=failed(429, retry_after="7"))
    with pytest.raises(NoRoom) as caught:
        world.forward(model="gpt-9")
    assert caught.value.retry_after_seconds > 0
    assert world.upstream.asked == ["a", "b"]


def test_of_a_refused_key_and_a_resting_instance_the_client_waits_for_the_latter():
    world = World(A, B, a=failed(429, retry_after="4"), b=failed(401))
    with pytest.raises(NoRoom) as caught:
        world.forward()
    assert caught.value.retry_after_seconds == 4.0


def test_answers_still_open_when_the_worker_ends_are_counted_as_they_stand():
    world = World(A, a=stream(token(), token(), DONE))
    attempt = world.attempt(stream=True, stream_options={"include_usage": True})
    pieces = iter(attempt)
    next(pieces)
    assert world.gateway.end_open(0.0) == 1
    counted = world.usage("a")
    assert (counted["requests"], counted["expired"], counted["lost"]) == (1, 1, 1)
    assert counted["completion_tokens"] == 1
    rest = list(pieces)  # its thread goes on, and counts nothing twice
    attempt.close()
    assert rest
    assert world.usage("a")["attempts"] == 1
    assert world.gateway.end_open(0.0) == 0


def test_a_call_that_waits_for_its_answer_when_the_worker_ends_is_lost():
    world = World(A)
    ended = []

    def answers():
        ended.append(world.gateway.end_open(0.0))
        return ok()

    world.upstream.answers["a"] = answers
    assert world.attempt().answer.status == 200  # its thread goes on, and counts nothing twice
    counted = world.usage("a")
    assert ended == [1]
    assert (counted["requests"], counted["expired"], counted["lost"]) == (1, 1, 1)
    assert counted["succeeded"] == 0


def test_its_client_is_told_that_the_worker_ends():
    world = World(A)
    asked, ended, line = threading.Event(), threading.Event(), Line()

    def answers():
        line.hold(ended.set)  # as its connection would
        asked.set()
        ended.wait(5)
        return unreachable("it broke off its answer")

    world.upstream.answers["a"] = answers
    with ThreadPoolExecutor(1) as pool:
        call_ = pool.submit(world.forward, line=line)
        asked.wait(5)
        assert world.gateway.end_open(5.0) == 1
        with pytest.raises(Unavailable, match="is being stopped or restarted"):
            call_.result(5)
    counted = world.usage("a")
    assert (counted["requests"], counted["expired"], counted["lost"]) == (1, 1, 1)
    assert world.state.view("a").totals["error_count"] == 0
    assert [tried.outcome for tried in world.trail.attempts] == ["expired"]


@contextlib.contextmanager
def one_that_waits(world):
    """A call that waits for room."""
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(world.forward)
        while not world.gateway.waiting.count:
            assert not waits.done()
        yield waits


def test_so_is_one_that_waits_for_room():
    world = patient(A, a=ok())
    world.state.rest("a", time.time() + 5)
    with one_that_waits(world) as waits:
        assert world.gateway.end_open(0.0) == 1
        with pytest.raises(Unavailable, match="is being stopped or restarted"):
            waits.result(5)
    assert world.upstream.asked == []


def test_one_that_waits_after_it_asked_somebody_is_counted_there():
    world = patient(A, a=failed(429, retry_after="4"))
    with one_that_waits(world) as waits:
        world.gateway.end_open(0.0)
        with pytest.raises(Unavailable, match="is being stopped or restarted"):
            waits.result(5)
    counted = world.usage("a")
    assert (counted["requests"], counted["throttled"], counted["lost"]) == (1, 1, 1)


def test_nobody_is_asked_once_more_by_a_worker_that_ends(monkeypatch):
    world = World(A, a=unreachable())
    end_open = world.gateway.end_open
    monkeypatch.setattr(world.gateway, "_pause", lambda *_: end_open(0.0) == 0)
    with pytest.raises(UpstreamFailed):
        world.forward()
    assert world.upstream.asked == ["a"]
    assert world.usage("a")["requests"] == 1


def test_nobody_is_asked_any_more_for_one_that_waited(monkeypatch):
    """It would begin when those that are open have been counted."""
    world = patient(A, a=ok())
    world.state.rest("a", time.time() + 5)
    with one_that_waits(world) as waits:
        close, rests = world.gateway.waiting.close, world.state._live("a").rests
        # There is room just then.
        monkeypatch.setattr(world.gateway.waiting, "close", lambda: (close(), rests.clear())[0])
        world.gateway.end_open(0.0)
        with pytest.raises(Unavailable, match="is being stopped or restarted"):
            waits.result(5)
    assert world.upstream.asked == []


def test_a_call_whose_client_left_before_the_worker_ended_is_not():
    world = World(A, a=stream(token(), DONE))
    attempt = world.attempt(stream=True)
    attempt.line.cut()  # its thread did not come to hear of it
    world.gateway.end_open(0.0)
    assert (world.usage("a")["aborted"], world.usage("a")["lost"]) == (1, 0)


def test_streams_that_are_open_when_the_worker_ends_end_with_an_error_their_clients_read():
    world = World(A, a=stream(token(), token(), DONE))
    attempt = world.attempt(stream=True)
    pieces = iter(attempt)
    next(pieces)
    got, ended = bytearray(), threading.Event()

    def go_on():
        ended.wait(5)
        with contextlib.suppress(StreamBroken):
            for piece in pieces:
                got.extend(piece)
        attempt.close()

    thread = threading.Thread(target=go_on)
    thread.start()
    # As its connection would, it wakes who waits for it.
    answer = world.upstream.opened[0]
    answer.left.clear()
    answer.left.append(unreachable("it broke off its answer"))
    attempt.line.hold(ended.set)
    assert world.gateway.end_open(5.0) == 1
    thread.join(5)
    assert b"the gateway is being stopped or restarted" in got
    counted = world.usage("a")
    assert (counted["requests"], counted["expired"], counted["lost"]) == (1, 1, 1)
    assert (counted["aborted"], counted["failed"]) == (0, 0)
    assert world.state.view("a").totals["error_count"] == 0


def test_what_begins_while_a_worker_ends_is_counted_too(monkeypatch):
    world = World(A, a=lambda: stream(token(), DONE))
    first, later = world.attempt(stream=True), []
    monkeypatch.setattr(
        forward.time, "sleep", lambda _: later.append(world.attempt(stream=True))
    )
    world.gateway._clock = lambda: 0.3 * len(later)
    assert world.gateway.end_open(0.5) == 1 + len(later) == 3
    assert world.usage("a")["requests"] == 3
    assert all(not attempt.settle() for attempt in (first, *later))


def test_one_that_is_broken_off_is_no_success_however_far_it_came():
    """Nobody knows how one without choices ends."""
    world = World(A, a=stream(event(text="so far"), event(text="more")))
    attempt = world.attempt(stream=True)
    attempt.break_off()
    pieces = iter(attempt)
    got = [next(pieces) for _ in range(3)]
    with pytest.raises(StreamBroken):
        next(pieces)
    attempt.close()
    assert b"the gateway is being stopped or restarted" in got[-1]
    assert world.usage("a")["expired"] == 1


@pytest.mark.parametrize(
    "last, outcome",
    [
        (event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}]), "succeeded"),
        (event(error={"message": "boom"}), "failed"),
        (DONE, "succeeded"),
    ],
)
def test_one_that_ended_by_itself_is_not_broken_off(last, outcome):
    world = World(A, a=stream(token(), last))
    attempt = world.attempt(stream=True)
    attempt.break_off()
    assert b"".join(attempt) == token() + last
    attempt.close()
    assert world.usage("a")[outcome] == 1
    assert attempt.trouble() in (None, "an error inside of its stream: boom")


def test_a_stream_that_ends_by_itself_when_the_worker_does_is_whole():
    world = World(A, a=stream(token(), DONE))
    attempt = world.attempt(stream=True)
    attempt.line.hold(lambda: [*attempt])
    assert world.gateway.end_open(0.0) == 0
    assert world.usage("a")["succeeded"] == 1


def test_when_all_rest_the_client_hears_when_the_first_is_back():
    world = World(A, B, a=failed(429, retry_after="30"), b=failed(429, retry_after="4"))
    with pytest.raises(NoRoom, match=r"'gpt-4o'.* 2 rest\.$") as caught:
        world.forward()
    assert caught.value.retry_after_seconds == 4.0
    world.clock.now += 1.5
    with pytest.raises(NoRoom) as caught:
        world.forward()
    assert caught.value.retry_after_seconds == 2.5
    assert world.upstream.asked == ["a", "b"]


def test_an_instance_to_be_mended_is_none_to_wait_for():
    world = World(A, B, a=failed(401), b=failed(429, retry_after="30"))
    said = r"1 rests\. 1 refuses the gateway, for its operator to mend\."
    with pytest.raises(NoRoom, match=said) as caught:
        world.forward()
    assert caught.value.retry_after_seconds == 30.0


def test_a_rest_of_no_time_is_the_shortest():
    world = World(A, a=failed(429, retry_after="0"))
    with pytest.raises(NoRoom) as caught:
        world.forward()
    assert caught.value.retry_after_seconds == pytest.approx(0.05)
    world.upstream.answers["a"] = ok()
    world.clock.now += 0.05
    assert world.forward()[0] == 200


def test_when_all_fail_the_client_hears_when_the_next_attempt_is():
    world = World(A, B, a=unreachable(), b=unreachable())
    for _ in range(3):
        with pytest.raises(UpstreamFailed):
            world.forward()
    world.clock.now += 0.1
    with pytest.raises(Unavailable, match=r"are failing\. .* in 0\.\d s") as caught:
        world.forward()
    assert caught.value.retry_after_seconds == pytest.approx(ALONE_SECONDS - 0.1)
    world.state.rest("b", world.clock.now + 50)
    with pytest.raises(NoRoom, match="1 rests, 1 is failing"):
        world.forward()


def test_an_outage_of_all_is_over_for_clients_when_it_is_over():
    world = World(A, B, a=unreachable(), b=unreachable())
    for _ in range(20):
        with contextlib.suppress(ProxyError):
            world.forward()
        world.clock.now += 5
    world.upstream.answers = {"a": ok(), "b": ok()}
    assert world.state.view("b").open_until > world.clock.now + 5
    assert world.forward()[0] == 200


def test_while_another_can_be_asked_nobody_asks_a_failing_one_before_its_time():
    world = World(A, B, a=unreachable())
    for _ in range(3):
        world.forward()
    world.clock.now += ALONE_SECONDS
    world.upstream.asked.clear()
    world.forward()
    assert world.upstream.asked == ["b"]
    world.upstream.answers |= {"a": ok(), "b": failed(500)}
    assert world.forward()[0] == 200
    assert world.upstream.asked == ["b", "b", "a"]


def test_one_that_has_room_soon_is_waited_for_rather_than_one_that_fails():
    world = patient(A, B, a=unreachable(), b=ok())
    for _ in range(3):
        world.forward()
    world.upstream.asked.clear()
    world.state.rest("b", time.time() + 0.5)
    assert world.forward()[0] == 200
    assert world.upstream.asked == ["b"]


def test_an_operators_rest_is_kept():
    world = World(A, B)
    world.state.rest("a", world.clock.now + 1000)
    world.forward()
    assert world.upstream.asked == ["b"]


# Who has room.


def test_who_has_no_tokens_left_this_minute_is_not_asked():
    world = World(replace(A, max_tpm=2 * RESERVED), B, a=AS_RESERVED)
    for _ in range(4):
        world.forward()
    assert world.upstream.asked == ["a", "a", "b", "b"]


def test_room_comes_back_when_a_minute_has_passed():
    world = World(replace(A, max_tpm=RESERVED), a=AS_RESERVED)
    world.clock.now += 0.25
    world.forward()
    world.clock.now += 10
    with pytest.raises(NoRoom, match=r"limit\. 1 has no room left") as caught:
        world.forward()
    assert caught.value.retry_after_seconds == 50.75  # all of its second is a minute old then
    world.clock.now += 50.74
    with pytest.raises(NoRoom):
        world.forward()
    world.clock.now += 0.01
    assert world.forward()[0] == 200


@pytest.mark.parametrize("unlimited", [{"max_tpm": 0}, {"rate_limit_enabled": False}])
def test_without_a_limit_there_is_always_room(unlimited):
    world = World(replace(A, **({"max_tpm": 1} | unlimited)))
    for _ in range(3):
        assert world.forward()[0] == 200


def test_a_request_larger_than_the_limit_goes_when_nothing_else_does():
    world = World(replace(A, max_tpm=100))
    assert world.forward(reserved_tokens=5000)[0] == 200
    with pytest.raises(NoRoom):
        world.forward(reserved_tokens=5000)
    world.clock.now += 61
    assert world.forward(reserved_tokens=5000)[0] == 200


def test_the_estimate_holds_the_room_until_the_real_usage_is_known():
    seen = []
    world = World(A)
    world.upstream.answers["a"] = lambda: seen.append(world.state.view("a")) or ok()
    world.forward()
    seen.append(world.state.view("a"))
    assert [v.current_tpm for v in seen] == [RESERVED, PROMPT + COMPLETION]
    assert [v.current_rpm for v in seen] == [1, 1]


def test_what_failed_gives_its_room_back_before_another_is_asked():
    """Where both draw from one quota, and once more where there is room for one only."""
    group = {"g": QuotaGroup("g", max_tpm=RESERVED)}
    a, b = replace(A, quota_group="g", max_tpm=0), replace(B, quota_group="g", max_tpm=0)
    world = World(a, b, a=failed(500), b=ok(), groups=group)
    assert world.forward()[0] == 200
    alone = World(replace(A, max_tpm=RESERVED))
    alone.upstream.answers["a"] = iter([failed(500), ok()]).__next__
    assert alone.forward()[0] == 200


def test_a_failure_is_known_before_the_pause():
    world = World(A, a=unreachable(), settings={"pause_seconds": (1.0, 1.0)})
    line = Line()
    with ThreadPoolExecutor(1) as pool:
        calls = pool.submit(world.forward, line)
        while not world.upstream.asked or not world.state.view("a").totals["error_count"]:
            pass
        assert not calls.done()
        line.cut()
        with pytest.raises(ClientLeft):
            calls.result(5)


def test_what_failed_gives_its_room_back():
    world = World(A, a=failed(500))
    world.forward()
    assert world.state.view("a").current_tpm == 0


def meddling(world, *taken):
    """A policy during which another thread takes the room of instances."""

    def order(pool, turn):
        for each in taken:
            world.state.start(limiter.serving(each, MODEL), call())
        return POLICIES["failover"](pool, turn)

    return order


def test_room_that_went_between_the_look_and_the_take_is_not_taken_twice(monkeypatch):
    a = replace(A, max_tpm=RESERVED)
    world = World(a, B, policy="meddling", a=never_asked)
    monkeypatch.setitem(POLICIES, "meddling", meddling(world, a))
    world.forward()
    assert world.upstream.asked == ["b"]
    assert world.state.view("a").current_tpm == RESERVED


def test_losing_the_last_room_to_another_thread_is_no_room(monkeypatch):
    a, b = replace(A, max_tpm=RESERVED), replace(B, max_tpm=RESERVED)
    world = World(a, b, policy="meddling", a=never_asked, b=never_asked)

    monkeypatch.setitem(POLICIES, "meddling", meddling(world, a, b))
    with pytest.raises(NoRoom) as caught:
        world.forward()
    assert caught.value.retry_after_seconds == 61


def test_of_many_threads_only_as_many_get_in_as_there_is_room_for():
    room, threads = 5, 32
    together = threading.Barrier(threads)
    refused = threading.Semaphore(0)
    leave = threading.Event()
    world = World(replace(A, max_tpm=room * RESERVED))
    world.upstream.answers["a"] = lambda: leave.wait(5) and ok()

    def one(_):
        together.wait()
        try:
            return world.forward()[0]
        except NoRoom as error:
            refused.release()
            return error.status

    with ThreadPoolExecutor(threads) as pool:
        results = pool.map(one, range(threads))
        for _ in range(threads - room):
            assert refused.acquire(timeout=5)
        assert world.state.view("a").current_tpm == room * RESERVED
        leave.set()
        assert sorted(results) == [200] * room + [429] * (threads - room)
    assert world.state.view("a").current_tpm == room * (PROMPT + COMPLETION)
    assert world.in_flight() == 0


# Waiting for room.


def patient(*configs, max_wait_seconds=5.0, waiting_places=10, **answers):
    """A world whose wall clock goes; calls wait in it."""
    settings = {"max_wait_seconds": max_wait_seconds, "waiting_places": waiting_places}
    return World(*configs, clock=time.time, settings=settings, **answers)


def test_a_call_waits_for_an_instance_that_will_be_back_soon():
    world = patient(A)
    world.state.rest("a", time.time() + 0.05)
    started = time.monotonic()
    assert world.forward()[0] == 200
    assert 0.02 < time.monotonic() - started < 4


def test_a_call_that_was_throttled_itself_waits_too():
    world = patient(A, B)
    for name in "ab":
        answers = iter([failed(429, retry_after_ms="60"), ok()])
        world.upstream.answers[name] = answers.__next__
    assert world.forward()[0] == 200
    assert world.upstream.asked[:2] == ["a", "b"]
    assert [world.usage(name)["attempts"] for name in ("a", "b", "")] in ([2, 1, 0], [1, 2, 0])
    assert sum(world.usage(name)["requests"] for name in ("a", "b", "")) == 1
    assert world.in_flight() == 0


def test_who_is_passed_over_while_the_call_waits_is_told_as_it_was_first():
    world = patient(A)
    answers = iter([failed(429, retry_after_ms="350"), ok()])
    world.upstream.answers["a"] = answers.__next__
    assert world.forward()[0] == 200
    reason, seconds = world.trail.passed_over["a"]
    assert (reason, seconds) == ("throttled", pytest.approx(0.35, abs=0.08))


def test_the_retry_count_bounds_the_attempts_after_the_wait_too():
    world = patient(replace(A, retry_count=1), a=failed(429, retry_after_ms="50"))
    with pytest.raises(NoRoom):
        world.forward()
    assert world.upstream.asked == ["a", "a"]


def test_a_call_does_not_wait_in_vain():
    world = patient(A, max_wait_seconds=0.5, a=failed(429, retry_after_ms="600"))
    for _ in range(2):
        started = time.monotonic()
        with pytest.raises(NoRoom) as caught:
            world.forward()
        assert time.monotonic() - started < 0.4
        assert caught.value.retry_after_seconds == pytest.approx(0.6, abs=0.2)
    assert world.upstream.asked == ["a"]


def test_a_call_waits_no_longer_than_its_own_time():
    world = patient(A, a=failed(429, retry_after_ms="2000"))
    for _ in range(2):
        with pytest.raises(NoRoom):
            world.forward(ends_at=time.monotonic() + 1)
    assert world.upstream.asked == ["a"]


def test_a_call_waits_for_tokens_that_another_gives_back():
    world = patient(replace(A, max_tpm=RESERVED))
    leave, began = threading.Event(), threading.Event()
    world.upstream.answers["a"] = lambda: began.set() or (leave.wait(5) and failed(400))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(world.forward)
        assert began.wait(5)
        world.upstream.answers["a"] = ok()
        second = pool.submit(world.forward)
        while not world.gateway.waiting.count and not second.done():
            pass
        leave.set()
        assert first.result(5)[0] == 400
        with pytest.raises(NoRoom):  # the room is there, but not within five seconds
            second.result(5)


def test_who_waits_hears_at_once_when_a_call_gives_its_room_back(monkeypatch):
    monkeypatch.setattr(waiting, "LOOK_SECONDS", 60.0)
    world = patient(replace(A, max_tpm=2 * RESERVED - 1), max_wait_seconds=100.0)
    world.upstream.answers["a"] = stream(token())
    first = world.attempt(stream=True)
    world.upstream.answers["a"] = ok()
    started, asked, line = world.state.start, [], Line()
    monkeypatch.setattr(
        world.state, "start", lambda *a, **k: asked.append(1) or started(*a, **k)
    )
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(world.forward, line)
        while len(asked) < 2:  # in its turn, and when it began to wait
            pass
        first.close()  # it used less than it had reserved
        try:
            assert second.result(5)[0] == 200
        finally:
            line.cut()


def test_a_client_that_leaves_waits_no_longer():
    world = patient(A)
    world.state.rest("a", time.time() + 3)
    line = Line()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(world.forward, line=line)
        while not world.gateway.waiting.count:
            pass
        line.cut()
        with pytest.raises(ClientLeft):
            waiting.result(1)
    assert world.upstream.asked == []


def test_who_comes_later_does_not_go_first():
    world = patient(A, B)
    for name in "ab":
        world.state.rest(name, time.time() + 0.3)
    order = []

    def ask(number):
        world.forward(request_id=str(number))
        order.append(number)

    with ThreadPoolExecutor(8) as pool:
        running = []
        for number in range(6):
            running.append(pool.submit(ask, number))
            while world.gateway.waiting.count < len(running):
                pass
        for each in running:
            each.result(5)
    assert order == sorted(order)
    assert len(world.upstream.asked) == 6


def test_after_the_wait_the_others_are_tried_too():
    world = patient(A, B, a=failed(500))
    for name in "ab":
        world.state.rest(name, time.time() + 0.05)
    assert world.forward()[0] == 200
    assert world.upstream.asked == ["a", "b"]


def test_a_call_that_failed_waits_for_another_that_will_be_back():
    world = patient(A, B, a=failed(500))
    world.state.rest("b", time.time() + 0.05)
    assert world.forward()[0] == 200
    assert world.upstream.asked == ["a", "b"]
    assert world.in_flight() == 0


def test_if_nobody_comes_back_in_time_the_one_that_failed_is_asked_once_more():
    world = patient(A, B, max_wait_seconds=0.5)
    answers = iter([failed(500), ok()])
    world.upstream.answers["a"] = answers.__next__
    world.state.rest("b", time.time() + 5)
    started = time.monotonic()
    assert world.forward()[0] == 200
    assert time.monotonic() - started < 0.4
    assert world.upstream.asked == ["a", "a"]


def test_one_that_waits_keeps_nobody_from_instances_that_its_client_may_not_use():
    world = patient(A, B)
    world.state.rest("b", time.time() + 0.5)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(world.forward, client=Client("app", allowed_instances=("b",)))
        while not world.gateway.waiting.count:
            pass
        assert world.forward()[0] == 200
        assert world.upstream.asked == ["a"]  # at once
        assert first.result(5)[0] == 200
    assert world.upstream.asked == ["a", "b"]


def test_one_that_waits_for_another_keeps_nobody_from_the_one_that_failed_it():
    world = patient(A, B, a=failed(500), b=ok())
    world.state.rest("b", time.time() + 0.5)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(world.forward)
        while not world.gateway.waiting.count:
            pass
        world.upstream.answers["a"] = ok()
        assert world.forward()[0] == 200
        assert world.upstream.asked == ["a", "a"]  # at once
        assert first.result(5)[0] == 200
    assert world.upstream.asked == ["a", "a", "b"]


def test_without_a_place_to_wait_the_client_is_told_to_come_back_at_once():
    world = patient(A, a=ok(), waiting_places=0)
    world.state.rest("a", time.time() + 1)
    with pytest.raises(Saturated) as caught:
        world.forward()
    assert caught.value.retry_after_seconds == 1
    world.state.rest("a", time.time() + 100)  # there is nothing to wait for
    with pytest.raises(NoRoom):
        world.forward()


def test_without_a_place_to_wait_nobody_goes_before_those_who_wait():
    world = patient(replace(A, max_tpm=10 * RESERVED), a=ok(), waiting_places=1)
    world.state.start(
        limiter.serving(world.configs[0], MODEL), call(reserved_tokens=2 * RESERVED)
    )
    line = Line()
    with ThreadPoolExecutor(1) as pool:
        # Its room is there in a minute; as if it were sooner, it stands there.
        stands = pool.submit(
            world.gateway.waiting.wait,
            MODEL,
            lambda _free: (None, 0.1),
            until=time.monotonic() + 5,
            line=line,
            waiter=waiting.Waiter(call().client.name),
        )
        while not world.gateway.waiting.count:
            pass
        with pytest.raises(Saturated):
            world.forward()
        line.cut()
        stands.result(5)
    assert world.upstream.asked == []


def test_who_waits_does_not_ask_again_and_again(monkeypatch):
    """Though one that fails might be asked at once if nobody else were back in time."""
    world = patient(A, B, a=unreachable(), b=ok())
    for _ in range(3):
        world.forward()
    world.state.rest("b", time.time() + 0.3)
    started, asked = world.state.start, []
    monkeypatch.setattr(
        world.state, "start", lambda *a, **k: asked.append(1) or started(*a, **k)
    )
    assert world.forward()[0] == 200
    assert len(asked) < 20


def test_without_a_place_to_wait_an_instance_that_is_free_is_asked():
    world = patient(A, B, a=failed(500), b=ok(), waiting_places=0)
    world.state.rest("b", time.time() + 1)
    world.upstream.answers["a"] = iter([failed(500), ok()]).__next__
    assert world.forward()[0] == 200
    assert world.upstream.asked == ["a", "a"]


def test_who_may_not_wait_does_not_stand_behind_those_who_do():
    world = patient(A, a=ok(), max_wait_seconds=0.0)
    world.gateway.waiting._enter(waiting._Place(call().model, waiting.ANYBODY))
    assert world.forward()[0] == 200


def test_the_waits_of_a_call_are_one_patience():
    world = patient(A, B, max_wait_seconds=0.3, a=failed(429, retry_after_ms="200"))
    world.state.rest("b", time.time() + 60)
    started = time.monotonic()
    with pytest.raises(NoRoom):
        world.forward()
    assert time.monotonic() - started < 2
    assert world.upstream.asked == ["a", "a"]


def test_who_waits_hears_at_once_when_an_instance_answers_again(monkeypatch):
    for wait in ("TRIAL_WAIT_SECONDS", "FIRST_OPEN_SECONDS", "ALONE_TRIAL_SECONDS"):
        monkeypatch.setattr(breaker, wait, 60.0)
    monkeypatch.setattr(waiting, "LOOK_SECONDS", 60.0)
    world = patient(A, max_wait_seconds=100.0, a=unreachable())
    for _ in range(3):
        world.alone().close()
    began, leave = threading.Event(), threading.Event()

    def answer():
        began.set()
        leave.wait(5)
        return stream(token(), DONE)

    world.upstream.answers["a"] = answer
    with ThreadPoolExecutor(2) as pool:
        trial = pool.submit(world.attempt, stream=True)
        assert began.wait(5)
        world.upstream.answers["a"] = ok()
        second = pool.submit(world.forward)
        while not world.gateway.waiting.count:
            pass
        leave.set()
        attempt = trial.result(2)  # open: its end frees nothing yet
        assert second.result(2)[0] == 200
        attempt.close()


def test_what_time_does_not_mend_is_not_waited_for():
    world = patient(A, a=failed(401))
    for _ in range(2):
        started = time.monotonic()
        with pytest.raises(UpstreamFailed):
            world.forward()
        assert time.monotonic() - started < 1


# Fairness among clients.

HEAVY, LIGHT = Client("heavy"), Client("light")


class Contested:
    """A world in which clients compete for the model, and the fairness that sees to it."""

    def __init__(self, *configs, **answers):
        self.clock = Clock()
        self.fairness = Fairness(clock=self.clock)
        settings = {"fairness": self.fairness}
        self.world = World(*configs, clock=self.clock, settings=settings, **answers)

    def waits(self, client, *, barred=frozenset(), short=False):
        """In another worker, say."""
        self.fairness.wait(MODEL, client.name, barred, short=short)

    def had(self, client, tokens):
        self.fairness.give(MODEL, client.name, tokens)

    @property
    def contention(self):
        """As it is now, and not as of the last look."""
        self.clock.now += TELL_SECONDS
        return self.world.gateway.contention(MODEL)


def test_who_had_more_leaves_room_to_one_that_is_hungry():
    contested = Contested(A)
    contested.waits(LIGHT)
    contested.had(HEAVY, 1000)
    with pytest.raises(NoRoom, match="left to other clients") as caught:
        contested.world.forward(client=HEAVY)
    assert caught.value.retry_after_seconds == 1.0
    assert contested.world.upstream.asked == []
    assert contested.world.forward(client=LIGHT)[0] == 200
    contested.clock.now += HUNGRY_SECONDS
    assert contested.world.forward(client=HEAVY)[0] == 200


def test_what_the_hungry_one_would_not_take_is_not_left_to_it():
    contested = Contested(A, B)
    contested.waits(LIGHT, barred=frozenset("b"))
    contested.had(HEAVY, 1000)
    assert contested.world.forward(client=HEAVY)[0] == 200
    assert contested.world.upstream.asked == ["b"]


def test_who_had_more_waits_until_the_hungry_one_is_so_no_longer(monkeypatch):
    monkeypatch.setattr(contention, "HUNGRY_SECONDS", 0.2)
    world = patient(A)
    fairness = world.gateway._fairness
    fairness.wait(MODEL, "light", frozenset(), short=False)
    fairness.give(MODEL, "heavy", 1000)
    started = time.monotonic()
    assert world.forward(client=HEAVY)[0] == 200
    assert 0.15 < time.monotonic() - started < 4


def test_one_that_was_refused_for_want_of_room_is_expected_back():
    contested = Contested(replace(A, max_tpm=RESERVED), a=AS_RESERVED)
    contested.world.forward(client=HEAVY)
    assert contested.contention is None
    with pytest.raises(NoRoom):
        contested.world.forward(client=LIGHT)
    assert contested.contention.short == {"light"}


@pytest.mark.parametrize("limits, short", [({"max_rpm": 6}, {"light"}), ({}, set())])
def test_one_that_waits_is_short_of_room_unless_instances_rest(limits, short):
    world, line = patient(replace(A, **limits), max_wait_seconds=100.0), Line()
    world.forward(client=HEAVY)
    if not limits:
        world.state.rest("a", time.time() + 50)
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(world.forward, line=line, client=LIGHT)
        while not world.gateway.contention(MODEL):
            pass
        seen = world.gateway.contention(MODEL)
        line.cut()
        with pytest.raises(ClientLeft):
            waits.result(5)
    assert (seen.wanting, seen.short) == ({"light"}, short)


def test_one_that_was_refused_because_all_rest_is_not_short_of_room():
    contested = Contested(A, a=failed(429, retry_after="5"))
    for _ in range(2):
        with pytest.raises(NoRoom):
            contested.world.forward(client=LIGHT)
    seen = contested.contention
    assert (seen.wanting, seen.short) == ({"light"}, frozenset())


def test_what_no_time_mends_makes_nobody_hungry():
    contested = Contested(replace(A, max_input_tokens=1))
    with pytest.raises(BadRequest):
        contested.world.forward(client=LIGHT)
    assert contested.contention is None


def test_one_that_found_no_place_to_wait_is_expected_back():
    world = patient(A, waiting_places=0, a=ok())
    world.state.rest("a", time.time() + 1)
    with pytest.raises(Saturated):
        world.forward(client=LIGHT)
    assert world.gateway.contention(MODEL).wanting == {"light"}


def test_a_client_had_what_its_calls_did_cost():
    contested, seen = Contested(A), []
    contested.waits(HEAVY)
    contested.world.upstream.answers["a"] = lambda: seen.append(contested.contention) or ok()
    contested.world.forward(client=LIGHT)
    seen.append(contested.contention)
    had = [each.had["light"] for each in seen]
    assert had == pytest.approx([RESERVED, PROMPT + COMPLETION], rel=0.05)


def test_where_requests_are_the_limit_each_counts_as_one():
    contested = Contested(replace(A, max_tpm=0, max_rpm=600))
    contested.waits(HEAVY)
    for _ in range(3):
        contested.world.forward(client=LIGHT)
    assert contested.contention.had["light"] == pytest.approx(3, rel=0.05)


@pytest.mark.parametrize("limits", [{"max_rpm": 600}, {"max_tpm": 10_000, "max_rpm": 600}])
def test_an_attempt_of_which_its_client_had_nothing_counts_as_nothing(limits):
    some = [replace(each, **{"max_tpm": 0} | limits) for each in (A, B)]
    contested = Contested(*some, a=failed(500), b=failed(500))
    contested.waits(HEAVY)
    contested.world.forward(client=LIGHT)
    assert contested.contention.had.get("light", 0.0) == 0.0
    contested.world.upstream.answers["b"] = ok()
    contested.world.forward(client=LIGHT)
    had = PROMPT + COMPLETION if "max_tpm" in limits else 1
    assert contested.contention.had["light"] == pytest.approx(had, rel=0.05)


def test_where_some_are_limited_by_requests_alone_all_is_counted_in_tokens():
    by_requests = replace(A, max_tpm=0, max_rpm=600)
    contested = Contested(by_requests, B)
    contested.waits(HEAVY)
    contested.world.forward(client=LIGHT)
    assert contested.world.upstream.asked == ["a"]
    had = contested.contention.had["light"]
    assert had == pytest.approx(PROMPT + COMPLETION, rel=0.05)


def test_while_another_is_short_of_room_it_is_handed_out_evenly():
    asked = []
    for client in (LIGHT, HEAVY):
        # Two seconds' part of the minute is less than a call.
        contested = Contested(replace(A, max_tpm=20 * RESERVED), a=AS_RESERVED)
        contested.waits(LIGHT, short=True)
        with contextlib.suppress(NoRoom):
            for _ in range(5):
                contested.world.forward(client=client)
        asked.append(len(contested.world.upstream.asked))
    assert asked == [5, 1]


def test_an_explanation_tells_that_room_is_handed_out_evenly():
    contested = Contested(replace(A, max_tpm=20 * RESERVED), a=AS_RESERVED)
    contested.waits(LIGHT, short=True)
    contested.world.forward(client=HEAVY)
    ((_, refusal),) = contested.world.gateway.explain(call(client=HEAVY))
    assert refusal.reason == SHARED_OUT


# What would happen.


def test_an_explanation_asks_nobody_and_takes_nothing():
    full = replace(B, max_tpm=RESERVED - 1)
    world = World(A, full, C, a=never_asked, b=never_asked, c=never_asked)
    world.state.rest("a", world.clock.now + 3.2)
    world.state.start(limiter.serving(full, MODEL), call())
    explained = list(world.gateway.explain(call()))
    assert [(s.config.name, r and r.reason) for s, r in explained] == [
        ("a", "operator"),
        ("b", "no room"),
        ("c", None),
    ]
    assert explained[0][1].wait_seconds == pytest.approx(3.2)
    assert explained[1][1].used_share == 1.0
    assert world.in_flight() == 1


# When nobody answers.


@pytest.mark.parametrize("status", [500, 502, 503, 408])
def test_the_last_ones_error_is_shown_if_nobody_does_better(status):
    world = World(A, B, a=unreachable(), b=failed(status, b"out of order"))
    assert world.forward() == (status, b"out of order")


def test_no_answer_at_all_is_a_502_that_names_no_host():
    world = World(A, B, a=unreachable(), b=unreachable("the connection was refused"))
    with pytest.raises(
        UpstreamFailed, match="of the last one: the connection was refused"
    ) as caught:
        world.forward()
    assert (caught.value.status, caught.value.code) == (502, "upstream_error")
    assert "azure.com" not in caught.value.message


def test_no_answer_in_time_is_a_504():
    world = World(A, a=unreachable("it timed out", timed_out=True))
    with pytest.raises(UpstreamTimeout):
        world.forward()


def test_a_redirect_is_no_answer_to_show():
    world = World(A, a=failed(302, b"<a href=...>", location="https://elsewhere.example"))
    with pytest.raises(UpstreamFailed, match="of the last one: it redirected elsewhere"):
        world.forward()


# What is counted.


def test_tokens_are_counted():
    world = World(A)
    world.forward()
    counted = world.usage("a")
    assert counted["prompt_tokens"] == PROMPT
    assert counted["completion_tokens"] == COMPLETION
    assert counted["cached_tokens"] == CACHED
    assert world.state.view("a").totals["total_tokens_served"] == PROMPT + COMPLETION


def test_a_request_counts_once_however_many_attempts_it_took():
    world = World(A, B, C, a=failed(500), b=failed(429), c=ok())
    world.forward()
    counted = [world.usage(name) for name in "abc"]
    assert [c["requests"] for c in counted] == [0, 0, 1]
    assert [c["attempts"] for c in counted] == [1, 1, 1]
    assert [c["failed"] + c["throttled"] + c["succeeded"] for c in counted] == [1, 1, 1]


@pytest.mark.parametrize("last", [failed(500), failed(401), failed(429), unreachable()])
def test_a_request_that_failed_everywhere_counts_once_at_the_last(last):
    world = World(A, B, a=failed(500), b=last)
    try:
        world.forward()
    except (NoRoom, UpstreamFailed):
        pass  # what the client hears is another test
    requests = [world.usage(name).get("requests", 0) for name in ("a", "b", "")]
    assert (sum(requests), requests[2]) == (1, 0)
    assert world.usage(world.upstream.asked[-1])["requests"] == 1
    assert world.in_flight() == 0


def test_a_request_that_found_no_instance_counts_at_no_other():
    world = World(A, a=never_asked)
    world.state.rest("a", world.clock.now + 10)
    with pytest.raises(NoRoom):
        world.forward()
    assert world.usage("a") == {}


@pytest.mark.parametrize(
    "answer, noted",
    [
        (failed(500, b'{"error": {"message": "out of order"}}'), "500: out of order"),
        (failed(302, b"moved"), "302: moved"),
        (failed(302), "302: it redirects elsewhere"),
        (unreachable("the connection was refused"), "the connection was refused"),
    ],
    ids=lambda value: str(getattr(value, "status", value)),
)
def test_what_went_wrong_is_noted_for_the_operator(answer, noted):
    world = World(A, B, a=answer)
    world.forward()
    view = world.state.view("a")
    assert (view.last_error, view.last_error_time) == (noted, world.clock.now)
    assert view.totals["error_count"] == 1


def test_that_a_client_is_shown_an_instances_failure_is_logged(logged):
    world = World(A, a=failed(500))
    assert world.forward()[0] == 500
    told = ("WARNING", "request-1 a: HTTP 500, and nobody else can serve it")
    assert told in logged
    logged.clear()
    world = World(A, a=failed(400))
    assert world.forward()[0] == 400  # it is the client's
    assert logged == []


def test_how_long_it_waited_is_told_too_of_one_that_lost_its_place(monkeypatch):
    world = patient(A, a=ok())
    world.state.rest("a", time.time() + 1)

    def lost(*_, **__):
        world.gateway._clock = lambda: time.monotonic() + 9
        raise waiting.Full

    monkeypatch.setattr(world.gateway.waiting, "wait", lost)
    with pytest.raises(Saturated):
        world.forward()
    assert world.trail.waited_seconds == pytest.approx(9, abs=0.5)


def test_what_is_tried_again_and_what_fails_is_logged(logged):
    world = World(A, B, a=failed(500), b=unreachable("the connection was refused"))
    with pytest.raises(UpstreamFailed):
        world.forward()
    assert logged == [
        ("INFO", "request-1 a: HTTP 500, trying another"),
        ("INFO", "request-1 b: the connection was refused, trying it once more"),
        ("WARNING", "request-1 b: the connection was refused, and nobody else can serve it"),
    ]


# Whatever happens, the room is given back.


def test_a_body_that_cannot_be_rewritten_gives_its_room_back():
    world = World(replace(A, provider_type="azure_v1"), a=never_asked)
    with pytest.raises(ValueError, match="expected"):
        world.forward(body=b"not an object", body_model="another")
    assert world.state.view("a").current_tpm == 0
    assert world.in_flight() == 0


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt, RuntimeError])
def test_an_error_nobody_foresaw_gives_the_room_back(error):
    def broken():
        raise error

    world = World(A, a=broken)
    with pytest.raises(error):
        world.forward()
    counted = world.usage("a")
    assert (counted["requests"], counted["lost"], counted["aborted"]) == (1, 1, 0)
    assert world.tried == ["a:failed"]
    assert world.state.view("a").current_tpm == 0
    assert world.in_flight() == 0


@pytest.mark.parametrize("answer", [ok, lambda: failed(500)])
def test_a_mistake_between_an_answer_and_the_next_counts_the_request_once(answer, monkeypatch):
    def broken(*_):
        raise RuntimeError

    world = World(A, config("b", priority=200), a=answer())
    monkeypatch.setattr(Trip, "note", broken)
    with pytest.raises(RuntimeError):
        world.forward()
    counted = world.usage("a")
    assert (counted["requests"], counted["lost"], counted["succeeded"]) == (1, 1, 0)
    assert world.state.view("a").breaker == "closed"
    assert world.in_flight() == 0


def test_a_stream_that_nobody_iterates_gives_its_room_back():
    world = World(A, a=stream(token(), token()))
    world.attempt(stream=True).close()
    assert world.in_flight() == 0


def test_workers_that_were_forked_from_one_process_draw_each_its_own():
    one, other = World(config("a")), World(config("a"))
    for world in (one, other):
        world.gateway._random.setstate(random.Random(1).getstate())
        world.gateway.start()
    assert one.gateway._random.random() != other.gateway._random.random()


def test_it_is_the_same_queue_however_a_model_is_spelt():
    contested = Contested(A)
    contested.waits(LIGHT)
    contested.had(HEAVY, 1000)
    with pytest.raises(NoRoom, match="left to other clients"):
        contested.world.forward(client=HEAVY, model=MODEL.upper())


# The config changes while a call is on its way.


def and_then(do, answer):
    """What an instance answers, when that has been done."""
    return lambda: do() or answer


def test_who_is_removed_while_another_is_asked_is_not_asked():
    world = World(A, config("b", priority=200))
    world.upstream.answers["a"] = and_then(lambda: world.configure(A), unreachable())
    with pytest.raises(UpstreamFailed):
        world.forward()
    assert world.upstream.asked == ["a", "a"]  # once more, for want of another


def test_who_is_disabled_is_not_asked_once_more():
    world = World(A)
    off = config("a", enabled=False)
    world.upstream.answers["a"] = and_then(lambda: world.configure(off), unreachable())
    with pytest.raises(UpstreamFailed):
        world.forward()
    assert world.upstream.asked == ["a"]
    counted = world.usage("a")
    assert (counted["requests"], counted["lost"]) == (1, 1)


def test_nor_who_is_disabled_during_the_pause_before_that(monkeypatch):
    world = World(A, a=unreachable())
    off = config("a", enabled=False)
    monkeypatch.setattr(world.gateway, "_pause", lambda *_: world.configure(off) or True)
    with pytest.raises(UpstreamFailed):
        world.forward()
    assert world.upstream.asked == ["a"]


def test_who_is_added_while_another_is_asked_is_asked():
    world = World(A)
    both = A, config("b", priority=200)
    world.upstream.answers |= {"b": ok()}
    world.upstream.answers["a"] = and_then(lambda: world.configure(*both), failed(429))
    assert world.forward()[0] == 200
    assert world.upstream.asked == ["a", "b"]


def test_what_is_changed_of_one_holds_for_calls_that_were_about_to_ask_it():
    moved = config("b", priority=200, api_base="https://elsewhere.example")
    world = World(A, config("b", priority=200))
    world.upstream.answers["a"] = and_then(lambda: world.configure(A, moved), unreachable())
    world.forward()
    assert world.upstream.sent[-1].url.startswith("https://elsewhere.example/")


def test_who_is_added_while_one_is_asked_that_fails_is_asked_without_a_wait():
    world = World(A, a=unreachable())
    for _ in range(20):
        with contextlib.suppress(ProxyError):
            world.forward()
        world.clock.now += 5
    world.upstream.asked.clear()
    world.upstream.answers |= {"b": ok()}
    world.upstream.answers["a"] = and_then(lambda: world.configure(A, B), unreachable())
    assert world.forward()[0] == 200
    assert world.upstream.asked == ["a", "b"]


def test_so_it_is_of_those_who_fail_and_are_asked_all_the_same():
    world = World(A, B, a=unreachable(), b=unreachable())
    for _ in range(20):
        with contextlib.suppress(ProxyError):
            world.forward()
        world.clock.now += 5
    asked = world.upstream.asked
    asked.clear()

    def remove_the_other():
        world.configure(*(each for each in (A, B) if each.name == asked[0]))

    broken = and_then(remove_the_other, unreachable())
    world.upstream.answers = {"a": broken, "b": broken}
    with pytest.raises(ProxyError):
        world.forward()
    assert len(set(asked)) == 1


@pytest.mark.parametrize(
    "configs, error",
    [
        ((), ModelNotFound),
        ((config("a", enabled=False),), Unavailable),
        ((config("c", supported_models=("another",)),), ModelNotFound),
    ],
)
def test_a_call_that_waits_for_who_is_gone_is_told_so_at_once(configs, error):
    world = patient(A, max_wait_seconds=60.0)
    world.state.rest("a", time.time() + 50)
    with one_that_waits(world) as waits:
        world.configure(*configs)
        with pytest.raises(error):
            waits.result(5)
    assert world.upstream.asked == []


@pytest.mark.parametrize(
    "configs", [(A, B), (config("a", max_rpm=0),)], ids=["one more", "no limit"]
)
def test_a_call_that_waits_has_what_an_operator_gives_it(configs):
    world = patient(config("a", max_rpm=1), max_wait_seconds=120.0)
    world.upstream.answers |= {"b": ok()}
    world.forward()
    with one_that_waits(world) as waits:
        world.configure(*configs)
        assert waits.result(5)[0] == 200
