import json
from types import SimpleNamespace

import pytest

from proxy.core.types import Client
from proxy.errors import BadRequest
from proxy.web.kept import homes_of, marks_of, taken_up

APP = Client("app")


def parts(pepper=b"pepper"):
    current = SimpleNamespace(
        pepper=pepper, homes={"https://a": ["a", "c"], "https://b": ["b"]}
    )
    return SimpleNamespace(snapshots=SimpleNamespace(current=current))


def taken(fields, client=APP, body=None):
    body = json.dumps(fields).encode() if body is None else body
    return taken_up(parts(), client, body, fields)


def test_marks_are_the_clients_and_need_the_gateways_secret():
    assert marks_of(parts(), APP) == (b"pepper", "app")
    assert marks_of(parts(None), APP) == (b"", "app")


@pytest.mark.parametrize(
    "allowed, homes",
    [
        ((), {"https://a": ["a", "c"], "https://b": ["b"]}),
        (("c", "gone"), {"https://a": ["c"]}),
        (("gone",), {}),
    ],
)
def test_homes_are_those_of_the_instances_that_the_client_may_use(allowed, homes):
    assert homes_of(parts(), Client("app", allowed_instances=allowed)) == homes


def test_what_refers_to_nothing_is_taken_as_it_came():
    body = b' {"model":"m", "input":"x"}'
    found = taken({"model": "m", "input": "x"}, body=body)
    assert found.body is body
    assert found.homes == ()


def test_what_refers_to_something_is_written_anew_without_marks():
    name = marks_of(parts(), APP).marked("resp_1", "https://a")
    found = taken({"previous_response_id": name, "input": "ü", "top_p": 0.1})
    assert found.homes == ("a", "c")
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
