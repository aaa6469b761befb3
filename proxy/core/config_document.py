"""All config as one document: what is kept in a file, compared, and brought back.

It has plain values only: {"instances": [...], "quota_groups": [...], "clients": [...],
"prices": [...]}, of each thing all fields as the admin API takes them, sorted by name. Keys of
clients and of admins are no part of it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

from proxy.core.masking import masked
from proxy.core.types import Client, InstanceConfig, QuotaGroup

Thing = dict[str, Any]
Document = dict[str, list[Thing]]
Place = tuple[str, str]  # the kind of a thing, and its name


@dataclass(frozen=True, slots=True)
class Section:
    """Things of one kind; `kind` is what revisions call them.

    `key` is the field that names one. Of `defaults` each field may be left out, of `required`
    none. `is_limits`: one with nothing but defaults is as good as none.
    """

    name: str
    kind: str
    key: str
    required: tuple[str, ...]
    defaults: Mapping[str, Any]
    is_limits: bool = False

    @property
    def fields(self) -> tuple[str, ...]:
        return (*self.required, *self.defaults)

    @property
    def nullable(self) -> frozenset[str]:
        """Fields that may be None in a thing that is there."""
        return frozenset(f for f, default in self.defaults.items() if default is None)


def _section(
    name: str,
    kind: str,
    of: Callable[..., Any],
    *,
    without: tuple[str, ...] = (),
    is_limits: bool = False,
) -> Section:
    """`of` makes one of the kind; what it is to be told is what it has."""
    told = {n: p for n, p in signature(of).parameters.items() if n not in without}
    required = tuple(n for n, p in told.items() if p.default is p.empty)
    one = of(**dict.fromkeys(required, ""))
    defaults = {n: plain(getattr(one, n)) for n in told if n not in required}
    return Section(name, kind, "name", required, defaults, is_limits)


def plain(value: Any) -> Any:
    """As JSON has it, and nobody else's."""
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


SECTIONS = (
    _section("instances", "instance", InstanceConfig),
    _section("quota_groups", "quota_group", QuotaGroup, is_limits=True),
    _section("clients", "client", Client, without=("number",)),
    Section(
        "prices",
        "price",
        "model",
        ("model", "prompt_per_million", "cached_per_million", "completion_per_million"),
        {},
    ),
)
BY_NAME = {section.name: section for section in SECTIONS}
OF_KIND = {section.kind: section for section in SECTIONS}


def made(things: Iterable[tuple[str, Mapping[str, Any]]]) -> Document:
    """The document of these: each a kind and the thing's fields."""
    found: Document = {section.name: [] for section in SECTIONS}
    for kind, thing in things:
        section = OF_KIND[kind]
        values = {f: plain(thing[f]) for f in section.fields}
        if not (section.is_limits and _is_default(section, values)):
            found[section.name].append(values)
    for section in SECTIONS:
        found[section.name].sort(key=lambda thing, key=section.key: thing[key])  # type: ignore[misc]
    return found


def _is_default(section: Section, values: Thing) -> bool:
    return all(values[f] == default for f, default in section.defaults.items())


def placed(document: Document) -> dict[Place, Thing]:
    """Its things by kind and name, in its order."""
    return {
        (section.kind, thing[section.key]): thing
        for section in SECTIONS
        for thing in document[section.name]
    }


def shown(document: Document) -> Document:
    """With secrets masked."""
    return {
        name: [{f: _shown(f, value) for f, value in thing.items()} for thing in things]
        for name, things in document.items()
    }


def _shown(field: str, value: Any) -> Any:
    """Of a secret that could not be read, too, only the text: it is of a type of its own."""
    found = masked(field, value)
    return str(found) if isinstance(found, str) else found
