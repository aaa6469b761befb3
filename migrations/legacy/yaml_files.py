"""Records in the old program's YAML settings: the layout Y1."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import SafeConstructor
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from migrations.legacy.json_files import ONE_OF_TWO, SEEMS_CUT, Entry, reading_of
from migrations.legacy.records import Problem, Reading, Record
from migrations.legacy.showing import cut, json_of

# libyaml where PyYAML was built with it: seven times as fast.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MAX_DEPTH = 100  # libyaml's binding recurses without a limit, and dies of it

TAG = "tag:yaml.org,2002:"
TEXT, TIMESTAMP, NULL = f"{TAG}str", f"{TAG}timestamp", f"{TAG}null"
# YAML reads `0123` as 83 and `no` as false; where text belongs, that is not what was meant.
TEXT_KEYS = ("name", "provider_type", "api_key", "api_base", "api_version", "proxy_url")
MISREAD = (f"{TAG}int", f"{TAG}float", f"{TAG}bool")

VARIABLE = re.compile(r"\$\{(\w+)\}")
MAX_SETTINGS_DEPTH = 3  # monitoring.alerts.mail.to: more is nobody's setting

Notes = dict[int, tuple[str, ...]]  # of nodes by id, because an alias is the node itself


def read(documents: Sequence[tuple[Path, str]], variables: Mapping[str, str]) -> list[Reading]:
    """A reading for each file; `documents` are `base.yaml` and then the environment's file.

    The old program put the lists of both together, and the later of two instances with one
    name replaced the earlier: its record has a greater `turn`.

    `${NAME}` as a whole value is the variable; a missing one was "" and is noted, as is one
    within a value, which was never replaced. A date without quotes is text again.

    Settings are all other keys with dots (`routing.strategy`), values as written.
    """
    return _in_turn([_reading(file, text, variables) for file, text in documents])


def _reading(file: Path, text: str, variables: Mapping[str, str]) -> Reading:
    try:
        root = _composed(text)
    except ValueError as error:
        remedy = "Mend the file there; an editor that knows YAML shows it."
        return Reading(file, "Y1", problems=(Problem(file, "", "", "", remedy, str(error)),))
    if root is None or root.tag == NULL:
        return Reading(file, "Y1")  # comments only
    if not isinstance(root, MappingNode):
        remedy = "Bring the file as the old program read it."
        problem = Problem(file, "", "", "", remedy, "There are no settings by name.")
        return Reading(file, "Y1", problems=(problem,))
    settings: dict[str, str] = {}
    instances: list[Node] = []
    for key, value in root.value:
        if _name(key) == "instances":
            instances.append(value)
        else:
            settings |= _settings(_name(key), value)
    return _with_instances(file, text, instances, variables, settings)


def _composed(text: str) -> Node | None:
    """The nodes of the one document, None if there is none.

    Raises ValueError with a sentence that says where it is damaged and quotes nothing: the
    library's messages quote aliases, and a key that begins with "*" looks like one.
    """
    try:
        _check_depth(text)
        root: Node | None = yaml.compose(text, Loader=LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        is_cut = mark is not None and mark.index >= len(text.rstrip()) - 1
        raise ValueError(f"No YAML{where}.{SEEMS_CUT if is_cut else ''}") from None
    except yaml.YAMLError:
        raise ValueError("No YAML: it holds characters that YAML forbids.") from None
    if root is not None:
        _check_keys(root, {id(node) for node in _records_in(root)})
    return root


def _records_in(root: Node) -> Iterator[Node]:
    """What stands where instances belong: what is wrong in one is a problem of that one."""
    pairs = root.value if isinstance(root, MappingNode) else []
    instances = [value for key, value in pairs if _name(key) == "instances"]
    return (node for _, _, node in _items(instances))


def _check_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            where = f" (line {event.start_mark.line + 1})" if event.start_mark else ""
            raise ValueError(f"The YAML is nested too deeply to be read{where}.")


class Twice(ValueError):
    """The sentence about it."""


def _check_keys(root: Node, without: Collection[int] = ()) -> None:
    """Of a key that stands twice in a mapping, either value may be the one that counts.

    `without` are ids of nodes that are not looked at. Raises Twice.
    """
    seen = set(without)
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen or isinstance(node, ScalarNode):
            continue
        seen.add(id(node))
        if isinstance(node, SequenceNode):
            waiting += node.value
            continue
        keys: set[str] = set()
        for key, value in node.value:
            waiting += (key, value)
            if isinstance(key, ScalarNode) and key.tag != f"{TAG}merge":
                if key.value in keys:
                    where = f"line {key.start_mark.line + 1}"
                    raise Twice(
                        f"The key {cut(repr(key.value))} stands twice in one mapping ({where})."
                    )
                keys.add(key.value)


def _settings(path: str, node: Node, depth: int = 1) -> dict[str, str]:
    if isinstance(node, ScalarNode):
        return {path: node.value}
    if isinstance(node, SequenceNode):
        items = [item.value for item in node.value if isinstance(item, ScalarNode)]
        return {path: ", ".join(items)}
    found: dict[str, str] = {}
    if depth < MAX_SETTINGS_DEPTH:
        for key, value in node.value:
            found |= _settings(f"{path}.{_name(key)}", value, depth + 1)
    return found


def _with_instances(
    file: Path,
    text: str,
    instances: list[Node],
    variables: Mapping[str, str],
    settings: dict[str, str],
) -> Reading:
    entries: list[Entry] = []
    notes: Notes = {}
    for place, key, node in _items(instances):
        try:
            _check_keys(node)
            found = _mended(node, "", variables, notes)
            value = SafeConstructor().construct_document(node)
            json_of(value)
            entries.append(Entry(place, _with_text_keys(value), key, found))
        except Twice as error:
            entries.append(_unread(file, text, place, key, node, ONE_OF_TWO, str(error)))
        except (yaml.YAMLError, TypeError, ValueError, RecursionError):
            # ValueError: a tag whose value it is not (`!!int many`), which the message quotes,
            # or what holds itself. TypeError: a key that is no text, number or date.
            line = node.start_mark.line + 1
            message = f"The instance at line {line} holds what plain YAML does not have."
            remedy = "Write its values as plain text."
            entries.append(_unread(file, text, place, key, node, remedy, message))
    return reading_of(file, "Y1", entries, settings)


def _unread(
    file: Path, text: str, place: str, key: str | None, node: Node, remedy: str, message: str
) -> Entry:
    problem = Problem(file, place, "", "", remedy, message)
    written = text[node.start_mark.index : node.end_mark.index]
    return Entry(place, written, key or _name_in(node), problem=problem)


def _name_in(node: Node) -> str | None:
    """Which instance it was meant to be."""
    pairs = node.value if isinstance(node, MappingNode) else []
    names = [v.value for k, v in pairs if _name(k) == "name" and isinstance(v, ScalarNode)]
    return names[0] if len(names) == 1 else None


def _items(instances: list[Node]) -> Iterator[tuple[str, str | None, Node]]:
    """Place, name in a mapping by name, and node of each; a scalar is no instance itself."""
    for node in instances:
        if isinstance(node, SequenceNode):
            for index, item in enumerate(node.value):
                yield f"instances[{index}]", None, item
        elif isinstance(node, MappingNode):
            for key, item in node.value:
                yield f"key {cut(repr(_name(key)))}", _name(key), item
        elif node.tag != NULL:
            yield "instances", None, node


def _mended(
    node: Node, key: str, variables: Mapping[str, str], notes: Notes
) -> tuple[str, ...]:
    """Notes on what was changed in the node so that it says what the old program read."""
    if id(node) not in notes:
        notes[id(node)] = ()  # it may hold itself
        notes[id(node)] = tuple(dict.fromkeys(_changes(node, key, variables, notes)))
    return notes[id(node)]


def _changes(node: Node, key: str, variables: Mapping[str, str], notes: Notes) -> Iterator[str]:
    if isinstance(node, ScalarNode):
        yield from _scalar_changes(node, key, variables)
    elif isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            item_key = f"{key}[{index}]" if key else ""
            yield from _mended(item, item_key, variables, notes)
    elif isinstance(node, MappingNode):
        for name, value in node.value:
            yield from _mended(name, key, variables, notes)
            yield from _mended(value, _path(key, _name(name)), variables, notes)


def _scalar_changes(node: ScalarNode, key: str, variables: Mapping[str, str]) -> Iterator[str]:
    if node.tag == TIMESTAMP:
        node.tag = TEXT
        yield f"`{key}` is a date without quotes: it was read as text"
    elif node.tag in MISREAD and key in TEXT_KEYS:
        node.tag = TEXT
        yield f"`{key}` is a number without quotes: it was read as text"
    elif whole := VARIABLE.fullmatch(node.value):
        name = whole.group(1)
        node.value = variables.get(name, "")
        if not node.value:
            yield f"`{key}` is empty: the variable {name} is not set"
    elif within := VARIABLE.search(node.value):
        name = within.group(1)
        yield f"`{key}` has ${{{name}}} within its value: the old program did not replace it"


def _name(key: Node) -> str:
    """A key as text; what is in one that is a list or mapping is nobody's name."""
    return str(key.value) if isinstance(key, ScalarNode) else "?"


def _path(key: str, name: str) -> str:
    """`api_version` of a record, also where it is merged; `tags.x` within a value."""
    if name == "<<":
        return key
    return f"{key}.{name}" if key else name


def _with_text_keys(value: Any) -> Any:
    return {str(k): v for k, v in value.items()} if isinstance(value, dict) else value


def _in_turn(readings: list[Reading]) -> list[Reading]:
    """Of records of one name, each has a greater turn than the one it replaced."""
    seen: Counter[str | None] = Counter()

    def in_turn(record: Record) -> Record:
        seen[record.name] += 1
        return replace(record, turn=seen[record.name])

    return [
        replace(
            reading,
            records=tuple(in_turn(record) for record in reading.records),
            bad=tuple(in_turn(record) for record in reading.bad),
        )
        for reading in readings
    ]
