"""Numbers and moments as pages show them."""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from proxy.core.report import failed_share

THOUSAND = 1000
CLIENT_ERROR, SERVER_ERROR = 400, 500
SMALL_SHARE = 0.1
LEAST_OF_UNIT = 0.9995  # from here on three digits are 1, and no thousand of the smaller one
NOTHING = "\N{EN DASH}"
# Classes of errors, those of instances first.
CLASSES = {
    "upstream_429": "429",
    "upstream_5xx": "5xx",
    "connection": "no answer",
    "timeout": "time over",
    "upstream_4xx": "misconfigured",
    "client": "client's",
    "ours": "refused here",
}


def count(value: float | None) -> str:
    """12,345; beyond a hundred thousand 123 k, then 1.2 M. Of money, which has parts, 0.41."""
    if value is None:
        return NOTHING
    if abs(value) < 100 * THOUSAND:
        return f"{value:,.0f}" if value == int(value) else _in_parts(value)
    for size, unit in ((THOUSAND**3, "G"), (THOUSAND**2, "M"), (THOUSAND, "k")):
        if abs(value) >= size * LEAST_OF_UNIT:
            return f"{value / size:.3g} {unit}"
    raise AssertionError("larger than a thousand")


def _in_parts(value: float) -> str:
    """0.996 of 1 is not all of it, and nothing is written as 5e-05."""
    if abs(value) < SMALL_SHARE:
        return f"{Decimal(f'{value:.2g}'):f}"
    rounded = round(value, 2)
    shown = math.floor(value * 100) / 100 if rounded == int(rounded) else rounded
    return f"{shown:,.2f}".rstrip("0").rstrip(".")


def milliseconds(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value / THOUSAND:.2f} s" if value >= THOUSAND else f"{value:.0f} ms"


def percent(share: float | None) -> str:
    """Small ones as what they are: 0.04 % is not nothing, and 99.6 % is not all."""
    if share is None:
        return NOTHING
    if share < SMALL_SHARE:
        return f"{100 * share:.3g} %"
    whole = f"{100 * share:.0f} %"
    return f"{math.floor(THOUSAND * share) / 10} %" if whole == "100 %" and share < 1 else whole


def by_class(errors: Mapping[str, int | None]) -> str:
    """Those that there are."""
    told = (
        f"{words}: {count(errors[kind])}" for kind, words in CLASSES.items() if errors[kind]
    )
    return " · ".join(told)


def moment(at: float | None) -> str:
    """To the second, UTC."""
    if not at:
        return "never"
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def clock(at: float | None) -> str:
    return datetime.fromtimestamp(at or 0, UTC).strftime("%H:%M:%S")


def plainly(value: Any) -> str:
    """A value of config: words as they are, lists by commas, else as JSON."""
    if value is None or value in ("", [], {}):
        return "nothing"
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return ", ".join(value)
    return json.dumps(value, ensure_ascii=False)


def tone(record: Mapping[str, Any]) -> str:
    """The colour of a request's outcome, by the name of a status."""
    status = record["status"]
    if status >= SERVER_ERROR:
        return "error"
    return "rate_limited" if status >= CLIENT_ERROR else "healthy"


SHOWN = (count, milliseconds, percent, by_class, moment, clock, plainly, tone, failed_share)
FILTERS = {each.__name__: each for each in SHOWN}
