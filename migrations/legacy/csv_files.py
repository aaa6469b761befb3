"""Records in a list kept as CSV: the layout C1."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from migrations.legacy.records import Era, Problem, Reading, Record

ID, KEY, BASE, PROXY = "ID", "API_KEY1", "API_BASE", "PROXY_URL"
MODEL = "模型名字"  # the model's name
VERSION = "模型版本"  # the model's version
STATUS = "STATUS"
WORKING = "正常"  # "normal"
COLUMNS = {KEY: "api_key", BASE: "api_base", PROXY: "proxy_url"}

DELIMITERS = ",;\t"  # spreadsheets of some countries save ";"
BEYOND = "beyond the last column"

_MODELS_SPLIT = re.compile(r"[,，;；、]")  # noqa: RUF001 (commas as Chinese writes them)


@dataclass(frozen=True, slots=True)
class Row:
    line: int
    cells: Mapping[str, str] = field(repr=False)  # hold keys

    @property
    def instance(self) -> tuple[str, ...]:
        """Rows that agree in this are one instance, with a model each."""
        return tuple(self.cells.get(column, "") for column in (ID, KEY, BASE, PROXY))


def read(file: Path, text: str) -> Reading:
    """One record for each ID.

    Operators gave an instance a row for each model it serves: rows of one ID that agree in
    key, base and proxy are one record, with all their models. Where they do not agree, they
    are records of one name, each with a note.

    The version (`gpt-4o-2024-11-20`) says what runs behind the model (`gpt-4o`), as a
    deployment's name does, so it is carried as the model's deployment.
    """
    try:
        header, rows = _rows(text)
    except csv.Error:
        message = "This is no CSV: a quote is open, or text follows a closing one."
        return _nothing(file, message, "Mend the quotes in the file.")
    if ID not in header or not set(COLUMNS) & set(header):
        message = f"The first line names no columns {ID}, {KEY}, {BASE}."
        return _nothing(file, message, "Begin the file with the names of its columns.")
    if len(set(header)) < len(header):
        twice = sorted({name for name in header if header.count(name) > 1})
        message = f"Columns of one name: {', '.join(map(repr, twice))}."
        return _nothing(file, message, "Give each column a name of its own.")
    instances: dict[object, list[Row]] = {}
    for row in rows:
        # Rows without an ID have nothing in common.
        key = row.instance if row.cells.get(ID) else row.line
        instances.setdefault(key, []).append(row)
    return Reading(file, "C1", tuple(_records(file, list(instances.values()))))


def _rows(text: str) -> tuple[list[str], list[Row]]:
    """The names of the columns, and the rows that are not blank. Raises csv.Error.

    Strict: otherwise an open quote makes one cell of all that follows, without a word.
    """
    first_line = text.lstrip().partition("\n")[0]
    delimiter = max(DELIMITERS, key=first_line.count)
    reader = csv.reader(
        io.StringIO(text.lstrip(), newline=""), delimiter=delimiter, strict=True
    )
    skipped = text[: len(text) - len(text.lstrip())].count("\n")
    names = [name.strip() for name in next(reader, [])]
    while names and not names[-1]:
        names.pop()  # spreadsheets end lines with empty cells
    known = {name.casefold(): name for name in (ID, *COLUMNS, MODEL, VERSION, STATUS)}
    header = [
        known.get(name.casefold(), name or f"column {number}")
        for number, name in enumerate(names, start=1)
    ]
    rows = []
    for cells in reader:
        found = _cells(header, [cell.strip() for cell in cells])
        if any(found.values()):
            rows.append(Row(skipped + reader.line_num, found))
    return header, rows


def _cells(header: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    found = dict(zip(header, cells, strict=False))
    beyond = [cell for cell in cells[len(header) :] if cell]
    return found | {BEYOND: " | ".join(beyond)} if beyond else found


def _records(file: Path, instances: list[list[Row]]) -> list[Record]:
    names = [rows[0].cells.get(ID) for rows in instances]
    seen: dict[str, int] = {}
    for name in names:
        if name:
            seen[name] = seen.get(name, 0) + 1
    records = []
    for name, rows in zip(names, instances, strict=True):
        notes = []
        if name and seen[name] > 1:
            notes.append("another row of this ID has another key, base or proxy")
        records.append(_record(file, name or None, rows, notes))
    return records


def _record(file: Path, name: str | None, rows: list[Row], notes: list[str]) -> Record:
    first = rows[0].cells
    config: dict[str, Any] = {"name": name} if name else {}
    config |= {key: first[column] for column, key in COLUMNS.items() if column in first}
    extra = _extra(rows)
    models, deployments = _models(rows, extra, notes)
    config |= {"supported_models": models} if models else {}
    config |= {"model_deployments": deployments} if deployments else {}
    for row in rows:
        status = row.cells.get(STATUS, "")
        if status not in ("", WORKING):
            # Only a number is shown: in a row that lost a comma, it may be anything.
            shown = status if status.isdigit() else "no number"
            notes.append(f"row {row.line}: {STATUS} is {shown}, not {WORKING}")
    place = ("row " if len(rows) == 1 else "rows ") + ", ".join(str(row.line) for row in rows)
    return Record(file, place, "C1", Era.CSV, name, config, extra=extra, notes=tuple(notes))


def _models(
    rows: list[Row], extra: dict[str, Any], notes: list[str]
) -> tuple[list[str], dict[str, str]]:
    """Models, and deployments by model. A version of no one model goes to `extra`."""
    models: dict[str, None] = {}  # in their order, each once
    deployments: dict[str, str] = {}
    for row in rows:
        names = [m.strip() for m in _MODELS_SPLIT.split(row.cells.get(MODEL, "")) if m.strip()]
        models |= dict.fromkeys(names)
        version = row.cells.get(VERSION, "")
        if not version:
            continue
        if len(names) == 1 and deployments.setdefault(names[0], version) == version:
            continue
        extra.setdefault(VERSION, []).append(version)
        notes.append(f"row {row.line}: {VERSION} is not of one model, so it was not used")
    return list(models), deployments


def _extra(rows: list[Row]) -> dict[str, Any]:
    """Columns nobody knows, and STATUS: the value, or the values where rows differ."""
    used = {ID, *COLUMNS, MODEL, VERSION}
    extra: dict[str, Any] = {}
    for column in dict.fromkeys(c for row in rows for c in row.cells if c not in used):
        values = list(dict.fromkeys(row.cells.get(column, "") for row in rows))
        extra[column] = values[0] if len(values) == 1 else values
    return extra


def _nothing(file: Path, message: str, remedy: str) -> Reading:
    return Reading(file, "C1", problems=(Problem(file, "", "", "", remedy, message),))
