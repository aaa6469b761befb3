import time

import pytest

from tests.web.conftest import ADMIN, CHAT


def explained(world, body=CHAT):
    answer = world.client.post("/admin/explain", json=body, headers=ADMIN)
    assert answer.status_code == 200, answer.text
    return answer.get_json()


def rows(explanation):
    return {row["name"]: row for row in explanation["instances"]}


def test_it_says_who_would_be_asked_in_which_order(world):
    world.add("b", priority=2)
    world.add("a", priority=1, model_deployments={"gpt-4o": "mine"})
    shown = explained(world)
    assert (shown["model"], shown["endpoint"]) == ("gpt-4o", "chat/completions")
    assert (shown["policy"], shown["order"]) == ("failover", ["a", "b"])
    assert [row["name"] for row in shown["instances"]] == ["a", "b"]
    assert rows(shown)["a"] == {
        "name": "a",
        "deployment": "mine",
        "priority": 1,
        "weight": 100,
        "in_flight": 0,
        "first_byte_ms": None,
        "used_percentage": 0.0,
        "asked": True,
        "reason": None,
        "wait_seconds": None,
        "why": "it may be asked",
    }
    assert shown["reserved_tokens"] == shown["prompt_tokens"] + 16


def test_one_that_refuses_the_gateway_is_tried_where_nobody_else_can_be_asked(world):
    world.add("a")
    world.simulator["a"].faults["*"] = "401"
    world.ask(CHAT)
    why = rows(explained(world))["a"]["why"]
    assert why.startswith("it rests (misconfigured), ")
    assert "; tried in " in why
    assert why.endswith(" s if nobody else can be asked")


def test_of_one_that_failed_it_says_that_one_request_is_to_find_out(world):
    world.add("a")
    world.simulator["a"].faults["*"] = "break-before-head"
    for _ in range(3):
        world.ask(CHAT)
    assert not rows(explained(world))["a"]["asked"]
    world.parts.state._clock = lambda: time.time() + 30
    row = rows(explained(world))["a"]
    assert row["asked"]
    assert row["why"] == "it failed; one request tries now whether it is well again"


def test_it_says_who_is_left_out_and_why(world):
    world.add("a", priority=1)
    world.add("b", priority=2, max_tpm=20)
    world.admin("PUT", "/a/state", json={"rate_limited_until": time.time() + 30})
    world.ask(CHAT)  # fills b
    shown = explained(world)
    assert shown["order"] == []
    a, b = rows(shown)["a"], rows(shown)["b"]
    assert (a["asked"], a["reason"]) == (False, "operator")
    assert a["why"].startswith("it rests (operator), ")
    assert 28 < a["wait_seconds"] <= 30
    assert (b["reason"], b["used_percentage"]) == ("no room", 100 * 23 / 20)
    assert b["why"].startswith("115 % of max_tpm 20 is used; room in ")


def test_it_says_of_a_call_that_it_is_larger_than_a_limit(world):
    world.add("a", max_tpm=20)
    world.ask(CHAT)
    (shown,) = rows(explained(world, CHAT | {"max_tokens": 300})).values()
    assert "is used; the call may need more than all of it; room in" in shown["why"]


def test_it_says_who_fails_and_for_whom_the_prompt_is_too_long(world):
    world.add("a")
    world.add("b", max_input_tokens=1)
    world.simulator["a"].faults["*"] = "break-before-head"
    for _ in range(2):
        world.ask(CHAT)
    shown = rows(explained(world))
    assert shown["a"]["reason"] == "failing"
    assert shown["a"]["why"].startswith("it failed; the next attempt at it is in ")
    assert shown["b"]["why"] == "the prompt is longer than max_input_tokens 1"


def test_where_nobody_wants_more_than_it_gets_no_client_competes(world):
    world.add("a")
    world.ask(CHAT)
    assert explained(world)["clients"] == []


def test_it_says_which_clients_compete_and_who_leaves_room_to_whom(world):
    world.add("a", max_tpm=200)
    fairness = world.parts.forward._fairness
    fairness.wait("gpt-4o", "light", frozenset(), short=True)
    fairness.give("gpt-4o", "heavy", 90)
    fairness.give("gpt-4o", "light", 10)
    assert world.ask(CHAT).status_code == 200  # more than the part of two seconds
    shown = explained(world)
    heavy, light = shown["clients"][0], shown["clients"][-1]
    assert heavy == {
        "name": "heavy",
        "share_percentage": pytest.approx(80, abs=12),
        "wants_more": False,
        "held_back": True,
    }
    assert (light["name"], light["wants_more"], light["held_back"]) == ("light", True, False)
    (row,) = shown["instances"]
    assert row["reason"] == "room shared out evenly"
    assert row["why"].startswith("other clients want more, so that max_tpm 200 is handed out")


def test_nobody_is_asked_and_nothing_is_counted(world):
    world.add("a")
    explained(world)
    assert world.asked() == (0, 0)
    assert world.state()["total_requests"] == 0
    assert world.state()["current_rpm"] == 0


@pytest.mark.parametrize(
    "fields, endpoint",
    [
        ({"messages": []}, "chat/completions"),
        ({"prompt": "Hi"}, "completions"),
        ({"input": "Hi"}, "embeddings"),
    ],
)
def test_the_operation_is_that_whose_prompt_the_body_has(fields, endpoint, world):
    world.add("a")
    assert explained(world, {"model": "gpt-4o", **fields})["endpoint"] == endpoint


@pytest.mark.parametrize(
    "body, status, said",
    [
        ([], 422, "JSON object"),
        ({"messages": []}, 400, "model: the field is missing"),
        ({"model": "gpt-5", "messages": []}, 404, "'gpt-5'"),
    ],
)
def test_what_cannot_be_explained_is_said(body, status, said, world):
    world.add("a", supported_models=["gpt-4o"])
    answer = world.client.post("/admin/explain", json=body, headers=ADMIN)
    assert answer.status_code == status
    assert said in answer.get_json()["error"]["message"]


@pytest.mark.parametrize("depth", [200, 300, 1_020, 5_000])
def test_a_body_may_be_nested_as_deep_as_for_a_call(depth, world):
    world.add("a")
    body = '{"model": "gpt-4o", "messages": ' + "[" * depth + "]" * depth + "}"
    answer = world.client.post("/admin/explain", data=body, headers=ADMIN)
    assert answer.status_code == (200 if depth < 1_024 else 400)


def test_it_needs_the_admin_key(world):
    assert world.client.post("/admin/explain", json=CHAT).status_code == 401


# Of one client.


def explained_of(world, name, body=CHAT):
    answer = world.client.post(f"/admin/explain?client={name}", json=body, headers=ADMIN)
    assert answer.status_code == 200, answer.text
    return answer.get_json()


def test_a_client_without_limits_may_make_any_call(world):
    world.add("a")
    assert explained(world)["client"] is None
    assert explained_of(world, "app")["client"] == {
        "name": "app",
        "let_in": True,
        "reason": None,
        "wait_seconds": None,
        "why": "it may make this call",
    }


def test_it_says_which_limit_of_a_client_is_reached_and_for_how_long(world):
    world.add("a")
    key = world.add_client("busy", max_rpm=1)
    assert explained_of(world, "busy")["client"]["let_in"] is True
    assert world.ask(CHAT, headers={"api-key": key}).status_code == 200
    told = explained_of(world, "busy")["client"]
    assert (told["let_in"], told["reason"]) == (False, "max_rpm")
    assert 50 < told["wait_seconds"] <= 61
    assert told["why"].startswith("This key may make 1 request a minute (max_rpm), and made 1.")


def test_it_says_what_can_never_be_and_what_is_not_allowed(world):
    world.add("a")
    world.add_client("small", max_tpm=10)
    world.add_client("other", allowed_models=["o1*"])
    world.add_client("closed", enabled=False)
    small, other, closed = (
        explained_of(world, n)["client"] for n in ("small", "other", "closed")
    )
    assert (small["reason"], small["wait_seconds"]) == ("max_tpm", None)
    assert other["why"] == "it may not use the model 'gpt-4o'"
    assert (closed["reason"], closed["why"]) == ("disabled", "its key is disabled")


def test_only_instances_that_the_client_may_use_are_in_the_order(world):
    world.add("a")
    world.add("b")
    world.add_client("half", allowed_instances=["b"])
    assert explained_of(world, "half")["order"] == ["b"]


def test_a_client_that_is_not_there_is_said(world):
    world.add("a")
    answer = world.client.post("/admin/explain?client=nobody", json=CHAT, headers=ADMIN)
    assert answer.status_code == 404
    assert answer.get_json()["error"]["message"] == "There is no client 'nobody' with a key."


@pytest.mark.parametrize(
    "query, endpoint, answer_tokens",
    [
        ("", "completions", 16),
        ("?endpoint=images/generations", "images/generations", 1056),
        ("?endpoint=images/edits", "images/edits", 1056),
        ("?endpoint=audio/transcriptions", "audio/transcriptions", 0),
    ],
)
def test_it_may_be_told_of_what_the_call_is(world, query, endpoint, answer_tokens):
    world.add("a")
    body = {"model": "gpt-4o", "prompt": "A cat"}
    shown = world.client.post(f"/admin/explain{query}", json=body, headers=ADMIN).get_json()
    assert shown["endpoint"] == endpoint
    assert shown["reserved_tokens"] == shown["prompt_tokens"] + answer_tokens
    assert shown["order"] == ["a"]


def test_an_endpoint_that_is_none_is_refused(world):
    answer = world.client.post("/admin/explain?endpoint=files", json=CHAT, headers=ADMIN)
    assert answer.status_code == 422
    assert "endpoint" in answer.get_json()["error"]["message"]
