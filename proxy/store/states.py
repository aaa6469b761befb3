"""State between memory and SQLite: deltas are added in SQL, everyone's sums read back."""

from collections import Counter
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import Connection, RowMapping, Table, case, delete, func, select

from proxy.core.breaker import BreakerNews
from proxy.core.deltas import TOTALS, Deltas, Place, Rest, SharedInstance, SharedState
from proxy.core.limiter import COUNTED_SECONDS
from proxy.store.db import upsert
from proxy.store.models import DeploymentStateRow, InstanceStateRow, StateWindowRow

KEPT_WINDOW_SECONDS = 120
BREAKER_COLUMNS = tuple(f"breaker_{f.name}" for f in fields(BreakerNews))
MOMENTS = ("last_used", "last_success_time", "last_failure_time")


def add(connection: Connection, deltas: Deltas) -> None:
    """Adds one worker's deltas, but for its usage (usage.py).

    Takes out of `deltas` what an operator has made void since it was measured: a worker
    that writes a moment later would bring it back for all.
    """
    _drop_void(connection, deltas)
    upsert(connection, InstanceStateRow, _instance_rows(deltas), _merge_instance)
    upsert(connection, InstanceStateRow, _breaker_rows(deltas), _merge_breaker)
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
    upsert(
        connection,
        StateWindowRow,
        [
            {
                "second_at": second,
                "instance_name": instance,
                "deployment": deployment,
                "tokens": counts["tokens"],
                "requests": counts["requests"],
            }
            for (second, instance, deployment), counts in deltas.windows.items()
        ],
        _add_window,
    )


def read(connection: Connection, now: float) -> SharedState:
    """What all workers measured, as of now."""
    instances = {
        row["instance_name"]: _shared(row)
        for row in connection.execute(select(InstanceStateRow.__table__)).mappings()
    }
    rests: dict[Place, Rest] = {}
    for row in connection.execute(
        select(DeploymentStateRow.__table__).where(DeploymentStateRow.rate_limited_until > now)
    ).mappings():
        rests[row["instance_name"], row["deployment"]] = Rest(
            row["rate_limited_until"], row["rest_reason"], row["rest_set_at"]
        )
    windows: dict[Place, list[tuple[int, int, int]]] = {}
    for name, deployment, second, tokens, requests in connection.execute(
        select(
            StateWindowRow.instance_name,
            StateWindowRow.deployment,
            StateWindowRow.second_at,
            StateWindowRow.tokens,
            StateWindowRow.requests,
        ).where(
            StateWindowRow.second_at > int(now) - COUNTED_SECONDS,
            # What lies further ahead was counted by a clock that was set back since.
            StateWindowRow.second_at < int(now) + COUNTED_SECONDS,
        )
    ):
        windows.setdefault((name, deployment), []).append((second, tokens, requests))
    return SharedState(instances, rests, windows)


def read_one(connection: Connection, name: str) -> SharedInstance | None:
    """One instance's, also after it was removed from the config; None if never used."""
    found = connection.execute(
        select(InstanceStateRow.__table__).where(InstanceStateRow.instance_name == name)
    ).mappings()
    row = found.first()
    return None if row is None else _shared(row)


def clear_errors(connection: Connection, name: str, now: float) -> None:
    """An operator says it is well: errors and rests measured before `now` are void."""
    clear_rests(connection, name, now)
    upsert(
        connection,
        InstanceStateRow,
        [{"instance_name": name, "cleared_at": now}],
        lambda _present, _given: {
            "error_count": 0,
            "last_error": None,
            "last_error_time": None,
        },
    )


def clear_rests(connection: Connection, name: str, now: float) -> None:
    """Ends the instance's rests in all workers; what they set later counts again."""
    connection.execute(
        delete(DeploymentStateRow).where(DeploymentStateRow.instance_name == name)
    )
    upsert(
        connection,
        InstanceStateRow,
        [{"instance_name": name, "cleared_at": now}],
        lambda _present, given: {
            "cleared_at": given.cleared_at,
            "last_failure_time": None,
            **dict.fromkeys(BREAKER_COLUMNS, 0.0),
            "breaker_changed_at": given.cleared_at,
        },
    )


def forget_old(connection: Connection, now: float) -> None:
    """Deletes windows that no limit asks for any more, and rests that are over."""
    connection.execute(
        delete(DeploymentStateRow).where(DeploymentStateRow.rate_limited_until < now)
    )
    connection.execute(
        delete(StateWindowRow).where(StateWindowRow.second_at < int(now) - KEPT_WINDOW_SECONDS)
    )


def _drop_void(connection: Connection, deltas: Deltas) -> None:
    rows = connection.execute(
        select(InstanceStateRow.instance_name, InstanceStateRow.cleared_at)
    )
    for name, cleared_at in rows:
        if cleared_at is None:
            continue
        deltas.drop_before(name, cleared_at)
        if name in deltas.errors and deltas.errors[name].at <= cleared_at:
            del deltas.errors[name]


def _instance_rows(deltas: Deltas) -> list[dict[str, Any]]:
    rows = []
    for name in sorted({*deltas.totals, *deltas.moments, *deltas.errors}):
        counts = deltas.totals.get(name, Counter())
        moments = deltas.moments.get(name, {})
        error = deltas.errors.get(name)
        row: dict[str, Any] = {"instance_name": name}
        row |= {column: counts[column] for column in TOTALS}
        row |= {column: moments.get(column) for column in MOMENTS}
        row["last_error"] = error.message if error else None
        row["last_error_time"] = error.at if error else None
        rows.append(row)
    return rows


def _breaker_rows(deltas: Deltas) -> list[dict[str, Any]]:
    return [
        {"instance_name": name} | {f"breaker_{field}": value for field, value in news.items()}
        for name, news in sorted((n, asdict(b)) for n, (b, _) in deltas.breakers.items())
    ]


def _merge_breaker(present: Table, given: Any) -> dict[str, Any]:
    """The later change is right."""
    changed_at = func.coalesce(present.c.breaker_changed_at, 0.0)
    is_later = given.breaker_changed_at > changed_at
    return {c: case((is_later, given[c]), else_=present.c[c]) for c in BREAKER_COLUMNS}


def _merge_instance(present: Table, given: Any) -> dict[str, Any]:
    new = {c: present.c[c] + given[c] for c in TOTALS}
    new |= {c: _later(present.c[c], given[c]) for c in (*MOMENTS, "last_error_time")}
    is_newer = given.last_error_time > func.coalesce(present.c.last_error_time, 0.0)
    new["last_error"] = case((is_newer, given.last_error), else_=present.c.last_error)
    return new


def _merge_rest(present: Table, given: Any) -> dict[str, Any]:
    longer = given.rate_limited_until > present.c.rate_limited_until
    return {
        c: case((longer, given[c]), else_=present.c[c])
        for c in ("rate_limited_until", "rest_reason", "rest_set_at")
    }


def _add_window(present: Table, given: Any) -> dict[str, Any]:
    return {c: present.c[c] + given[c] for c in ("tokens", "requests")}


def _later(present: Any, given: Any) -> Any:
    """The later of two moments, either of which may be NULL."""
    return case(
        (given > func.coalesce(present, 0.0), given),
        else_=present,
    )


def _shared(row: RowMapping) -> SharedInstance:
    return SharedInstance(
        totals={c: row[c] for c in TOTALS},
        cleared_at=row["cleared_at"],
        breaker=BreakerNews(*(row[c] or 0.0 for c in BREAKER_COLUMNS)),
        last_error=row["last_error"],
        last_error_time=row["last_error_time"],
        **{c: row[c] for c in MOMENTS},
    )
