"""The charts: what is measured for them, and how they are drawn, as SVG without a library."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

from benchlib.loads import Ask
from benchlib.peers import PEERS
from benchlib.places import DIRECT, EMPTY, GATEWAY, Place
from benchlib.stage import Stage

CONNECTIONS = (1, 4, 16, 64, 256)
STREAMS = (16, 64, 256, 512)
MOST_STREAMS_OF_PEERS = 256
PERCENTS = ("p1", "p10", "p25", "p50", "p75", "p90", "p95", "p99", "p99.9")
EVENTS, INTERVAL_MS = 50, 20.0
TIMEOUT_SECONDS = 180.0
WARM_SECONDS = 0.5

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 46, 52
# Told apart by those who see fewer colours, on white and on black (Okabe and Ito, 2008).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#999999", "#56b4e9")
COLOUR_OF = dict(zip((GATEWAY, DIRECT, EMPTY, *PEERS), COLOURS, strict=True))
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f; }
.title { font-size: 15px; font-weight: 600; }
.grid { stroke: #8c959f; stroke-opacity: 0.35; }
.line { fill: none; stroke-width: 2.5; stroke-linejoin: round; }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3; } }
"""


@dataclass(frozen=True, slots=True)
class Chart:
    """`lines` are by place: a value for each of `ticks`, fewer if it has no more."""

    file: str
    title: str
    x: str
    ticks: tuple[str, ...]
    lines: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        lines = {place: list(values) for place, values in self.lines.items()}
        return {"title": self.title, "x": self.x, "ticks": list(self.ticks), "lines": lines}


def measured(stage: Stage) -> list[Chart]:
    return [_latency(stage), _throughput(stage), _first_byte(stage)]


def _latency(stage: Stage) -> Chart:
    stage.upstream.behave()
    ask = Ask((stage.body(),), seconds=stage.options.seconds, warm_seconds=WARM_SECONDS)
    lines = {}
    for place in (stage.direct, stage.gateway, *stage.peers):
        found = stage.make("chart of latency", place, ask).load.total_us
        lines[place.name] = [found[percent] / 1000 for percent in PERCENTS]
    title = "A request on one connection, ms"
    return Chart("latency.svg", title, "percentile", PERCENTS, lines)


def _throughput(stage: Stage) -> Chart:
    stage.upstream.behave()
    places = (stage.empty, stage.gateway, *stage.peers)
    lines: dict[str, list[float]] = {place.name: [] for place in places}
    for connections in CONNECTIONS:
        ask = Ask(
            (stage.body(),),
            connections=connections,
            seconds=stage.options.seconds,
            warm_seconds=WARM_SECONDS,
        )
        for place in places:
            found = stage.make(f"chart, {connections} connections", place, ask).load
            lines[place.name].append(found.per_second)
    ticks = tuple(map(str, CONNECTIONS))
    return Chart("throughput.svg", "Plain requests a second", "connections", ticks, lines)


def _first_byte(stage: Stage) -> Chart:
    stage.upstream.behave(events=EVENTS, interval_ms=INTERVAL_MS)
    places = (stage.gateway, *stage.peers)
    lines: dict[str, list[float]] = {place.name: [] for place in places}
    for streams in STREAMS:
        base = _first_byte_ms(stage, stage.direct, streams)
        for place in places:
            if place is stage.gateway or streams <= MOST_STREAMS_OF_PEERS:
                added = _first_byte_ms(stage, place, streams) - base
                lines[place.name].append(added)
    title = "First byte of a stream, added at the median, ms"
    ticks = tuple(map(str, STREAMS))
    return Chart("first-byte.svg", title, "open streams, 20 ms between events", ticks, lines)


def _first_byte_ms(stage: Stage, place: Place, streams: int) -> float:
    """The median of the rounds' medians."""
    lasts_seconds = EVENTS * INTERVAL_MS / 1000
    ask = Ask(
        (stage.body(stream=True),),
        connections=streams,
        requests=3 * streams,
        ramp_seconds=lasts_seconds,
        events=EVENTS,
        timeout_seconds=TIMEOUT_SECONDS,
    )
    made = (
        stage.make(f"chart, {streams} streams", place, ask) for _ in range(stage.options.rounds)
    )
    return median(each.load.first_byte_us["p50"] / 1000 for each in made)


def write(charts: Iterable[Chart], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for chart in charts:
        (folder / chart.file).write_text(svg(chart))


def svg(chart: Chart) -> str:
    """A chart with a logarithmic scale: what is compared differs by orders of magnitude."""
    bottom, top = scale(v for values in chart.lines.values() for v in values)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(chart.title)}</title><style>{STYLE}</style>",
        _text(LEFT, 24, chart.title, 'class="title"'),
        *_grid(bottom, top),
        *_ticks(chart),
    ]
    ends: list[float] = []
    for place, values in chart.lines.items():
        if values:
            parts.append(_line(place, values, chart, (bottom, top), ends))
    return "\n".join([*parts, "</svg>", ""])


def scale(values: Iterable[float]) -> tuple[int, int]:
    """Powers of ten, from below the least that is positive to above the most."""
    positive = [v for v in values if v > 0] or [1.0]
    bottom = math.floor(math.log10(min(positive)))
    return bottom, max(math.ceil(math.log10(max(positive))), bottom + 1)


def _height(value: float, bounds: tuple[int, int]) -> float:
    bottom, top = bounds
    share = (math.log10(max(value, 10.0**bottom)) - bottom) / (top - bottom)
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _grid(bottom: int, top: int) -> list[str]:
    parts = []
    for power in range(bottom, top + 1):
        y = _height(10.0**power, (bottom, top))
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(_text(LEFT - 8, y + 4, f"{10.0**power:,.10g}", 'text-anchor="end"'))
    return parts


def _across(number: int, chart: Chart) -> float:
    return LEFT + number * (WIDTH - LEFT - RIGHT) / max(len(chart.ticks) - 1, 1)


def _ticks(chart: Chart) -> list[str]:
    y = HEIGHT - BOTTOM + 18
    middle = 'text-anchor="middle"'
    parts = [_text(_across(n, chart), y, tick, middle) for n, tick in enumerate(chart.ticks)]
    return [*parts, _text((LEFT + WIDTH - RIGHT) / 2, y + 22, chart.x, middle)]


def _line(
    place: str,
    values: Sequence[float],
    chart: Chart,
    bounds: tuple[int, int],
    ends: list[float],
) -> str:
    """With its name at its end; names that would lie upon each other are moved apart."""
    colour = COLOUR_OF[place]
    points = [(_across(n, chart), _height(v, bounds)) for n, v in enumerate(values)]
    x, y = points[-1]
    while any(abs(y - other) < 16 for other in ends):
        y += 2
    ends.append(y)
    joined = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
    line = f'<polyline class="line" stroke="{colour}" points="{joined}"/>'
    return line + _text(x + 8, y + 4, place, f'style="fill: {colour}"')


def _text(x: float, y: float, text: str, attributes: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {attributes}>{escape(text)}</text>'
