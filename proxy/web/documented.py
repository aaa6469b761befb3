"""What each view of the admin API asks for, and what the OpenAPI document says of it."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from flask_smorest import Blueprint
from marshmallow import Schema

from proxy.core import roles
from proxy.web import schemas

Json = dict[str, Any]

ERRORS = {
    400: "The body cannot be read.",
    401: "There is no admin key in the request, or a wrong one.",
    403: "The key's role is not sufficient, or the admin API is closed.",
    404: "There is nothing of this name.",
    409: "It contradicts what is there: the name exists, say.",
    412: "If-Match names another version.",
    413: "The body is too large.",
    429: "Too many wrong keys came from the same address.",
    422: "A field cannot be used; `param` names it.",
}

TO_KNOW = "It is done, and there is something to know of it."

OF_ALL = (401, 403, 429)
YAML = "application/yaml"
CSV = "text/csv"

View = TypeVar("View", bound=Callable[..., Any])


def documented_in(
    blueprint: Blueprint,
    status: int,
    answer: type[Schema] | None = None,
    *,
    body: Schema | Json | None = None,
    least: int = 0,
    yaml: Schema | Json | None = None,
    csv: bool = False,
    query: type[Schema] | None = None,
    errors: tuple[int, ...] = (404,),
    instead: type[Schema] | None = None,
    shown: Json | None = None,
    right: str | None = None,
) -> Callable[[View], View]:
    """What the OpenAPI document says of a view; `answer` also shapes what the view returns.
    Of the body's fields `least` are needed, whichever. `yaml` is of a body that may be YAML,
    too; without a body, of the answer, which may be CSV instead where `csv` says so. `instead`
    is of an answer 200 that says more than one without a body; `shown` of one that may have
    other shapes than `answer`, which then is what the view returns as it is.

    `right` is the one it asks for (core/roles.py); None: by its method, whose name it has.
    """
    parameters: list[Json] = [{"in": "query", "schema": query}] if query else []
    if 412 in errors:
        parameters.append({"in": "header", "name": "If-Match", "schema": {"type": "string"}})
    doc: Json = {"responses": _others(errors, instead)}
    if parameters:
        doc["parameters"] = parameters
    if body is not None:
        schema = {"allOf": [body], "minProperties": least} if least else body
        content = {"application/json": {"schema": schema}}
        if yaml is not None:
            content[YAML] = {"schema": yaml}
        doc["requestBody"] = {"required": True, "content": content}
    unusual = _unusual(shown, yaml if body is None else None, csv=csv)
    if unusual:
        doc["responses"][status] = {"content": unusual}

    def decorate(view: View) -> View:
        asked = right or roles.BY_METHOD.get(view.__name__, roles.ADMINISTER)
        # All of it at once: each decorator copies what those before it said, with its schemas,
        # and a start took a tenth longer.
        said = blueprint.doc(**doc, **{"x-role": roles.least_role(asked)})(view)
        decorated: Any = blueprint.response(status, answer)(said)
        decorated.right = asked  # for web/auth.py
        return cast(View, decorated)

    return decorate


def any_of(*schemas: Schema | Json) -> Json:
    return {"anyOf": list(schemas)}


def one_or_list(schema: Schema) -> Json:
    return any_of(schema, {"type": "array", "minItems": 1, "items": schema})


def _unusual(shown: Json | None, yaml: Schema | Json | None, *, csv: bool) -> Json:
    """What a good answer may have but for JSON in one shape, by its content type."""
    shapes = {"application/json": shown, YAML: yaml, CSV: {"type": "string"} if csv else None}
    return {kind: {"schema": shape} for kind, shape in shapes.items() if shape is not None}


def _others(errors: tuple[int, ...], instead: type[Schema] | None) -> dict[int, Json]:
    """Other answers by their status: when each comes, and what it has."""
    notes = {} if instead is None else {200: _answer(instead, TO_KNOW)}
    return notes | {e: _answer(schemas.ErrorSchema, ERRORS[e]) for e in (*OF_ALL, *errors)}


def _answer(schema: type[Schema], said: str) -> Json:
    return {"description": said, "content": {"application/json": {"schema": schema}}}
