"""A value that fits a JSON schema: the smallest there is, and always the same.

Known is what structured outputs allow, and a little more of what tools use (`oneOf`,
`prefixItems`, lengths). A part that may be missing is, but for a list's first item: whoever
tries a client out wants to see one.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, islice, repeat
from typing import Any, NamedTuple
from urllib.parse import unquote

Json = dict[str, Any]

WORD = "text"

FORMATS = {
    "date-time": "2025-01-31T12:00:00Z",
    "date": "2025-01-31",
    "time": "12:00:00Z",
    "duration": "PT1H",
    "email": "someone@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "uri": "https://example.com/",
}
"""What structured outputs know, and the one that pydantic's URLs have."""


LARGEST = 1e300
"""Of bounds: beyond are whole numbers that are no floats."""

MOST_PARTS = 5000
"""Of a list or text. So many properties a schema of structured outputs may have, too."""


class Unfit(ValueError):
    """Nothing fits, or nothing that is found here. The message says why."""


class _Scope(NamedTuple):
    root: object  # the schema that references begin at
    open: frozenset[str]  # references on the way here: to follow one again has no end


def instance(schema: object) -> Any:
    """A value that fits. Raises Unfit, and RecursionError for a schema nested too deeply."""
    return _value(schema, _Scope(schema, frozenset({"#"})))


def _value(schema: object, scope: _Scope) -> Any:
    if schema is True:
        return WORD
    if not isinstance(schema, dict):
        raise Unfit(f"{schema!r} is no schema that a value can fit")
    if "const" in schema:
        return schema["const"]
    if values := _values(schema, "enum"):
        return values[0]
    if "$ref" in schema:
        return _referred(schema, scope)
    return _chosen(schema, scope)


def _chosen(schema: Json, scope: _Scope) -> Any:
    """Of several branches or types, the first that something fits."""
    for key in ("anyOf", "oneOf"):
        if key in schema:
            rest = {name: part for name, part in schema.items() if name != key}
            branches = (_merged(branch, rest) for branch in _values(schema, key))
            return _first(partial(_value, branch, scope) for branch in branches)
    if "allOf" in schema:
        raise Unfit("'allOf' is not permitted")
    return _first(partial(_typed, name, schema, scope) for name in _types(schema))


def _first(attempts: Iterable[Callable[[], Any]]) -> Any:
    """Of the first that finds something; the last one's Unfit otherwise."""
    problem = Unfit("there is nothing to choose from")
    for attempt in attempts:
        try:
            return attempt()
        except Unfit as unfit:
            problem = unfit
    raise problem


def _merged(branch: object, rest: Json) -> object:
    """What is said beside a choice or a reference holds as well."""
    return {**rest, **branch} if isinstance(branch, dict) else branch


def _referred(schema: Json, scope: _Scope) -> Any:
    reference = schema["$ref"]
    if not isinstance(reference, str) or not reference.startswith("#"):
        raise Unfit(f"reference {reference!r} leads out of the schema")
    if reference in scope.open:
        raise Unfit(f"reference {reference!r} leads to itself without an end")
    rest = {name: part for name, part in schema.items() if name != "$ref"}
    target = _target(reference, scope.root)
    if target is None:
        raise Unfit(f"reference {reference!r} leads nowhere")
    inner = _Scope(scope.root, scope.open | {reference})
    return _value({**target, **rest} if isinstance(target, dict) else target, inner)


def _target(reference: str, root: object) -> object:
    """What a JSON pointer (RFC 6901) behind a `#` points to."""
    at = root
    for step in unquote(reference).split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(at, list):
            at = {str(number): item for number, item in enumerate(at)}
        at = at.get(name) if isinstance(at, dict) else None
    return at


def _types(schema: Json) -> list[object]:
    """By what else the schema says, where it names no type."""
    named = schema.get("type")
    if named is not None:
        return named if isinstance(named, list) else [named]
    for name, keys in (("object", ("properties", "required")), ("array", ("items",))):
        if any(key in schema for key in keys):
            return [name]
    return ["string"]


def _typed(name: object, schema: Json, scope: _Scope) -> Any:
    match name:
        case "object":
            return _object(schema, scope)
        case "array":
            return _array(schema, scope)
        case "string":
            return _text(schema)
        case "integer" | "number":
            return _number(schema, is_whole=name == "integer")
        case "boolean":
            return False
        case "null":
            return None
    raise Unfit(f"{name!r} is not a type")


def _object(schema: Json, scope: _Scope) -> Json:
    """In the order of the properties, as models write them."""
    properties = schema.get("properties")
    known = properties if isinstance(properties, dict) else {}
    required = [name for name in _values(schema, "required") if isinstance(name, str)]
    others = schema.get("additionalProperties", True)
    names = [*(name for name in known if name in required), *required]
    return {name: _value(known.get(name, others), scope) for name in dict.fromkeys(names)}


def _array(schema: Json, scope: _Scope) -> Any:
    least = _length(schema, "minItems", 0)
    most = _length(schema, "maxItems", max(least, 1))
    sizes = [size for size in (max(least, 1), least) if size <= most]
    return _first(partial(_items, size, schema, scope) for size in sizes)


def _items(size: int, schema: Json, scope: _Scope) -> list[Any]:
    each = chain(_values(schema, "prefixItems"), repeat(schema.get("items", True)))
    return [_value(item, scope) for item in islice(each, size)]


def _text(schema: Json) -> str:
    least = _length(schema, "minLength", 0)
    most = _length(schema, "maxLength", MOST_PARTS)
    pattern = schema.get("pattern", "")
    for text in _texts(schema, least, most):
        if least <= len(text) <= most and _matches(pattern, text):
            return text
    raise Unfit(f"no text is known of {least} to {most} characters for pattern {pattern!r}")


def _texts(schema: Json, least: int, most: int) -> Iterator[str]:
    """To try. What a pattern asks for is guessed and not worked out: that takes a library."""
    form = schema.get("format")
    if isinstance(form, str) and form in FORMATS:
        yield FORMATS[form]
        return
    size = max(least, min(most, len(WORD)))
    for sign in (WORD, "A", "0"):
        yield (sign * size)[:size]
    if "pattern" in schema:
        yield from FORMATS.values()


def _matches(pattern: object, text: str) -> bool:
    try:
        return isinstance(pattern, str) and re.search(pattern, text) is not None
    except re.error:
        return False


def _number(schema: Json, *, is_whole: bool) -> float:
    """0 if it is allowed, or else one near a bound."""
    step = _bound(schema, "multipleOf") or 1
    low = _bound(schema, "minimum", "exclusiveMinimum")
    high = _bound(schema, "maximum", "exclusiveMaximum")
    for number in _numbers(low, high, step):
        if is_whole:
            number = int(number)
        if _is_allowed(schema, number):
            return number
    raise Unfit(f"no number is known from {low} to {high}")


def _numbers(low: float | None, high: float | None, step: float) -> Iterator[float]:
    """To try: on the steps next to a bound, a bound itself, and halfway between both."""
    yield 0
    if low is not None:
        yield from (-(-low // step) * step, (low // step + 1) * step, low)
    if high is not None:
        yield from (high // step * step, (-(-high // step) - 1) * step, high)
    if low is not None and high is not None:
        yield low / 2 + high / 2


def _is_allowed(schema: Json, number: float) -> bool:
    step = _bound(schema, "multipleOf")
    steps = number / step if step else 0
    tests: tuple[tuple[str, Callable[[float], bool]], ...] = (
        ("minimum", lambda bound: number >= bound),
        ("exclusiveMinimum", lambda bound: number > bound),
        ("maximum", lambda bound: number <= bound),
        ("exclusiveMaximum", lambda bound: number < bound),
        # A tenth is no tenth in binary.
        ("multipleOf", lambda _: math.isclose(steps, round(steps), abs_tol=1e-9)),
    )
    bounds = ((_bound(schema, name), is_kept) for name, is_kept in tests)
    return all(bound is None or is_kept(bound) for bound, is_kept in bounds)


def _bound(schema: Json, *names: str) -> float | None:
    """The first that is a number; an older standard's `exclusiveMinimum: true` is none."""
    for name in names:
        value = schema.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            if not abs(value) <= LARGEST:  # written so for NaN, too
                raise Unfit(f"{name} is {value}")
            return value
    return None


def _length(schema: Json, name: str, default: int) -> int:
    """Of texts and lists. Raises Unfit for more than anybody wants to read."""
    value = schema.get(name)
    if type(value) is not int or value < 0:
        return default
    if name.startswith("min") and value > MOST_PARTS:
        raise Unfit(f"{name} is {value}; {MOST_PARTS} is the most that is made here")
    return value


def _values(schema: Json, name: str) -> list[Any]:
    value = schema.get(name)
    return value if isinstance(value, list) else []
