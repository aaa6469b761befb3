"""What is to be done so that one document becomes another, and how that is said."""

import json
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.core.config_document import OF_KIND, Document, Thing, made, placed
from proxy.core.config_history import ADDED, CHANGED, REMOVED, NotKept, changed_secrets
from proxy.core.masking import SECRET_FIELDS, masked
from proxy.core.moments import exact_text
from proxy.core.providers import NO_KEY
from proxy.core.types import UPSTREAM_FIELDS

KINDS = tuple(OF_KIND)
MOMENTS = ("expires_at",)
SIGNS = {ADDED: "+", CHANGED: "~", REMOVED: "-"}

# To whom a secret belongs: with another of these it is not to be sent there.
ADDRESS = ("api_base", "provider_type", "proxy_url", "auth")


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one thing: {field: [old, new]}, secrets whole. One that is added has all
    its fields with None for the old; one that is removed the other way round."""

    kind: str
    name: str
    effect: str
    fields: Mapping[str, list[Any]]


@dataclass(frozen=True, slots=True)
class Plan:
    """`notes` are sentences for who decides whether it is carried out."""

    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()


def planned(present: Document, wanted: Document, notes: Iterable[str] = ()) -> Plan:
    """Without changes if the two are equal."""
    changes = differences(present, wanted)
    return Plan(changes, (*notes, *_consequences(changes, wanted)))


def differences(present: Document, wanted: Document) -> tuple[Change, ...]:
    """In the order of the sections, and by name."""
    old, new = placed(present), placed(wanted)
    places = sorted({*old, *new}, key=lambda place: (KINDS.index(place[0]), place[1]))
    found = (_difference(*place, old.get(place), new.get(place)) for place in places)
    return tuple(change for change in found if change is not None)


def _difference(kind: str, name: str, old: Thing | None, new: Thing | None) -> Change | None:
    if old is None:
        assert new is not None  # it is in one of the two
        return Change(kind, name, ADDED, {f: [None, v] for f, v in new.items()})
    if new is None:
        return Change(kind, name, REMOVED, {f: [v, None] for f, v in old.items()})
    fields = {f: [old[f], v] for f, v in new.items() if old[f] != v}
    return Change(kind, name, CHANGED, fields) if fields else None


def left_without(
    allowed: Mapping[str, Collection[str]], removed: Iterable[str], there: Iterable[str]
) -> Iterator[str]:
    """What it means to clients, of which `allowed` has the instances that they may use, that
    some are removed and others are still there."""
    gone, left = set(removed), set(there)
    for client, names in allowed.items():
        missed = ", ".join(repr(name) for name in names if name in gone)
        if missed and left.isdisjoint(names):
            yield (
                f"client {client!r} may use nothing any more: none is left of its"
                f" allowed_instances ({missed} is removed)."
            )
        elif missed:
            yield f"client {client!r} has {missed}, which is removed, in allowed_instances."


def _consequences(changes: Sequence[Change], wanted: Document) -> Iterator[str]:
    """What is not in the fields."""
    allowed = {c["name"]: c["allowed_instances"] for c in wanted["clients"]}
    gone = [c.name for c in changes if (c.kind, c.effect) == ("instance", REMOVED)]
    yield from left_without(allowed, gone, [each["name"] for each in wanted["instances"]])
    used = {instance["quota_group"] for instance in wanted["instances"]}
    for change in changes:
        what = f"{_words(change.kind)} {change.name!r}"
        match change.kind, change.effect:
            case "client", "removed":
                yield f"{what} is removed: its key is worth nothing from then on."
            case "client", "added":
                rotate = f"flask keys rotate -- {shlex.quote(change.name)}"
                yield f"{what} has no key yet: `{rotate}` makes one."
            case "quota_group", "added" | "changed" if change.name not in used:
                yield f"{what}: no instance is in it, so it bounds nobody."


def without_lost_secrets(present: Document, wanted: Document) -> tuple[Document, list[str]]:
    """`wanted` with something else for secrets that were not kept, and what is to be said.

    An instance that is there keeps its present one, where that is for the same place, and is
    not enabled by this. Any other is disabled: nothing is to go out without its key, with the
    key of somebody else, or past its proxy.
    """
    there = placed(present)
    things = placed(wanted)
    notes = []
    for (kind, name), thing in things.items():
        lost = [f for f, value in thing.items() if isinstance(value, NotKept)]
        if not lost:
            continue
        now = there.get((kind, name))
        which = " and ".join(lost)
        if now is not None and all(thing[f] == now[f] for f in ADDRESS if f not in lost):
            kept = {f: now[f] for f in (*lost, *(() if now["enabled"] else ("enabled",)))}
            things[kind, name] = thing | kept
            notes.append(
                f"instance {name!r}: the {which} of then was not kept; the present one stays."
            )
            continue
        without = {"api_key": NO_KEY, "proxy_url": None}
        things[kind, name] = thing | {f: without[f] for f in lost} | {"enabled": False}
        notes.append(
            f"instance {name!r}: the {which} of then was not kept, so it comes back disabled;"
            f" set its {which}, then enable it."
        )
    return made((kind, thing) for (kind, _), thing in things.items()), notes


def other_upstreams(changes: Iterable[Change]) -> list[str]:
    """Instances that are another upstream from then on: what the old one earned is void. One
    that is new may have the name of one that was removed."""
    return [
        change.name
        for change in changes
        if change.kind == "instance"
        and change.effect != REMOVED
        and not change.fields.keys().isdisjoint(UPSTREAM_FIELDS)
    ]


def shown_plan(plan: Plan) -> dict[str, Any]:
    """As JSON; secrets are masked."""
    return {
        "summary": summary(plan.changes),
        "changes": [shown_change(change) for change in plan.changes],
        "notes": list(plan.notes),
    }


def shown_change(change: Change) -> dict[str, Any]:
    """As JSON; secrets are masked."""
    return {
        "kind": change.kind,
        "name": change.name,
        "effect": change.effect,
        "fields": {f: shown_pair(f, pair) for f, pair in change.fields.items()},
        "changed_secrets": changed_secrets(change.effect, change.fields),
    }


def shown_pair(field: str, pair: Sequence[Any]) -> list[Any]:
    """Old and new as they may be shown."""
    return [str(v) if isinstance(v, NotKept) else masked(field, v) for v in pair]


def summary(changes: Iterable[Change]) -> str:
    """Of a plan, in one line."""
    counts = Counter(change.effect for change in changes)
    if not counts:
        return "Nothing to do."
    return f"{counts[ADDED]} to add, {counts[CHANGED]} to change, {counts[REMOVED]} to remove."


def lines(changes: Iterable[Change]) -> Iterator[str]:
    """For people: a line for each thing, and one for each field that says something."""
    for change in changes:
        yield f"{SIGNS.get(change.effect, ' ')} {_words(change.kind)} {change.name!r}"
        if change.effect != REMOVED:
            yield from _field_lines(change)


def _field_lines(change: Change) -> Iterator[str]:
    section = OF_KIND.get(change.kind)
    defaults = section.defaults if section else {}
    for field, pair in change.fields.items():
        old, new = (_as_text(field, value) for value in shown_pair(field, pair))
        if change.effect == CHANGED:
            mark = " (changed)" if field in SECRET_FIELDS else ""
            yield f"    {field}: {old} -> {new}{mark}"
        elif not (section and field == section.key) and pair[1] != defaults.get(field):
            yield f"    {field}: {new}"


def _as_text(field: str, value: Any) -> str:
    if field in MOMENTS and isinstance(value, int | float):
        return exact_text(value) or json.dumps(value)
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _words(kind: str) -> str:
    return kind.replace("_", " ")
