"""How instances look in a table that is read at a glance, each in a row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.core.report import RECENT_SECONDS, failed_attempts, failed_share
from proxy.core.standing import DISABLED, Standing, countdown

HEALTHY = "healthy"
BAR_CELLS = 10
# Of a cell, from nothing to all of it.
EIGHTHS = " ▏▎▍▌▋▊▉█"
# How much of a budget is used: shares at which a person should look, and act.
HIGH_SHARE, FULL_SHARE = 0.7, 0.9
CALM, HIGH, FULL = "calm", "high", "full"


@dataclass(frozen=True, slots=True)
class Row:
    """`max_tpm` 0: no limit that is enforced. `figures` are those of reports, of the last
    minutes (core/report.py). `in_flight` is None where no worker could be asked."""

    name: str
    priority: int
    standing: Standing
    requests_per_second: float
    current_tpm: int
    max_tpm: int
    figures: Mapping[str, Any]
    in_flight: int | None = None

    @property
    def used_share(self) -> float | None:
        return self.current_tpm / self.max_tpm if self.max_tpm else None

    @property
    def is_ill(self) -> bool:
        return self.standing.status not in (HEALTHY, DISABLED)


def status_words(standing: Standing, now: float) -> str:
    """`rate_limited 12 s`."""
    left = standing.seconds_left(now)
    return standing.status if left is None else f"{standing.status} {countdown(left)}"


def bar(share: float, cells: int = BAR_CELLS) -> str:
    """As long as the share is large, of a width that is always the same."""
    eighths = round(min(max(share, 0.0), 1.0) * cells * 8)
    if share > 0:
        eighths = max(eighths, 1)  # a little is not nothing
    whole, part = divmod(eighths, 8)
    return ("█" * whole + (EIGHTHS[part] if part else "")).ljust(cells)


def pressure(share: float) -> str:
    if share >= FULL_SHARE:
        return FULL
    return HIGH if share >= HIGH_SHARE else CALM


def tokens_words(row: Row) -> str:
    if row.used_share is None:
        return f"{row.current_tpm:,}, no limit"
    return f"{row.current_tpm:,} of {row.max_tpm:,} ({100 * row.used_share:.0f} %)"


def errors_words(figures: Mapping[str, Any]) -> str:
    """Of attempts."""
    share = failed_share(figures["attempt_success_rate"])
    return "-" if share is None else f"{failed_attempts(figures):,} ({share_words(share)})"


def usage_words(figures: Mapping[str, Any]) -> str:
    """Of the whole gateway, in a sentence."""
    share = failed_share(figures["success_rate"])
    said = [f"{figures['requests']:,} requests", f"{figures['tokens']['total']:,} tokens"]
    if share is not None:
        said.append(f"{share_words(share)} failed")
    if figures["aborted"]:  # no failures; but where all give up, something is too slow
        said.append(f"{figures['aborted']:,} given up by clients")
    if figures["first_byte_ms"]["p50"] is not None:
        said.append(f"first byte after {ms_words(figures['first_byte_ms']['p50'])}")
    return f"In {RECENT_SECONDS // 60} minutes: {', '.join(said)}."


def share_words(share: float | None) -> str:
    """With a digit behind the point where it is small."""
    if share is None:
        return "-"
    return f"{100 * share:.1f} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"


def ms_words(ms: float | None) -> str:
    if ms is None:
        return "-"
    return f"{ms:.0f} ms" if ms < 10_000 else f"{ms / 1000:.0f} s"


def fitting(rows: Sequence[Row], places: int) -> tuple[list[Row], int]:
    """Those there is room for, in their order, and how many are left out: where there is too
    little room, those of whom there is least to tell."""
    if len(rows) <= places:
        return list(rows), 0
    told = sorted(
        range(len(rows)), key=lambda n: (not rows[n].is_ill, -rows[n].requests_per_second, n)
    )
    kept = sorted(told[: max(places, 0)])
    return [rows[n] for n in kept], len(rows) - len(kept)
