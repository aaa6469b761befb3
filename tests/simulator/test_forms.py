import json

import pytest

from proxy.simulator import forms
from proxy.simulator.errors import Refused

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
F, G = {"name": "f", "parameters": SCHEMA}, {"name": "g"}
TOOLS = [{"type": "function", "function": F}, {"type": "function", "function": G}]
CUSTOM = [{"type": "custom", "custom": {"name": "c"}}]
WRONG = {"type": "text"}


def named(name):
    return {"type": "function", "function": {"name": name}}


def schema_format(schema, name="n"):
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}


@pytest.mark.parametrize(
    "body, form",
    [
        ({}, None),
        # The choice is the model's, which says something instead.
        ({"tools": TOOLS}, None),
        ({"tools": TOOLS, "tool_choice": "auto"}, None),
        ({"tools": TOOLS, "tool_choice": "none"}, None),
        ({"tools": CUSTOM, "tool_choice": "required"}, None),
        ({"functions": [F], "function_call": "auto"}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": "json_schema"}, None),
        ({"tools": TOOLS, "tool_choice": "required"}, forms.Form('{"a":0}', "f")),
        ({"tools": CUSTOM + TOOLS, "tool_choice": "required"}, forms.Form('{"a":0}', "f")),
        ({"tools": TOOLS, "tool_choice": named("g")}, forms.Form("{}", "g")),
        (
            {"functions": [F, G], "function_call": {"name": "g"}},
            forms.Form("{}", "g", is_legacy=True),
        ),
        ({"response_format": schema_format(SCHEMA)}, forms.Form('{"a":0}')),
        ({"response_format": {"type": "json_schema"}}, forms.Form("{}")),
        ({"response_format": {"type": "json_object"}}, forms.Form('{"answer":"text"}')),
        # A call comes before what an answer would have to be.
        (
            {
                "tools": TOOLS,
                "tool_choice": "required",
                "response_format": {"type": "json_object"},
            },
            forms.Form('{"a":0}', "f"),
        ),
        (
            {"tools": TOOLS, "tool_choice": "auto", "response_format": schema_format(SCHEMA)},
            forms.Form('{"a":0}'),
        ),
    ],
    ids=str,
)
def test_an_answer_has_the_form_that_the_client_insists_on(body, form):
    assert forms.wanted(body) == form


@pytest.mark.parametrize(
    "body, param, code, says",
    [
        (
            {"tool_choice": "required"},
            "tool_choice",
            None,
            "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are"
            " specified.",
        ),
        ({"tool_choice": "none", "tools": []}, "tool_choice", None, "only allowed"),
        ({"tool_choice": named("f"), "tools": "f"}, "tool_choice", None, "only allowed"),
        ({"tool_choice": named("x"), "tools": TOOLS}, "tool_choice", None, "'x' not found"),
        ({"tool_choice": {"type": "function"}, "tools": TOOLS}, "tool_choice", None, "None"),
        (
            {"tool_choice": named(None), "tools": [{"function": {}}]},
            "tool_choice",
            None,
            "not found",
        ),
        ({"tool_choice": "any", "tools": TOOLS}, "tool_choice", "invalid_value", "'none'"),
        ({"function_call": "auto"}, "function_call", None, "'functions' are specified"),
        (
            {"function_call": {"name": "x"}, "functions": [F]},
            "function_call",
            None,
            "'x' not found",
        ),
        ({"response_format": schema_format(WRONG)}, "response_format", None, "'n'"),
        ({"response_format": schema_format([3])}, "response_format", None, "is no schema"),
        (
            {
                "tools": [*CUSTOM, {"function": {"name": "f", "parameters": WRONG}}],
                "tool_choice": "required",
            },
            "tools[1].function.parameters",
            "invalid_function_parameters",
            "Invalid schema for function 'f': 'text' is not a type.",
        ),
        (
            {"functions": [{"name": "f", "parameters": WRONG}], "function_call": {"name": "f"}},
            "functions[0].parameters",
            "invalid_function_parameters",
            "'f'",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_called_or_fitted_is_a_400_that_names_it(body, param, code, says):
    with pytest.raises(Refused) as refused:
        forms.wanted(body)
    answer = refused.value.answer
    error = json.loads(answer.body)["error"]
    assert (answer.status, error["type"]) == (400, "invalid_request_error")
    assert (error["param"], error["code"]) == (param, code)
    assert says in error["message"]


@pytest.mark.parametrize(
    "form, pieces",
    [
        (forms.Form('{"a":12}'), ['{"a"', ":12}"]),
        (forms.Form("{}"), ["{}"]),
        (forms.Form("{}", "f"), ["", "{}"]),  # the function's name is a token
    ],
)
def test_four_characters_are_a_piece(form, pieces):
    assert form.pieces == pieces
