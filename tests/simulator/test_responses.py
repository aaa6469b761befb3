"""Responses, over real sockets, by the official package."""

import openai
import pytest
import requests
from pydantic import BaseModel

from proxy.simulator import Resource
from proxy.simulator.responses import ENCRYPTED, REASONING_TOKENS

MODEL = "gpt-4o"
TOOL = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}


class Trip(BaseModel):
    city: str
    days: int


def client_of(resource):
    return openai.OpenAI(base_url=f"{resource.url}/openai/v1", api_key="x", max_retries=0)


@pytest.fixture
def client(resource):
    with client_of(resource) as client:
        yield client


def test_a_response_says_what_it_used(client):
    answer = client.responses.create(model=MODEL, input="x" * 40)
    assert answer.output_text.startswith("Hello from east-us, deployment gpt-4o.")
    usage = answer.usage
    assert (usage.input_tokens, usage.output_tokens) == (10, 20 + REASONING_TOKENS)
    assert usage.total_tokens == 30 + REASONING_TOKENS
    assert answer.status == "completed"


def test_one_that_is_cut_is_incomplete(client):
    answer = client.responses.create(model=MODEL, input="x", max_output_tokens=3)
    assert (answer.status, answer.incomplete_details.reason) == (
        "incomplete",
        "max_output_tokens",
    )
    assert len(answer.output_text.split()) == 3


def test_as_a_stream_it_is_the_same(client):
    with client.responses.stream(model=MODEL, input="x") as stream:
        events = list(stream)
        whole = stream.get_final_response()
    assert events[0].type == "response.created"
    assert [e.sequence_number for e in events if e.type == "response.completed"] == [
        len({e.sequence_number for e in events}) - 1
    ]
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert text == whole.output_text


def test_a_call_of_a_function_is_made_where_it_is_required(client):
    for tool_choice, kind in (("required", "function_call"), ("auto", "message")):
        answer = client.responses.create(
            model=MODEL, input="x", tools=[TOOL], tool_choice=tool_choice
        )
        assert answer.output[0].type == kind
    with client.responses.stream(
        model=MODEL, input="x", tools=[TOOL], tool_choice="required"
    ) as stream:
        assert stream.get_final_response().output[0].name == "look"


def test_a_function_may_be_named_and_gets_arguments_that_fit(client):
    parameters = {"type": "object", "properties": {"c": {"type": "string"}}, "required": ["c"]}
    tools = [TOOL, {"type": "function", "name": "go", "parameters": parameters}]
    choice = {"type": "function", "name": "go"}
    answer = client.responses.create(model=MODEL, input="x", tools=tools, tool_choice=choice)
    assert (answer.output[0].name, answer.output[0].arguments) == ("go", '{"c":"text"}')
    with pytest.raises(openai.BadRequestError):
        client.responses.create(
            model=MODEL,
            input="x",
            tools=tools,
            tool_choice={"type": "function", "name": "no"},
            stream=True,
        )


def test_an_answer_is_of_the_model_that_was_asked_for(client):
    answer = client.responses.parse(model=MODEL, input="x", text_format=Trip)
    assert isinstance(answer.output_parsed, Trip)
    with client.responses.stream(model=MODEL, input="x", text_format=Trip) as stream:
        assert stream.get_final_response().output_parsed == answer.output_parsed
    answer = client.responses.create(
        model=MODEL, input="x", text={"format": {"type": "json_object"}}
    )
    assert answer.output_text.startswith("{")


def test_what_goes_wrong_in_the_middle_comes_after_some_text(client, resource):
    resource.faults["*"] = "error-event"
    said = []
    with client.responses.create(model=MODEL, input="x", stream=True) as stream:
        said.extend(event.type for event in stream)
    assert said[-2:] == ["response.output_text.delta", "error"]


def test_what_went_before_goes_in_once_more(client):
    before = client.responses.create(model=MODEL, input="x")
    after = client.responses.create(model=MODEL, input="x", previous_response_id=before.id)
    assert after.usage.input_tokens == 1 + before.usage.total_tokens


def test_what_one_resource_keeps_another_does_not_know(started):
    simulator = started(Resource("one"), Resource("two"))
    with client_of(simulator["one"]) as one, client_of(simulator["two"]) as two:
        kept = one.responses.create(model=MODEL, input="x", include=[ENCRYPTED])
        reasoning, message = (item.model_dump(exclude_none=True) for item in kept.output)
        named = {"type": "item_reference", "id": message["id"]}
        for fields, code in (
            ({"previous_response_id": kept.id, "input": "x"}, "previous_response_not_found"),
            ({"input": [reasoning]}, "invalid_encrypted_content"),
            ({"input": [named]}, None),
        ):
            one.responses.create(model=MODEL, **fields)
            with pytest.raises(openai.BadRequestError) as refused:
                two.responses.create(model=MODEL, **fields)
            assert refused.value.code == code
        with pytest.raises(openai.NotFoundError):
            two.responses.retrieve(kept.id)


def test_what_is_not_to_be_stored_is_not_kept(client):
    answer = client.responses.create(model=MODEL, input="x", store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(answer.id)


def test_one_in_the_background_is_queued_first(client):
    begun = client.responses.create(model=MODEL, input="x", background=True)
    assert (begun.status, begun.output, begun.usage) == ("queued", [], None)
    assert client.responses.retrieve(begun.id).status == "completed"
    waiting = client.responses.create(model=MODEL, input="x", background=True)
    assert client.responses.cancel(waiting.id).status == "cancelled"


def test_a_stream_in_the_background_can_be_had_again(client):
    asked = {"model": MODEL, "input": "x", "stream": True}
    events = list(client.responses.create(**asked, background=True))
    name = events[0].response.id
    assert list(client.responses.retrieve(name, stream=True)) == events
    assert list(client.responses.retrieve(name, stream=True, starting_after=3)) == events[4:]
    with pytest.raises(openai.BadRequestError, match="starting_after"):
        client.responses.retrieve(name, stream=True, extra_query={"starting_after": "x"})
    other = next(iter(client.responses.create(**asked))).response.id
    with pytest.raises(openai.BadRequestError, match="in the background"):
        client.responses.retrieve(other, stream=True)


def test_its_input_can_be_listed(client):
    said = [{"role": "user", "content": "a"}, {"role": "user", "content": "b", "id": "msg_b"}]
    kept = client.responses.create(model=MODEL, input=said)
    ids = [item.id for item in client.responses.input_items.list(kept.id)]
    assert (len(set(ids)), ids[1]) == (2, "msg_b")


def test_a_conversation_can_be_compacted(client):
    compacted = client.responses.compact(model=MODEL, input="x")
    assert compacted.object == "response.compaction"
    assert compacted.output[0].encrypted_content
    client.responses.create(
        model=MODEL, input=[o.model_dump(exclude_none=True) for o in compacted.output]
    )


def test_without_input_there_is_nothing_to_answer(client):
    with pytest.raises(openai.BadRequestError, match="input"):
        client.responses.create(model=MODEL)


def test_the_classic_path_needs_its_version(resource):
    url = f"{resource.url}/openai/responses"
    body = {"model": MODEL, "input": "x"}
    assert requests.post(url, json=body, timeout=5).status_code == 404
    answer = requests.post(f"{url}?api-version=2025-04-01-preview", json=body, timeout=5)
    assert answer.json()["object"] == "response"


def test_it_counts_against_the_limits(started):
    resource = started(Resource("small", tokens_per_minute=50))["small"]
    with client_of(resource) as client:
        client.responses.create(model=MODEL, input="x", max_output_tokens=40)
        with pytest.raises(openai.RateLimitError):
            client.responses.create(model=MODEL, input="x")
