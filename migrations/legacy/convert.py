"""From a record as it stands in an old file to values our tables take; nothing is guessed."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from migrations.legacy.records import CARRIED_STATE_KEYS, Problem, Record
from migrations.legacy.showing import cut, shown
from proxy.web.schemas_instances import checked_old_instance

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

# What is taken for null and for "", by field.
BLANK_CONFIG: Mapping[str, Any] = {
    **OLD_DEFAULTS,
    "proxy_url": None,
    "supported_models": [],
    "model_deployments": {},
}

WHOLE_NUMBERS = ("priority", "weight", "max_tpm", "max_input_tokens", "retry_count")
SWITCHES = ("enabled", "rate_limit_enabled")
LISTS: Mapping[str, type] = {"supported_models": list, "model_deployments": dict}
FRACTIONS = ("timeout_seconds", "avg_latency_ms")
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

BLANK_STATE: Mapping[str, Any] = {
    **dict.fromkeys((*COUNTERS, *OLD_TOTALS), 0),
    **dict.fromkeys(("last_error_time", "rate_limited_until", "avg_latency_ms")),
    "last_used": 0.0,
}

# Half of what a column holds: the file's count is added to one that is there.
MAX_COUNT = 2**62
# The year 3269, as the admin API: more is milliseconds.
LAST_MOMENT = 4_102_444_800.0 * 10
MAX_NAME_CHARACTERS = 100

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
    config: dict[str, Any] = field(default_factory=dict, repr=False)  # holds keys
    state: dict[str, Any] = field(default_factory=dict)
    converted: list[Converted] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    # What was written for "nothing", where it is another nothing than ours: for the way back.
    blank: dict[str, Any] = field(default_factory=dict)


def convert_config(record: Record) -> Carried:
    """The record's config, checked as the admin API checks one."""
    carried = Carried(record)
    if record.problem is not None:
        carried.problems.append(record.problem)
        return carried
    if record.name is None:
        _complain(carried, "name", record.config.get("name"), "It has no name.")
        return carried
    values = {**OLD_DEFAULTS, **_present(record.config), "name": record.name}
    for name in (*WHOLE_NUMBERS, "timeout_seconds", *SWITCHES):
        values[name] = _converted(carried, name, values[name])
    for name in LISTS:
        values[name] = _without_repeats(carried, name, values.get(name, LISTS[name]()))
    if not values.get("api_key"):
        _complain(carried, "api_key", None, "It has no key.")
        return carried
    carried.config, wrong = checked_old_instance(values)
    carried.blank = _blank(record.config, BLANK_CONFIG)
    for message, path in wrong:
        _complain(carried, ".".join(path), _value_at(values, path), message)
    return carried


def convert_state(record: Record, now: float) -> Carried:
    """The record's state. A rest that is over is not carried; `now` is the epoch's seconds."""
    carried = Carried(record)
    if record.problem is not None:
        carried.problems.append(record.problem)
        return carried
    if record.name is not None and len(record.name) > MAX_NAME_CHARACTERS:
        message = f"Is longer than {MAX_NAME_CHARACTERS} characters."
        _complain(carried, "name", record.name, message)
    for name in (*COUNTERS, *OLD_TOTALS):
        _take_number(carried, name, "Must be a whole number that is not negative.", _is_count)
    _take_number(carried, "avg_latency_ms", "Must be a number, not negative.", _is_amount)
    if latency_total_ms(carried.state) >= MAX_COUNT:
        latency_ms = carried.state["avg_latency_ms"]
        _complain(carried, "avg_latency_ms", latency_ms, "Is too large for so many requests.")
    for name in MOMENTS:
        moment = _moment(carried, name, record.state.get(name))
        if moment is not None:
            carried.state[name] = moment
    if carried.state.get("rate_limited_until", now) <= now:
        carried.state.pop("rate_limited_until", None)
    _take_last_error(carried)
    carried.blank = _blank(record.state, BLANK_STATE)
    return carried


def _blank(written: Mapping[str, Any], taken: Mapping[str, Any]) -> dict[str, Any]:
    """What says nothing there; `taken` is what the way back would write instead."""
    return {
        key: value
        for key, value in written.items()
        if key in taken and _says_nothing(key, value) and not _is_same(value, taken[key])
    }


def _says_nothing(key: str, value: Any) -> bool:
    return value is None or value == "" or (key in MOMENTS and value == 0)


def _is_same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def latency_total_ms(state: Mapping[str, Any]) -> int:
    """The sum of which the old program kept the average."""
    total: float = state.get("avg_latency_ms", 0) * state.get("successful_requests", 0)
    return round(total)


def _take_number(
    carried: Carried, name: str, message: str, is_right: Callable[[Any], bool]
) -> None:
    value = carried.record.state.get(name)
    if value is None or value == "":
        return
    number = _converted(carried, name, value)
    if is_right(number):
        carried.state[name] = number
    else:
        _complain(carried, name, value, message)


def _take_last_error(carried: Carried) -> None:
    error = carried.record.state.get("last_error")
    if error is None:
        return
    text = error if isinstance(error, str) else str(error)
    if text is not error:
        carried.converted.append(Converted("last_error", repr(error), repr(text)))
    carried.state["last_error"] = text


def _present(config: Mapping[str, Any]) -> dict[str, Any]:
    """Without what the old program took for missing: null, and "" but for the key."""
    return {k: v for k, v in config.items() if v is not None and (v != "" or k == "api_key")}


def _converted(carried: Carried, name: str, value: Any) -> Any:
    """What is plainly a number (or a switch) in another type becomes one, and is listed."""
    new = _plain(name, value)
    if new is not value:
        carried.converted.append(Converted(name, repr(value), repr(new)))
    return new


def _plain(name: str, value: Any) -> Any:
    """`value` itself where it is not plain what it means."""
    if isinstance(value, str):
        return _plain_text(name, value)
    if name in SWITCHES:
        return bool(value) if isinstance(value, int | float) and value in (0, 1) else value
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) < MAX_COUNT
    return int(value) if is_whole and name not in FRACTIONS else value


def _plain_text(name: str, text: str) -> Any:
    if name in SWITCHES:
        return _SWITCH_WORDS.get(text.strip().lower(), text)
    if name in FRACTIONS:
        return float(text) if _DECIMAL.fullmatch(text) else text
    return int(text) if _WHOLE.fullmatch(text) else text


def _without_repeats(carried: Carried, name: str, value: Any) -> Any:
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        return value
    once = list(dict.fromkeys(value))
    if len(once) < len(value):
        carried.converted.append(Converted(name, repr(value), repr(once)))
    return once


def _moment(carried: Carried, name: str, value: Any) -> float | None:
    """Seconds since the epoch; None for never, which programs write as 0, -1 or the year 1."""
    if value is None or value == "":
        return None
    seconds: Any = _seconds_of(value) if isinstance(value, str) else value
    if not _is_number(seconds) or seconds > LAST_MOMENT:
        message = "Must be seconds since the epoch, or a date with time and zone."
        _complain(carried, name, value, message)
        return None
    moment = float(seconds) if seconds > 0 else None
    if isinstance(value, str) or seconds < 0:
        carried.converted.append(Converted(name, repr(value), repr(moment)))
    return moment


def _seconds_of(text: str) -> float | None:
    """The sibling program in Go wrote RFC 3339. Without a zone it would be a guess."""
    if _DECIMAL.fullmatch(text):
        return float(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo else None


def _is_number(value: Any) -> bool:
    """Neither NaN nor infinite, which old writers left in JSON."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) < MAX_COUNT


def _is_amount(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_COUNT


def _complain(carried: Carried, name: str, value: Any, message: str) -> None:
    record = carried.record
    carried.problems.append(
        Problem(
            file=record.file,
            record=named_place(record),
            field=cut(name),
            value="" if value is None else shown(name, value),
            remedy=REMEDIES.get(name, REMEDY),
            message=message,
        )
    )


def named_place(record: Record) -> str:
    return f"{record.place} ({cut(repr(record.name))})" if record.name else record.place


def _value_at(values: Any, path: list[str]) -> Any:
    for key in path:
        if isinstance(values, dict):
            values = values.get(key)
        elif isinstance(values, list) and key.isdigit() and int(key) < len(values):
            values = values[int(key)]
    return values
