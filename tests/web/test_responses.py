"""The Responses API through the gateway: what an instance keeps is found there again."""

import json

import pytest
from werkzeug.test import EnvironBuilder

from proxy.core.types import Client
from proxy.runtime.broken_stream import StreamBroken
from proxy.simulator.responses import ENCRYPTED
from proxy.store import keys
from proxy.web import responses as module
from proxy.web.kept import marks_of
from tests.builders import AUTHOR, MODEL
from tests.web.conftest import ADMIN

ANY = {"If-Match": "*"}
ASK = {"model": MODEL, "input": "Say hello."}
PATH = "/v1/responses"
BASES = ("/v1", "/openai/v1", "/openai")
KINDS = ("azure", "azure_v1", "openai")


@pytest.fixture
def both(world):
    """Instances a and b, which are asked in turn."""
    for name in "ab":
        world.add(name, provider_type="azure_v1")
    return world


def ask(world, status=200, **fields):
    answer = world.ask(ASK | fields, PATH)
    assert answer.status_code == status, answer.text
    return answer.get_json()


def error(world, status=400, **fields):
    return ask(world, status, **fields)["error"]


def about(world, name, method="GET", suffix="", base="/v1", key=None):
    headers = {"Authorization": f"Bearer {key or world.client_key}"}
    return world.client.open(f"{base}/responses/{name}{suffix}", method=method, headers=headers)


def events_of(answer):
    return [json.loads(line[5:]) for line in answer.text.splitlines() if line[:5] == "data:"]


def raw(world, name):
    """As its instance knows it."""
    return name.rpartition("_gw")[0]


# Where it goes.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", BASES)
def test_each_kind_of_upstream_is_asked_by_its_v1_paths(world, kind, base):
    world.add(provider_type=kind, model_deployments={MODEL: "east"})
    answer = world.ask(ASK, f"{base}/responses?api-version=2025-04-01-preview")
    assert answer.status_code == 200
    received = world.received()
    assert received.path == ("/v1/responses" if kind == "openai" else "/openai/v1/responses")
    assert (received.query, received.json) == ({}, ASK | {"model": "east"})


def test_a_client_of_azure_that_has_a_deployment_is_served_too(world):
    world.add()
    answer = world.ask({"input": "Hi"}, f"/openai/deployments/{MODEL}/responses?api-version=x")
    assert answer.status_code == 200
    assert world.received().json == {"model": MODEL, "input": "Hi"}


def test_a_first_request_goes_on_byte_for_byte(world):
    world.add(provider_type="azure_v1")
    body = b'{ "x":1.0, "model":"gpt-4o" ,"input":"\xc3\xbc \\" \\/","y":{"name":"m"} }\n'
    assert world.ask(body, PATH).status_code == 200
    assert world.received().body == body


# What is kept is asked for where it is.


def test_what_goes_on_with_a_response_goes_to_the_instance_that_has_it(both):
    first = [ask(both), ask(both)]
    assert both.asked() == (1, 1)
    for before in [*first, first[0], first[0]]:
        after = ask(both, previous_response_id=before["id"])
        assert after["previous_response_id"] == before["id"]
        assert after["usage"]["input_tokens"] > before["usage"]["total_tokens"]
    assert both.asked() == (4, 2)
    assert both.received().json["previous_response_id"] == raw(both, first[0]["id"])


@pytest.mark.parametrize("item", [{"type": "item_reference"}, {}, {"type": None}])
def test_an_item_that_is_only_named_is_looked_for_where_it_is(both, item):
    named = [ask(both)["output"][0]["id"] for _ in "ab"]
    said = {"role": "user", "content": "Go on."}
    for name in (*named, *named[:1] * 3):
        ask(both, input=[{**item, "id": name}, said])
    assert both.asked() == (5, 2)
    assert both.received().json["input"] == [{**item, "id": raw(both, named[0])}, said]


@pytest.mark.parametrize("keeps_ids", [True, False])
def test_what_an_instance_encrypted_it_alone_is_given(both, keeps_ids):
    """Also by clients that send no ids, as where nothing is stored."""
    include = {"include": [ENCRYPTED], "store": False}
    outputs = [ask(both, **include)["output"] for _ in "ab"]
    if not keeps_ids:
        outputs = [[{k: v for k, v in i.items() if k != "id"} for i in o] for o in outputs]
    for output in (*outputs, *outputs[:1] * 3):
        ask(both, input=[*output, {"role": "user", "content": "Go on."}], **include)
    assert both.asked() == (5, 2)
    assert "_gw" not in json.dumps(both.received().json)


def test_a_conversation_that_is_sent_whole_goes_anywhere(both):
    """Also after its instance was removed."""
    kept = [ask(both, store=False), ask(both, store=False)]
    said = [*kept[0]["output"], *kept[1]["output"], {"role": "user", "content": "Go on."}]
    for _ in range(4):
        ask(both, input=said, store=False)
    assert min(both.asked()) > 1
    both.admin("DELETE", "/a", headers={"If-Match": "*"})
    ask(both, input=said, store=False)
    assert "_gw" not in both.received("b").body.decode()


def test_items_go_up_without_ids_of_the_clients_own(both):
    said = {"role": "user", "content": "Hi"}
    for _ in range(4):
        ask(both, input=[said | {"id": "msg_0123456789abcdef0123456789abcdef"}])
    assert both.asked() == (2, 2)
    assert both.received().json["input"] == [said]


def test_no_client_gets_a_mark_for_a_name_that_it_sent(both):
    """An upstream tells of its items as it got them."""
    kept = ask(both)
    name, item = raw(both, kept["id"]), raw(both, kept["output"][0]["id"])
    both.client_key = both.add_client("other")
    for given in (name, item, ".."):
        for kind in ("message", "reasoning", "image_generation_call"):
            sent = [{"type": kind, "role": "user", "content": "x", "id": given}]
            items = about(both, ask(both, input=sent)["id"], suffix="/input_items").get_json()
            assert raw(both, items["data"][0]["id"]) not in (given, "")


def test_a_name_that_leads_out_of_its_path_is_none(both):
    marks, home = marks_of(both.parts, Client("app")), both.simulator["a"].url
    assert about(both, marks.marked("resp_1", home)).get_json()["error"]["code"] is None
    for name in ("..", ".", "a b", "a/b", "x" * 300):
        assert about(both, marks.marked(name, home).replace("/", "%2F")).status_code == 404
    assert both.asked() == (1, 0)


def test_a_second_instance_of_the_same_resource_knows_it_too(both):
    same = both.config("a") | {"name": "c", "provider_type": "azure_v1", "priority": 900}
    both.admin("POST", "", json=same)
    kept = [ask(both), ask(both)]
    asked = both.asked()
    both.admin("PATCH", "/a", json={"enabled": False}, headers={"If-Match": "*"})
    for before in kept:
        ask(both, previous_response_id=before["id"])
        assert about(both, before["id"]).get_json() == before
    assert both.asked() == (asked[0] + 2, asked[1] + 2)
    both.admin("PATCH", "/a", json={"enabled": True, "api_key": "wrong"}, headers=ANY)
    assert about(both, kept[0]["id"]).status_code == 200


def test_a_stream_names_what_is_kept_as_a_plain_answer_does(both):
    answer = both.ask(ASK | {"stream": True, "include": [ENCRYPTED]}, PATH)
    events = events_of(answer)
    whole = events[-1]["response"]
    assert {e["response"]["id"] for e in events if "response" in e} == {whole["id"]}
    items = [item["id"] for item in whole["output"]]
    assert [e["item"]["id"] for e in events if e["type"].endswith("item.done")] == items
    assert {e["item_id"] for e in events if "item_id" in e} == {items[1]}
    assert all("_gw" in name for name in (whole["id"], *items))
    sealed = next(e["item"] for e in events if "item" in e)["encrypted_content"]
    assert sealed == whole["output"][0]["encrypted_content"]
    assert [e["sequence_number"] for e in events] == list(range(len(events)))
    for _ in range(3):
        ask(both, previous_response_id=whole["id"])
        ask(both, input=[*whole["output"], {"role": "user", "content": "Go on."}])
    assert both.asked() == (7, 0)


def test_a_compacted_conversation_goes_on_where_it_was(both):
    compacted = both.ask(ASK, f"{PATH}/compact").get_json()
    assert compacted["output"][0]["type"] == "compaction"
    for _ in range(3):
        ask(both, input=[*compacted["output"], {"role": "user", "content": "Go on."}])
    assert both.asked() == (4, 0)


def test_whatever_worker_gets_it_knows_where_it_is(both, other_worker):
    other_worker.client_key = both.client_key
    first = [ask(both), ask(both)]
    for before in first * 2:
        ask(other_worker, previous_response_id=before["id"])
    assert both.asked() == (3, 3)


def test_without_keys_there_is_one_client_for_all(make_world):
    world = make_world(client_auth="off")
    for name in "ab":
        world.add(name)
    first = [world.client.post(PATH, json=ASK).get_json() for _ in "ab"]
    for before in first * 2:
        more = ASK | {"previous_response_id": before["id"]}
        assert world.client.post(PATH, json=more).status_code == 200
    assert world.asked() == (3, 3)


# What is not to be had.


def test_what_was_given_to_another_client_is_not_found(both):
    name = ask(both, include=[ENCRYPTED])
    both.client_key = both.add_client("other")
    said = error(both, previous_response_id=name["id"])
    assert (said["code"], said["param"]) == (
        "previous_response_not_found",
        "previous_response_id",
    )
    for item in ({"id": name["output"][1]["id"]}, name["output"][0]):
        assert error(both, input=[item])["param"].startswith("input[0].")
    assert about(both, name["id"]).status_code == 404
    assert both.asked() == (1, 0)


def test_a_name_without_a_mark_opens_nothing(both):
    """Or who knows the name that was given to another would leave out its mark."""
    kept = ask(both)
    bare, item = raw(both, kept["id"]), raw(both, kept["output"][0]["id"])
    assert error(both, previous_response_id=bare)["param"] == "previous_response_id"
    for reference in ({"id": item}, {"type": "item_reference", "id": item}):
        assert error(both, input=[reference])["param"] == "input[0].id"
    assert about(both, bare).status_code == 404
    assert error(both, previous_response_id=["x"])["param"] == "previous_response_id"
    assert both.asked() == (1, 0)


@pytest.mark.parametrize(
    "body",
    [
        '{"previous_response_id":"%s","model":"gpt-4o","input":"x","previous_response_id":null}',
        '{"model":"gpt-4o","input":[{"id":"%s"}],"input":"x"}',
        '{"model":"gpt-4o","\\u0069nput":[{"id":"%s"}],"input":"x"}',
        '{"model":"gpt-4o","input":[{"type":"item_reference","id":"%s","type":"message",'
        '"role":"user","content":"x"}]}',
        '{"model":"gpt-4o","input":[{"id":"%s","id":"zz","role":"user","content":"x"}]}',
    ],
)
def test_what_a_parser_could_find_that_believes_the_first_is_left_out(both, body):
    kept = ask(both)
    name = raw(both, kept["output"][0]["id"] if "input" in body[2:40] else kept["id"])
    assert both.ask((body % name).encode(), PATH).status_code == 200
    sent = both.received("b").body
    assert sent.count(b'"input"') == 1
    assert sent.count(b'"type"') <= 1
    assert b"previous_response_id" not in sent or b'"previous_response_id":null' in sent
    assert name.encode() not in sent


@pytest.mark.parametrize(
    "fields, param",
    [
        ({"Previous_Response_Id": "resp_1"}, "Previous_Response_Id"),
        ({"Input": "x"}, "Input"),
        ({"input": [{"Id": "msg_1"}]}, "input[0].Id"),
        ({"input": [{"Type": "item_reference", "id": "msg_1"}]}, "input[0].Type"),
    ],
)
def test_a_field_that_is_nearly_one_of_these_is_refused(both, fields, param):
    assert error(both, **fields)["param"] == param


def test_conversations_are_not_passed_on(both):
    said = error(both, conversation={"id": "conv_1"})
    assert said["param"] == "conversation"
    assert "previous_response_id" in said["message"]


def test_what_two_instances_keep_is_not_to_be_had_together(both):
    first, second = ask(both), ask(both)
    said = error(
        both, previous_response_id=first["id"], input=[{"id": second["output"][0]["id"]}]
    )
    assert said["param"] == "input[0].id"
    assert "another instance" in said["message"]


def test_who_may_not_use_its_instance_any_more_is_told_that_it_is_not_there(both):
    kept = ask(both)
    with both.parts.database.session() as session:
        keys.change(session, "app", {"allowed_instances": ["b"]}, author=AUTHOR)
    both.parts.snapshots.reload()
    assert error(both, previous_response_id=kept["id"])["param"] == "previous_response_id"
    assert about(both, kept["id"]).status_code == 404


def test_an_instance_that_is_out_of_service_keeps_what_it_has(both):
    kept = ask(both)
    both.admin("PATCH", "/a", json={"enabled": False}, headers={"If-Match": "*"})
    said = error(both, 503, previous_response_id=kept["id"])
    assert said["code"] == "unavailable"
    assert about(both, kept["id"]).status_code == 503
    assert both.asked() == (1, 0)
    both.admin("DELETE", "/a", headers={"If-Match": "*"})
    assert error(both, previous_response_id=kept["id"])["code"] == "previous_response_not_found"


def test_a_model_that_its_instance_does_not_have_is_told(world):
    world.add("a", supported_models=[MODEL])
    world.add("b", supported_models=["o3"])
    kept = ask(world)
    said = error(world, previous_response_id=kept["id"], model="o3")
    assert (said["code"], said["param"]) == ("invalid_request", "model")


def test_another_model_of_the_same_instance_goes_on(world):
    world.add("a", supported_models=[MODEL, "o3"])
    world.add("b", supported_models=["o3"])
    kept = ask(world)
    for _ in range(3):
        ask(world, previous_response_id=kept["id"], model="o3")
    assert world.asked() == (4, 0)


def test_an_instance_that_became_another_resource_is_told_in_the_log(make_world, tmp_path):
    world = make_world(log_dir=tmp_path)
    world.add("a")
    kept = ask(world, include=[ENCRYPTED])
    world.simulator["a"].name = "made anew"
    said = error(world, input=kept["output"][:1])
    assert said["code"] == "invalid_encrypted_content"
    assert world.log().count("a cannot read what it encrypted itself") == 1


def test_another_address_is_another_resource(both):
    kept = ask(both)
    other = {"api_base": both.simulator["b"].url, "api_key": both.simulator["b"].api_key}
    both.admin("PATCH", "/a", json=other, headers={"If-Match": "*"})
    assert error(both, previous_response_id=kept["id"])["param"] == "previous_response_id"
    assert about(both, kept["id"]).status_code == 404


def test_what_its_instance_has_forgotten_says_its_instance(both):
    kept = ask(both)
    both.simulator["a"].shelf.clear()
    said = error(both, previous_response_id=kept["id"])
    assert said["code"] == "previous_response_not_found"
    assert both.state()["status"] == "healthy"


# Asked about.


@pytest.mark.parametrize("base", BASES)
def test_a_response_is_seen_and_deleted_where_it_is(both, base):
    kept = [ask(both), ask(both)][1]
    seen = about(both, kept["id"], base=base)
    assert (seen.status_code, seen.get_json()) == (200, kept)
    items = about(both, kept["id"], suffix="/input_items", base=base).get_json()
    assert items["data"][0]["content"][0]["text"] == ASK["input"]
    assert items["first_id"] == items["data"][0]["id"]
    deleted = about(both, kept["id"], "DELETE", base=base)
    assert deleted.get_json() == {"id": kept["id"], "object": "response", "deleted": True}
    gone = about(both, kept["id"], base=base)
    assert gone.status_code == 404
    assert "not found" in gone.get_json()["error"]["message"]
    assert both.asked() == (1, 5)


def test_a_classic_instance_is_asked_by_its_v1_paths(world):
    world.add()
    kept = ask(world)
    answer = world.client.get(
        f"/openai/responses/{kept['id']}?api-version=2025-04-01-preview&include[]=x",
        headers={"api-key": world.client_key},
    )
    assert answer.get_json() == kept
    received = world.received()
    assert received.path == f"/openai/v1/responses/{raw(world, kept['id'])}"
    assert received.query == {"include[]": "x"}
    assert received.headers["api-key"] == world.simulator["a"].api_key
    assert "authorization" not in received.headers


def test_one_in_the_background_is_asked_for_until_it_is_ready(both):
    begun = ask(both, background=True)
    assert begun["status"] == "queued"
    assert about(both, begun["id"]).get_json()["status"] == "completed"
    waiting = ask(both, background=True)
    cancelled = about(both, waiting["id"], "POST", "/cancel")
    assert cancelled.get_json()["status"] == "cancelled"
    assert both.received("b").headers["content-length"] == "0"
    assert about(both, ask(both)["id"], "POST", "/cancel").status_code == 400


def test_items_are_paged_by_the_names_that_were_given(both):
    kept = ask(both, input=[{"role": "user", "content": "a"}, {"role": "user", "content": "b"}])
    data = about(both, kept["id"], suffix="/input_items").get_json()["data"]
    after = data[0]["id"]
    assert about(both, kept["id"], suffix=f"/input_items?after={after}").status_code == 200
    assert both.received().query == {"after": raw(both, after)}
    other = about(both, kept["id"], suffix="/input_items?after=msg_1")
    assert (other.status_code, other.get_json()["error"]["param"]) == (400, "after")


def test_a_response_is_seen_as_it_is_where_no_stream_is_wanted(both):
    kept = ask(both)
    assert about(both, kept["id"], suffix="?stream=false").get_json() == kept


@pytest.mark.parametrize(
    "fault, status, code",
    [
        ("401", 502, "upstream_misconfigured"),
        ("403", 502, "upstream_misconfigured"),
        ("429", 429, "429"),
        ("500", 500, "InternalServerError"),
        ("500-flat", 500, "upstream_error"),
        ("503-text", 503, "upstream_error"),
        ("break-before-head*2", 502, "upstream_error"),
    ],
)
def test_what_goes_wrong_there_is_told_and_puts_no_instance_to_rest(both, fault, status, code):
    kept = ask(both)
    both.simulator["a"].faults["*"] = fault if "*" in fault else f"{fault}*1"
    answer = about(both, kept["id"])
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (status, code)
    assert both.state()["status"] == "healthy"
    ask(both, previous_response_id=kept["id"])


def test_only_what_can_be_asked_of_a_response_is(both):
    kept = ask(both)
    assert about(both, kept["id"], "POST").status_code == 405
    assert about(both, kept["id"], "DELETE", "/cancel").status_code == 405
    assert about(both, kept["id"], suffix="/other").status_code == 404
    assert about(both, kept["id"], key="wrong").status_code == 401
    assert both.asked() == (1, 0)


# What it costs, and what is learned from it.


def test_its_usage_is_counted(both):
    for fields in ({}, {"stream": True}):
        used = both.ask(ASK | fields, PATH)
        usage = (events_of(used)[-1]["response"] if fields else used.get_json())["usage"]
        served = both.state("b" if fields else "a")["total_tokens_served"]
        assert served == usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def test_one_in_the_background_is_counted_by_what_it_may_use(both):
    ask(both, background=True, max_output_tokens=700)
    assert 700 < both.state()["total_tokens_served"] < 720


def test_of_a_prompt_that_refers_to_more_nothing_is_learned(both):
    kept = ask(both)
    estimates = both.parts.estimates
    known = dict(estimates._seen)
    ask(both, previous_response_id=kept["id"])
    assert dict(estimates._seen) == known
    ask(both)
    assert dict(estimates._seen) != known


def test_where_it_would_go_is_explained(both):
    kept = [ask(both), ask(both)][1]

    def explained(**fields):
        return both.client.post(
            "/admin/explain?endpoint=responses&client=app", json=ASK | fields, headers=ADMIN
        ).get_json()

    assert explained()["order"] == ["a", "b"]
    assert explained()["home"] == []
    assert explained(previous_response_id=kept["id"])["order"] == ["b"]
    assert explained(previous_response_id=kept["id"])["home"] == ["b"]
    assert explained(previous_response_id="resp_1")["error"]["param"] == "previous_response_id"


# Where the API is not there.


def test_an_instance_without_this_api_serves_chats_all_the_same(both):
    both.simulator["a"].faults["*"] = "404-path"
    for _ in range(3):
        ask(both)
    assert both.state()["status"] == "healthy"
    both.simulator["a"].faults.clear()
    assert both.ask().status_code == 200


def test_a_stream_that_fails_before_it_says_anything_is_asked_of_another(both):
    both.simulator["a"].faults["*"] = "error-before-content*1"
    events = events_of(both.ask(ASK | {"stream": True}, PATH))
    assert events[-1]["type"] == "response.completed"


def test_who_cannot_be_answered_elsewhere_is_told_so(make_world):
    world = make_world(max_wait_ms=0)
    for name in "ab":
        world.add(name)
    kept = ask(world)
    world.simulator["a"].faults["*"] = "429"
    message = error(world, 429, previous_response_id=kept["id"])["message"]
    assert message.startswith("The instance that keeps what this request refers to is at its")
    assert ask(world)["id"]


def test_the_request_tells_where_it_was_bound_to(both):
    kept = ask(both)
    ask(both, previous_response_id=kept["id"])
    both.parts.log_writer.stop()  # it has written all
    last, first = both.client.get("/admin/requests", headers=ADMIN).get_json()["requests"][:2]
    assert last["home"] == "a"
    assert "home" not in first


@pytest.mark.parametrize(
    "budget", ["max_tokens_per_day", "max_tokens_per_month", "max_cost_per_day"]
)
def test_with_a_budget_one_in_the_background_has_to_say_the_most_that_it_may_use(both, budget):
    both.client_key = both.add_client("team", **{budget: 1000})
    for limit in ({}, {"max_output_tokens": "50"}, {"max_output_tokens": -5}):
        assert error(both, background=True, **limit)["param"] == "max_output_tokens"
    ask(both, background=True, max_output_tokens=50)
    kept = ask(both)
    more = {"max_output_tokens": 50, "previous_response_id": kept["id"]}
    assert error(both, background=True, **more)["param"] == "background"
    ask(both, **more)
    assert both.asked() == (1, 2)


def test_a_budget_is_not_spared_by_what_the_answer_repeats(both):
    both.client_key = both.add_client("team", max_tokens_per_day=250)
    said = {"properties": {"usage": {"input_tokens": 0, "output_tokens": 0}}}
    more = {
        "background": True,
        "max_output_tokens": 90,
        "tools": [{"type": "function", "name": "f", "parameters": said}],
    }
    for _ in range(2):
        ask(both, **more)
    assert error(both, 429, **more)["code"] in ("insufficient_quota", "rate_limit_exceeded")


def test_limits_of_chats_are_none_of_a_response(both):
    ask(both, background=True, max_tokens=1, max_completion_tokens=1, max_output_tokens=700)
    assert both.state()["total_tokens_served"] > 700


def test_what_its_client_may_not_use_any_more_is_gone_with_its_instance(both):
    both.client_key = both.add_client("team", allowed_instances=["a", "b"])
    kept = ask(both)
    both.admin("DELETE", "/a", headers={"If-Match": "*"})
    assert error(both, previous_response_id=kept["id"])["code"] == "previous_response_not_found"
    assert about(both, kept["id"]).status_code == 404


def test_what_is_asked_of_a_response_is_logged_with_its_instance(make_world, tmp_path):
    world = make_world(log_dir=tmp_path, log_format="json")
    world.add("a")
    kept = ask(world)
    world.simulator["a"].faults["*"] = "401*1"
    about(world, kept["id"])
    lines = [json.loads(line) for line in world.log().splitlines()]
    asked = next(x for x in lines if x["event"] == "request" and x["method"] == "GET")
    assert (asked["home"], asked["status"]) == ("a", 502)
    told = next(x for x in lines if x["event"] == "no_answer")
    assert (told["instance"], told["why"], told["id"]) == ("a", "HTTP 401", asked["id"])


@pytest.mark.parametrize(
    "path, status", [("/v1/responses/input_tokens", 404), ("/openai/v1/responses/resp_1", 405)]
)
def test_what_is_not_passed_on_is_told(both, path, status):
    answer = both.ask(ASK, path)
    assert (answer.status_code, "allow" in answer.headers) == (status, status == 405)
    message = answer.get_json()["error"]["message"]
    assert "the gateway passes on POST to chat/completions" in message


@pytest.mark.parametrize(
    "fields",
    [
        {"previous_response_id": None},
        {"max_output_tokens": 5},
        {"input": [{"role": "user", "content": "x"}]},
    ],
)
def test_a_body_of_a_response_is_explained_as_one(both, fields):
    answer = both.client.post("/admin/explain", json=ASK | fields, headers=ADMIN)
    assert answer.get_json()["endpoint"] == "responses"


def test_where_it_cannot_go_is_explained_with_its_instance(both):
    kept = ask(both)
    body = ASK | {"previous_response_id": kept["id"]}
    both.admin("PATCH", "/a", json={"enabled": False}, headers={"If-Match": "*"})
    path = "/admin/explain?client=app"
    said = both.client.post(path, json=body, headers=ADMIN).get_json()["error"]["message"]
    assert said.endswith("is out of service. It is a.")
    said = both.client.post("/admin/explain", json=body, headers=ADMIN).get_json()["error"]
    assert said["message"].endswith("as the client 'anonymous'; ?client=NAME is for another.")


def test_its_head_alone_cannot_be_asked_for(both):
    kept = ask(both)
    answer = about(both, kept["id"], "HEAD")
    assert answer.status_code == 405
    assert both.asked() == (1, 0)


@pytest.mark.parametrize("escaped", [False, True])
def test_a_large_request_that_refers_to_something_goes_up_whole(both, escaped):
    """Not as the outline by which a large one is understood."""
    kept = ask(both)
    image = {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 1_500_000}
    said = {"role": "user", "content": [image]}
    body = json.dumps(ASK | {"previous_response_id": kept["id"], "input": [said]})
    if escaped:
        digit = kept["id"][-1]
        body = body.replace(kept["id"], f"{kept['id'][:-1]}\\u00{ord(digit):02x}")
    assert both.ask(body.encode(), PATH).status_code == 200
    assert both.received().json["input"] == [said]
    assert both.received().json["previous_response_id"] == raw(both, kept["id"])


def test_a_large_request_that_refers_to_nothing_goes_up_byte_for_byte(both):
    image = {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 1_500_000}
    body = json.dumps(ASK | {"input": [{"role": "user", "content": [image]}]}).encode()
    assert both.ask(body, PATH).status_code == 200
    assert both.received().body == body


def test_what_could_be_repeated_is_no_deeper_than_its_answer_can_be_read(both):
    """Or its instance would be taken for broken."""
    deep = json.loads("[" * 300 + "]" * 300)
    assert "nested too deeply" in error(both, metadata=deep)["message"]
    assert both.asked() == (0, 0)
    ask(both, metadata=json.loads("[" * 200 + "]" * 200))


def test_an_error_in_the_middle_of_a_stream_is_passed_on_and_counted(both):
    both.simulator["a"].faults["*"] = "error-event"
    events = events_of(both.ask(ASK | {"stream": True}, PATH))
    assert [e["type"] for e in events[-2:]] == ["response.output_text.delta", "error"]
    assert both.state()["last_error"].startswith(
        "an error inside of its stream: The server had"
    )


# A stream that was begun before.

IN_BACKGROUND = {"background": True, "stream": True}


@pytest.fixture
def begun(both):
    """A world, a stream's events, and the name of its response."""
    events = events_of(both.ask(ASK | IN_BACKGROUND, PATH))
    return both, events, events[0]["response"]["id"]


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("query", ["?stream=true", "?STREAM=1&api-version=x"])
def test_it_is_taken_up_again_with_the_same_names(begun, base, query):
    world, events, name = begun
    answer = about(world, name, suffix=query, base=base)
    assert (answer.status_code, answer.mimetype) == (200, "text/event-stream")
    assert events_of(answer) == events
    assert world.received().query == {"stream": "true"}


def test_it_goes_on_after_any_of_its_events(begun):
    world, events, name = begun
    answer = about(world, name, suffix="?stream=true&starting_after=4")
    assert events_of(answer) == events[5:]
    assert events_of(about(world, name, suffix="?stream=true&starting_after=99")) == []


def test_it_is_no_call_of_the_model_and_costs_no_tokens(begun):
    world, _, name = begun
    used = world.state()["total_tokens_served"]
    about(world, name, suffix="?stream=true")
    assert world.state()["total_tokens_served"] == used
    assert world.state()["total_requests"] == 1


def test_it_is_one_of_the_requests_that_its_client_may_have_at_a_time(begun):
    world, _, name = begun
    with world.parts.database.session() as session:
        keys.change(session, "app", {"max_parallel_requests": 1, "max_rpm": 9}, author=AUTHOR)
    world.parts.snapshots.reload()
    headers = {"Authorization": f"Bearer {world.client_key}"}
    path = f"/v1/responses/{name}?stream=true"
    first = world.client.get(path, headers=headers, buffered=False)
    second = world.client.get(path, headers=headers)
    assert (second.status_code, second.get_json()["error"]["code"]) == (
        429,
        "rate_limit_exceeded",
    )
    assert "max_parallel_requests" in second.get_json()["error"]["message"]
    assert first.headers["x-ratelimit-remaining-requests"] == "8"
    assert world.parts.open_calls.count == 1
    assert first.data.count(b"response.completed") == 2
    assert world.parts.open_calls.count == 0
    assert world.client.get(path, headers=headers).status_code == 200


@pytest.mark.parametrize("is_read", [True, False])
def test_who_leaves_it_leaves_nothing_open(begun, is_read):
    world, _, name = begun
    headers = {"Authorization": f"Bearer {world.client_key}"}
    path = f"/v1/responses/{name}?stream=true"
    answer = world.client.get(path, headers=headers, buffered=False)
    if is_read:
        next(answer.iter_encoded())
    answer.close()
    assert world.parts.open_calls.count == 0
    assert world.parts.kept_streams.break_off() == 0
    known = world.parts.snapshots.current.keys.values()
    (client,) = (k.client for k in known)
    assert world.parts.clients.view(client).in_flight == 0


def broken(world, name, query=""):
    """The events of one that breaks off."""
    headers = {"Authorization": f"Bearer {world.client_key}"}
    path = f"/v1/responses/{name}?stream=true{query}"
    answer = world.client.get(path, headers=headers, buffered=False)
    got = []
    with pytest.raises(StreamBroken):
        got.extend(answer.iter_encoded())
    answer.close()
    lines = b"".join(got).splitlines()
    return [json.loads(line[5:]) for line in lines if line[:5] == b"data:"]


def test_if_it_breaks_it_goes_on_after_the_last_event_that_came(begun):
    world, events, name = begun
    world.simulator["a"].faults["*"] = "break-in-middle*1"
    *first, error = broken(world, name)
    assert (error["type"], error["code"]) == ("error", "stream_interrupted")
    after = error["sequence_number"]
    rest = events_of(about(world, name, suffix=f"?stream=true&starting_after={after}"))
    assert first + rest == events
    assert world.state()["status"] == "healthy"


def test_if_nothing_came_it_goes_on_after_what_was_asked_for(begun):
    world, _, name = begun
    world.simulator["a"].faults["*"] = "break-before-first-event*1"
    (error,) = broken(world, name, "&starting_after=4")
    assert error["sequence_number"] == 4


def test_it_is_told_that_its_worker_ends(begun):
    world, _, name = begun
    world.simulator["a"].faults["*"] = "stall-in-middle*1"
    headers = {"Authorization": f"Bearer {world.client_key}"}
    path = f"/v1/responses/{name}?stream=true"
    answer = world.client.get(path, headers=headers, buffered=False)
    pieces = answer.iter_encoded()
    got = [next(pieces)]
    (stream,) = world.parts.kept_streams._open
    assert stream.stream.silence_seconds == world.parts.settings.stream_idle_seconds
    assert world.parts.stop() == 1
    with pytest.raises(StreamBroken):
        got.extend(pieces)
    answer.close()
    assert b"the gateway is being stopped or restarted" in b"".join(got)


def test_it_needs_no_thread_while_nothing_comes(begun):
    """The server may watch where it comes from instead."""
    world, _, name = begun
    asked = EnvironBuilder(
        path=f"/v1/responses/{name}",
        query_string="stream=true",
        headers={"Authorization": f"Bearer {world.client_key}"},
    )
    relayed = world.app.wsgi_app(asked.get_environ(), lambda *_: None)
    (stream,) = world.parts.kept_streams._open
    assert relayed.source is stream.stream
    relayed.close()
    assert not world.parts.kept_streams._open


def test_of_what_is_said_of_a_stream_twice_one_goes_on(begun):
    world, events, name = begun
    for query in ("?stream=true&stream=false", "?stream=0&Stream=true"):
        assert events_of(about(world, name, suffix=query)) == events
        assert world.received().query == {"stream": "true"}


def test_that_its_tokens_are_used_up_keeps_nobody_from_its_rest(begun):
    world, events, name = begun
    changes = {"max_tpm": 1, "max_tokens_per_day": 1, "max_tokens_per_month": 1}
    with world.parts.database.session() as session:
        keys.change(session, "app", changes, author=AUTHOR)
    world.parts.snapshots.reload()
    assert world.ask(ASK, PATH).status_code == 429
    assert events_of(about(world, name, suffix="?stream=true")) == events


def test_a_mistake_of_ours_leaves_nothing_of_it_open(begun, monkeypatch):
    world, _, name = begun

    def fail(*_arguments, **_more):
        raise RuntimeError

    monkeypatch.setattr(module.headers, "for_client_stream", fail)
    assert about(world, name, suffix="?stream=true").status_code == 500
    assert world.parts.open_calls.count == 0
    assert not world.parts.kept_streams._open


@pytest.mark.parametrize(
    "suffix, method",
    [
        ("/cancel?stream=true", "POST"),
        ("?stream=true", "DELETE"),
        ("/input_items?stream=1", "GET"),
    ],
)
def test_nothing_else_is_asked_for_as_a_stream(begun, suffix, method):
    world, _, name = begun
    said = about(world, name, method, suffix).get_json()["error"]
    assert said["param"] == "stream"


def test_what_its_instance_does_not_stream_is_said_by_it(both):
    answer = about(both, ask(both)["id"], suffix="?stream=true")
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (400, None)
    assert "in the background" in answer.get_json()["error"]["message"]


def test_a_stream_that_is_refused_takes_no_place(begun):
    world, _, name = begun
    world.simulator["a"].faults["*"] = "401"
    assert about(world, name, suffix="?stream=true").status_code == 502
    assert world.parts.open_calls.count == 0
    (client,) = (k.client for k in world.parts.snapshots.current.keys.values())
    assert world.parts.clients.view(client).in_flight == 0
