"""What an import would do: decided whole, before anything is written."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from migrations.legacy.convert import Carried, Converted, convert_config, convert_state
from migrations.legacy.records import Problem, Reading, Record


@dataclass(slots=True)
class Imported:
    """One instance as it will stand in the tables. `config` None: only its state is known."""

    name: str
    config: dict[str, Any] | None
    config_from: Record | None
    state: dict[str, Any]
    state_from: Record | None
    extra: dict[str, Any]
    converted: list[Converted]
    shadowed: list[Record]


@dataclass(slots=True)
class Plan:
    """Every record found is in exactly one of three: it is imported (`sources` of the
    instances), merged into one that is, or rejected."""

    files: list[Path] = field(default_factory=list)
    instances: list[Imported] = field(default_factory=list)
    merged: list[tuple[Record, str]] = field(default_factory=list)
    rejected: list[tuple[Record, list[Problem]]] = field(default_factory=list)
    # About whole files.
    file_problems: list[Problem] = field(default_factory=list)
    # Entries that are no records at all, but were meant to be.
    entry_problems: list[Problem] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)
    notes: list[tuple[Record, str]] = field(default_factory=list)

    @property
    def problems(self) -> list[Problem]:
        of_records = (p for _, some in self.rejected for p in some)
        return [*self.file_problems, *self.entry_problems, *of_records]

    @property
    def found(self) -> int:
        return len(self.instances) + len(self.merged) + self.rejections

    @property
    def rejections(self) -> int:
        return len(self.rejected) + len(self.entry_problems)


def make_plan(readings: Sequence[Reading], *, now: float) -> Plan:
    """`now` in seconds since the epoch decides which rests are over."""
    plan = Plan(files=[r.file for r in readings])
    by_name: dict[str, list[Record]] = {}
    for reading in readings:
        plan.file_problems += [p for p in reading.problems if not p.record]
        plan.entry_problems += [p for p in reading.problems if p.record]
        plan.settings |= reading.settings
        for record in reading.records:
            plan.notes += [(record, note) for note in record.notes]
            if record.name is None:
                plan.rejected.append((record, convert_config(record).problems))
            else:
                by_name.setdefault(record.name, []).append(record)
    for name, records in by_name.items():
        _decide(plan, name, records, now)
    return plan


def _decide(plan: Plan, name: str, records: list[Record], now: float) -> None:
    """Config from the newest era that has one, state from the newest that has one."""
    with_config = _newest_first(r for r in records if _has_config(r))
    with_state = _newest_first(r for r in records if r.state)
    config, problems = _agreed(with_config, convert_config)
    state, more = _agreed(with_state, lambda r: convert_state(r, now), alike=True)
    source = config or state
    if source is None:  # a name and nothing else
        plan.rejected += [(r, convert_config(r).problems) for r in records]
        return
    problems += more
    if problems:
        _reject(plan, records, problems)
        return
    shadowed = [
        r for r in records if r not in (config and config.record, state and state.record)
    ]
    plan.instances.append(
        Imported(
            name=name,
            config=config.config if config else None,
            config_from=config.record if config else None,
            state=state.state if state else {},
            state_from=state.record if state else None,
            extra=_extra(records),
            converted=_converted(config, state),
            shadowed=shadowed,
        )
    )
    for record in records:
        if record is not source.record:
            plan.merged.append((record, _why_merged(record, source.record)))


def _agreed(
    records: list[Record], convert: Any, *, alike: bool = False
) -> tuple[Carried | None, list[Problem]]:
    """The newest record's values; a problem if another of the same era says otherwise.

    `alike`: of state the last one in the file counts, because it was written later.
    """
    if not records:
        return None, []
    newest = [r for r in records if r.era == records[0].era]
    all_carried: list[Carried] = [convert(r) for r in newest]
    problems = [p for c in all_carried for p in c.problems]
    if not problems and not alike:
        problems = [p for c in all_carried[1:] for p in _disagreement(all_carried[0], c)]
    return all_carried[-1 if alike else 0], problems


def _disagreement(one: Carried, other: Carried) -> list[Problem]:
    return [
        Problem(
            file=other.record.file,
            record=f"{other.record.place} ({other.record.name!r})",
            field=name,
            value="***" if name in ("api_key", "proxy_url") else repr(other.config[name])[:200],
            remedy="Take one of the two out, or make them equal.",
            message=f"Disagrees with {one.record.place} of {one.record.file.name}.",
        )
        for name in one.config
        if one.config[name] != other.config[name]
    ]


def _reject(plan: Plan, records: Sequence[Record], problems: list[Problem]) -> None:
    """The newest records of the name, of which one has a problem or contradicts another.

    Older ones do not take their place: what they say was no longer true then.
    """
    newest = {(r.file, r.era) for p in problems for r in records if r.file == p.file}
    for record in records:
        own = [p for p in problems if _is_about(p, record)]
        if own or (record.file, record.era) in newest:
            plan.rejected.append((record, own))
        else:
            plan.merged.append((record, "shadowed by a rejected record"))


def _is_about(problem: Problem, record: Record) -> bool:
    return problem.file == record.file and problem.record.startswith(record.place)


def _has_config(record: Record) -> bool:
    return any(key != "name" for key in record.config)


def _newest_first(records: Iterable[Record]) -> list[Record]:
    return sorted(records, key=lambda r: -r.era)  # stable: in the order of the file


def _extra(records: list[Record]) -> dict[str, Any]:
    """Unknown keys of all records of the name; the newest era's value counts."""
    extra: dict[str, Any] = {}
    for record in sorted(records, key=lambda r: r.era):
        extra |= record.extra
    return extra


def _converted(*carried: Carried | None) -> list[Converted]:
    return [c for each in carried if each for c in each.converted]


def _why_merged(record: Record, source: Record) -> str:
    if record.era < source.era:
        return f"shadowed by {source.layout} ({source.file.name}, {source.place})"
    if _has_config(record):
        return f"says the same as {source.place} of {source.file.name}"
    return f"its state goes to {source.place} of {source.file.name}"
