"""Config in the fields of a form: as text there, as the admin API's JSON here.

Only what was written otherwise than it was shown counts as given. So a secret that is not shown
stays, and what no field can show is not lost.
"""

import hmac
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from proxy.core.config_document import plain
from proxy.core.config_plan import shown_pair
from proxy.core.masking import SECRET_FIELDS, masked
from proxy.core.moments import NotAMoment, moment

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """How values of a kind are written, and read. What cannot be read stays text, for the
    schema to refuse with its own words. `control` is what the template makes of it."""

    control: str
    text: Callable[[Any], str]
    value: Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Field:
    """One of a form. `choices` are of a select; `unit` stands behind its label."""

    name: str
    label: str
    kind: str = "word"
    help: str = ""
    unit: str = ""
    choices: Sequence[str] = ()
    required: bool = False

    @property
    def control(self) -> str:
        return KINDS[self.kind].control

    def text(self, value: Any) -> str:
        """A secret's is empty: it is not shown."""
        return KINDS[self.kind].text(value)

    def value(self, text: str) -> Any:
        return KINDS[self.kind].value(text.replace("\r\n", "\n").strip())


@dataclass(frozen=True, slots=True)
class Group:
    """Fields that belong together."""

    title: str
    fields: tuple[Field, ...]


def given(groups: Iterable[Group], shown: Mapping[str, Any], form: Mapping[str, str]) -> Json:
    """Of the form what is other than `shown`."""
    found: Json = {}
    for field in all_of(groups):
        text = form.get(field.name, "off" if field.kind == "switch" else None)
        if text is None:
            continue
        before = field.text(shown.get(field.name))
        if text.replace("\r\n", "\n").strip() != before.strip():
            found[field.name] = field.value(text)
    return found


def all_of(groups: Iterable[Group]) -> list[Field]:
    return [field for group in groups for field in group.fields]


def differences(
    groups: Iterable[Group], before: Mapping[str, Any], after: Mapping[str, Any]
) -> list[tuple[str, str, str]]:
    """Of each field of `after` that is other than before its label, and both as they may be
    shown."""
    found = []
    for field in all_of(groups):
        old, new = before.get(field.name), after.get(field.name)
        if field.name not in after or plain(old) == plain(new):
            continue
        if field.name in SECRET_FIELDS:
            was, will = (_of_secret(each) for each in shown_pair(field.name, [old, new]))
            will += " (another)" if was == will else ""
        else:
            was, will = (field.text(each) or "nothing" for each in (old, new))
        found.append((field.label, was, will))
    return found


def shown(groups: Iterable[Group], values: Mapping[str, Any]) -> list[tuple[str, list[Any]]]:
    """For reading: of each group its title, and label and text of each field that says
    something. Secrets are masked."""
    found = []
    for group in groups:
        texts = [(f, _read(f, values.get(f.name))) for f in group.fields if f.name != "name"]
        lines = [(f.label, text, f.unit) for f, text in texts if text]
        if lines:
            found.append((group.title, lines))
    return found


def _read(field: Field, value: Any) -> str:
    if field.name in SECRET_FIELDS:
        return str(masked(field.name, value) or "")
    if field.kind in LIMITS:
        return f"{value:,}" if value else "no limit"
    return field.text(value)


def seal(key: bytes, revision: int, data: Mapping[str, Any]) -> str:
    """Stands for a change that was shown: what is saved has to have the same."""
    text = json.dumps([revision, data], sort_keys=True)
    return hmac.digest(key, text.encode("utf-8", "surrogatepass"), "sha256").hex()


def _of_secret(value: Any) -> str:
    return str(value) if value else "nothing"


def _number(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        return text


def _decimal(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _pairs(text: str) -> Any:
    return _by_name(map(_pair, _lines(text)))


def _pair(line: str) -> tuple[str, str]:
    """As `_of_pairs` writes it, where a name may have the sign in it; else at the first one."""
    sign = " = " if " = " in line else "="
    name, _, value = line.partition(sign)
    return name.strip(), value.strip()


def _by_name(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Of a name that stands there twice all that is said, for the schema to refuse: the last
    one alone would take off the others."""
    found: dict[str, Any] = {}
    doubled = set()
    for name, value in pairs:
        if name in found:
            found[name] = [*(found[name] if name in doubled else [found[name]]), value]
            doubled.add(name)
        else:
            found[name] = value
    return found


def _of_pairs(value: Mapping[str, str] | None) -> str:
    return "\n".join(f"{name} = {other}" for name, other in (value or {}).items())


def _limits(text: str) -> Any:
    """gpt-4o: max_tpm=1000 max_rpm=60"""
    return _by_name(map(_limit, _lines(text)))


def _limit(line: str) -> tuple[str, dict[str, Any]]:
    name, _, bounds = line.rpartition(":")
    each = [bound.partition("=") for bound in bounds.split()]
    return name.strip(), {which: _number(number) for which, _, number in each}


def _of_limits(value: Mapping[str, Mapping[str, int]] | None) -> str:
    return "\n".join(
        f"{name}: {' '.join(f'{which}={number}' for which, number in bounds.items())}"
        for name, bounds in (value or {}).items()
    )


def _moment(text: str) -> Any:
    """As a browser's field has it, UTC."""
    if not text:
        return None
    try:
        return moment(text)
    except NotAMoment:
        return text


def _of_moment(value: float | None) -> str:
    if value is None:
        return ""
    return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%dT%H:%M")


def _of_word(value: Any) -> str:
    return "" if value is None else str(value)


def _of_decimal(value: Any) -> str:
    """With all of its digits: one that is left out would be taken off by saving."""
    return "" if value is None else repr(value).removesuffix(".0")


LIMITS = ("limit", "cost")  # 0: none

KINDS: Mapping[str, Kind] = {
    "word": Kind("text", _of_word, str),
    "nullable": Kind("text", _of_word, lambda text: text or None),
    "choice": Kind("select", _of_word, str),
    "secret": Kind("password", lambda _: "", str),
    "masked": Kind("text", lambda value: masked("proxy_url", value) or "", str),
    "number": Kind("number", _of_word, _number),
    "decimal": Kind("number", _of_decimal, _decimal),
    "limit": Kind("number", _of_word, _number),
    "cost": Kind("number", _of_decimal, _decimal),
    "switch": Kind("checkbox", lambda on: "on" if on else "off", lambda text: text == "on"),
    "lines": Kind("textarea", lambda value: "\n".join(value or ()), _lines),
    "pairs": Kind("textarea", _of_pairs, _pairs),
    "limits": Kind("textarea", _of_limits, _limits),
    "moment": Kind("datetime-local", _of_moment, _moment),
}
