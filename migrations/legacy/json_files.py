"""Records in JSON: the layouts M1, M2, M2', M3, S1 and S2, told apart by what they hold."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from migrations.legacy.records import (
    CONFIG_KEYS,
    ERAS,
    STATES_ONLY,
    Problem,
    Reading,
    Record,
)
from migrations.legacy.showing import cut, kind_of

CONFIG = frozenset(CONFIG_KEYS)
# Beside state, a config has one of these; another key alone is a stray one.
ADDRESS = frozenset({"api_key", "api_base"})
STATE = frozenset(
    "status error_count last_error last_error_time rate_limited_until current_tpm current_rpm"
    " total_requests successful_requests total_tokens_served last_used avg_latency_ms"
    " utilization_percentage connection_status health_status"
    " total_errors_500 total_errors_503 total_other_errors"
    " total_client_errors_500 total_client_errors_503 total_client_errors_other"
    " total_upstream_400_errors total_upstream_429_errors total_upstream_500_errors"
    " total_upstream_other_errors".split()
)
# The last release derived a rate of each counter, and kept a window of most.
STATE_FAMILIES = re.compile(
    r"current_(\w+_)?rate|(usage|request|(client_)?error_\w+|upstream_\w+)_window"
)

# What the old writers put beside the records about the file itself.
ENVELOPE_KEYS = frozenset("instances timestamp last_updated worker_id version".split())

ADDRESS_IN_OTHER_WORDS = frozenset("apikey apibase key url baseurl endpoint".split())
_NO_LETTER = re.compile(r"[^A-Za-z]+")

MAX_DEPTH = 100  # far more than any value had, and far less than Python can write again
SCALARS = frozenset({str, int, float, bool, type(None)})
ONE_OF_TWO = "Take one of the two out."
SEEMS_CUT = " The file seems to be cut off."
# Of numbers and escapes, what the decoder leaves where one ends too early.
BEGUN = re.compile(r"\.|[eE][+-]?|u[0-9a-fA-F]{0,4}")
WORDS = ("true", "false", "null", "NaN", "Infinity", "-Infinity")

HALF_OF_A_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")
# Halves that belong together are one character; what follows a backslash else is no half.
ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|u(?P<half>[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands where a record belongs; `key` is its name in a mapping by name."""

    place: str
    value: Any = field(repr=False)  # holds keys
    key: str | None = None
    notes: tuple[str, ...] = ()
    # What makes it no record; `value` is then what stands there.
    problem: Problem | None = None


class Doubled(dict[str, Any]):
    """An object that has a key twice. `pairs` are all there are, `text` is the whole file's."""

    def __init__(self, pairs: Sequence[tuple[str, Any]], text: str) -> None:
        super().__init__(pairs)
        self.pairs = pairs
        counts = Counter(key for key, _ in pairs)
        self.keys_of_two = [key for key, count in counts.items() if count > 1]
        self._text = text

    def said(self, key: str) -> str:
        written = re.compile(re.escape(json.dumps(key, ensure_ascii=False)) + r"\s*:")
        starts = [found.start() for found in islice(written.finditer(self._text), 3)]
        lines = [self._text.count("\n", 0, start) + 1 for start in starts]
        # The decoder does not say where it is; with two places in the file there is no doubt.
        where = f" (lines {lines[0]} and {lines[1]})" if len(lines) == 2 else ""
        return f"The key {cut(repr(key))} stands twice in one object{where}."


@dataclass(frozen=True, slots=True)
class Overlong:
    """A number of more digits than Python reads, and than any of the old program's had."""

    digits: str

    def __str__(self) -> str:
        return self.digits


def read(file: Path, text: str) -> Reading:
    """The records of any JSON layout.

    A mapping with `instances` is M1, M2 (`last_updated`) or M2' (`version`), and so is an
    array of records without an envelope (M1, the oldest of them). Any other mapping is by
    name: M3 where most records hold config and state, else S1 or S2.
    """
    try:
        data = decoded(text)
    except ValueError as error:
        return Reading(file, "JSON", problems=(_no_json(file, error),))
    return replace(_reading(file, data), notes=of_whole_characters(text)[1])


def _reading(file: Path, data: Any) -> Reading:
    if isinstance(data, list):
        return reading_of(file, "M1", listed(data))
    if not isinstance(data, dict):
        return Reading(file, "JSON", problems=(_no_records(file, data),))
    if _is_envelope(data):
        return _in_envelope(file, data)
    entries = [
        entry
        for entry in by_name(file, data)
        if isinstance(entry.value, dict) or entry.key not in ENVELOPE_KEYS - {"instances"}
    ]
    layout = _layout_by_name(file, entries)
    reading = reading_of(file, layout, entries)
    if layout != "M3":
        return reading
    # Records of that era could have anything beside them.
    scalars = str, int, float
    aside = tuple(each for each in reading.bad if isinstance(each.raw, scalars))
    bad = tuple(each for each in reading.bad if not isinstance(each.raw, scalars))
    return replace(reading, bad=bad, aside=aside)


def decoded(text: str) -> Any:
    """What the JSON says, with whole characters only: see `of_whole_characters`.

    An object in which a key stands twice is a `Doubled`, because either value may be the one
    that counts; a number that Python does not read for its length is an `Overlong`. Raises
    ValueError with a sentence that says where it is damaged and quotes no value.
    """
    try:
        if HALF_OF_A_CHARACTER.search(text):
            _loaded(text)  # where it is damaged, is said of what stands in the file
            text, _ = of_whole_characters(text)
        return _loaded(text)
    except json.JSONDecodeError as error:
        # Not chained: the error holds the whole text, and with it every key.
        where = f"line {error.lineno}, column {error.colno}"
        hint = SEEMS_CUT if _is_cut(text[error.pos :].rstrip(), error.msg) else ""
        raise ValueError(f"No JSON at {where}: {error.msg}.{hint}") from None
    except RecursionError:
        raise ValueError("The JSON is nested too deeply to be read.") from None


def _loaded(text: str) -> Any:
    def as_it_is(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        return found if len(found) == len(pairs) else Doubled(pairs, text)

    try:
        return json.loads(text, object_pairs_hook=as_it_is)
    except json.JSONDecodeError:
        raise
    except ValueError:  # not a number of them all is asked how long it is, unless one is
        return json.loads(text, object_pairs_hook=as_it_is, parse_int=_number)


def _number(digits: str) -> int | Overlong:
    try:
        return int(digits)
    except ValueError:
        return Overlong(digits)


def of_whole_characters(text: str) -> tuple[str, tuple[str, ...]]:
    r"""The JSON without halves of characters, and a note if there were any.

    The old writers escaped bytes they could not read as `\udce4`, half of a character. Nothing
    can be done with text that holds one, not even printing it, so U+FFFD and the four digits
    take its place: names and keys that differ still do.
    """
    halves: list[str] = []

    def whole(escape: re.Match[str]) -> str:
        half = escape["half"]
        if half is None:
            return escape[0]
        halves.append(half)
        return f"\ufffd{half.lower()}"

    if not HALF_OF_A_CHARACTER.search(text):
        return text, ()
    mended = ESCAPE.sub(whole, text)
    return mended, (_about(halves),) if halves else ()


def _about(halves: list[str]) -> str:
    first = halves[0]
    times = f"{len(halves)} times" if len(halves) > 1 else "once"
    return (
        f"half of a character (\\u{first}) stands there {times}: it was read as"
        f" \ufffd{first.lower()}, also in names and keys"
    )


def _is_cut(rest: str, message: str) -> bool:
    """Whether what cannot be read could be the beginning of something, at the text's end."""
    return (
        not rest
        or message.startswith("Unterminated string")  # one cannot span lines
        or BEGUN.fullmatch(rest) is not None
        or any(word.startswith(rest) for word in WORDS)
    )


def listed(items: Iterable[Any], where: str = "instances") -> list[Entry]:
    return [Entry(f"{where}[{index}]", item) for index, item in enumerate(items)]


def by_name(file: Path, items: Mapping[str, Any]) -> list[Entry]:
    if isinstance(items, Doubled):
        twice = {key: _problem_of_two(file, items, key) for key in items.keys_of_two}
        return [_named(key, item, twice.get(key)) for key, item in items.pairs]
    return [_named(key, item) for key, item in items.items()]


def _named(key: str, item: Any, problem: Problem | None = None) -> Entry:
    return Entry(f"key {cut(repr(key))}", item, key, problem=problem)


def _problem_of_two(file: Path, items: Doubled, key: str) -> Problem:
    return Problem(file, f"key {cut(repr(key))}", "", "", ONE_OF_TWO, items.said(key))


def reading_of(
    file: Path, layout: str, entries: Iterable[Entry], settings: Mapping[str, str] | None = None
) -> Reading:
    """The entries as records; one that cannot be any is among the bad."""
    records, bad = [], []
    for entry in entries:
        problem = entry.problem or _wrong_with(file, layout, entry)
        if problem is None:
            records.append(_record(file, layout, entry))
        else:
            bad.append(_bad(file, layout, entry, problem))
    return Reading(file, layout, tuple(records), settings=settings or {}, bad=tuple(bad))


def _bad(file: Path, layout: str, entry: Entry, problem: Problem) -> Record:
    """With its name, where one is known: of that instance it is what counts, not an older."""
    name, value = entry.key if entry.key and entry.key.strip() else None, entry.value
    if name is None and isinstance(value, dict):
        is_clear = not isinstance(value, Doubled) or "name" not in value.keys_of_two
        name = _name(entry)[0] if is_clear else None
    return Record(
        file,
        entry.place,
        layout,
        ERAS[layout],
        name,
        notes=entry.notes,
        problem=problem,
        raw=_as_written(entry.value),
    )


def _record(file: Path, layout: str, entry: Entry) -> Record:
    """The values sorted into config, state and extra.

    State stands flat or under `stats`. Where it stands in both, `stats` counts, because a
    program wrote it, and the flat value goes to `extra`.
    """
    name, notes = _name(entry)
    config: dict[str, Any] = {}
    state: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for key, value in entry.value.items():
        group = config if key in CONFIG else state if is_state(key) else extra
        group[key] = value
    if layout == STATES_ONLY and not ADDRESS & config.keys():
        # The old program read no config there: a `weight` of a state is somebody's own.
        extra |= {key: config.pop(key) for key in list(config) if key != "name"}
    if "name" in config and name is not None and config["name"] != name:
        extra["name"], config["name"] = config["name"], name
    stats = extra.pop("stats", None)
    if isinstance(stats, dict):
        _add_stats(stats, state, extra)
    elif stats is not None:
        extra["stats"] = stats
        notes.append(f"`stats` is {kind_of(stats)}, not an object: nothing was read from it")
    all_notes = (*entry.notes, *notes)
    return Record(
        file, entry.place, layout, ERAS[layout], name, config, state, extra, all_notes
    )


NEVER_SPLIT = frozenset({"instances.json", "instance_data.json"})


def is_state(key: str) -> bool:
    return key in STATE or STATE_FAMILIES.fullmatch(key) is not None


def _is_config_in_other_words(record: Mapping[str, Any]) -> bool:
    """What stands where a state belongs has no field of one, and an address or a key under
    another name, or one level down: as a state its config would be lost."""
    if "stats" in record or record.keys() & ADDRESS or any(map(is_state, record)):
        return False
    inner = (value for value in record.values() if isinstance(value, dict))
    keys = chain(record, *inner)
    return any(_NO_LETTER.sub("", str(key)).lower() in ADDRESS_IN_OTHER_WORDS for key in keys)


def _add_stats(stats: dict[str, Any], state: dict[str, Any], extra: dict[str, Any]) -> None:
    unknown = {}
    for key, value in stats.items():
        if not is_state(key):
            unknown[key] = value
            continue
        if value is None and state.get(key) is not None:
            continue  # what says nothing does not overrule what says something
        if key in state and state[key] != value:
            extra[key] = state[key]
        state[key] = value
    if unknown:
        extra["stats"] = unknown


def _name(entry: Entry) -> tuple[str | None, list[str]]:
    """The key in a mapping by name, or else what the record says of itself.

    The old program looked instances up by the key, joined config and state by it, and never
    compared it with the `name` inside; so the key is what its clients and counters meant.
    """
    inner = entry.value.get("name")
    usable = isinstance(inner, str) and bool(inner.strip())
    shown = cut(repr(inner)) if usable else kind_of(inner)
    if entry.key and entry.key.strip():
        if inner is None or inner == entry.key:
            return entry.key, []
        return entry.key, [f"`name` inside is {shown}: the {entry.place} counts"]
    if usable:
        return inner, []
    return None, [f"`name` is {shown}"] if "name" in entry.value else []


def _is_envelope(data: dict[str, Any]) -> bool:
    """Whether `instances` holds the records, and is no instance of that name."""
    if "instances" not in data:
        return False
    inner = data["instances"]
    if isinstance(inner, list):
        return True
    if isinstance(inner, dict):
        return not any(
            (key in CONFIG or is_state(key)) and not isinstance(value, dict)
            for key, value in inner.items()
        )
    return not any(isinstance(value, dict) for value in data.values())


def _in_envelope(file: Path, data: dict[str, Any]) -> Reading:
    layout = "M2" if "last_updated" in data else "M2'" if "version" in data else "M1"
    settings = {
        k: json.dumps(v, default=str) for k, v in data.items() if k not in ENVELOPE_KEYS
    }
    inner = data["instances"]
    if isinstance(data, Doubled) and "instances" in data.keys_of_two:
        problem = Problem(file, "", "", "", ONE_OF_TWO, data.said("instances"))
        return Reading(file, layout, problems=(problem,), settings=settings)
    if not isinstance(inner, list | dict):
        return Reading(file, layout, problems=(_no_records(file, inner),), settings=settings)
    entries = listed(inner) if isinstance(inner, list) else by_name(file, inner)
    return reading_of(file, layout, [*entries, *_beside(file, data, settings)], settings)


def _beside(file: Path, data: dict[str, Any], settings: dict[str, str]) -> Iterator[Entry]:
    """Instances beside `instances`, where the old program did not look: no settings."""
    for key, value in data.items():
        if key in settings and isinstance(value, dict) and ADDRESS & value.keys():
            del settings[key]
            where = f"key {cut(repr(key))}"
            remedy = "Put it into `instances`, or take it out."
            message = "It stands beside `instances`, where the old program did not look."
            problem = Problem(file, where, "", "", remedy, message)
            yield Entry(where, value, key, problem=problem)


def _layout_by_name(file: Path, entries: list[Entry]) -> str:
    """M3, S1 or S2, by what most records hold: one stray key does not make it another.

    Two names were never those of split files, whatever they hold: an old one of them must
    not contradict the newer split files.
    """
    if file.name in NEVER_SPLIT:
        return "M3"
    is_of_states = "state" in file.name.lower()
    records = [entry.value.keys() for entry in entries if isinstance(entry.value, dict)]
    state = [any(map(is_state, keys)) or "stats" in keys for keys in records]
    config = [
        bool(keys & (ADDRESS if has_state or is_of_states else CONFIG - {"name"}))
        for keys, has_state in zip(records, state, strict=True)
    ]
    both = sum(c and s for c, s in zip(config, state, strict=True))
    if both * 2 > len(records):
        return "M3"
    if sum(config) == sum(state):
        return "S2" if is_of_states else "S1"
    return "S1" if sum(config) > sum(state) else "S2"


def _damage(value: Any, field: str = "", depth: int = 0) -> Problem | None:
    """The first thing within a record that makes it unclear what it says."""
    if depth > MAX_DEPTH:
        return _damaged(field, "Take it out.", "It is nested too deeply.")
    if isinstance(value, Doubled):
        return _damaged(field, ONE_OF_TWO, value.said(value.keys_of_two[0]))
    if isinstance(value, Overlong):
        message = f"This is a number of {len(value.digits)} digits."
        return _damaged(field, "Correct the value in the file.", message)
    inner = (_damage(each, field or cut(key), depth + 1) for key, each in _inner(value))
    return next((found for found in inner if found is not None), None)


def _inner(value: Any) -> Iterator[tuple[str, Any]]:
    """What is in it and may be damaged, with its key."""
    if SCALARS.issuperset(map(type, value.values() if isinstance(value, dict) else value)):
        return iter(())  # nearly always, and of a hundred thousand windows it is fast to say
    pairs = value.items() if isinstance(value, dict) else (("", each) for each in value)
    return ((key, each) for key, each in pairs if isinstance(each, dict | list | Overlong))


def _damaged(field: str, remedy: str, message: str) -> Problem:
    return Problem(Path(), "", field, "", remedy, message)


def _as_written(value: Any, depth: int = 0) -> Any:
    """For rejected.json, with both of two keys that are alike."""
    if depth > MAX_DEPTH:
        return "nested too deeply: see the copy of the file"
    if isinstance(value, Doubled):
        return [{key: _as_written(each, depth + 1)} for key, each in value.pairs]
    if isinstance(value, dict):
        return {key: _as_written(each, depth + 1) for key, each in value.items()}
    if isinstance(value, list):
        return [_as_written(each, depth + 1) for each in value]
    return value


def _no_json(file: Path, error: ValueError) -> Problem:
    remedy = "Mend the file there, or bring an undamaged copy of it."
    return Problem(file, "", "", "", remedy, str(error))


def _no_records(file: Path, value: object) -> Problem:
    remedy = "Bring the file as the old program wrote it."
    message = "There are no records: a list of them, or a mapping by name, was expected."
    return Problem(file, "", "", kind_of(value), remedy, message)


def _wrong_with(file: Path, layout: str, entry: Entry) -> Problem | None:
    if isinstance(entry.value, dict):
        damage = _damage(entry.value)
        if damage is None and layout == STATES_ONLY and _is_config_in_other_words(entry.value):
            remedy = "Write it as the old program did (docs/migration.md), or take it out."
            message = "It seems to be a config, but has no field that the old program knew."
            return Problem(file, entry.place, "", "", remedy, message)
        return damage and replace(damage, file=file, record=entry.place)
    remedy = "Write the instance as an object with its fields, or delete the entry."
    message = "This is no object, so it is no instance."
    return Problem(file, entry.place, "", kind_of(entry.value), remedy, message)
