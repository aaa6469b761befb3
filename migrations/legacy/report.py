"""What was found and what becomes of it, for people and for machines. Never a key."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from migrations.legacy.convert import OLD_TOTALS
from migrations.legacy.plan import Imported, Plan
from migrations.legacy.records import CARRIED_STATE_KEYS, Problem, Record
from migrations.legacy.showing import (
    brief,
    cut,
    json_of,
    name_of_field,
    told,
    without,
    words_of,
)
from proxy.core.masking import masked

TAKEN = frozenset((*CARRIED_STATE_KEYS, *OLD_TOTALS))
DERIVED = re.compile(r"status|current_\w+|utilization_percentage")
WITH_ANOTHER = "another record of this instance cannot be carried"
NOTHING: tuple[object, ...] = (None, "", "unknown", {}, 0)


def as_text(plan: Plan) -> str:
    """Everything, field by field."""
    lines = ["Files:", *(f"  {path}" for path in plan.files)] if plan.files else ["No files."]
    keys = _keys(plan)
    for each in sorted(plan.instances, key=lambda i: i.name):
        lines += _instance_lines(each, keys)
    if plan.passed_over:
        lines += [
            "",
            "Not read, because the old program's files have other names; to import one,",
        ]
        lines += ["name the file itself:", *(f"  {path}" for path in plan.passed_over)]
    if plan.settings:
        names = _names(plan.settings, keys)
        lines += ["", f"Settings of the old program, not carried: {names}"]
    if plan.merged:
        lines += ["", "Merged:", *(f"  {_where(r)}: {why}" for r, why in plan.merged)]
    notes = [f"  {_where(record)}: {note}" for record, note in plan.notes]
    notes += [f"  {file.name}: {note}" for file, note in plan.file_notes]
    if notes:
        lines += ["", "Notes:", *notes]
    if plan.problems:
        lines += ["", "Cannot be carried:", *(_problem_line(p) for p in plan.problems)]
        with_others = [record for record, problems in plan.rejected if not problems]
        lines += [f"  {_where(record)}: {WITH_ANOTHER}." for record in with_others]
    return "\n".join([*lines, "", counts_line(plan)])


def counts_line(plan: Plan) -> str:
    n = counts(plan)
    line = (
        f"{n['found']} records found = {n['imported']} imported + {n['merged']} merged"
        f" + {n['rejected']} rejected."
    )
    of_files = len(plan.file_problems)
    return f"{line} What bad files hold is not counted: {of_files}." if of_files else line


def as_json(plan: Plan) -> dict[str, Any]:
    keys = _keys(plan)
    return {
        "files": [str(path) for path in plan.files],
        "counts": counts(plan),
        "instances": [_instance_json(i, keys) for i in plan.instances],
        "merged": [{**_record_json(r), "why": why} for r, why in plan.merged],
        "rejected": [{**_record_json(r), "why": _why_rejected(p)} for r, p in plan.rejected],
        "problems": [_problem_json(p) for p in plan.problems],
        "notes": [
            *({**_record_json(record), "note": note} for record, note in plan.notes),
            *({**_file_json(file), "note": note} for file, note in plan.file_notes),
        ],
        "settings": [name_of_field(keys, name) for name in sorted(plan.settings)],
        "not_read": [str(path) for path in plan.passed_over],
    }


def counts(plan: Plan) -> dict[str, int]:
    return {
        "found": plan.found,
        "imported": len(plan.instances),
        "merged": len(plan.merged),
        "rejected": len(plan.rejected),
        "problems": len(plan.problems),
    }


def rejected_json(plan: Plan) -> Any:
    """The records that were left out, whole: with keys, for a file only its owner reads.

    One element for each that is counted as rejected, and behind them one for each problem of
    a whole file.
    """
    records = [
        {
            **_record_json(record),
            **_whole_json(record),
            "why": _why_rejected(problems),
            "problems": [_problem_json(p) for p in problems],
        }
        for record, problems in plan.rejected
    ]
    of_files = [{"problems": [_problem_json(p)]} for p in plan.file_problems]
    return json_of([*records, *of_files])


def _whole_json(record: Record) -> dict[str, Any]:
    if record.problem is not None:
        return {"entry": record.raw}
    return {
        "config": dict(record.config),
        "state": dict(record.state),
        "extra": dict(record.extra),
    }


def _keys(plan: Plan) -> frozenset[str]:
    """What is shown nowhere: error texts quote keys, and lost lines make names of them."""
    records = [r for r, _ in (*plan.merged, *plan.rejected)]
    configs = [i.config or {} for i in plan.instances] + [r.config for r in records]
    return words_of(config.get("api_key") for config in configs)


def _names(names: Iterable[str], keys: frozenset[str]) -> str:
    return ", ".join(name_of_field(keys, name) for name in sorted(names))


def _instance_lines(instance: Imported, keys: frozenset[str]) -> list[str]:
    config, state = instance.config_from, instance.state_from
    lines = ["", f"{instance.name}"]
    if config is not None and instance.config is not None:
        lines.append(f"  config from {_where(config)}")
        shown = _config_json(instance.config)
        lines += [f"    {key} = {value!r}" for key, value in sorted(shown.items())]
    if state is not None:
        lines.append(f"  state from {_where(state)}")
        lines += [
            f"    {k} = {_state_value(v, keys)!r}" for k, v in sorted(instance.state.items())
        ]
    if instance.extra:
        lines.append(f"  unknown keys, kept as legacy_extra: {_names(instance.extra, keys)}")
    if instance.state_extra:
        names = _names(instance.state_extra, keys)
        lines.append(f"  unknown keys of the state, kept with it: {names}")
    lines += [
        "  converted {field}: {before} -> {after}".format(**each)
        for each in _converted_json(instance, keys)
    ]
    left = _left_behind(instance)
    if left:
        lines.append(f"  not carried, only in the backup: {', '.join(left)}")
    return lines


def _instance_json(instance: Imported, keys: frozenset[str]) -> dict[str, Any]:
    config = instance.config
    return {
        "name": instance.name,
        "config": _config_json(config) if config else None,
        "config_from": _record_json(instance.config_from),
        "state": {k: _state_value(v, keys) for k, v in instance.state.items()},
        "state_from": _record_json(instance.state_from),
        "legacy_extra": [name_of_field(keys, name) for name in sorted(instance.extra)],
        "legacy_state_extra": [
            name_of_field(keys, name) for name in sorted(instance.state_extra)
        ],
        "converted": _converted_json(instance, keys),
        "not_carried": _left_behind(instance),
        "shadowed": [_record_json(r) for r in instance.shadowed],
    }


def _state_value(value: Any, keys: frozenset[str]) -> Any:
    """`last_error` is the only text, and quotes what a server said."""
    return brief(without(keys, value)) if isinstance(value, str) else value


def _converted_json(instance: Imported, keys: frozenset[str]) -> list[dict[str, str]]:
    return [
        {
            "field": c.field,
            "before": _converted_value(c.field, c.before, keys),
            "after": _converted_value(c.field, c.after, keys),
        }
        for c in instance.converted
    ]


def _converted_value(field: str, value: str, keys: frozenset[str]) -> str:
    return _state_value(value, keys) if field == "last_error" else cut(told(value))


def _config_json(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: told(masked(key, value)) for key, value in config.items()}


def _left_behind(instance: Imported) -> list[str]:
    """State that we neither have a place for nor compute anew, where there is any."""
    if instance.state_from is None:
        return []
    return sorted(
        key
        for key, value in instance.state_from.state.items()
        if key not in TAKEN and not DERIVED.fullmatch(key) and value not in NOTHING
    )


def _why_rejected(problems: list[Problem]) -> str:
    if not problems:
        return WITH_ANOTHER
    return " ".join(dict.fromkeys(p.message for p in problems))


def _record_json(record: Record | None) -> dict[str, Any]:
    if record is None:
        return {}
    return {
        "file": str(record.file),
        "place": record.place,
        "layout": record.layout,
        "name": record.name,
    }


def _file_json(file: Path) -> dict[str, Any]:
    """As of a record, where it is of none."""
    return {"file": str(file), "place": "", "layout": "", "name": None}


def _problem_json(problem: Problem) -> dict[str, str]:
    return {
        "file": str(problem.file),
        "record": problem.record,
        "field": problem.field,
        "value": problem.value,
        "message": problem.message,
        "remedy": problem.remedy,
    }


def _problem_line(problem: Problem) -> str:
    field = f" {problem.field}:" if problem.field else ""
    value = f" Found: {problem.value}." if problem.value else ""
    where = f"{problem.file} {problem.record}".rstrip()
    return f"  {where}:{field} {problem.message}{value} {problem.remedy}"


def _where(record: Record) -> str:
    name = f" {cut(repr(record.name))}" if record.name else ""
    return f"{record.layout} {record.file.name} {record.place}{name}"
