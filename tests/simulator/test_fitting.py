import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from proxy.simulator import fitting

NODE = {
    "type": "object",
    "properties": {
        "value": {"type": "integer"},
        "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
        "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
    },
    "required": ["value", "next", "children"],
}


@pytest.mark.parametrize(
    "schema, value",
    [
        ({"type": "string"}, "text"),
        ({"type": "string", "maxLength": 2}, "te"),
        ({"type": "string", "minLength": 6}, "textte"),
        ({"type": "string", "format": "date"}, "2025-01-31"),
        ({"type": "string", "format": "date-time"}, "2025-01-31T12:00:00Z"),
        ({"type": "string", "format": "email"}, "someone@example.com"),
        ({"type": "string", "format": "nobody's"}, "text"),
        ({"type": "string", "pattern": "^[0-9]{4}$"}, "0000"),
        ({"type": "string", "pattern": r"^\d+-\d+-\d+$"}, "2025-01-31"),
        ({"type": "integer"}, 0),
        ({"type": "integer", "minimum": 3}, 3),
        ({"type": "integer", "minimum": 0.5}, 1),
        ({"type": "integer", "exclusiveMinimum": 3, "multipleOf": 5}, 5),
        ({"type": "integer", "maximum": -3, "multipleOf": 2}, -4),
        ({"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}, 0),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, 0.5),
        ({"type": "boolean"}, False),
        ({"type": "null"}, None),
        ({"type": ["integer", "null"]}, 0),
        ({"enum": ["b", "a"]}, "b"),
        ({"type": "string", "const": "only"}, "only"),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, None),
        ({"oneOf": [{"const": 1}, {"const": 2}]}, 1),
        ({"anyOf": [False, {"type": "boolean"}]}, False),
        ({"type": "array", "items": {"type": "boolean"}}, [False]),
        ({"type": "array", "items": {"type": "boolean"}, "maxItems": 0}, []),
        ({"type": "array", "items": {"type": "null"}, "minItems": 2}, [None, None]),
        ({"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "minItems": 2}, [1, 2]),
        ({"type": "object"}, {}),
        ({"properties": {"a": True, "b": True}, "required": ["b"]}, {"b": "text"}),
        ({"required": ["x"], "additionalProperties": {"type": "null"}}, {"x": None}),
        # What is said beside a choice or a reference holds as well.
        ({"type": "integer", "minimum": 3, "anyOf": [{"multipleOf": 2}]}, 4),
        ({"$ref": "#/$defs/a~1b", "minimum": 3, "$defs": {"a/b": {"type": "integer"}}}, 3),
        (
            {
                "prefixItems": [{"const": 1}, {"$ref": "#/prefixItems/0"}],
                "minItems": 2,
                "type": "array",
            },
            [1, 1],
        ),
        (True, "text"),
        ({}, "text"),
    ],
    ids=repr,
)
def test_the_smallest_value_that_fits(schema, value):
    found = fitting.instance(schema)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("root", [NODE, {"$ref": "#/$defs/Node"}])
def test_recursion_ends_where_it_may(root):
    found = fitting.instance({**root, "$defs": {"Node": NODE}})
    Draft202012Validator({**root, "$defs": {"Node": NODE}}).validate(found)
    assert json.dumps(found).count("value") <= 3


def test_parts_come_in_the_order_of_the_properties():
    parts = {"a": {"type": "null"}, "b": {"type": "null"}}
    assert list(fitting.instance({"properties": parts, "required": ["b", "a"]})) == ["a", "b"]


def test_recursion_of_the_whole_ends_in_a_list():
    tree = {"type": "array", "items": {"$ref": "#"}}
    assert fitting.instance(tree) == []
    assert (
        fitting.instance({"type": ["array", "null"], "items": {"$ref": "#"}, "minItems": 1})
        is None
    )


@pytest.mark.parametrize(
    "schema, why",
    [
        ({"$ref": "#"}, "without an end"),
        ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, "without an end"),
        ({"$ref": "#/$defs/None"}, "leads nowhere"),
        ({"$ref": "#/anyway/" + "9" * 5000, "anyway": [{}]}, "leads nowhere"),
        ({"$ref": "https://example.com/schema"}, "out of the schema"),
        ({"$ref": 3}, "out of the schema"),
        ({"anyOf": []}, "nothing to choose from"),
        ({"allOf": [{"type": "string"}]}, "'allOf'"),
        ({"type": "text"}, "'text' is not a type"),
        ({"type": {}}, "not a type"),
        ({"type": "string", "pattern": "^xyz$"}, "pattern '^xyz"),
        ({"type": "string", "pattern": "("}, "pattern"),
        ({"type": "string", "format": "date", "maxLength": 3}, "0 to 3 characters"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "no number"),
        ({"type": "integer", "minimum": 10**400}, "minimum is"),
        ({"type": "number", "maximum": float("nan")}, "maximum is nan"),
        ({"type": "array", "minItems": 10**9}, "5000 is the most"),
        ({"type": "array", "minItems": 2, "maxItems": 1}, "nothing to choose from"),
        ({"required": ["a"], "additionalProperties": False}, "False is no schema"),
        ([], "is no schema"),
        (None, "is no schema"),
    ],
    ids=lambda value: repr(value)[:80],
)
def test_where_nothing_fits_it_says_why(schema, why):
    with pytest.raises(fitting.Unfit) as unfit:
        fitting.instance(schema)
    assert why in str(unfit.value)


# --- whatever the schema

WHOLE = st.integers(-20, 20)


@st.composite
def numbers(draw):
    kind = draw(st.sampled_from(["integer", "number"]))
    low, size = draw(WHOLE), draw(st.integers(4, 20))
    return {"type": kind} | draw(
        st.fixed_dictionaries(
            {},
            optional={
                draw(st.sampled_from(["minimum", "exclusiveMinimum"])): st.just(low),
                draw(st.sampled_from(["maximum", "exclusiveMaximum"])): st.just(low + size),
                "multipleOf": st.sampled_from([1, 2, 0.5]),
            },
        )
    )


@st.composite
def lists(draw, items):
    least = draw(st.integers(0, 3))
    most = draw(st.integers(least, 4))
    bounds = {"minItems": st.just(least), "maxItems": st.just(most)}
    bounds = draw(st.fixed_dictionaries({}, optional=bounds))
    return {"type": "array", "items": draw(items), **bounds}


@st.composite
def objects(draw, parts):
    properties = draw(st.dictionaries(st.sampled_from("abcd"), parts, max_size=3))
    required = [name for name in properties if draw(st.booleans())]
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


REFERENCES = [{"$ref": place} for place in ("#", "#/$defs/x", "#/$defs/y")]
LEAVES = st.one_of(
    st.sampled_from([{"type": "string"}, {"type": "boolean"}, {"type": "null"}]),
    st.sampled_from([{"type": "string", "format": name} for name in fitting.FORMATS]),
    st.builds(
        lambda low, more: {"minLength": low, "maxLength": low + more}, *[st.integers(0, 9)] * 2
    ),
    st.lists(st.one_of(WHOLE, st.text(max_size=3)), min_size=1).map(lambda v: {"enum": v}),
    st.sampled_from([{"type": ["string", "null"]}, {"const": {"a": [1]}}]),
    numbers(),
    # References within parts: one that leads only to itself is no schema to validate by.
    st.sampled_from(REFERENCES).map(
        lambda ref: {
            "type": "object",
            "properties": {"next": {"anyOf": [ref, {"type": "null"}]}},
            "required": ["next"],
        }
    ),
    st.sampled_from(REFERENCES).map(lambda ref: {"type": "array", "items": ref}),
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        objects(inner),
        lists(inner),
        st.lists(inner, min_size=1, max_size=3).map(lambda branches: {"anyOf": branches}),
    ),
    max_leaves=8,
)


def made_or_why(schema):
    try:
        return fitting.instance(schema), ""
    except fitting.Unfit as unfit:
        return None, str(unfit)


@given(SCHEMAS, SCHEMAS, SCHEMAS)
def test_what_is_made_fits_whatever_the_schema(root, x, y):
    schema = {**root, "$defs": {"x": x, "y": y}}
    made, why = made_or_why(schema)
    assert made_or_why(schema) == (made, why)
    if why:  # a list that has to have an item of its own kind
        assert "without an end" in why
    else:
        Draft202012Validator(schema).validate(made)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner)),
    max_leaves=5,
)
KEYWORDS = (
    *("type", "enum", "$ref", "anyOf", "oneOf", "allOf", "properties", "required", "items"),
    *("additionalProperties", "prefixItems", "minItems", "maxItems", "minLength", "maxLength"),
    *("pattern", "format", "minimum", "exclusiveMinimum", "maximum", "multipleOf"),
)
TYPES = st.sampled_from(["object", "array", "string", "integer", "number"])
NONSENSE = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(KEYWORDS, JSON) | {"type": st.one_of(TYPES, JSON)}
)


@given(NONSENSE)
def test_nonsense_is_told_and_breaks_nothing(schema):
    made, why = made_or_why(schema)
    assert why or json.dumps(made)
