"""What an import would do: decided whole, before anything is written."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from migrations.legacy.convert import (
    Carried,
    Converted,
    convert_config,
    convert_state,
    named_place,
)
from migrations.legacy.records import CONFIGS_ONLY, ERAS, STATES_ONLY, Problem, Reading, Record
from migrations.legacy.showing import cut, shown
from proxy.core.references import is_variable


@dataclass(slots=True)
class Imported:
    """One instance as it will stand in the tables. `config` None: only its state is known."""

    name: str
    config: dict[str, Any] | None = field(repr=False)  # holds keys
    config_from: Record | None
    state: dict[str, Any]
    state_from: Record | None
    # Unknown keys; those of a file of states are the state's.
    extra: dict[str, Any] = field(repr=False)
    state_extra: dict[str, Any] = field(repr=False)
    # What was written for nothing, for the way back.
    blank: dict[str, Any]
    state_blank: dict[str, Any]
    converted: list[Converted]
    shadowed: list[Record]


@dataclass(slots=True)
class Plan:
    """Every record found is in exactly one of three: it is imported (`sources` of the
    instances), merged into one that is, or rejected."""

    files: list[Path] = field(default_factory=list)
    # Counted in the files, and not from what became of them.
    found: int = 0
    instances: list[Imported] = field(default_factory=list)
    merged: list[tuple[Record, str]] = field(default_factory=list)
    # Without problems of its own: another record of the name has them.
    rejected: list[tuple[Record, list[Problem]]] = field(default_factory=list)
    # About whole files.
    file_problems: list[Problem] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict, repr=False)
    notes: list[tuple[Record, str]] = field(default_factory=list)
    file_notes: list[tuple[Path, str]] = field(default_factory=list)
    # Files beside them that were not read.
    passed_over: list[Path] = field(default_factory=list)

    @property
    def problems(self) -> list[Problem]:
        of_records = (p for _, some in self.rejected for p in some)
        return [*self.file_problems, *of_records]


def make_plan(readings: Sequence[Reading], *, now: float) -> Plan:
    """`now` in seconds since the epoch decides which rests are over."""
    plan = Plan(files=[r.file for r in readings])
    by_name: dict[str, list[Record]] = {}
    for reading in readings:
        plan.file_problems += reading.problems
        plan.settings |= reading.settings
        plan.file_notes += [(reading.file, note) for note in reading.notes]
        for record in (*reading.records, *reading.bad):
            plan.found += 1
            plan.notes += [(record, note) for note in record.notes]
            if record.name is None:
                plan.rejected.append((record, convert_config(record).problems))
            else:
                by_name.setdefault(record.name, []).append(record)
    _place_asides(plan, [each for reading in readings for each in reading.aside], by_name)
    lost = [reading for reading in readings if reading.lost]
    for name, records in by_name.items():
        _decide(plan, name, records, lost, now)
    _note_orphans(plan)
    return plan


def _note_orphans(plan: Plan) -> None:
    """States whose instance none of the files has, though they have others."""
    with_config = {each.name for each in plan.instances if each.config}
    if not with_config:
        return
    for each in plan.instances:
        if each.config is None and each.state_from is not None:
            alike = [name for name in with_config if name.lower() == each.name.lower()]
            note = "no config here has this name, so this is a state of no instance"
            if alike:
                note += f"; is it that of {cut(repr(alike[0]))}?"
            plan.notes.append((each.state_from, note))


def _place_asides(
    plan: Plan, asides: Sequence[Record], by_name: dict[str, list[Record]]
) -> None:
    for each in asides:
        if each.name in by_name:
            plan.found += 1
            by_name[each.name].append(each)
        elif each.name is not None:
            plan.settings[each.name] = str(each.raw)


def _decide(
    plan: Plan, name: str, records: list[Record], lost: Sequence[Reading], now: float
) -> None:
    """Config from the newest era that has one, state from the newest that has one.

    Where they cannot be carried, or a newer file cannot be read, older ones do not take their
    place: what they say was no longer true then.
    """
    configs = [convert_config(r) for r in _newest(records, _has_config)]
    states = [convert_state(r, now) for r in _newest(records, _has_state)]
    if not configs and not states:  # names in a file of states, and nothing of their state
        states = [convert_state(r, now) for r in records]
    _compare(configs)
    _compare(states)
    _outdate(configs, [each for each in lost if each.lost != STATES_ONLY])
    _outdate(states, [each for each in lost if each.lost not in CONFIGS_ONLY])
    if _is_bad(states) and configs and not _is_bad(configs) and _are_apart(configs, states):
        # The instance can serve without its state, which can be imported later.
        _reject(plan, [each.record for each in states], states)
        records = [r for r in records if all(r is not each.record for each in states)]
        states = []
    if _is_bad([*configs, *states]):
        _reject(plan, records, [*configs, *states])
        return
    config = configs[0] if configs else None
    state = states[0] if states else None
    used = [each.record for each in (config, state) if each]
    if config:
        notes = (*_of_one_model(config), *_of_a_variable(config))
        plan.notes += [(config.record, note) for note in notes]
    plan.instances.append(
        Imported(
            name=name,
            config=config.config if config else None,
            config_from=config.record if config else None,
            state=state.state if state else {},
            state_from=state.record if state else None,
            extra=_extra(config, (r for r in records if r.layout != STATES_ONLY)),
            state_extra=_extra(state, (r for r in records if r.layout == STATES_ONLY)),
            blank=config.blank if config else {},
            state_blank=state.blank if state else {},
            converted=[c for each in (config, state) if each for c in each.converted],
            shadowed=[r for r in records if all(r is not each for each in used)],
        )
    )
    for record in records:
        if record is not used[0]:
            plan.merged.append((record, _why_merged(record, *used)))


def _of_one_model(config: Carried) -> Iterator[str]:
    """A note for each model that has several deployments, in several cases."""
    deployments = config.config["model_deployments"]
    spellings: dict[str, list[str]] = {}
    for model in deployments:
        spellings.setdefault(model.lower(), []).append(model)
    for lower, models in spellings.items():
        if len({deployments[model] for model in models}) > 1:
            written = " and ".join(cut(repr(model)) for model in models)
            counted = cut(repr(lower)) if lower in models else "none of them"
            yield (
                f"`model_deployments` has {written}: the old program looked models up in lower"
                f" case, so {counted} counted; here each counts as it is written"
            )


def _of_a_variable(config: Carried) -> Iterator[str]:
    if is_variable(config.config["api_key"]):
        yield (
            "`api_key` names a variable that the old program did not replace, and is sent as it"
            " is written; write the key, or env:NAME, once it is here"
        )


def _newest(records: list[Record], has_it: Callable[[Record], bool]) -> list[Record]:
    """Those of the newest era, and turn, that has it, in the order of the files."""
    some = [r for r in records if has_it(r)]
    recency = max((r.recency for r in some), default=None)
    return [r for r in some if r.recency == recency]


def _has_config(record: Record) -> bool:
    """Of any but a file of states, a name alone is a config too: one without a key."""
    return record.layout != STATES_ONLY or any(key != "name" for key in record.config)


def _has_state(record: Record) -> bool:
    """Of one that cannot be read, it is to be supposed."""
    if record.problem is not None:
        return record.layout not in CONFIGS_ONLY
    return bool(record.state)


def _compare(carried: list[Carried]) -> None:
    """A problem of each that says something else than the first: which one is right?"""
    if not _is_bad(carried):
        for other in carried[1:]:
            other.problems += _disagreement(carried[0], other)


def _outdate(carried: list[Carried], lost: Sequence[Reading]) -> None:
    """A problem of each that a file which cannot be read may have replaced."""
    for each in carried:
        newer = next((r for r in lost if ERAS[r.lost] > each.record.era), None)
        if newer is not None:
            each.problems.append(
                Problem(
                    file=each.record.file,
                    record=named_place(each.record),
                    field="",
                    value="",
                    remedy="Mend that file; or take it away, and this record counts.",
                    message=f"{newer.file} is newer and cannot be read.",
                )
            )


def _disagreement(one: Carried, other: Carried) -> Iterator[Problem]:
    values, others = one.config | one.state, other.config | other.state
    differing = [k for k in {**values, **others} if values.get(k) != others.get(k)]
    # Of unknown keys the row keeps all, but of one key one value.
    unknown, unknown_too = one.record.extra, other.record.extra
    differing += [k for k in unknown if unknown[k] != unknown_too.get(k, unknown[k])]
    for name in differing:
        is_secret = name in ("api_key", "proxy_url") or name in unknown
        yield Problem(
            file=other.record.file,
            record=named_place(other.record),
            field=name,
            value="***" if is_secret else shown(name, others.get(name)),
            remedy="Take one of the two out, or make them equal.",
            message=f"Disagrees with {one.record.place} of {one.record.file}.",
        )


def _is_bad(carried: Iterable[Carried]) -> bool:
    return any(each.problems for each in carried)


def _are_apart(configs: list[Carried], states: list[Carried]) -> bool:
    """No record holds config and state that count."""
    return not any(c.record is s.record for c in configs for s in states)


def _reject(plan: Plan, records: list[Record], carried: list[Carried]) -> None:
    for record in records:
        own = [p for each in carried if each.record is record for p in each.problems]
        # Each once: what config and state both disagree in stands in both.
        plan.rejected.append((record, list(dict.fromkeys(own))))


def _extra(source: Carried | None, records: Iterable[Record]) -> dict[str, Any]:
    """Unknown keys of all these records; the newest one's value counts.

    A name inside that is another than the key's is of the one record that is carried.
    """
    extra: dict[str, Any] = {}
    for record in sorted(records, key=lambda r: r.recency):
        extra |= record.extra
    inner = source.record.extra if source else {}
    others = {k: v for k, v in extra.items() if k != "name"}
    return others | ({"name": inner["name"]} if "name" in inner else {})


def _why_merged(record: Record, source: Record, state: Record | None = None) -> str:
    where = f"{source.layout} ({source.file.name}, {source.place})"
    if record is state:
        shadowed = ", its config is shadowed" if _has_config(record) else ""
        return f"its state goes to {where}{shadowed}"
    if not _has_config(record) and not _has_state(record):
        return f"holds neither config nor state; {where} does"
    newest = source if _has_config(record) or state is None else state
    if record.recency < newest.recency:
        return f"shadowed by {newest.layout} ({newest.file.name}, {newest.place})"
    return f"says the same as {newest.layout} ({newest.file.name}, {newest.place})"
