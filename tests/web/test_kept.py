import json
from types import SimpleNamespace

import pytest

from proxy.core.types import Client
from proxy.errors import BadRequest
from proxy.web.kept import homes_of, marks_of, taken_up
from tests.builders import config

APP = Client("app")


A, B = config("a"), config("b")


def parts(pepper=b"pepper", configs=(A, B)):
    found = {c.name: c for c in configs}
    instances = dict.fromkeys((*found, "broken"))  # of the last no config could be read
    current = SimpleNamespace(pepper=pepper, instances=instances, configs=found)
    return SimpleNamespace(snapshots=SimpleNamespace(current=current))


def taken(fields, client=APP, body=None):
    body = json.dumps(fields).encode() if body is None else body
    return taken_up(parts(), client, body, fields)


def test_marks_are_the_clients_and_need_the_gateways_secret():
    assert marks_of(parts(), APP) == (b"pepper", "app")
    assert marks_of(parts(None), APP) == (b"", "app")


def test_homes_are_all_instances_or_those_that_the_client_may_use():
    assert list(homes_of(parts(), APP).names) == ["a", "b", "broken"]
    mine = Client("app", allowed_instances=("b", "gone"))
    assert list(homes_of(parts(), mine).names) == ["b"]


@pytest.mark.parametrize(
    "one, other, is_same",
    [
        ({}, {}, False),
        ({"api_base": "https://x"}, {"api_base": "https://X/", "api_key": "another"}, True),
        (
            {"api_base": "https://x"},
            {"api_base": "https://x/openai/v1", "provider_type": "azure_v1"},
            True,
        ),
        (
            {"api_base": "https://x", "provider_type": "openai"},
            {"api_base": "https://x/v1", "provider_type": "openai", "api_key": "another"},
            False,
        ),
        (
            {"api_base": "https://x", "provider_type": "openai", "api_key": "k"},
            {"api_base": "https://x/v1", "provider_type": "openai", "api_key": "k"},
            True,
        ),
    ],
)
def test_instances_of_one_resource_are_one_home(one, other, is_same):
    homes = homes_of(parts(configs=(config("a", **one), config("b", **other))), APP)
    assert homes.beside("b") == (("b", "a") if is_same else ("b",))
    assert homes.beside("broken") == ("broken",)


def test_what_refers_to_nothing_is_taken_as_it_came():
    body = b' {"model":"m", "input":"x"}'
    found = taken({"model": "m", "input": "x"}, body=body)
    assert found.body is body
    assert found.homes == ()


def test_what_refers_to_something_is_written_anew_without_marks():
    name = marks_of(parts(), APP).marked("resp_1", "b")
    found = taken({"previous_response_id": name, "input": "ü", "top_p": 0.1})
    assert found.homes == ("b",)
    assert found.body == '{"previous_response_id":"resp_1","input":"ü","top_p":0.1}'.encode()
    assert found.fields["previous_response_id"] == "resp_1"


def test_what_may_be_read_in_two_ways_is_written_anew():
    body = b'{"input": "x", "input": "y"}'
    assert taken(json.loads(body), body=body) == (b'{"input":"y"}', {"input": "y"}, ())


@pytest.mark.parametrize(
    "fields, param, code",
    [
        (
            {"previous_response_id": "resp_1"},
            "previous_response_id",
            "previous_response_not_found",
        ),
        ({"input": [{"id": "msg_1"}]}, "input[0].id", "invalid_request"),
        ({"conversation": "conv_1"}, "conversation", "invalid_request"),
    ],
)
def test_what_is_not_to_be_had_is_the_clients_mistake(fields, param, code):
    with pytest.raises(BadRequest) as told:
        taken(fields)
    assert (told.value.param, told.value.code) == (param, code)
    assert told.value.message.startswith(f"{param}: ")
    assert told.value.message.endswith(".")


def test_what_cannot_be_written_as_deep_as_it_was_read_is_told():
    fields = {"previous_response_id": None, "x": json.loads("[" * 400 + "]" * 400)}
    with pytest.raises(BadRequest, match="nested too deeply"):
        taken(fields)
