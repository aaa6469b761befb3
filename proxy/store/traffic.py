"""Usage by the minute, as charts show it: what all clients asked, and what came of it."""

from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select

from proxy.core.verdict import ERRORS
from proxy.store.models import UsageRow

MINUTE_SECONDS = 60
# Of attempts, what was wrong with them.
WRONG = ("throttled", "failed", "unreachable", "misconfigured")
assert set(WRONG) == ERRORS

_USAGE = UsageRow.__table__
_TOKENS = _USAGE.c.prompt_tokens + _USAGE.c.completion_tokens


def by_minute(connection: Connection, since: int, until: int) -> dict[str, list[int]]:
    """`at` has the minutes between the two that are over, `requests`, `tokens` and each of
    WRONG what was in them; where nothing was asked, 0."""
    sums: tuple[ColumnElement[Any], ...] = (
        _USAGE.c.minute_at,
        func.sum(_USAGE.c.requests),
        func.sum(_TOKENS),
        *(func.sum(_USAGE.c[name]) for name in WRONG),
    )
    rows = connection.execute(
        select(*sums).where(_between(since, until)).group_by(_USAGE.c.minute_at)
    )
    found = {at: [int(n) for n in counts] for at, *counts in rows}
    minutes = range(_whole(since), _whole(until), MINUTE_SECONDS)
    nothing = [0] * (2 + len(WRONG))
    each = [found.get(at, nothing) for at in minutes]
    names = ("requests", "tokens", *WRONG)
    return {"at": list(minutes)} | {
        name: [counts[index] for counts in each] for index, name in enumerate(names)
    }


def _between(since: int, until: int) -> ColumnElement[bool]:
    return (_USAGE.c.minute_at >= _whole(since)) & (_USAGE.c.minute_at < _whole(until))


def _whole(moment: int) -> int:
    return moment // MINUTE_SECONDS * MINUTE_SECONDS
