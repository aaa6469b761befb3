"""From a record as it stands in an old file to values our tables take; nothing is guessed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from migrations.legacy.records import CARRIED_STATE_KEYS, Problem, Record
from proxy.core.masking import masked
from proxy.web.schemas import checked_instance

# What the old program took where a file did not say.
OLD_DEFAULTS: Mapping[str, Any] = {
    "provider_type": "azure",
    "api_version": "2023-05-15",
    "priority": 100,
    "weight": 100,
    "max_tpm": 240_000,
    "max_input_tokens": 0,
    "enabled": True,
    "timeout_seconds": 60.0,
    "retry_count": 3,
    "rate_limit_enabled": True,
}

WHOLE_NUMBERS = ("priority", "weight", "max_tpm", "max_input_tokens", "retry_count")
SWITCHES = ("enabled", "rate_limit_enabled")
LISTS: Mapping[str, type] = {"supported_models": list, "model_deployments": dict}
MOMENTS = ("last_error_time", "rate_limited_until", "last_used")
COUNTERS = tuple(k for k in CARRIED_STATE_KEYS if k.startswith(("total_", "error_", "succ")))

# Counters of the old program that ours does not count on: kept with the row, written back.
OLD_TOTALS = (
    "total_errors_500",
    "total_errors_503",
    "total_other_errors",
    "total_client_errors_500",
    "total_client_errors_503",
    "total_client_errors_other",
)

SECRET_FIELDS = frozenset({"api_key", "proxy_url"})

REMEDIES = {
    "name": "Give the record a name, or take it out of the file.",
    "api_key": 'Write its key, or "NONE" if the server wants none, or take the record out.',
}
REMEDY = "Correct the value in the file, or take the record out."

_WHOLE = re.compile(r"\s*[+-]?\d{1,18}\s*")
_DECIMAL = re.compile(r"\s*[+-]?\d{1,18}(\.\d{1,18})?\s*")
_SWITCH_WORDS = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}


@dataclass(frozen=True, slots=True)
class Converted:
    """A value that stands in the file in another type than it has here."""

    field: str
    before: str
    after: str


@dataclass(slots=True)
class Carried:
    """A record's values as our tables take them, and all there is to say about it."""

    record: Record
    config: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    converted: list[Converted] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def convert_config(record: Record) -> Carried:
    """The record's config, checked as the admin API checks one."""
    carried = Carried(record)
    if record.name is None:
        _complain(carried, "name", record.config.get("name"), "It has no name.")
        return carried
    values = {**OLD_DEFAULTS, **_present(record.config), "name": record.name}
    for name in (*WHOLE_NUMBERS, "timeout_seconds", *SWITCHES):
        values[name] = _converted(carried, name, values[name])
    for name in LISTS:
        values[name] = _without_repeats(carried, name, values.get(name) or LISTS[name]())
    if not values.get("api_key"):
        _complain(carried, "api_key", None, "It has no key.")
        return carried
    carried.config, wrong = checked_instance(values)
    for message, path in wrong:
        _complain(carried, ".".join(path), _value_at(values, path), message)
    return carried


def convert_state(record: Record, now: float) -> Carried:
    """The record's state. A rest that is over is not carried; `now` is the epoch's seconds."""
    carried = Carried(record)
    for name in (*COUNTERS, *OLD_TOTALS):
        value = _converted(carried, name, record.state.get(name))
        if value is None:
            continue
        if not _is_count(value):
            _complain(carried, name, value, "Must be a whole number that is not negative.")
            continue
        carried.state[name] = value
    for name in MOMENTS:
        moment = _moment(carried, name, record.state.get(name))
        if moment is not None and moment > 0:
            carried.state[name] = moment
    if carried.state.get("rate_limited_until", now) <= now:
        carried.state.pop("rate_limited_until", None)
    _take_rest(carried)
    return carried


def _take_rest(carried: Carried) -> None:
    latency = carried.record.state.get("avg_latency_ms")
    if latency is not None:
        if isinstance(latency, bool) or not isinstance(latency, int | float) or latency < 0:
            _complain(carried, "avg_latency_ms", latency, "Must be a number, not negative.")
        else:
            carried.state["avg_latency_ms"] = latency
    error = carried.record.state.get("last_error")
    if error is not None:
        carried.state["last_error"] = error if isinstance(error, str) else str(error)


def _present(config: Mapping[str, Any]) -> dict[str, Any]:
    """Without what the old program took for missing: null, and "" but for the key."""
    return {k: v for k, v in config.items() if v is not None and (v != "" or k == "api_key")}


def _converted(carried: Carried, name: str, value: Any) -> Any:
    """A string that is plainly a number (or a switch) becomes one, and is listed."""
    if not isinstance(value, str):
        return value
    new: Any = value
    if name in SWITCHES:
        new = _SWITCH_WORDS.get(value.strip().lower(), value)
    elif name == "timeout_seconds" and _DECIMAL.fullmatch(value):
        new = float(value)
    elif name != "timeout_seconds" and _WHOLE.fullmatch(value):
        new = int(value)
    if new is not value:
        carried.converted.append(Converted(name, repr(value), repr(new)))
    return new


def _without_repeats(carried: Carried, name: str, value: Any) -> Any:
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        return value
    once = list(dict.fromkeys(value))
    if len(once) < len(value):
        carried.converted.append(Converted(name, repr(value), repr(once)))
    return once


def _moment(carried: Carried, name: str, value: Any) -> float | None:
    """Seconds since the epoch; the sibling program in Go wrote RFC 3339 text."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value).timestamp()
        except ValueError:
            _complain(carried, name, value, "Is no moment.")
            return None
        carried.converted.append(Converted(name, repr(value), repr(moment)))
        return moment
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        _complain(carried, name, value, "Is no moment.")
        return None
    return float(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _complain(carried: Carried, name: str, value: Any, message: str) -> None:
    record = carried.record
    shown = masked(name, value) if name in SECRET_FIELDS and isinstance(value, str) else value
    carried.problems.append(
        Problem(
            file=record.file,
            record=f"{record.place} ({record.name!r})" if record.name else record.place,
            field=name,
            value="" if value is None else repr(shown)[:200],
            remedy=REMEDIES.get(name, REMEDY),
            message=message,
        )
    )


def _value_at(values: Any, path: list[str]) -> Any:
    for key in path:
        if isinstance(values, dict):
            values = values.get(key)
        elif isinstance(values, list) and key.isdigit() and int(key) < len(values):
            values = values[int(key)]
    return values
