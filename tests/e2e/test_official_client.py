"""The official `openai` package against two gunicorn workers."""

import asyncio
import datetime
from collections.abc import Iterator
from typing import Literal

import openai
import pytest
from openai import AsyncOpenAI, AzureOpenAI, OpenAI, pydantic_function_tool
from pydantic import BaseModel, Field

from proxy.simulator import Simulator, expected_usage
from tests.e2e.conftest import Gateway, until

PNG = b"\x89PNG\r\n\x1a\n" + bytes(1000)
MESSAGES = [{"role": "user", "content": "Hi"}]
USAGE = expected_usage({"messages": MESSAGES}, 10)

Client = OpenAI | AzureOpenAI


class Stop(BaseModel):
    city: str
    by: Literal["train", "bike"]
    since: datetime.date | None
    next: "Stop | None"


class Trip(BaseModel):
    """What a trip is to have."""

    stops: list[Stop]
    days: int = Field(ge=2)


TRIP = Trip(
    stops=[Stop(city="text", by="train", since=datetime.date(2025, 1, 31), next=None)], days=2
)


def as_openai(gateway: Gateway) -> Client:
    return OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.client_key, max_retries=0)


def as_azure(gateway: Gateway) -> Client:
    return AzureOpenAI(
        azure_endpoint=gateway.url,
        api_key=gateway.client_key,
        api_version="2024-10-21",
        max_retries=0,
    )


def as_azure_v1(gateway: Gateway) -> Client:
    return OpenAI(
        base_url=f"{gateway.url}/openai/v1", api_key=gateway.client_key, max_retries=0
    )


@pytest.fixture(params=[as_openai, as_azure, as_azure_v1])
def client(request: pytest.FixtureRequest, gateway: Gateway) -> Iterator[Client]:
    with request.param(gateway) as client:
        yield client


def test_a_brittle_client_finds_a_choice_in_every_event(gateway: Gateway):
    key = gateway.command("keys", "add", "brittle", "--compat", "openai_strict").strip()
    with OpenAI(base_url=f"{gateway.url}/v1", api_key=key) as client:
        until(lambda: _is_known(client), "the worker knows the client's key")
        with client.chat.completions.create(
            model="gpt-4o", messages=MESSAGES, stream=True
        ) as stream:
            events = list(stream)
    assert "".join(e.choices[0].delta.content or "" for e in events).startswith("Hello from")
    assert all(e.model_extra == {} and e.choices[0].model_extra == {} for e in events)


def _is_known(client: Client) -> bool:
    try:
        return bool(client.models.list())
    except openai.AuthenticationError:
        return False


def test_a_plain_chat(client: Client):
    answer = client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert answer.choices[0].message.content.startswith("Hello from")
    assert answer.usage.total_tokens == USAGE["total_tokens"]


def test_a_streamed_chat_without_the_usage_event_nobody_asked_for(client: Client):
    with client.chat.completions.create(
        model="gpt-4o", messages=MESSAGES, stream=True
    ) as stream:
        events = list(stream)
    text = "".join(e.choices[0].delta.content or "" for e in events if e.choices)
    assert text.startswith("Hello from")
    assert all(e.usage is None for e in events)


def test_a_streamed_chat_with_the_usage_the_client_asked_for(client: Client):
    with client.chat.completions.create(
        model="gpt-4o",
        messages=MESSAGES,
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        usages = [e.usage for e in stream if e.usage]
    assert [u.total_tokens for u in usages] == [USAGE["total_tokens"]]


def test_an_answer_is_of_the_model_that_the_client_asked_for(client: Client):
    answer = client.chat.completions.parse(
        model="gpt-4o", messages=MESSAGES, response_format=Trip
    )
    assert answer.choices[0].message.parsed == TRIP
    with client.chat.completions.stream(
        model="gpt-4o",
        messages=MESSAGES,
        response_format=Trip,
        stream_options={"include_usage": True},
    ) as stream:
        pieces = [e for e in stream if e.type == "content.delta" and e.delta]
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == TRIP
    assert len(pieces) == final.usage.completion_tokens == answer.usage.completion_tokens


def test_a_tool_that_the_client_insists_on_is_called(client: Client):
    asked = {
        "model": "gpt-4o",
        "messages": MESSAGES,
        "tools": [pydantic_function_tool(Trip, name="plan")],
        "tool_choice": {"type": "function", "function": {"name": "plan"}},
    }
    answer = client.chat.completions.parse(**asked)
    with client.chat.completions.stream(**asked) as stream:
        final = stream.get_final_completion()
    for choice in (answer.choices[0], final.choices[0]):
        (call,) = choice.message.tool_calls
        assert (call.function.name, call.function.parsed_arguments) == ("plan", TRIP)
        assert (choice.message.content, choice.finish_reason) == (None, "tool_calls")


def test_a_tool_that_is_not_there_is_the_packages_own_exception(client: Client):
    with pytest.raises(openai.BadRequestError, match="'x' not found") as caught:
        client.chat.completions.create(
            model="gpt-4o",
            messages=MESSAGES,
            tools=[pydantic_function_tool(Trip)],
            tool_choice={"type": "function", "function": {"name": "x"}},
        )
    assert caught.value.param == "tool_choice"


def test_completions_plain_and_streamed(client: Client):
    plain = client.completions.create(model="gpt-35-turbo-instruct", prompt="Say hi")
    assert plain.choices[0].text
    with client.completions.create(
        model="gpt-35-turbo-instruct", prompt="Say hi", stream=True
    ) as stream:
        assert "".join(e.choices[0].text for e in stream if e.choices)


def test_embeddings(client: Client):
    answer = client.embeddings.create(model="text-embedding-3-small", input=["a", "b"])
    assert [len(e.embedding) for e in answer.data] == [8, 8]


SOUND = ("said.wav", b"RIFF" + bytes(200_000), "audio/wav")


def test_what_is_said_in_a_recording_plain_as_text_and_streamed(client: Client):
    plain = client.audio.transcriptions.create(model="gpt-4o", file=SOUND, prompt="Cats")
    assert plain.text.startswith("Hello from")
    assert plain.usage.input_tokens == 201
    text = client.audio.transcriptions.create(model="gpt-4o", file=SOUND, response_format="srt")
    assert text.startswith("1\n00:00:00,000 --> ")
    with client.audio.transcriptions.create(model="gpt-4o", file=SOUND, stream=True) as stream:
        events = list(stream)
    assert events[-1].text == "".join(e.delta for e in events[:-1])


def test_who_is_refused_in_the_middle_of_a_large_upload_reads_why(gateway: Gateway):
    """This client sends all of it before it looks at the answer."""

    async def upload() -> None:
        async with AsyncOpenAI(
            base_url=f"{gateway.url}/v1", api_key="gw-wrong", max_retries=0
        ) as client:
            sound = ("said.wav", bytes(25_000_000))
            await client.audio.transcriptions.create(model="gpt-4o", file=sound)

    with pytest.raises(openai.AuthenticationError, match="not known here"):
        asyncio.run(upload())


def test_what_is_to_be_said_whole_and_as_it_comes(client: Client):
    asked = {"model": "gpt-4o", "input": "Good morning", "voice": "alloy"}
    whole = client.audio.speech.create(**asked).content
    assert whole.startswith(b"\xff\xfb\x90")
    with client.audio.speech.with_streaming_response.create(**asked) as answer:
        assert b"".join(answer.iter_bytes()) == whole


def test_images_made_edited_and_streamed(client: Client):
    made = client.images.generate(model="gpt-4o", prompt="A cat", n=2)
    assert [bool(image.b64_json) for image in made.data] == [True, True]
    images = [("a.png", PNG, "image/png"), ("b.png", PNG, "image/png")]
    edited = client.images.edit(model="gpt-4o", prompt="A cat", image=images)
    assert edited.data[0].b64_json
    with client.images.generate(
        model="gpt-4o", prompt="A cat", stream=True, partial_images=2
    ) as stream:
        kinds = [event.type for event in stream]
    partial, completed = "image_generation.partial_image", "image_generation.completed"
    assert kinds == [partial, partial, completed]


def test_models(client: Client):
    names = [m.id for m in client.models.list()]
    assert names == ["gpt-35-turbo-instruct", "gpt-4o", "text-embedding-3-small"]


def test_an_unknown_model_is_the_packages_own_exception(client: Client):
    with pytest.raises(openai.NotFoundError, match="gpt-9") as caught:
        client.chat.completions.create(model="gpt-9", messages=MESSAGES)
    assert caught.value.code == "model_not_found"


def test_a_wrong_key_is_the_packages_own_exception(gateway: Gateway):
    with (
        OpenAI(base_url=f"{gateway.url}/v1", api_key="gw-wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError, match="not known here"),
    ):
        client.models.list()


def test_a_sick_instance_is_not_the_clients_problem(client: Client, simulator: Simulator):
    simulator["east"].faults["*"] = "500"
    for _ in range(10):
        answer = client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
        assert "west" in answer.choices[0].message.content


def test_a_stream_that_breaks_in_the_middle_is_an_error_and_not_an_end(
    client: Client, simulator: Simulator
):
    for resource in simulator.resources.values():
        resource.faults["*"] = "break-in-middle"
    with client.chat.completions.create(
        model="gpt-4o", messages=MESSAGES, stream=True
    ) as stream:
        assert next(stream)
        with pytest.raises(openai.APIError, match="broke off"):
            list(stream)
