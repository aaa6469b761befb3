"""From what each request took to the table that is printed."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PERCENTS = (50, 90, 95, 99)


@dataclass(frozen=True, slots=True)
class Failure:
    """`kind` is what failures are counted by, `detail` what this one said."""

    kind: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request. `failure` is None if all was as it should be.

    `first_byte_ms` is from before connecting, if that had to be done, to the first byte
    of the body; `total_ms` to its last.
    """

    failure: Failure | None = None
    first_byte_ms: float = 0.0
    total_ms: float = 0.0
    events: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of a load did. `client_cpu_seconds` is our own CPU time."""

    outcomes: tuple[Outcome, ...] = ()
    seconds: float = 0.0
    client_cpu_seconds: float = 0.0

    def __add__(self, other: "Load") -> "Load":
        return Load(
            self.outcomes + other.outcomes,
            self.seconds + other.seconds,
            self.client_cpu_seconds + other.client_cpu_seconds,
        )

    @property
    def failures(self) -> Counter[str]:
        return Counter(o.failure.kind for o in self.outcomes if o.failure is not None)

    @property
    def examples(self) -> dict[str, str]:
        """Of each kind of failure the first detail."""
        found: dict[str, str] = {}
        for outcome in self.outcomes:
            if outcome.failure is not None:
                found.setdefault(outcome.failure.kind, outcome.failure.detail)
        return found

    @property
    def good(self) -> list[Outcome]:
        return [o for o in self.outcomes if o.failure is None]

    @property
    def events(self) -> int:
        return sum(o.events for o in self.outcomes)

    @property
    def per_second(self) -> float:
        return len(self.good) / self.seconds if self.seconds else 0.0

    @property
    def client_cpu_percent(self) -> float:
        """Of one core. Near 100 it is us who are measured."""
        return 100 * self.client_cpu_seconds / self.seconds if self.seconds else 0.0


def percentile(values: Iterable[float], percent: float) -> float:
    """The least value that is not below `percent` % of them (nearest rank).

    Always one that was measured. Raises ValueError if there is none.
    """
    ordered = sorted(values)
    if not ordered:
        raise ValueError("there is no percentile of nothing")
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what was measured, at each of the places it was."""

    measure: str
    unit: str
    values: Mapping[str, float]

    @property
    def ratio(self) -> float | None:
        """Gateway to direct, where there are both."""
        direct, gateway = self.values.get("direct"), self.values.get("gateway")
        return gateway / direct if gateway is not None and direct else None


@dataclass(frozen=True, slots=True)
class Report:
    facts: Mapping[str, str | int]
    rows: Sequence[Row]
    failures: Counter[str] = field(default_factory=Counter)
    # Of each kind of failure, a detail of one; "" where there is no more to say.
    examples: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            "facts": dict(self.facts),
            "rows": [
                {"measure": r.measure, "unit": r.unit, **r.values, "ratio": r.ratio}
                for r in self.rows
            ],
            "failures": dict(self.failures),
            "examples": {kind: detail for kind, detail in self.examples.items() if detail},
        }

    def to_markdown(self) -> str:
        places = list(dict.fromkeys(place for row in self.rows for place in row.values))
        has_ratio = any(row.ratio is not None for row in self.rows)
        titles = ["", *places, *["ratio"] * has_ratio]
        lines = [titles, ["---", *["---:"] * (len(titles) - 1)]]
        for row in self.rows:
            name = f"{row.measure}, {row.unit}" if row.unit else row.measure
            cells = [_shown(row.values.get(place)) for place in places]
            ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
            lines.append([name, *cells, *[ratio] * has_ratio])
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        facts = ", ".join(f"{name} {value}" for name, value in self.facts.items())
        return "\n\n".join([facts, table, *self._failure_lines()])

    def _failure_lines(self) -> list[str]:
        lines = []
        for kind, count in self.failures.most_common():
            detail = self.examples.get(kind)
            lines.append(f"{count} x {kind}" + (f"; the first: {detail}" if detail else ""))
        return lines


def _shown(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def stream_rows(title: str, loads: Mapping[str, Load]) -> list[Row]:
    """Rows about streams: how many, how soon they began, how long they took."""
    rows = [
        Row(f"{title}: complete", "", {p: len(load.good) for p, load in loads.items()}),
        Row(f"{title}: failed", "", {p: load.failures.total() for p, load in loads.items()}),
        Row(f"{title}: events", "", {p: load.events for p, load in loads.items()}),
    ]
    rows += _percentile_rows(f"{title}: first byte ", loads, "first_byte_ms")
    rows += _percentile_rows(f"{title}: total ", loads, "total_ms")
    cpu = {place: load.client_cpu_percent for place, load in loads.items()}
    return [*rows, Row(f"{title}: this client's CPU", "% of a core", cpu)]


def plain_rows(title: str, loads: Mapping[str, Load]) -> list[Row]:
    """Rows about requests that are answered in one piece."""
    rows = [
        Row(f"{title}: complete", "", {p: len(load.good) for p, load in loads.items()}),
        Row(f"{title}: failed", "", {p: load.failures.total() for p, load in loads.items()}),
        Row(title, "a second", {p: load.per_second for p, load in loads.items()}),
    ]
    rows += _percentile_rows(f"{title}: ", loads, "total_ms")
    cpu = {place: load.client_cpu_percent for place, load in loads.items()}
    return [*rows, Row(f"{title}: this client's CPU", "% of a core", cpu)]


def _percentile_rows(title: str, loads: Mapping[str, Load], name: str) -> list[Row]:
    return [
        Row(f"{title}p{percent}", "ms", _percentiles(loads, name, percent))
        for percent in PERCENTS
    ]


def _percentiles(loads: Mapping[str, Load], name: str, percent: float) -> dict[str, float]:
    return {
        place: percentile((getattr(o, name) for o in load.good), percent)
        for place, load in loads.items()
        if load.good
    }
