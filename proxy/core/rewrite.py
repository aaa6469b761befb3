"""The bytes an upstream gets: the client's own, but for the field a provider needs changed."""

import json
import re
from collections.abc import Iterator

from proxy.core.providers import PROVIDERS
from proxy.core.types import Bytes, Call, Serving
from proxy.errors import BadRequest

_DECODER = json.JSONDecoder()
_BEGINNING = re.compile(rb'[ \t\n\r]*\{[ \t\n\r]*(?=")')
_SPACE = re.compile(r"[ \t\n\r]*")
_SIGNS = {sign: re.compile(rf"[ \t\n\r]*{re.escape(sign)}[ \t\n\r]*") for sign in "{:,"}


def asks_for_usage(call: Call, serving: Serving) -> bool:
    """Whether we must add `stream_options.include_usage` to learn what the stream cost.

    Not to options that are none: the upstream refuses them, and the client reads why.
    """
    return (
        call.stream
        and not call.asks_usage
        and isinstance(call.stream_options, dict | None)
        and PROVIDERS[serving.config.provider_type].stream_usage(serving.config)
    )


def body_for(call: Call, serving: Serving, *, ask_usage: bool) -> Bytes:
    """The call's body as this instance needs it; nothing else in it changes."""
    body = call.body
    by_body = PROVIDERS[serving.config.provider_type].model_in_body
    if by_body and call.body_model != serving.deployment:
        body = with_field(body, "model", serving.deployment)
    if ask_usage:
        given = call.stream_options if isinstance(call.stream_options, dict) else {}
        options = {**given, "include_usage": True}
        add = with_first_field if call.lacks_stream_options else with_field
        body = add(body, "stream_options", options)
    return body


def with_first_field(body: Bytes, name: str, value: object) -> bytes:
    """`body`, a JSON object that is not empty and has no such field, with it before the others.

    As `with_field` would, but without looking for it.
    """
    match = _BEGINNING.match(body)
    if match is None:
        raise ValueError("no JSON object with fields")
    field = f"{json.dumps(name)}:{json.dumps(value, separators=(',', ':'))},".encode()
    return b"".join((body[: match.end()], field, body[match.end() :]))


def with_field(body: Bytes, name: str, value: object) -> bytes:
    """`body`, a JSON object, with its field `name` set to `value`.

    Only the bytes of that value change; a missing field becomes the first. If the field
    stands there more than once, each is set: parsers differ in which one they believe.
    Raises ValueError if `body` is not a JSON object, BadRequest if it is one that is
    nested deeper than can be followed.
    """
    text = body.decode()
    try:
        new = json.dumps(value, separators=(",", ":"))
        spans = list(_values(text, name))
    except RecursionError:
        raise BadRequest("The body is nested too deeply.") from None
    if not spans:
        start = _skip(text, 0, "{")
        comma = "" if text[start] == "}" else ","
        return f"{text[:start]}{json.dumps(name)}:{new}{comma}{text[start:]}".encode()
    parts, done = [], 0
    for start, end in spans:
        parts += [text[done:start], new]
        done = end
    return "".join([*parts, text[done:]]).encode()


def _values(text: str, name: str) -> Iterator[tuple[int, int]]:
    """Where the values of the object's own fields called `name` begin and end."""
    at = _skip(text, 0, "{")
    while text[at : at + 1] != "}":  # only an empty object gets there
        key, at = _DECODER.raw_decode(text, at)
        start = _skip(text, at, ":")
        _, end = _DECODER.raw_decode(text, start)
        if key == name:
            yield start, end
        at = _SPACE.match(text, end).end()  # type: ignore[union-attr]  # it always matches
        if text[at : at + 1] != ",":
            return
        at = _skip(text, at, ",")


def _skip(text: str, at: int, sign: str) -> int:
    """Past white space, `sign` and white space."""
    match = _SIGNS[sign].match(text, at)
    if match is None:
        raise ValueError(f"expected {sign!r} at character {at}")
    return match.end()
