"""The Responses API by the official package, through two workers, to two instances."""

import openai
import pytest
from openai import OpenAI

from proxy.simulator import Simulator
from proxy.simulator.responses import ENCRYPTED
from tests.e2e.conftest import Gateway
from tests.e2e.test_official_client import Client, as_azure, as_azure_v1, as_openai

MODEL = "gpt-4o"
MAKERS = [as_openai, as_azure, as_azure_v1]
MANY = 12  # requests, which both workers and both instances have a part of
TOOL = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}


@pytest.fixture(params=MAKERS)
def client(request, gateway: Gateway):
    with request.param(gateway) as client:
        yield client


def homes(simulator: Simulator) -> set[str]:
    return {name for name, r in simulator.resources.items() if r.requests}


def test_a_conversation_goes_on_whoever_answers(client: Client, simulator: Simulator):
    begun = [client.responses.create(model=MODEL, input="Hi") for _ in range(MANY)]
    assert len(homes(simulator)) > 1
    for before in begun:
        after = client.responses.create(
            model=MODEL, input="And then?", previous_response_id=before.id
        )
        assert after.output_text.split(",")[0] == before.output_text.split(",")[0]
        assert after.previous_response_id == before.id
        assert after.usage.input_tokens > before.usage.total_tokens


def test_a_stream_of_one_is_followed_to_its_end(client: Client):
    with client.responses.stream(model=MODEL, input="Hi") as stream:
        text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
        whole = stream.get_final_response()
    assert text == whole.output_text
    assert whole.usage.output_tokens_details.reasoning_tokens > 0
    for _ in range(4):
        client.responses.create(model=MODEL, input="More", previous_response_id=whole.id)


def test_one_in_the_background_is_taken_up_again_where_it_was_left(client: Client):
    asked = {"model": MODEL, "input": "Hi", "background": True, "stream": True}
    with client.responses.create(**asked) as stream:
        seen = [next(stream) for _ in range(5)]
    name, last = seen[0].response.id, seen[-1].sequence_number
    for _ in range(4):  # whichever worker answers
        rest = list(client.responses.retrieve(name, stream=True, starting_after=last))
        assert [e.sequence_number for e in rest] == list(range(last + 1, last + 1 + len(rest)))
        assert (rest[-1].type, rest[-1].response.id) == ("response.completed", name)
    with client.responses.stream(response_id=name, starting_after=last) as helped:
        assert helped.get_final_response().output_text == rest[-1].response.output_text


def test_what_is_kept_is_seen_paged_cancelled_and_deleted(client: Client):
    kept = client.responses.create(model=MODEL, input="Hi", background=True)
    assert client.responses.cancel(kept.id).status == "cancelled"
    assert client.responses.retrieve(kept.id).id == kept.id
    items = list(client.responses.input_items.list(kept.id))
    assert items[0].content[0].text == "Hi"
    client.responses.delete(kept.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(kept.id)


def test_tools_and_reasoning_without_anything_stored(client: Client):
    asked: list = [{"role": "user", "content": "Look."}]
    for _ in range(4):
        answer = client.responses.create(
            model=MODEL,
            input=asked,
            tools=[TOOL],
            tool_choice="required",
            store=False,
            include=[ENCRYPTED],
        )
        reasoning, call = answer.output
        assert (reasoning.type, call.name) == ("reasoning", "look")
        asked += [o.model_dump(exclude_none=True) for o in answer.output]
        asked.append({"type": "function_call_output", "call_id": call.call_id, "output": "x"})


def test_items_of_before_can_be_named_alone(client: Client):
    before = client.responses.create(model=MODEL, input="Hi")
    named = [{"type": "item_reference", "id": item.id} for item in before.output]
    for _ in range(4):
        answer = client.responses.create(
            model=MODEL, input=[*named, {"role": "user", "content": "More"}]
        )
        assert answer.status == "completed"


def test_one_that_is_not_there_is_not_found(client: Client):
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model=MODEL, input="Hi", previous_response_id="resp_1")
    assert refused.value.code == "previous_response_not_found"
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_1")


def test_it_goes_on_after_a_restart(gateway: Gateway):
    with as_openai(gateway) as client:
        before = client.responses.create(model=MODEL, input="Hi")
        gateway.stop()
        gateway.start()
        for _ in range(4):
            client.responses.create(model=MODEL, input="x", previous_response_id=before.id)


def test_a_client_of_the_old_address_is_no_worse_off(gateway: Gateway):
    """The base with /openai/v1, and Azure's key header."""
    headers = {"api-key": gateway.client_key}
    url = f"{gateway.url}/openai/v1"
    with OpenAI(base_url=url, api_key="unused", default_headers=headers) as client:
        assert client.responses.create(model=MODEL, input="Hi").output_text
