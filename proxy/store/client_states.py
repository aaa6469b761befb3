"""What clients use, between memory and the database: as states.py has it of instances."""

from typing import Any

from sqlalchemy import (
    Connection,
    Select,
    Table,
    bindparam,
    case,
    delete,
    literal,
    select,
    union_all,
)

from proxy.core.client_deltas import ClientDeltas, SharedClients
from proxy.core.days import DAY_SECONDS, month
from proxy.core.limiter import COUNTED_SECONDS
from proxy.store.models import ClientSpendingRow, ClientStateRow, ClientWindowRow
from proxy.store.statements import Prepared, upsert
from proxy.store.states import BEFORE_ALL, KEPT_WINDOW_SECONDS, next_number

KEPT_DAYS = 62  # a whole month, when the next one is half over

Rows = dict[str, list[tuple[int, int, int]]]

# Of which table a row is.
USE, WINDOW, SPENDING = range(3)


def _changed(kind: int, row: Any, at: Any, one: Any, other: Any) -> Select[Any]:
    return select(literal(kind), row.client_name, at, one, other).where(
        row.write_number > bindparam("since")
    )


# One statement: read in every round, three would take nearly three times as long.
_CHANGED = Prepared(
    union_all(
        _changed(USE, ClientStateRow, ClientStateRow.last_used_at, literal(0), literal(0)),
        _changed(
            WINDOW,
            ClientWindowRow,
            ClientWindowRow.second_at,
            ClientWindowRow.tokens,
            ClientWindowRow.requests,
        ),
        _changed(
            SPENDING,
            ClientSpendingRow,
            ClientSpendingRow.day_at,
            ClientSpendingRow.tokens,
            ClientSpendingRow.cost_nano,
        ).where(ClientSpendingRow.day_at >= bindparam("first_day")),
    )
)
_OLD_WINDOWS = Prepared(
    delete(ClientWindowRow).where(ClientWindowRow.second_at < bindparam("before"))
)
_OLD_SPENDING = Prepared(
    delete(ClientSpendingRow).where(ClientSpendingRow.day_at < bindparam("before"))
)


def add(connection: Connection, deltas: ClientDeltas, number: int | None = None) -> None:
    """Adds one worker's deltas. `number` is this transaction's, if it has one already."""
    if not deltas:
        return
    number = next_number(connection) if number is None else number
    upsert(
        connection,
        ClientStateRow,
        [
            {"client_name": name, "last_used_at": at, "write_number": number}
            for name, at in deltas.used_at.items()
        ],
        _merge_use,
    )
    upsert(
        connection,
        ClientWindowRow,
        [
            {
                "second_at": second,
                "client_name": name,
                "tokens": tokens,
                "requests": requests,
                "write_number": number,
            }
            for (second, name), (tokens, requests) in deltas.windows.items()
        ],
        _add_window,
    )
    upsert(
        connection,
        ClientSpendingRow,
        [
            {
                "day_at": day,
                "client_name": name,
                "tokens": tokens,
                "cost_nano": cost_nano,
                "write_number": number,
            }
            for (day, name), (tokens, cost_nano) in deltas.spending.items()
        ],
        _add_spending,
    )


def read(
    connection: Connection, now: float, number: int, since: int | None = None
) -> SharedClients:
    """What all workers measured, as of the write `number`; with `since` only what changed after
    that one. Of spending, this month's."""
    if since == number:
        return SharedClients(number=number, is_whole=False)
    after = BEFORE_ALL if since is None else since
    second = int(now)
    # What lies further ahead than a minute was counted by a clock that was set back since.
    oldest, newest = second - COUNTED_SECONDS, second + COUNTED_SECONDS
    used_at: dict[str, float] = {}
    windows: Rows = {}
    spending: Rows = {}
    for kind, name, at, one, other in _CHANGED.rows(
        connection, since=after, first_day=month(now)[0]
    ):
        if kind == SPENDING:
            spending.setdefault(name, []).append((int(at), one, other))
        elif kind == USE:
            used_at[name] = at
        elif oldest < at < newest:
            windows.setdefault(name, []).append((int(at), one, other))
    return SharedClients(used_at, windows, spending, number, since is None)


def forget_old_seconds(connection: Connection, now: float) -> None:
    """Deletes those that no limit asks for any more."""
    before = int(now) - KEPT_WINDOW_SECONDS
    _OLD_WINDOWS.run(connection, before=before)


def forget_old_days(connection: Connection, now: float) -> None:
    """Deletes those that no budget and no report asks for any more."""
    before = int(now) - KEPT_DAYS * DAY_SECONDS
    _OLD_SPENDING.run(connection, before=before)


def _merge_use(present: Table, given: Any) -> dict[str, Any]:
    is_later = given.last_used_at > present.c.last_used_at
    latest = case((is_later, given.last_used_at), else_=present.c.last_used_at)
    return {"last_used_at": latest, "write_number": given.write_number}


def _add_window(present: Table, given: Any) -> dict[str, Any]:
    new = {c: present.c[c] + given[c] for c in ("tokens", "requests")}
    return new | {"write_number": given.write_number}


def _add_spending(present: Table, given: Any) -> dict[str, Any]:
    new = {c: present.c[c] + given[c] for c in ("tokens", "cost_nano")}
    return new | {"write_number": given.write_number}
