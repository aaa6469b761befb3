"""A document from outside: checked as the admin API checks each thing, and put over the present
one."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from marshmallow import Schema, ValidationError

from proxy.core.config_document import BY_NAME, SECTIONS, Document, Section, Thing, made, placed
from proxy.core.masking import MASK, SECRET_FIELDS, masked
from proxy.core.spelling import did_you_mean
from proxy.core.types import InstanceConfig
from proxy.errors import Unprocessable
from proxy.store import instances
from proxy.web.errors import shown
from proxy.web.schemas import problems
from proxy.web.schemas_config import IN_DOCUMENT
from proxy.web.schemas_instances import check_auth

Problem = tuple[str, str]  # where, and a sentence

SHOWN_PROBLEMS = 100
HINTED = 5
# Making a schema takes longer than using it.
WHOLE: Mapping[str, Schema] = {name: schema() for name, schema in IN_DOCUMENT.items()}
PARTIAL: Mapping[str, Schema] = {n: schema(partial=True) for n, schema in IN_DOCUMENT.items()}


class ConfigRefused(Unprocessable):
    """The message has all that is wrong with a document, a line for each, with its path."""

    code = "invalid_config"

    @classmethod
    def because(cls, found: list[Problem]) -> "ConfigRefused":
        lines = [f"{path}: {sentence}" if path else sentence for path, sentence in found]
        more = len(lines) - SHOWN_PROBLEMS
        if more > 0:
            lines[SHOWN_PROBLEMS:] = [f"And {more} more."]
        return cls("\n".join(lines), param=found[0][0] or None)


@dataclass(slots=True)
class _Found:
    """What was read so far."""

    things: dict[tuple[str, str], Thing]
    problems: list[Problem]
    notes: list[str]


def wanted(given: Any, present: Document, *, prune: bool) -> tuple[Document, list[str]]:
    """The document that is meant by the given one, and what is to be said about it.

    Sections that are left out stay. Things that are left out of a section stay, unless `prune`;
    fields that are left out of a thing stay as they are, or are the defaults. A masked secret
    stays. Raises ConfigRefused with everything that is wrong.
    """
    found = _Found(placed(present), [], [])
    for section, things in _sections(given, found.problems):
        names = {thing[section.key] for thing in present[section.name]}
        read = set(_read(section, things, found))
        if prune:
            for name in names - read:
                del found.things[section.kind, name]
    meant: Document = {}
    if not found.problems:
        meant = made((kind, thing) for (kind, _), thing in found.things.items())
        _check_spellings(meant, found.problems)
        _check_allowed(meant, present, found.problems)
    if found.problems:
        raise ConfigRefused.because(found.problems)
    return meant, found.notes


def _sections(given: Any, wrong: list[Problem]) -> Iterator[tuple[Section, list[Any]]]:
    known = ", ".join(section.name for section in SECTIONS)
    if not isinstance(given, dict):
        wrong.append(("", f"A mapping with any of these sections is needed: {known}."))
        return
    for name, things in given.items():
        if name not in BY_NAME:
            hint = did_you_mean(str(name), BY_NAME)
            wrong.append((str(name), f"Is no section; there are {known}.{hint}"))
        elif not isinstance(things, list):
            wrong.append((name, "Must be a list."))
        else:
            yield BY_NAME[name], things


def _read(section: Section, things: list[Any], found: _Found) -> Iterator[str]:
    """Puts each over the present one; gives their names."""
    seen: set[str] = set()
    for index, given in enumerate(things):
        at = f"{section.name}[{index}]"
        if not isinstance(given, dict) or not all(isinstance(k, str) for k in given):
            found.problems.append((at, "Must be a mapping of fields to values."))
            continue
        name = given.get(section.key)
        if not isinstance(name, str):
            found.problems.append((f"{at}.{section.key}", "Is needed, and must be text."))
            continue
        if name in seen:
            sentence = f"{shown(name)} stands twice in {section.name}."
            found.problems.append((f"{at}.{section.key}", sentence))
        seen.add(name)
        _put(section, name, given, at, found)
        yield name


def _put(section: Section, name: str, given: Thing, at: str, found: _Found) -> None:
    place = section.kind, name
    now = found.things.get(place)
    values = given if now is None else _without_masks(place, given, now, found.notes)
    schema = (WHOLE if now is None else PARTIAL)[section.name]
    try:
        loaded = schema.load(values)
    except ValidationError as error:
        found.problems += [
            (path, _sentence(sentence, values, path))
            for path, sentence in problems(error, values, schema, at=f"{at}.")
        ]
        return
    thing = _completed({**(section.defaults if now is None else now), **loaded})
    if section.kind == instances.KIND and thing != now:
        found.problems += _auth_problems(thing, at)
    found.things[place] = thing


def _auth_problems(instance: Thing, at: str) -> list[Problem]:
    try:
        check_auth(InstanceConfig(**instance))
    except Unprocessable as error:
        return [(f"{at}.{error.param}", error.message.removeprefix(f"{error.param}: "))]
    return []


def _completed(thing: Thing) -> Thing:
    """Tokens from the upstream's cache cost what others do, unless it is said."""
    if "prompt_per_million" in thing and thing.get("cached_per_million") is None:
        thing["cached_per_million"] = thing["prompt_per_million"]
    return thing


def _instance_hint(name: str, known: Collection[str], wrong: Sequence[Problem]) -> str:
    """For the first few: to look through thousands of names takes a while."""
    return did_you_mean(name, known) if len(wrong) < HINTED else ""


def _check_allowed(document: Document, present: Document, wrong: list[Problem]) -> None:
    """A misspelt instance would shut its client out, or give it less than was meant."""
    known = {instance["name"] for instance in document["instances"]}
    before = {client["name"]: client["allowed_instances"] for client in present["clients"]}
    for client in document["clients"]:
        name = client["name"]
        for instance in client["allowed_instances"]:
            if instance not in known and instance not in before.get(name, ()):
                sentence = (
                    f"{shown(name)} is to use {shown(instance)}, and there is no such instance."
                    f"{_instance_hint(instance, known, wrong)}"
                )
                wrong.append(("clients", sentence))


def _check_spellings(document: Document, wrong: list[Problem]) -> None:
    """Models are found without regard to case: of two prices one would never count."""
    known: dict[str, str] = {}
    for price in document["prices"]:
        model = price["model"]
        other = known.setdefault(model.lower(), model)
        if other != model:
            wrong.append(("prices", f"{shown(other)} and {shown(model)} are the same model."))


def _without_masks(place: tuple[str, str], given: Thing, now: Thing, notes: list[str]) -> Thing:
    """What is masked is what it was."""
    values = dict(given)
    for field in SECRET_FIELDS & given.keys():
        value = given[field]
        if value == masked(field, now[field]):
            del values[field]
        elif field == "api_key" and isinstance(value, str) and value.startswith(MASK):
            del values[field]
            notes.append(
                f"{place[0]} {place[1]!r}: the masked api_key is of another key than the"
                " present one, which stays."
            )
    return values


def _sentence(sentence: str, values: Thing, path: str) -> str:
    """For a thing that is new: there is no secret which could be kept."""
    field = path.rpartition(".")[2]
    value = values.get(field)
    if field in SECRET_FIELDS and isinstance(value, str) and MASK in value:
        return (
            "Is masked, and there is none that could be kept; write it, or a reference such as"
            " env:NAME."
        )
    return sentence
