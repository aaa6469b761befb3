import json

import pytest

from proxy.core.kept import (
    ELSEWHERE,
    NO_CONVERSATIONS,
    NO_INPUT,
    NO_NAME,
    NO_TEXT,
    NOT_GIVEN,
    Marks,
    Unknown,
    marked,
    may_refer,
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


def test_the_secret_is_not_shown():
    assert "a secret" not in repr(MARKS)


# What a request refers to.


def test_a_request_that_refers_to_nothing_stays_as_it_is():
    fields = {
        "model": "gpt-4o",
        "input": [{"role": "user", "content": "x"}, {"type": "message", "role": "user"}],
        "previous_response_id": None,
        "conversation": None,
    }
    assert resumed(fields, MARKS, HOMES) == (fields, "")
    assert resumed(fields, MARKS, HOMES).fields is fields
    for text in ("x", None, []):
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
        ({"input": [{"role": "user"}, {"id": "m_1", "type": None}]}, "input[1].id", NOT_GIVEN),
        # What a parser could take for a reference.
        ({"input": [{"id": "m_1", "x": 1}]}, "input[0].id", NOT_GIVEN),
        ({"input": [{"id": "m_1", "status": None}]}, "input[0].id", NOT_GIVEN),
        ({"input": [{"id": "m_1", "role": None}]}, "input[0].id", NOT_GIVEN),
        ({"input": [{"id": "m_1", "type": ""}]}, "input[0].id", NOT_GIVEN),
        ({"input": [{"id": "m_1", "type": "Item_Reference"}]}, "input[0].id", NOT_GIVEN),
        ({"input": [{"type": ["item_reference"], "id": "m_1"}]}, "input[0].type", NO_TEXT),
        ({"input": [{"type": "message", "role": 7}]}, "input[0].role", NO_TEXT),
        ({"input": [["x"]]}, "input[0]", "it must be an object"),
        ({"input": {"id": "m_1"}}, "input", NO_INPUT),
        ({"instructions": [{"id": "m_1"}]}, "instructions", NO_TEXT),
        (
            {"input": [{"type": "mcp_approval_response", "approval_request_id": "mcpr_1"}]},
            "input[0].approval_request_id",
            NOT_GIVEN,
        ),
        (
            {"input": [{"type": "reasoning", "encrypted_content": "gA"}]},
            "input[0].encrypted_content",
            NOT_GIVEN,
        ),
        (
            {"input": [{"type": "reasoning", "id": at("c", "rs_1")}]},
            "input[0].id",
            NOT_GIVEN,
        ),
        (
            {"input": [{"type": "reasoning", "encrypted_content": at("c", "gA")}]},
            "input[0].encrypted_content",
            NOT_GIVEN,
        ),
        ({"conversation": "conv_1"}, "conversation", NO_CONVERSATIONS),
        ({"request_id": "resp_1"}, "request_id", NO_NAME),
        ({"stream": 1}, "stream", "it must be true or false"),
        ({"stream": "true"}, "stream", "it must be true or false"),
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


LONG_S = "previou\u017f_response_id"  # which Go takes for an s
SAID = {"type": "message", "role": "assistant", "content": "x"}
CALLED = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}


@pytest.mark.parametrize(
    "item",
    [
        SAID,
        {"role": "assistant", "content": "x"},
        CALLED,
        {"type": "custom_tool_call"},
        {"type": "function_call_output", "call_id": "call_1", "output": "x"},
        {"type": "custom_tool_call_output", "call_id": "call_1", "output": "x"},
    ],
)
@pytest.mark.parametrize("home", ["a", "c"])
def test_what_says_all_of_itself_goes_anywhere_without_its_name(item, home):
    """Also if its home is gone."""
    given = {"input": [item | {"id": at(home, "msg_1")}]}
    assert resumed(given, MARKS, HOMES) == ({"input": [item]}, "")


@pytest.mark.parametrize("kind", ["reasoning", "image_generation_call", "brand_new"])
def test_no_item_goes_up_with_a_name_of_the_clients_own(kind):
    """Or an upstream that tells of it would have it marked, whatever it is the name of."""
    for name in ("rs_1", 7, "", at("a", marks=Marks(b"", "app"))[:-1]):
        found = resumed({"input": [{"type": kind, "id": name, "x": 1}]}, MARKS, HOMES)
        assert found == ({"input": [{"type": kind, "x": 1}]}, "")


def test_what_a_tool_of_the_clients_did_keeps_its_calls_id():
    done = {"type": "local_shell_call_output", "id": "call_1", "output": "x"}
    assert resumed({"input": [done]}, MARKS, HOMES) == ({"input": [done]}, "")


def test_if_it_names_the_item_of_its_call_that_is_looked_for_at_home():
    done = {"type": "local_shell_call_output", "id": at("b", "lsh_1"), "output": "x"}
    assert resumed({"input": [done]}, MARKS, HOMES) == (
        {"input": [done | {"id": "lsh_1"}]},
        "b",
    )


def test_where_nothing_is_encrypted_nobody_is_needed():
    item = {"type": "reasoning", "summary": [], "encrypted_content": ""}
    assert resumed({"input": [item]}, MARKS, HOMES) == ({"input": [item]}, "")


def test_at_home_it_keeps_its_name():
    reasoning = {"type": "reasoning", "id": at("b", "rs_1")}
    items = [SAID | {"id": at("b", "msg_1")}, reasoning, CALLED | {"id": at("a", "fc_1")}, SAID]
    found = resumed({"input": items}, MARKS, HOMES)
    assert found.home == "b"
    assert found.fields["input"] == [
        SAID | {"id": "msg_1"},
        {"type": "reasoning", "id": "rs_1"},
        CALLED,
        SAID,
    ]


@pytest.mark.parametrize(
    "fields, param",
    [
        ({"Conversation": None}, "Conversation"),
        ({"INPUT": "x"}, "INPUT"),
        ({LONG_S: "resp_1"}, LONG_S),
        ({"\u0131nput": "x"}, "\u0131nput"),
        ({"\u0130nput": "x"}, "\u0130nput"),
        ({"input\0": "x"}, "input\0"),
        ({"Background": True}, "Background"),
        ({"Max_Output_Tokens": 1}, "Max_Output_Tokens"),
        ({"input": [{"Type": "x"}]}, "input[0].Type"),
        ({"input": [{"Encrypted_Content": "x"}]}, "input[0].Encrypted_Content"),
        ({"input": [{"ID": "x", "role": "user"}]}, "input[0].ID"),
    ],
)
def test_a_field_that_another_parser_could_take_for_one_of_these_is_told(fields, param):
    with pytest.raises(Unknown, match=r"write it as [a-z_]+;") as told:
        resumed(fields, MARKS, HOMES)
    assert told.value.param == param


@pytest.mark.parametrize(
    "body, may",
    [
        (b'{"model":"m","input":"x"}', False),
        (b'{"input":[{"role":"user","content":"caf\\u00e9 \\u4e2d \\n"}]}', False),
        (b'{"input":"x","input":"y"}', True),
        (b'{"instructions":"x","instructions":"y"}', True),
        (b'{"stream":true,"stream":false}', True),
        (b'{"background":true,"background":false}', True),
        (b'{"max_output_tokens":9,"max_output_tokens":1}', True),
        (b'{"request_id":"x"}', True),
        (b'{"previous_response_id":null}', True),
        (b'{"input":[{"type":"item_reference"}]}', True),
        (b'{"input":[{"id":"x"}]}', True),
        (b'{"input":[{"encrypted_content":"x"}]}', True),
        (b'{"input":[{"approval_request_id":"x"}]}', True),
        (b'{"conversation":null}', True),
        (b'{"inp\\u0075t":"x"}', True),
        (b'{"\\u005f":1}', True),
        (b'{"x":"\\u0033"}', True),
    ],
)
def test_what_may_refer_to_something(body, may):
    assert may_refer(body) is may
    assert may_refer(bytearray(body)) is may


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
        {"first_id": None, "item_id": 7},
        {"output": [{"type": ["x"]}, {"type": {}}], "item": {"type": []}},
        {"delta": "resp_1", "text": "id"},
    ],
)
def test_nothing_else_is_touched(payload):
    body = b" " + json.dumps(payload, indent=1).encode()
    assert marked(body, payload, MARKS, "a") == body


@pytest.mark.parametrize(
    "payload",
    [
        {"object": "response", "data": [{"id": "x1"}], "first_id": "x1", "last_id": "x1"},
        {"response": {"data": [{"id": "x1"}], "item": {"id": "x1"}}},
        {"object": "list", "id": "x1", "output": [{"id": "x1"}], "response": {"id": "x1"}},
        {"output": [{"type": "local_shell_call_output", "id": "x1"}]},
    ],
)
def test_where_no_name_of_an_upstreams_belongs_none_is_marked(payload):
    """An upstream may repeat there what it was sent."""
    assert told(payload) == payload


def test_what_is_no_json_beside_an_event_is_let_be():
    payload = {"item_id": "x1"}
    comment = b': "id":"\\x" "id":"\xff"\n'
    found = marked(comment + b'data: {"item_id":"x1"}\n\n', payload, MARKS, "a")
    assert found == comment + b'data: {"item_id":"%s"}\n\n' % at("a", "x1").encode()


def test_only_its_name_is_marked_and_not_what_is_equal_to_it():
    item = {"id": "output", "call_id": "output", "name": "output"}
    payload = {
        "output": [item],
        "id": "id",
        "delta": "id",
        "type": "item_id",
        "item_id": "type",
    }
    assert told(payload) == {
        "output": [item | {"id": at("a", "output")}],
        "id": at("a", "id"),
        "delta": "id",
        "type": "item_id",
        "item_id": at("a", "type"),
    }


@pytest.mark.parametrize("name", ["ab\\/c\\u002B=", '\\"x\\"', "\\\\", "\\u00fc", "\\ud800"])
def test_a_name_may_be_written_with_escapes(name):
    body = f'{{"id" : "{name}", "x": "\\"id\\": \\"{name}\\""}}'.encode()
    payload = json.loads(body)
    found = json.loads(marked(body, payload, MARKS, "a"))
    assert found == payload | {"id": at("a", payload["id"])}


def test_many_names_are_marked_in_one_pass():
    """To look through it all for each would take 16 s."""
    data = [{"id": f"msg_{n:048}", "content": "x" * 100} for n in range(10_000)]
    payload = {"object": "list", "data": data}
    ids = [item["id"] for item in told(payload)["data"]]
    assert ids == [at("a", item["id"]) for item in payload["data"]]
