"""What form an answer is to have, where it is not plain text: JSON, or a function's call.

A function is called only if the client insists. Where the choice is the model's, nobody
could foresee it, and an agent that always gets a call would never end.
"""

import json
from dataclasses import dataclass, replace
from typing import Any

from proxy.simulator import fitting
from proxy.simulator.errors import Refused, invalid

Json = dict[str, Any]

CHARACTERS_PER_TOKEN = 4

ANY_OBJECT = {"type": "object", "properties": {"answer": {}}, "required": ["answer"]}
"""What somebody gets who asks for JSON and does not say of which kind."""

CHOICES = ("none", "auto", "required")


@dataclass(frozen=True, slots=True)
class Form:
    """JSON, as an answer's text or as the arguments of the function that it calls."""

    json: str
    function: str | None = None
    is_legacy: bool = False  # asked for with `functions`, which are called one at a time

    @property
    def pieces(self) -> list[str]:
        """A token each. That of a function's name is the first, with nothing of the JSON."""
        size = CHARACTERS_PER_TOKEN
        pieces = [self.json[at : at + size] for at in range(0, len(self.json), size)]
        return pieces if self.function is None else ["", *pieces]


def compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def wanted(body: Json) -> Form | None:
    """The form that a chat request asks for; None is text. Raises Refused with a 400."""
    called = _called_tool(body) or _called_function(body)
    if called is not None:
        return called
    asked = body.get("response_format")
    if not isinstance(asked, dict):
        return None
    if asked.get("type") == "json_object":
        return Form(compact(fitting.instance(ANY_OBJECT)))
    if asked.get("type") != "json_schema":
        return None
    format_ = asked.get("json_schema")
    named = format_ if isinstance(format_, dict) else {}
    what = f"response_format {str(named.get('name'))!r}"
    return Form(_fitting(named.get("schema"), what, "response_format"))


def wanted_of_response(body: Json) -> Form | None:
    """As `wanted`, of a request for a response, which says the same otherwise."""
    text, choice = body.get("text"), body.get("tool_choice")
    format_ = text.get("format") if isinstance(text, dict) else None
    tools = [t for t in _objects(body.get("tools")) if t.get("type") == "function"]
    said: Json = {"tools": [{"type": "function", "function": tool} for tool in tools]}
    if isinstance(choice, dict) and choice.get("type") == "function":
        choice = {"type": "function", "function": {"name": choice.get("name")}}
    if tools and not isinstance(choice, dict | str | None):
        choice = str(choice)
    if tools:
        said["tool_choice"] = choice
    if isinstance(format_, dict):
        said["response_format"] = {**format_, "json_schema": format_}
    return wanted(said)


def _called_tool(body: Json) -> Form | None:
    choice = body.get("tool_choice")
    if choice is None:
        return None
    tools = _objects(body.get("tools"))
    if not tools:
        raise _only_with("tool_choice", "tools")
    functions = {
        f"tools[{at}].function.parameters": tool["function"]
        for at, tool in enumerate(tools)
        if isinstance(tool.get("function"), dict)
    }
    if isinstance(choice, dict) and choice.get("type") == "function":
        return _named(functions, choice.get("function"), "tool_choice", "tools")
    if choice == "required" and functions:  # tools of other kinds take text
        return _call(*next(iter(functions.items())))
    if isinstance(choice, str) and choice not in CHOICES:
        supported = ", ".join(map(repr, CHOICES))
        message = f"Invalid value: {choice!r}. Supported values are: {supported}."
        raise Refused(invalid(message, code="invalid_value", param="tool_choice"))
    return None


def _called_function(body: Json) -> Form | None:
    choice = body.get("function_call")
    if choice is None:
        return None
    listed = _objects(body.get("functions"))
    if not listed:
        raise _only_with("function_call", "functions")
    if not isinstance(choice, dict):
        return None
    functions = {f"functions[{at}].parameters": each for at, each in enumerate(listed)}
    form = _named(functions, choice, "function_call", "functions")
    return replace(form, is_legacy=True)


def _named(functions: dict[str, Json], choice: object, param: str, listed_in: str) -> Form:
    """`functions` by what an error of theirs names."""
    name = choice.get("name") if isinstance(choice, dict) else None
    for place, function in functions.items():
        if function.get("name") == name is not None:
            return _call(place, function)
    message = f"Invalid value for '{param}': function {name!r} not found in '{listed_in}'."
    raise Refused(invalid(message, param=param))


def _call(place: str, function: Json) -> Form:
    name = str(function.get("name"))
    schema = function.get("parameters")
    code = "invalid_function_parameters"
    return Form(_fitting(schema, f"function {name!r}", place, code), name)


def _fitting(schema: object, what: str, param: str, code: str | None = None) -> str:
    try:
        return compact(fitting.instance(schema or {"type": "object"}))
    except fitting.Unfit as unfit:
        message = f"Invalid schema for {what}: {unfit}."
        raise Refused(invalid(message, code, param)) from unfit


def _only_with(param: str, other: str) -> Refused:
    only = f"'{param}' is only allowed when '{other}' are specified."
    return Refused(invalid(f"Invalid value for '{param}': {only}", param=param))


def _objects(value: object) -> list[Json]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
