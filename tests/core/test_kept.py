import json

import pytest

from proxy.core.kept import (
    ELSEWHERE,
    NO_CONVERSATIONS,
    NOT_GIVEN,
    Marks,
    Unknown,
    has_marks,
    marked,
    may_be_read_otherwise,
    resumed,
)

MARKS = Marks(b"a secret", "app")
HOMES = ("a", "b")
NAME = "resp_0123456789abcdef"


def at(home, name=NAME, marks=MARKS):
    return marks.marked(name, home)


# A mark says whose it is, and where.


@pytest.mark.parametrize("home", HOMES)
@pytest.mark.parametrize("name", [NAME, "x", "a_gw0123456789abcdef", "gAAA-_=\n", "ü"])
def test_what_is_marked_is_found_at_home(home, name):
    assert MARKS.opened(at(home, name), HOMES) == (name, home)


def test_a_mark_is_short_and_can_stand_in_a_path_or_in_json():
    mark = at("a")[len(NAME) :]
    assert (mark[:3], len(mark)) == ("_gw", 19)
    assert mark[3:].isalnum()
    assert mark.islower()


def test_it_is_the_same_each_time_and_another_for_whatever_is_another():
    assert at("a") == at("a")
    others = {
        at("a"),
        at("b"),
        at("a", "resp_1"),
        at("a", marks=Marks(b"a secret", "other")),
        at("a", marks=Marks(b"another", "app")),
        # The client's name is none of its home's.
        at("aa", marks=Marks(b"a secret", "ap")),
    }
    assert len({marked[-16:] for marked in others}) == 6


@pytest.mark.parametrize(
    "given",
    [
        NAME,
        "",
        f"{NAME}_gw",
        f"{NAME}_gw0123456789abcdef",
        at("a")[:-1],
        at("a") + "0",
        at("a").upper(),
        "x" + at("a"),
        at("c"),
        at("a", marks=Marks(b"a secret", "other")),
        at("a", marks=Marks(b"", "app")),
    ],
)
def test_nothing_else_opens(given):
    assert MARKS.opened(given, HOMES) is None


@pytest.mark.parametrize("key", [b"", b"k", b"k" * 64, b"k" * 200])
def test_the_secret_may_be_of_any_length(key):
    marks = Marks(key, "app")
    assert marks.opened(marks.marked(NAME, "b"), HOMES) == (NAME, "b")


# What a request refers to.


def test_a_request_that_refers_to_nothing_stays_as_it_is():
    fields = {
        "model": "gpt-4o",
        "input": [{"role": "user", "content": "x"}, {"id": "msg_1", "type": "message"}, 7],
        "previous_response_id": None,
        "conversation": None,
    }
    assert resumed(fields, MARKS, HOMES) == (fields, "")
    for text in ("x", None, {"id": "msg_1"}):
        assert resumed({"input": text}, MARKS, HOMES) == ({"input": text}, "")


def test_marks_go_and_tell_the_home():
    reasoning = {"type": "reasoning", "id": at("b", "rs_1"), "encrypted_content": at("b", "gA")}
    approval = {"type": "mcp_approval_response", "approval_request_id": at("b", "mcpr_1")}
    fields = {
        "previous_response_id": at("b"),
        "input": [reasoning, approval, {"id": at("b", "msg_1")}, {"role": "user"}],
    }
    found = resumed(fields, MARKS, HOMES)
    assert found.home == "b"
    assert found.fields == {
        "previous_response_id": NAME,
        "input": [
            {"type": "reasoning", "id": "rs_1", "encrypted_content": "gA"},
            {"type": "mcp_approval_response", "approval_request_id": "mcpr_1"},
            {"id": "msg_1"},
            {"role": "user"},
        ],
    }
    assert fields["input"][0]["id"] == at("b", "rs_1")  # what was given is not changed


@pytest.mark.parametrize(
    "fields, param, why",
    [
        ({"previous_response_id": NAME}, "previous_response_id", NOT_GIVEN),
        ({"previous_response_id": 7}, "previous_response_id", NOT_GIVEN),
        ({"previous_response_id": at("c")}, "previous_response_id", NOT_GIVEN),
        ({"input": [{"id": "msg_1"}]}, "input[0].id", NOT_GIVEN),
        ({"input": [{}]}, "input[0].id", NOT_GIVEN),
        ({"input": [{"type": "item_reference", "x": 1}]}, "input[0].id", NOT_GIVEN),
        ({"input": ["x", {"id": "m_1", "type": None}]}, "input[1].id", NOT_GIVEN),
        (
            {"input": [{"role": "user", "id": at("c", "msg_1")}]},
            "input[0].id",
            NOT_GIVEN,
        ),
        (
            {"input": [{"type": "reasoning", "encrypted_content": at("c", "gA")}]},
            "input[0].encrypted_content",
            NOT_GIVEN,
        ),
        ({"conversation": "conv_1"}, "conversation", NO_CONVERSATIONS),
        (
            {"previous_response_id": at("a"), "input": [{"id": at("b", "msg_1")}]},
            "input[0].id",
            ELSEWHERE,
        ),
    ],
)
def test_what_is_not_to_be_had_is_told_by_its_field(fields, param, why):
    with pytest.raises(Unknown) as told:
        resumed(fields, MARKS, HOMES)
    assert (told.value.param, str(told.value)) == (param, why)


@pytest.mark.parametrize(
    "fields, param",
    [
        ({"Conversation": None}, "Conversation"),
        ({"INPUT": "x"}, "INPUT"),
        ({"input": [{"ID": "x", "role": "user"}]}, "input[0].ID"),
    ],
)
def test_a_field_that_another_parser_could_take_for_one_of_these_is_told(fields, param):
    with pytest.raises(Unknown, match=f"write it as {param.split('.')[-1].lower()}") as told:
        resumed(fields, MARKS, HOMES)
    assert told.value.param == param


@pytest.mark.parametrize(
    "body, may",
    [
        (b'{"model":"m","input":"x"}', False),
        (b'{"input":[{"role":"user","content":"caf\\u00e9 \\u4e2d"}]}', False),
        (b'{"input":"x","input":"y"}', True),
        (b'{"previous_response_id":null}', True),
        (b'{"input":[{"type":"item_reference"}]}', True),
        (b'{"conversation":null}', True),
        (b'{"inp\\u0075t":"x"}', True),
        (b'{"\\u005f":1}', True),
    ],
)
def test_what_may_be_read_in_two_ways(body, may):
    assert may_be_read_otherwise(body) is may
    assert may_be_read_otherwise(bytearray(body)) is may


def test_marks_are_found_in_json():
    body = json.dumps({"input": [{"encrypted_content": at("a", "gA")}]}).encode()
    assert has_marks(body)
    assert has_marks(bytearray(body))
    assert not has_marks(body.replace(b"_gw", b"_gv"))


# What an answer names.


def told(payload, home="a"):
    body = json.dumps(payload).encode()
    return json.loads(marked(body, payload, MARKS, home))


def test_a_response_has_marks_where_it_names_what_is_kept():
    payload = {
        "id": NAME,
        "object": "response",
        "previous_response_id": "resp_0",
        "metadata": {"id": "mine"},
        "output": [
            {"id": "rs_1", "encrypted_content": "gA"},
            {"id": "fc_1", "call_id": "call_1", "name": "f"},
            {"id": None},
            "x",
        ],
    }
    assert told(payload) == payload | {
        "id": at("a"),
        "previous_response_id": at("a", "resp_0"),
        "output": [
            {"id": at("a", "rs_1"), "encrypted_content": at("a", "gA")},
            {"id": at("a", "fc_1"), "call_id": "call_1", "name": "f"},
            {"id": None},
            "x",
        ],
    }


@pytest.mark.parametrize(
    "payload, name",
    [
        ({"type": "response.created", "response": {"id": "x1"}}, "x1"),
        ({"type": "response.output_item.done", "item": {"id": "x1"}}, "x1"),
        ({"type": "response.output_text.delta", "item_id": "x1", "delta": "id"}, "x1"),
        ({"object": "list", "data": [{"id": "x1"}], "first_id": "x1", "last_id": "x1"}, "x1"),
    ],
)
def test_so_has_an_event_or_a_list(payload, name):
    text = json.dumps(payload)
    assert told(payload) == json.loads(text.replace(f'"{name}"', f'"{at("a", name)}"'))


@pytest.mark.parametrize(
    "payload",
    [
        {"error": {"message": "no", "code": "x"}},
        {"output": None, "data": 7, "response": "x", "item": []},
        {"id": ""},
        {"id": 'x"y', "item_id": "x\\y", "first_id": "\ud800"},
        {"delta": "resp_1", "text": "id"},
    ],
)
def test_nothing_else_is_touched(payload):
    body = b" " + json.dumps(payload, indent=1).encode()
    assert marked(body, payload, MARKS, "a") == body
