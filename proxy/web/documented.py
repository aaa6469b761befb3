"""What the OpenAPI document says of the admin API's views."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from flask_smorest import Blueprint
from marshmallow import Schema

from proxy.web import schemas

Json = dict[str, Any]

ERRORS = {
    404: "There is nothing of this name.",
    409: "It contradicts what is there: the name exists, say.",
    412: "If-Match names another version.",
    422: "A field cannot be used; `param` names it.",
}

View = TypeVar("View", bound=Callable[..., Any])


def documented_in(
    blueprint: Blueprint,
    status: int,
    answer: type[Schema] | None = None,
    *,
    body: Schema | None = None,
    least: int = 0,
    query: type[Schema] | None = None,
    errors: tuple[int, ...] = (404,),
) -> Callable[[View], View]:
    """What the OpenAPI document says of a view; `answer` also shapes what the view returns.
    Of the body's fields `least` are needed, whichever."""
    parameters: list[Json] = [{"in": "query", "schema": query}] if query else []
    if 412 in errors:
        parameters.append({"in": "header", "name": "If-Match", "schema": {"type": "string"}})
    doc: Json = {"parameters": parameters} if parameters else {}
    if body is not None:
        schema = {"allOf": [body], "minProperties": least} if least else body
        content = {"application/json": {"schema": schema}}
        doc["requestBody"] = {"required": True, "content": content}

    def decorate(view: View) -> View:
        decorated: Any = blueprint.response(status, answer)(view)
        for error in errors:
            decorated = blueprint.alt_response(
                error, schema=schemas.ErrorSchema, description=ERRORS[error]
            )(decorated)
        return cast(View, blueprint.doc(**doc)(decorated) if doc else decorated)

    return decorate
