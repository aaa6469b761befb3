"""What was measured, round by round, and the table it is printed as."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

Facts = Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class Measure:
    """One row. `base` names the column of the place that the others are compared with.

    Where what is added is measured, the base is shown, and the others have no ratio to it.
    """

    name: str
    unit: str = ""
    base: str | None = None
    has_ratio: bool = True


@dataclass(slots=True)
class Results:
    """All of a run. `values` are by measure and place, one for each round."""

    values: dict[Measure, dict[str, list[float]]] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # what was left out, and why

    def note(self, measure: Measure, place: str, value: float) -> None:
        self.values.setdefault(measure, {}).setdefault(place, []).append(value)

    def median(self, measure: Measure, place: str) -> float:
        return median(self.values[measure][place])

    def ratio(self, measure: Measure, place: str) -> float | None:
        """To the base: the median over the rounds, because a machine's speed changes from one
        to the next. None if there is nothing to compare."""
        found = self.values[measure]
        bases = found.get(measure.base or "", [])
        if not measure.has_ratio or place == measure.base or not bases or not all(bases):
            return None
        return median(v / base for v, base in zip(found[place], bases, strict=True))

    def to_dict(self, facts: Facts) -> dict[str, Any]:
        return {
            "facts": dict(facts),
            "rows": [
                {
                    "measure": measure.name,
                    "unit": measure.unit,
                    "base": measure.base,
                    "has_ratio": measure.has_ratio,
                    "rounds": found,
                    "medians": {place: self.median(measure, place) for place in found},
                    "ratios": {place: self.ratio(measure, place) for place in found},
                }
                for measure, found in self.values.items()
            ],
            "failures": dict(self.failures),
            "examples": self.examples,
            "notes": self.notes,
        }

    def to_markdown(self, facts: Facts, places: Sequence[str]) -> str:
        """`places` are the columns beside the base's. In brackets: the ratio to the base."""
        shown = [p for p in places if any(p in found for found in self.values.values())]
        lines = [["", "base", *shown], ["---", "---:", *["---:"] * len(shown)]]
        for measure, found in self.values.items():
            name = f"{measure.name}, {measure.unit}" if measure.unit else measure.name
            lines.append([name, self._base_cell(measure), *self._cells(measure, found, shown)])
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        about = ", ".join(f"{name} {value}" for name, value in facts.items())
        notes = [f"- {note}" for note in self.notes]
        return "\n\n".join(filter(None, [about, table, "\n".join(notes), self._loud()]))

    def _base_cell(self, measure: Measure) -> str:
        base = measure.base
        if base is None or base not in self.values[measure]:
            return ""
        return f"{number(self.median(measure, base))} ({base})"

    def _cells(
        self, measure: Measure, found: Mapping[str, object], places: Sequence[str]
    ) -> list[str]:
        cells = []
        for place in places:
            text = number(self.median(measure, place)) if place in found else ""
            ratio = self.ratio(measure, place) if place in found else None
            cells.append(text if ratio is None else f"{text} ({ratio:.2f})")
        return cells

    def _loud(self) -> str:
        if not self.failures:
            return ""
        lines = ["**REQUESTS FAILED: these figures are not to be used.**", ""]
        for kind, count in self.failures.most_common():
            example = self.examples.get(kind)
            lines.append(f"- {count} x {kind}" + (f"; the first: {example}" if example else ""))
        return "\n".join(lines)


def number(value: float) -> str:
    """Three digits that say something, and all of those before the point."""
    places = 0 if abs(value) >= 100 or value == int(value) else 1 if abs(value) >= 10 else 2
    return f"{value:,.{places}f}"
