"""A document of all config as text, and text as a document."""

import re
from typing import Any

import orjson
import yaml

from proxy.core.config_document import Document, Thing
from proxy.core.config_plan import MOMENTS
from proxy.core.moments import exact_text
from proxy.errors import BadRequest, TooLarge

MAX_YAML_BYTES = 8 * 1_048_576  # some 10,000 instances; YAML takes a second for it
MAX_DEPTH = 20  # libyaml's binding recurses without a limit, and dies of it
YAML_TYPES = ("application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml")

# libyaml where PyYAML was built with it: seven times as fast.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SafeDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

_TIMESTAMP = "tag:yaml.org,2002:timestamp"


class _Loader(_SafeLoader):  # type: ignore[misc]  # whichever of the two it is
    """Safe, and stricter: dates are text, as `api_version: 2024-10-21` is meant; of a key that
    stands twice nobody knows which counts."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                where = f"line {key.start_mark.line + 1}"
                raise BadRequest(f"A key stands twice in one mapping ({where}).")
            seen.add(key.value)
        made: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return made


_Loader.yaml_implicit_resolvers = {
    first: [each for each in resolvers if each[0] != _TIMESTAMP]
    for first, resolvers in _SafeLoader.yaml_implicit_resolvers.items()
}


class _Dumper(_SafeDumper):  # type: ignore[misc]  # whichever of the two it is
    """Quotes text that YAML 1.2 takes for a number, and 1.1, which is ours, does not: 1e3."""


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"(?:[-+]?(?:\.\d+|\d+(?:\.\d*)?)(?:[eE][-+]?\d+)?|0o[0-7]+)\Z"),
    list("-+.0123456789"),
)


def from_yaml(text: bytes) -> Any:
    """Plain values. Raises BadRequest with a sentence that quotes nothing, and TooLarge."""
    if len(text) > MAX_YAML_BYTES:
        raise TooLarge(f"The YAML is larger than {MAX_YAML_BYTES} bytes; send JSON.")
    try:
        _check_shape(text)
        return yaml.load(text, Loader=_Loader)  # nosec B506  # it is a safe one
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise BadRequest(f"The text is not plain YAML{where}.") from None
    except (yaml.YAMLError, ValueError, TypeError):
        # ValueError: a tag whose value it is not (`!!int many`). TypeError: a list as a key.
        raise BadRequest("The text is not plain YAML.") from None


def _check_shape(text: bytes) -> None:
    """Before anything is made of it: a few lines of aliases stand for terabytes."""
    depth = 0
    for event in yaml.parse(text, Loader=_SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            where = f" (line {event.start_mark.line + 1})" if event.start_mark else ""
            raise BadRequest(
                f"YAML aliases (*name) are not read{where}; write the values themselves."
            )
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise BadRequest(f"The YAML is nested deeper than {MAX_DEPTH}.")


def from_json(text: bytes) -> Any:
    """Raises BadRequest."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The text is not valid JSON: {error}.") from None


def to_yaml(document: Document) -> str:
    """With dates for people, which `from_yaml` leaves as they are and an import reads."""
    shown = {section: [_readable(thing) for thing in document[section]] for section in document}
    text: str = yaml.dump(shown, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


def _readable(thing: Thing) -> Thing:
    dates = {f: exact_text(thing[f]) or thing[f] for f in MOMENTS if thing.get(f) is not None}
    return {f: dates.get(f, value) for f, value in thing.items()}


def to_json(document: Document) -> str:
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n"
