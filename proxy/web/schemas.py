"""How the admin API reads what it is sent, and says what is wrong with it."""

from collections.abc import Iterable, Sequence
from typing import Any

from flask import request
from marshmallow import Schema, ValidationError, fields

from proxy.context import parts
from proxy.core.spelling import did_you_mean
from proxy.errors import Unprocessable
from proxy.web.body import parsed_json, read_body
from proxy.web.errors import message_and_path, messages_and_paths, shown

SECRET_WORDS = ("key", "proxy", "secret", "token_", "password", "credential")
UNKNOWN = "Unknown field."  # marshmallow's message
MAX_BESIDES = 5  # that one message names


class ErrorBodySchema(Schema):
    message = fields.String()
    type = fields.String()
    param = fields.String(allow_none=True)
    code = fields.String()


class NotesSchema(Schema):
    """What a person should know of what was done."""

    notes = fields.List(fields.String())


class ErrorSchema(Schema):
    """OpenAI's shape, for every error."""

    error = fields.Nested(ErrorBodySchema)


def query_values() -> dict[str, str]:
    """The query's parameters. Raises Unprocessable if one is there twice."""
    for name, values in request.args.lists():
        if len(values) > 1:
            raise Unprocessable(f"{name}: Is given {len(values)} times.", param=name)
    return request.args.to_dict()


def body_json(*, default: Any = None) -> Any:
    """The request's body, whatever its content type: `curl -d` names the wrong one."""
    body = read_body(parts(), request.environ)
    if not body and default is not None:
        return default
    return parsed_json(body)


def checked(
    schema: Schema, data: Any, *, partial: bool = False, at: str = ""
) -> dict[str, Any]:
    """`data` as the schema reads it. Raises Unprocessable that names the first bad field.

    `at` goes before the field's name: where in a list `data` stands.
    """
    if not isinstance(data, dict):
        raise Unprocessable(f"{at and at[:-1] + ': '}A JSON object is needed.")
    try:
        values: dict[str, Any] = schema.load(data, partial=partial)
    except ValidationError as error:
        raise unprocessable(error, data, schema, at=at) from None
    return values


# Making a schema takes longer than using it, and an import checks thousands of records.
def unprocessable(
    error: ValidationError, data: Any, schema: Schema, *, at: str = ""
) -> Unprocessable:
    """Names the first bad field, and some of the others."""
    message, keys = message_and_path(error.messages)
    path, sentence = _problem(message, keys, data, schema, at)
    found = [each for each in messages_and_paths(error.messages) if each[1] != keys]
    wrong = [
        _problem(said, where, data, schema, at) for said, where in found if said != UNKNOWN
    ]
    for field, said in wrong[:MAX_BESIDES]:
        sentence += f" Besides, {field}: {said}"
    if message != UNKNOWN:
        # What is missing may be what is misspelt.
        unknown = [where for said, where in found if said == UNKNOWN]
        for where in unknown[:MAX_BESIDES]:
            hint = _hint(where, schema)
            sentence += f" Unknown besides: {shown('.'.join(where))}.{hint}"
    return Unprocessable(f"{path}: {sentence}" if path else sentence, param=path or None)


def problems(
    error: ValidationError, data: Any, schema: Schema, *, at: str = ""
) -> list[tuple[str, str]]:
    """All that is wrong with `data`: each the path of a field, and a sentence."""
    return [
        _problem(message, keys, data, schema, at)
        for message, keys in messages_and_paths(error.messages)
    ]


def _problem(
    message: str, keys: Sequence[str], data: Any, schema: Schema, at: str
) -> tuple[str, str]:
    field = ".".join(keys)
    value = _value_at(data, keys)
    # What is misspelt may be anything.
    is_secret = (
        _is_secret(field) or message == UNKNOWN or (isinstance(value, str) and "@" in value)
    )
    given = "" if is_secret or value is None else f" Given: {shown(value)}."
    hint = _hint(keys, schema) if message == UNKNOWN else ""
    return f"{at}{field}" if keys else at[:-1], f"{message}{given}{hint}"


def _hint(keys: Sequence[str], schema: Schema) -> str:
    """Without keys (a field that is named `_schema`, marshmallow's word for the whole) none."""
    return did_you_mean(keys[-1], _known(schema, keys)) if keys else ""


def _known(schema: Any, keys: Sequence[str]) -> Iterable[str]:
    """The names that there are where the last of `keys` stands."""
    for key in keys[:-1]:
        if isinstance(schema, Schema):
            schema = schema.fields.get(key)
        elif isinstance(schema, fields.Dict) and key == "value":
            schema = schema.value_field
        if isinstance(schema, fields.Nested):
            schema = schema.schema
    if not isinstance(schema, Schema):
        return ()
    return [field.data_key or name for name, field in schema.load_fields.items()]


def _is_secret(field: str) -> bool:
    """Also misspelt: somebody who writes `api-key` sends a key."""
    return any(word in field.lower() for word in SECRET_WORDS)


def _value_at(data: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        if isinstance(data, dict):
            data = data.get(key)
        elif isinstance(data, list) and key.isdigit() and int(key) < len(data):
            data = data[int(key)]
        elif key != "value":  # marshmallow's word for what a mapping's key leads to
            return None
    return data
