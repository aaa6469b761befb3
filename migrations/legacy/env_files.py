"""Records in env files: the layouts E2 (`API_INSTANCES`) and E1 (`AZURE_INSTANCES`, or one)."""

import io
import re
from collections import ChainMap, Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dotenv.parser import Binding, parse_stream
from dotenv.variables import Variable, parse_variables

from migrations.legacy.records import CONFIG_KEYS, Era, Problem, Reading, Record

MAKE_AN_INSTANCE = ("api_key", "api_base")  # of one without a list; a version alone does not
SUFFIXES = {key.upper(): key for key in CONFIG_KEYS if key not in ("name", "model_deployments")}
MODELS = "SUPPORTED_MODELS"
MODEL_MAP = "MODEL_MAP_"
SINGLE_NAME = "default"
NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Family:
    """How one era named its variables."""

    layout: str
    era: Era
    names: str  # the variable that lists the instances
    prefix: str


E1 = Family("E1", Era.ENV_AZURE, "AZURE_INSTANCES", "AZURE_INSTANCE_")
E2 = Family("E2", Era.ENV_API, "API_INSTANCES", "API_INSTANCE_")
FAMILIES = (E2, E1)
# One instance without a list (E1), in two spellings: variable -> config key.
SINGLES = (
    {
        "AZURE_OPENAI_API_KEY": "api_key",
        "AZURE_OPENAI_API_BASE": "api_base",
        "AZURE_OPENAI_API_VERSION": "api_version",
    },
    {
        "API_KEY": "api_key",
        "API_BASE": "api_base",
        "API_VERSION": "api_version",
        "API_PROVIDER_TYPE": "provider_type",
    },
)


@dataclass(slots=True)
class Lines:
    """An env file: its variables, those that stand there twice, lines nobody can read."""

    values: dict[str, str] = field(default_factory=dict, repr=False)  # hold keys
    repeated: set[str] = field(default_factory=set)
    bad: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Draft:
    """A record while its variables are collected; `maps` is by variable: model, deployment."""

    name: str
    config: dict[str, Any] = field(default_factory=dict, repr=False)  # holds keys
    maps: dict[str, tuple[str, str]] = field(default_factory=dict, repr=False)
    extra: dict[str, Any] = field(default_factory=dict, repr=False)
    notes: list[str] = field(default_factory=list)


def read(file: Path, text: str, environ: Mapping[str, str] = NOTHING) -> Reading:
    """The instances that the file lists, and whatever else it sets as settings.

    A variable of an instance that the list does not name is told in a note: the old program
    passed it over, and an instance out of the list is how it was switched off. One instance
    without a list counts where there is no list, as it did then. `${NAME}` is what the lines
    above say, or else `environ`, and is told in a note.
    """
    lines = _lines(text, environ)
    settings = dict(lines.values)
    records: list[Record] = []
    for family in FAMILIES:
        records += _listed(file, family, lines, settings)
    notes = [
        *lines.notes,
        *_unlisted(lines, settings),
        *(_beside_a_list(settings) if records else ()),
    ]
    if not records:
        for variables_of_one in SINGLES:
            records += _single(file, variables_of_one, lines, settings)
    problems = [_bad_line(file, line) for line in lines.bad]
    problems += _without_list(file, lines)
    layout = records[0].layout if records else "env"
    return Reading(file, layout, tuple(records), tuple(problems), settings, notes=tuple(notes))


def variables(text: str, environ: Mapping[str, str] = NOTHING) -> dict[str, str]:
    """What the file sets; of a variable that stands there twice, the later value."""
    return _lines(text, environ).values


def _lines(text: str, environ: Mapping[str, str]) -> Lines:
    lines = Lines()
    known = ChainMap(lines.values, dict(environ))
    for binding in parse_stream(io.StringIO(text)):
        if binding.error or (binding.key and binding.value is None):
            lines.bad.append(_line_of(binding))
        elif binding.key and binding.value is not None:
            if binding.key in lines.values:
                lines.repeated.add(binding.key)
            lines.values[binding.key] = _expanded(
                binding.key, binding.value, known, lines.notes
            )
    return lines


def _expanded(variable: str, value: str, known: Mapping[str, str], notes: list[str]) -> str:
    """As python-dotenv reads it, with which the old program did: in quotes of any kind, too."""
    if "${" not in value:
        return value
    atoms = list(parse_variables(value))
    for name in dict.fromkeys(atom.name for atom in atoms if isinstance(atom, Variable)):
        missing = (
            "" if known.get(name) else ", which is not set before it or in the environment"
        )
        notes.append(f"{variable} has ${{{name}}}{missing}: it was replaced, as it was then")
    return "".join(atom.resolve(known) for atom in atoms)


def _line_of(binding: Binding) -> int:
    """The parser counts from the blank lines before it."""
    original = binding.original
    blank = len(original.string) - len(original.string.lstrip())
    return original.line + original.string[:blank].count("\n")


def _listed(
    file: Path, family: Family, lines: Lines, settings: dict[str, str]
) -> Iterator[Record]:
    listed = [name.strip() for name in lines.values.get(family.names, "").split(",")]
    names = [name for name in listed if name]
    drafts = {name: Draft(name, {"name": name}) for name in names}
    times = Counter(names)
    if drafts:
        settings.pop(family.names)
    by_spelling = _by_spelling(drafts)
    for variable, value in lines.values.items():
        if variable.startswith(family.prefix):
            owners, suffix = _owners(variable.removeprefix(family.prefix), by_spelling)
            for draft in owners:
                settings.pop(variable, None)
                _put(draft, variable, suffix, value)
                _note_common(draft, variable, owners, lines)
    for draft in drafts.values():
        _decode_maps(draft)
        if times[draft.name] > 1:
            draft.notes.append(f"it is twice in {family.names}")
        place = family.prefix + _spellings(draft.name)[0]
        yield _record(file, family, place, draft)


def _spellings(name: str) -> tuple[str, str]:
    """In capitals as it is, and as far as a shell can write it: `east-1 a` is EAST_1_A."""
    capitals = name.upper()
    return capitals, re.sub(r"\W", "_", capitals)


def _by_spelling(drafts: Mapping[str, Draft]) -> dict[str, list[Draft]]:
    found: dict[str, list[Draft]] = {}
    for draft in drafts.values():
        for spelling in dict.fromkeys(_spellings(draft.name)):
            found.setdefault(spelling, []).append(draft)
    return found


def _owners(rest: str, by_spelling: Mapping[str, list[Draft]]) -> tuple[list[Draft], str]:
    """Whose variable it is, and which: `A_B_API_KEY` is of `a_b` rather than of `a`.

    The longest name counts that leaves a suffix we know, or else the longest.
    """
    longest: tuple[list[Draft], str] = ([], "")
    for match in reversed(list(re.finditer("_", rest))):
        owners = by_spelling.get(rest[: match.start()])
        if owners is None:
            continue
        suffix = rest[match.end() :]
        if _is_known(suffix):
            return owners, suffix
        if not longest[0]:
            longest = owners, suffix
    return longest


def _is_known(suffix: str) -> bool:
    return suffix in SUFFIXES or suffix.startswith(MODEL_MAP)


def _put(draft: Draft, variable: str, suffix: str, value: str) -> None:
    key = SUFFIXES.get(suffix)
    if suffix.startswith(MODEL_MAP):
        draft.maps[variable] = (suffix.removeprefix(MODEL_MAP), value)
    elif key is None:
        draft.extra[variable] = value
    elif key in draft.config:
        draft.extra[variable] = value
        draft.notes.append(f"{variable}: the name is written in two ways, the first counts")
    else:
        draft.config[key] = _models(value) if suffix == MODELS else value


def _models(value: str) -> list[str]:
    return [model.strip() for model in value.split(",") if model.strip()]


def _note_common(draft: Draft, variable: str, owners: list[Draft], lines: Lines) -> None:
    if variable in lines.repeated:
        draft.notes.append(f"{variable} stands twice in the file: the later counts")
    if len(owners) > 1:
        names = ", ".join(repr(owner.name) for owner in owners)
        draft.notes.append(f"{variable} is of all of {names}: they are written alike")


def _decode_maps(draft: Draft) -> None:
    """`-` and `.` became `_` in the variable, so only a supported model tells what was there.

    A model written exactly so counts before one that has the same letters and digits
    (`GPT4O` for `gpt-4o`). What fits none, or several, stays in `extra`.
    """
    models = draft.config.get("supported_models", [])
    deployments: dict[str, str] = {}
    for variable, (written, deployment) in draft.maps.items():
        model = _model(written, models)
        if model is None or deployments.get(model, deployment) != deployment:
            draft.extra[variable] = deployment
            draft.notes.append(
                f"{variable}: it does not tell which of {MODELS} it is of, so it was not used"
            )
        else:
            deployments[model] = deployment
    if deployments:
        draft.config["model_deployments"] = deployments


def _model(written: str, models: list[str]) -> str | None:
    exact = [m for m in models if re.sub("[-.]", "_", m).upper() == written.upper()]
    similar = [m for m in models if _bare(m) == _bare(written)]
    # The same model in two cases is one model: the lookup was in lower case.
    for found in (exact, similar):
        if len({model.lower() for model in found}) == 1:
            return found[0]
    return None


def _bare(text: str) -> str:
    return re.sub(r"[\W_]", "", text).lower()


def _unlisted(lines: Lines, settings: dict[str, str]) -> Iterator[str]:
    """A note for each instance that no list names; its variables are settings no more."""
    for family in FAMILIES:
        if family.names not in lines.values:
            continue  # nobody says that they were passed over: that is a problem
        left = [v for v in settings if v.startswith(family.prefix)]
        for name, variables_of_one in _by_name(family.prefix, left):
            for variable in variables_of_one:
                del settings[variable]
            yield (
                f"{', '.join(variables_of_one)}: the old program passed over what"
                f" {family.names} does not name, so they are only in the backup; to import it,"
                f" add {name or 'its name'} to {family.names}"
            )


def _by_name(prefix: str, variables: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Variables of one instance together; "" where nothing tells its name."""
    names = {v: _name_in(v.removeprefix(prefix)) for v in variables}
    known = sorted({name for name in names.values() if name}, key=len)
    groups: dict[tuple[str, str], list[str]] = {}
    for variable, own in names.items():
        rest = variable.removeprefix(prefix)
        fitting = [name for name in known if rest.startswith(f"{name}_")]
        name = own or (fitting[-1] if fitting else "")
        groups.setdefault((name, "" if name else variable), []).append(variable)
    return ((name, found) for (name, _), found in groups.items())


def _name_in(rest: str) -> str:
    """`OFF` of `OFF_API_KEY`; "" where it ends with nothing that we know."""
    for match in reversed(list(re.finditer("_", rest))):
        if _is_known(rest[match.end() :]):
            return rest[: match.start()]
    return ""


def _beside_a_list(settings: dict[str, str]) -> Iterator[str]:
    """Likewise for one instance that needs no list, where there is one."""
    for variables_of_one in SINGLES:
        there = [v for v in variables_of_one if v in settings]
        if not any(settings[v] for v in there if variables_of_one[v] in MAKE_AN_INSTANCE):
            continue
        for variable in there:
            del settings[variable]
        yield (
            f"{', '.join(there)}: the old program passed over one instance beside a list, so"
            " they are only in the backup; to import it, give it a name in the list"
        )


def _single(
    file: Path, variables_of_one: Mapping[str, str], lines: Lines, settings: dict[str, str]
) -> Iterator[Record]:
    there = {v: key for v, key in variables_of_one.items() if v in lines.values}
    config = {key: lines.values[variable] for variable, key in there.items()}
    if not any(config.get(key) for key in MAKE_AN_INSTANCE):
        return
    draft = Draft(SINGLE_NAME, {"name": SINGLE_NAME, **config})
    for variable in there:
        del settings[variable]
        if variable in lines.repeated:
            draft.notes.append(f"{variable} stands twice in the file: the later counts")
    yield _record(file, E1, next(iter(there)), draft)


def _record(file: Path, family: Family, place: str, draft: Draft) -> Record:
    return Record(
        file,
        place,
        family.layout,
        family.era,
        draft.name,
        draft.config,
        extra=draft.extra,
        notes=tuple(draft.notes),
    )


def _bad_line(file: Path, line: int) -> Problem:
    # Not the line itself: it may be the rest of a key.
    remedy = "Write it as NAME=value, close its quotes, or delete it."
    return Problem(file, "", "", "", remedy, f"Line {line} is no setting.")


def _without_list(file: Path, lines: Lines) -> Iterator[Problem]:
    for family in FAMILIES:
        if family.names in lines.values:
            continue
        count = sum(variable.startswith(family.prefix) for variable in lines.values)
        if count:
            remedy = f"Add {family.names}=<name>,<name>, or delete those lines."
            message = (
                f"{count} variables begin with {family.prefix}, but {family.names} is missing."
            )
            yield Problem(file, "", family.names, "", remedy, message)
