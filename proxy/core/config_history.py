"""The config as it was: the present one, with what was changed since undone."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from proxy.core.config_document import OF_KIND, Document, Place, Section, Thing, made, placed
from proxy.core.masking import MASK, SECRET_FIELDS

ADDED, CHANGED, REMOVED = "added", "changed", "removed"

# Clients had nothing but a key once: revisions of then have no fields, and say it thus.
ACTIONS = {"key added": ADDED, "key removed": REMOVED}


@dataclass(frozen=True, slots=True)
class Record:
    """What a revision keeps of the change of one thing: {field: [old, new]}.

    Secrets are masked in `changes`, and whole in `secrets`; None: they were not kept, or
    cannot be decrypted. `action` is the revision's.
    """

    kind: str
    name: str
    changes: Mapping[str, list[Any]]
    secrets: Mapping[str, list[Any]] | None = None
    action: str = ""


class NotKept(str):
    """A secret of which nothing is left but what may be shown of it."""

    __slots__ = ()


def before(document: Document, records: Iterable[Record]) -> Document:
    """`document` as it was before the records, of which the newest is first."""
    things = placed(document)
    for record in records:
        section = OF_KIND.get(record.kind)
        if section is not None:
            _undo(things, section, record)
    return made((kind, thing) for (kind, _), thing in things.items())


def effect(record: Record) -> str:
    """Whether the thing was added, changed or removed."""
    section = OF_KIND.get(record.kind)
    known = section.fields if section else tuple(record.changes)
    nullable = section.nullable if section else frozenset()
    # Of a field that may be None it says nothing that it was.
    certain = [p for f, p in record.changes.items() if f in known and f not in nullable]
    if not certain:
        return ACTIONS.get(record.action, CHANGED)
    if any(old is None for old, _ in certain):
        return ADDED
    return REMOVED if any(new is None for _, new in certain) else CHANGED


def _undo(things: dict[Place, Thing], section: Section, record: Record) -> None:
    place = (record.kind, record.name)
    done = effect(record)
    if done == ADDED:
        things.pop(place, None)
        return
    # Fields that there were not yet when it was removed had their defaults, in effect.
    fresh = {**section.defaults, section.key: record.name}
    present = fresh if done == REMOVED else things.get(place)
    if present is None and section.is_limits:
        present = fresh
    if present is not None:
        things[place] = present | _old_values(section, record)


def _old_values(section: Section, record: Record) -> Thing:
    whole = record.secrets or {}
    return {
        field: _whole(whole[field][0]) if field in whole else _perhaps_masked(field, pair[0])
        for field, pair in record.changes.items()
        if field in section.fields
    }


def _whole(secret: Any) -> Any:
    """An empty one could not be decrypted when it was to be kept; one of a type of its own
    still stands for what cannot be."""
    return NotKept(secret) if secret == "" and type(secret) is str else secret


def _perhaps_masked(field: str, value: Any) -> Any:
    """Without a mask it holds no secret, or only says where it is. An empty key is none: it
    could not be decrypted when it was to be kept."""
    is_masked = field in SECRET_FIELDS and isinstance(value, str) and MASK in value
    is_lost = is_masked or (field == "api_key" and value == "")
    return NotKept(value) if is_lost else value


def shown_record(record: Record) -> dict[str, Any]:
    """As JSON; secrets are masked."""
    done = effect(record)
    return {
        "kind": record.kind,
        "name": record.name,
        "effect": done,
        "fields": dict(record.changes),
        "changed_secrets": changed_secrets(done, record.changes),
    }


def changed_secrets(effect: str, fields: Iterable[str]) -> list[str]:
    """Two secrets may have the same mask, and be others all the same."""
    return [f for f in fields if f in SECRET_FIELDS] if effect == CHANGED else []
