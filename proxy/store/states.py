"""State between memory and SQLite: deltas are added in SQL, everyone's sums read back."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from functools import lru_cache
from typing import Any, cast

import orjson
from sqlalchemy import (
    Connection,
    Table,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    not_,
    or_,
    select,
    update,
)

from proxy.core.breaker import BreakerNews
from proxy.core.deltas import OPERATOR, TOTALS, Added, Deltas, Rest, SharedInstance, SharedState
from proxy.core.limiter import COUNTED_SECONDS
from proxy.core.verdict import MISCONFIGURED
from proxy.core.window import SET_BACK_SECONDS
from proxy.store.db import as_json
from proxy.store.models import (
    DeploymentStateRow,
    InstanceStateRow,
    StateJournalRow,
    StateWriteRow,
)
from proxy.store.statements import Prepared, upsert, upsert_statement

KEPT_WINDOW_SECONDS = 120
BREAKER_COLUMNS = tuple(f"breaker_{f.name}" for f in fields(BreakerNews))
MOMENTS = ("last_used", "last_success_time", "last_failure_time")
INSTANCE_COLUMNS = (
    "instance_name",
    *TOTALS,
    *MOMENTS,
    "last_error",
    "last_error_time",
    "cleared_at",
    *BREAKER_COLUMNS,
)
# Where they are in a row, behind the name.
_TOTALS = slice(1, 1 + len(TOTALS))
_BREAKER = slice(-len(BREAKER_COLUMNS), None)
_OTHERS = slice(_TOTALS.stop, _BREAKER.start)
# What a row says of which nothing was measured.
_UNTOUCHED: Mapping[str, Any] = dict.fromkeys(TOTALS, 0) | dict.fromkeys(MOMENTS)
NAMES_AT_ONCE = 1000  # databases bound the parameters of a statement

_INSTANCES = select(*(InstanceStateRow.__table__.c[c] for c in INSTANCE_COLUMNS))
_ONE_INSTANCE = _INSTANCES.where(InstanceStateRow.instance_name == bindparam("name"))
_CLEARED = select(InstanceStateRow.instance_name, InstanceStateRow.cleared_at)
# What is read in every round.
_NUMBER = Prepared(select(StateWriteRow.number))
_CHANGED_INSTANCES = Prepared(
    _INSTANCES.where(InstanceStateRow.write_number > bindparam("since"))
)
_ADDED = Prepared(
    select(StateJournalRow.added).where(
        StateJournalRow.number > bindparam("since"),
        # What was committed since the number was read is in the next read: PostgreSQL shows it
        # in this one, too, and it must not be counted twice.
        StateJournalRow.number <= bindparam("until"),
        StateJournalRow.number != bindparam("mine"),
    )
)
_JOURNAL = Prepared(insert(StateJournalRow), ("number", "newest_at", "added"))
_RESTS = Prepared(
    select(
        DeploymentStateRow.instance_name,
        DeploymentStateRow.deployment,
        DeploymentStateRow.rate_limited_until,
        DeploymentStateRow.rest_reason,
        DeploymentStateRow.rest_set_at,
    ).where(DeploymentStateRow.rate_limited_until > bindparam("now"))
)
_OVER_RESTS = Prepared(
    delete(DeploymentStateRow).where(DeploymentStateRow.rate_limited_until < bindparam("now"))
)
_MENDED_RESTS = delete(DeploymentStateRow).where(
    DeploymentStateRow.instance_name == bindparam("name"),
    DeploymentStateRow.deployment == bindparam("place"),
    DeploymentStateRow.rest_set_at <= bindparam("at"),
    DeploymentStateRow.rest_reason.in_(sorted(MISCONFIGURED)),
)
_OLD_JOURNAL = Prepared(
    delete(StateJournalRow).where(StateJournalRow.newest_at < bindparam("before"))
)

BEFORE_ALL = -1


def add(connection: Connection, deltas: Deltas) -> int | None:
    """Adds one worker's deltas, but for its usage (usage.py): with which number, None if there
    is nothing to add.

    Takes out of `deltas` what an operator has made void since it was measured: a worker
    that writes a moment later would bring it back for all.
    """
    if not deltas:
        return None
    number = next_number(connection)
    _drop_void(connection, deltas)
    upsert(connection, InstanceStateRow, _instance_rows(deltas, number), _merge_instance)
    upsert(connection, InstanceStateRow, _breaker_rows(deltas, number), _merge_breaker)
    for (instance, deployment), at in deltas.mended.items():
        connection.execute(_MENDED_RESTS, {"name": instance, "place": deployment, "at": at})
    upsert(
        connection,
        DeploymentStateRow,
        [
            {
                "instance_name": instance,
                "deployment": deployment,
                "rate_limited_until": rest.until,
                "rest_reason": rest.reason,
                "rest_set_at": rest.set_at,
            }
            for (instance, deployment), rest in deltas.rests.items()
        ],
        _merge_rest,
    )
    if deltas.windows:
        added = orjson.dumps([key + counts for key, counts in deltas.windows.items()]).decode()
        newest = max(second for second, _, _ in deltas.windows)
        _JOURNAL.run(connection, number=number, newest_at=newest, added=added)
    return number


def next_number(connection: Connection) -> int:
    """Of this transaction, for the `write_number` of all it changes; others wait for it to end
    before they take theirs."""
    counted = upsert_statement(
        connection.dialect.name, StateWriteRow, _one_more, ("id", "number"), "number"
    )
    ((number,),) = counted.rows(connection, id=1, number=1)
    return cast(int, number)


def read(
    connection: Connection, now: float, since: int | None = None, mine: int | None = None
) -> SharedState:
    """What all workers measured, as of now; with `since` only what changed after the read that
    gave that number, and of windows nothing of the write `mine`, this transaction's. All, too,
    if the database never had it: it is another one."""
    number = _newest(connection) if mine is None else mine  # nobody else writes meanwhile
    is_whole = since is None or number < since
    instances: dict[str, SharedInstance] = {}
    windows: list[Added] = []
    if is_whole or number != since:
        after = BEFORE_ALL if is_whole else since
        instances = dict(map(_shared, _CHANGED_INSTANCES.rows(connection, since=after)))
        without = BEFORE_ALL if is_whole or mine is None else mine
        rows = _ADDED.rows(connection, since=after, until=number, mine=without)
        windows = _windows(rows, int(now))
    rests = {
        (name, deployment): Rest(until, reason, set_at)
        for name, deployment, until, reason, set_at in _RESTS.rows(connection, now=now)
    }
    return SharedState(instances, rests, windows, number, is_whole)


def _newest(connection: Connection) -> int:
    return next((number for (number,) in _NUMBER.rows(connection)), 0)


def _windows(rows: Iterable[Any], second: int) -> list[Added]:
    """Of the seconds that count."""
    oldest = second - COUNTED_SECONDS
    # What lies further ahead was counted by a clock that was set back since.
    newest = second + COUNTED_SECONDS
    table = StateJournalRow.__tablename__
    read = (as_json(added, table) for (added,) in rows)
    return [each for added in read for each in added if oldest < each[0] < newest]


def read_one(connection: Connection, name: str) -> SharedInstance | None:
    """One instance's, also after it was removed from the config; None if never used."""
    row = connection.execute(_ONE_INSTANCE, {"name": name}).first()
    return None if row is None else _shared(row)[1]


def clear_errors(connection: Connection, name: str, now: float) -> None:
    """An operator says it is well: errors and rests measured before `now` are void."""
    _clear(connection, name, now, _without_errors)


def clear_rests(connection: Connection, name: str, now: float) -> None:
    """Ends the instance's rests in all workers; what they set later counts again."""
    _clear(connection, name, now, _without_rests)


def end_rests(connection: Connection, name: str, places: Collection[str], now: float) -> None:
    """Ends those of the instance at `places`, and its breaker's, in all workers."""
    _clear(connection, name, now, _without_rests, places)


def forget_old(connection: Connection, now: float) -> None:
    """Deletes windows that no limit asks for any more, and rests that are over."""
    _OVER_RESTS.run(connection, now=now)
    _OLD_JOURNAL.run(connection, before=int(now) - KEPT_WINDOW_SECONDS)


def forget_future(connection: Connection, now: float) -> None:
    """Voids what was measured while the clock was ahead, until it was set back: rests, breakers
    and errors would stand until those moments come, and newer ones would be taken for older.
    What an operator said stands: it may be this clock that is wrong."""
    ahead = now + SET_BACK_SECONDS
    measured = DeploymentStateRow.rest_reason != OPERATOR
    connection.execute(
        delete(DeploymentStateRow).where(DeploymentStateRow.rest_set_at > ahead, measured)
    )
    table = InstanceStateRow.__table__
    corrected: dict[str, dict[str, float | None]] = {
        "breaker_changed_at": dict.fromkeys(BREAKER_COLUMNS),
        "cleared_at": {"cleared_at": None},
        **{moment: {moment: now} for moment in (*MOMENTS, "last_error_time")},
    }
    are_ahead = or_(*(table.c[moment] > ahead for moment in corrected))
    if connection.execute(select(table.c.instance_name).where(are_ahead)).first() is None:
        return
    number = next_number(connection)
    for moment, values in corrected.items():
        wrong = update(InstanceStateRow).where(table.c[moment] > ahead)
        connection.execute(wrong.values(write_number=number, **values))


def _clear(
    connection: Connection,
    name: str,
    now: float,
    merge: Callable[[Table, Any], dict[str, Any]],
    places: Collection[str] | None = None,
) -> None:
    """Of rests those at `places`; None: all."""
    number = next_number(connection)
    ended = delete(DeploymentStateRow).where(DeploymentStateRow.instance_name == name)
    if places is not None:
        ended = ended.where(DeploymentStateRow.deployment.in_(places))
    connection.execute(ended)
    row = {"instance_name": name, "cleared_at": now, "write_number": number}
    upsert(connection, InstanceStateRow, [row], merge)


def _drop_void(connection: Connection, deltas: Deltas) -> None:
    names = sorted(deltas.voidable())
    for first in range(0, len(names), NAMES_AT_ONCE):
        some = InstanceStateRow.instance_name.in_(names[first : first + NAMES_AT_ONCE])
        for name, cleared_at in connection.execute(_CLEARED.where(some)):
            if cleared_at is not None:
                deltas.drop_before(name, cleared_at)
                deltas.drop_errors(name, cleared_at)


def _instance_rows(deltas: Deltas, number: int) -> list[dict[str, Any]]:
    rows = []
    for name in sorted({*deltas.totals, *deltas.moments, *deltas.errors}):
        error = deltas.errors.get(name)
        rows.append(
            {
                **_UNTOUCHED,
                **deltas.totals.get(name, {}),
                **deltas.moments.get(name, {}),
                "instance_name": name,
                "last_error": error.message if error else None,
                "last_error_time": error.at if error else None,
                "write_number": number,
            }
        )
    return rows


def _breaker_rows(deltas: Deltas, number: int) -> list[dict[str, Any]]:
    return [
        {"instance_name": name, "write_number": number}
        | {f"breaker_{field}": value for field, value in news.items()}
        for name, news in sorted((n, asdict(b)) for n, (b, _) in deltas.breakers.items())
    ]


def _one_more(present: Table, _given: Any) -> dict[str, Any]:
    return {"number": present.c.number + 1}


def _without_rests(_present: Table, given: Any) -> dict[str, Any]:
    return {
        "cleared_at": given.cleared_at,
        "last_failure_time": None,
        **dict.fromkeys(BREAKER_COLUMNS, 0.0),
        "breaker_changed_at": given.cleared_at,
        "write_number": given.write_number,
    }


def _without_errors(present: Table, given: Any) -> dict[str, Any]:
    none = {"error_count": 0, "last_error": None, "last_error_time": None}
    return _without_rests(present, given) | none


def _merge_breaker(present: Table, given: Any) -> dict[str, Any]:
    """The later change is right."""
    changed_at = func.coalesce(present.c.breaker_changed_at, 0.0)
    is_later = given.breaker_changed_at > changed_at
    new = {c: case((is_later, given[c]), else_=present.c[c]) for c in BREAKER_COLUMNS}
    return new | {"write_number": given.write_number}


def _merge_instance(present: Table, given: Any) -> dict[str, Any]:
    new = {c: present.c[c] + given[c] for c in TOTALS}
    new |= {c: _later(present.c[c], given[c]) for c in (*MOMENTS, "last_error_time")}
    is_newer = given.last_error_time > func.coalesce(present.c.last_error_time, 0.0)
    new["last_error"] = case((is_newer, given.last_error), else_=present.c.last_error)
    return new | {"write_number": given.write_number}


def _merge_rest(present: Table, given: Any) -> dict[str, Any]:
    """The longer one; but as long as a person wants it left alone, that it refuses the gateway
    says nothing."""
    is_longer = given.rate_limited_until > present.c.rate_limited_until
    is_persons = and_(
        present.c.rest_reason == OPERATOR,
        present.c.rate_limited_until > given.rest_set_at,
        or_(*(given.rest_reason == reason for reason in sorted(MISCONFIGURED))),
    )
    return {
        c: case((and_(is_longer, not_(is_persons)), given[c]), else_=present.c[c])
        for c in ("rate_limited_until", "rest_reason", "rest_set_at")
    }


def _later(present: Any, given: Any) -> Any:
    """The later of two moments, either of which may be NULL."""
    return case(
        (given > func.coalesce(present, 0.0), given),
        else_=present,
    )


def _shared(row: Sequence[Any]) -> tuple[str, SharedInstance]:
    """Of INSTANCE_COLUMNS. The instance's name, and what is shared of it."""
    last_used, succeeded_at, failed_at, error, error_at, cleared_at = row[_OTHERS]
    return row[0], SharedInstance(
        totals=dict(zip(TOTALS, row[_TOTALS], strict=True)),
        last_used=last_used,
        last_success_time=succeeded_at,
        last_failure_time=failed_at,
        last_error=error,
        last_error_time=error_at,
        cleared_at=cleared_at,
        breaker=_breaker(tuple(row[_BREAKER])),
    )


@lru_cache(maxsize=1024)  # of most instances it is one that never changed
def _breaker(columns: tuple[float | None, ...]) -> BreakerNews:
    return BreakerNews(*(column or 0.0 for column in columns))
