"""The bytes an upstream gets: the client's own, but for the field a provider needs changed."""

import json
import re
from collections.abc import Iterable, Iterator
from heapq import merge
from typing import Any, NamedTuple

from proxy.core.endpoints import ENDPOINTS
from proxy.core.form import Form
from proxy.core.outline import LARGE_BYTES, Outline, outline
from proxy.core.providers import OF_RESOURCES, PROVIDERS
from proxy.core.tokens import NOTHING_OMITTED
from proxy.core.types import Bytes, Call, Payload, Serving, Spliced

MOST_PIECES = 32  # each is sent alone

# Not strict: in a long string, of which nobody looked at all, may be what JSON forbids. That is
# for the upstream to say.
_DECODER = json.JSONDecoder(strict=False)
_BEGINNING = re.compile(rb'[ \t\n\r]*\{[ \t\n\r]*(?=")')
_SPACE = re.compile(r"[ \t\n\r]*")
# A string, or what opens or closes an array or object.
_NESTING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}]', re.DOTALL)
_SIGNS = {sign: re.compile(rf"[ \t\n\r]*{re.escape(sign)}[ \t\n\r]*") for sign in "{:,"}


def asks_for_usage(call: Call, serving: Serving) -> bool:
    """Whether we must add `stream_options.include_usage` to learn what the stream cost.

    Not to options that are none: the upstream refuses them, and the client reads why.
    """
    return (
        call.stream
        and ENDPOINTS[call.endpoint].answer == "completion"
        and not call.asks_usage
        and _are_stream_options(call.stream_options)
        and PROVIDERS[serving.config.provider_type].stream_usage(serving.config)
    )


def _are_stream_options(given: object) -> bool:
    """Such as can be written again."""
    if not isinstance(given, dict):
        return given is None
    try:
        json.dumps(given)
    except RecursionError:  # orjson, which has read it, goes deeper
        return False
    return True


def body_for(call: Call, serving: Serving, *, ask_usage: bool) -> Payload:
    """The call's body as this instance needs it; nothing else in it changes."""
    body = call.body
    edits: list[Iterable[_Edit]] = []
    is_of_resource = call.endpoint.startswith(OF_RESOURCES)
    by_body = is_of_resource or PROVIDERS[serving.config.provider_type].model_in_body
    if call.form is not None:
        if by_body and call.body_model != serving.deployment:
            edits.append([_of_form(call.form, serving.deployment)])
    elif by_body and not (call.body_model == serving.deployment and _names_model_once(body)):
        edits.append(_edits(body, "model", serving.deployment))
    if ask_usage:
        given = call.stream_options if isinstance(call.stream_options, dict) else {}
        options = {**given, "include_usage": True}
        if call.lacks_stream_options:
            edits.append([_first(body, "stream_options", options)])
        else:
            edits.append(_edits(body, "stream_options", options))
    return _edited(body, merge(*edits)) if edits else body


def _names_model_once(body: Bytes) -> bool:
    """For certain, and fast. Of two the upstream might believe the one that nobody here looked
    at; `\\u006` begins the escapes of the name's letters."""
    return body.count(b'"model"') == 1 and b"\\u006" not in body


def with_first_field(body: Bytes, name: str, value: object) -> Payload:
    """`body`, a JSON object that is not empty and has no such field, with it before the others.

    As `with_field` would, but without looking for it.
    """
    return _edited(body, [_first(body, name, value)])


def with_field(body: Bytes, name: str, value: object) -> Payload:
    """`body`, a JSON object, with its field `name` set to `value`.

    Only the bytes of that value change; a missing field becomes the first. If the field
    stands there more than once, only the last one stays: parsers differ in which one they
    believe. Raises ValueError if `body` is not a JSON object.
    """
    return _edited(body, _edits(body, name, value))


class _Edit(NamedTuple):
    """What stands instead of the body's bytes from `start` to `end`."""

    start: int
    end: int
    new: bytes


def _edited(body: Bytes, edits: Iterable[_Edit]) -> Payload:
    """`edits` in their order. A large body is not copied for a few."""
    is_large = len(body) > LARGE_BYTES
    whole: Bytes | memoryview = memoryview(body) if is_large else body
    pieces: list[Any] = []
    joined, done = bytearray(), 0
    for start, end, new in edits:
        pieces += (whole[done:start], new)
        done = end
        if len(pieces) > MOST_PIECES:  # there may be a million of them
            _add(joined, pieces)
    pieces.append(whole[done:])
    if joined:
        _add(joined, pieces)
        return joined
    return Spliced(tuple(pieces)) if is_large else b"".join(pieces)


def _add(joined: bytearray, pieces: list[Any]) -> None:
    """One by one: among them may be an image."""
    for piece in pieces:
        joined += piece
    pieces.clear()


def _first(body: Bytes, name: str, value: object) -> _Edit:
    match = _BEGINNING.match(body)
    if match is None:
        raise ValueError("no JSON object with fields")
    field = f"{json.dumps(name)}:{_json(value)},".encode()
    return _Edit(match.end(), match.end(), field)


def _of_form(form: Form, deployment: str) -> _Edit:
    """Its model is the deployment."""
    if form.model is None:
        return _Edit(0, 0, form.first_part("model", deployment))
    return _Edit(form.model.start, form.model.end, deployment.encode())


def _edits(body: Bytes, name: str, value: object) -> Iterator[_Edit]:
    """To look for the field, of a large body the short strings are enough."""
    sketch = outline(body) if len(body) > LARGE_BYTES else Outline(body, NOTHING_OMITTED)
    found = _edits_of(sketch.text, name, _json(value))
    if not sketch.cuts:
        return found
    place = sketch.place_of
    return (_Edit(place(start), place(end), new) for start, end, new in found)


def _edits_of(body: Bytes, name: str, new: str) -> Iterator[_Edit]:
    # A byte as a character: all signs of JSON are ASCII, and what is no UTF-8 stays as it is.
    text = body.decode("latin-1")
    last = None
    for member in _members(text):
        if member.name != name:
            continue
        if last is not None:  # to set each to a long value would be more than anybody sent
            yield _Edit(last.at, last.following_at, b"")
        last = member
    if last is not None:
        yield _Edit(last.start, last.end, new.encode())
        return
    start = _skip(text, 0, "{")
    comma = "" if text[start] == "}" else ","
    yield _Edit(start, start, f"{json.dumps(name)}:{new}{comma}".encode())


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


class _Member(NamedTuple):
    """A field of the body's object: where it begins, where its value begins and ends, and where
    the next field begins, if there is one."""

    name: str
    at: int
    start: int
    end: int
    following_at: int


def _members(text: str) -> Iterator[_Member]:
    following_at = _skip(text, 0, "{")
    while text[following_at : following_at + 1] != "}":  # only an empty object gets there
        at = following_at
        name, end = _DECODER.raw_decode(text, at)
        start = _skip(text, end, ":")
        end = _end(text, start)
        sign_at = _SPACE.match(text, end).end()  # type: ignore[union-attr]  # it always matches
        is_last = text[sign_at : sign_at + 1] != ","
        following_at = sign_at if is_last else _skip(text, sign_at, ",")
        yield _Member(name, at, start, end, following_at)
        if is_last:
            return


def _end(text: str, start: int) -> int:
    """Where the value ends that begins there."""
    try:
        return _DECODER.raw_decode(text, start)[1]
    except RecursionError:  # orjson, which has read it, goes deeper
        return _end_of_nested(text, start)


def _end_of_nested(text: str, start: int) -> int:
    depth = 0
    for match in _NESTING.finditer(text, start):
        if match[0] in "[{":
            depth += 1
        elif match[0] in "]}":
            depth -= 1
            if not depth:
                return match.end()
    raise ValueError(f"no end of the value at character {start}")


def _skip(text: str, at: int, sign: str) -> int:
    """Past white space, `sign` and white space."""
    match = _SIGNS[sign].match(text, at)
    if match is None:
        raise ValueError(f"expected {sign!r} at character {at}")
    return match.end()
