"""The way back: the present config and state in the old program's split layout."""

import json
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select, update

from migrations.legacy.backup import new_private_folder, write_private
from migrations.legacy.convert import BLANK_CONFIG, BLANK_STATE, OLD_TOTALS
from migrations.legacy.records import CONFIG_KEYS
from migrations.legacy.tables import reflected
from proxy.core.types import InstanceConfig
from proxy.runtime.references import References, Resolved
from proxy.store.schema import SchemaProblem
from proxy.store.sealed import Unreadable

CONFIG_FILE = "instance_configs.json"
STATE_FILE = "instance_states.json"

# Ours -> the old program's. It knew no `azure_v1`: such an instance needs a look by hand.
OLD_PROVIDERS = {"openai": "generic", "azure_v1": "azure"}

COUNTERS = (
    "total_requests",
    "successful_requests",
    "total_tokens_served",
    "total_upstream_429_errors",
    "total_upstream_400_errors",
    "total_upstream_500_errors",
    "total_upstream_other_errors",
)
# What the old program computes anew from what happens next.
WINDOWS = (
    "error_500_window",
    "error_503_window",
    "error_other_window",
    "client_error_500_window",
    "client_error_503_window",
    "client_error_other_window",
    "upstream_429_window",
    "upstream_400_window",
    "upstream_500_window",
    "upstream_other_window",
    "usage_window",
    "request_window",
)
RATES = (
    "current_error_rate",
    "current_500_rate",
    "current_503_rate",
    "current_client_error_rate",
    "current_client_500_rate",
    "current_client_503_rate",
    "current_upstream_error_rate",
    "current_upstream_429_rate",
    "current_upstream_400_rate",
)


def export(
    connection: Connection, parent: Path, environ: Mapping[str, str] | None = None
) -> Path:
    """Writes both files into a new folder in `parent` (0700, files 0600); returns it.

    The old program knows neither encryption nor references: keys are written as they are used.
    Raises SchemaProblem if one cannot be decrypted, or if files cannot be written.
    """
    names = ("instance_config", "instance_state", "deployment_state")
    config, state, rest = (reflected(connection, n) for n in names)
    now = time.time()
    states = {r["instance_name"]: r for r in connection.execute(select(state)).mappings()}
    until: dict[str, float] = {}
    for row in connection.execute(select(rest)).mappings():
        name, moment = row["instance_name"], row["rate_limited_until"]
        if moment > now:
            until[name] = max(moment, until.get(name, 0.0))
    rows = connection.execute(select(config).order_by(config.c.name)).mappings().all()
    _refuse_unreadable(rows)
    used = _followed(rows, environ).configs
    configs = {row["name"]: _config(row, used.get(row["name"])) for row in rows}
    # Also of those whose config is gone, or never was there: their totals are kept.
    names_of_both = dict.fromkeys((*configs, *sorted(states)))
    old_states = {n: _state(n, states.get(n, {}), until.get(n)) for n in names_of_both}
    try:
        folder = new_private_folder(parent, "downgrade", datetime.now(UTC))
        for file, content in ((CONFIG_FILE, configs), (STATE_FILE, old_states)):
            text = json.dumps(content, indent=2, ensure_ascii=False)
            write_private(folder / file, text.encode())
    except OSError as error:
        raise SchemaProblem(
            f"The old program's files cannot be written in {parent}: {error.strerror}. Nothing"
            " was changed."
        ) from error
    return folder


def mark_written_out(connection: Connection, now: float) -> None:
    """Their totals are in the old program's files now, and will come back with them: an import
    must not add them again."""
    state = reflected(connection, "instance_state")
    unmarked = update(state).where(state.c.legacy_imported_at.is_(None))
    connection.execute(unmarked.values(legacy_imported_at=now))


def leading_nowhere(
    connection: Connection, environ: Mapping[str, str] | None = None
) -> list[str]:
    """Names of instances whose references lead nowhere: they are written as they are."""
    config = reflected(connection, "instance_config")
    rows = connection.execute(select(config)).mappings().all()
    return sorted(_followed(rows, environ).problems)


def unknown_providers(connection: Connection) -> list[str]:
    """Names of instances whose kind the old program does not know: they are written as
    `azure`, and need a look by hand before it starts."""
    config = reflected(connection, "instance_config")
    known = select(config.c.name).where(config.c.provider_type == "azure_v1")
    return list(connection.scalars(known.order_by(config.c.name)))


def asked_with_tokens(connection: Connection) -> list[str]:
    """Names of instances that get a token of Entra ID and no key, of which the old program
    knows nothing: it can ask them only with a key that a person gives it."""
    config = reflected(connection, "instance_config")
    known = select(config.c.name).where(config.c.auth == "entra")
    return list(connection.scalars(known.order_by(config.c.name)))


def _refuse_unreadable(rows: Iterable[Mapping[Any, Any]]) -> None:
    for row in rows:
        for column in ("api_key", "proxy_url", "legacy_extra"):
            if isinstance(row[column], Unreadable):
                raise SchemaProblem(
                    f"{column} of {row['name']!r} cannot be decrypted: {row[column].reason}."
                    " Nothing was changed. Put the right key back, or remove the instance."
                )


def _followed(rows: Iterable[Mapping[Any, Any]], environ: Mapping[str, str] | None) -> Resolved:
    references = References() if environ is None else References(environ)
    return references.resolved(
        InstanceConfig(row["name"], row["api_base"], row["api_key"], proxy_url=row["proxy_url"])
        for row in rows
    )


def _config(row: Mapping[Any, Any], used: InstanceConfig | None) -> dict[str, Any]:
    values = {key: row[key] for key in CONFIG_KEYS}
    if used is not None:
        values |= {"api_key": used.api_key, "proxy_url": used.proxy_url}
    values["provider_type"] = OLD_PROVIDERS.get(row["provider_type"], row["provider_type"])
    kept = row["legacy_extra"] or {}
    return {**kept, **values, **_as_it_was_written(values, kept, BLANK_CONFIG)}


def _as_it_was_written(
    values: Mapping[str, Any], kept: Mapping[str, Any], taken: Mapping[str, Any]
) -> dict[str, Any]:
    """What said nothing in the file, where it still does here; and the name inside."""
    blank = {k: v for k, v in kept.items() if k in taken and values[k] == taken[k]}
    return blank | ({"name": kept["name"]} if "name" in kept else {})


def _state(name: str, row: Mapping[Any, Any], until: float | None) -> dict[str, Any]:
    old = row.get("legacy_state") or {}
    extra = old.get("extra") or {}
    values = {
        "name": name,
        "status": "rate_limited" if until else "healthy",
        "error_count": row.get("error_count", 0),
        "last_error": row.get("last_error"),
        "last_error_time": row.get("last_error_time"),
        "rate_limited_until": until,
        "current_tpm": 0,
        "current_rpm": 0,
        "last_used": row.get("last_used") or 0.0,
        "avg_latency_ms": _average_ms(row, old),
        "utilization_percentage": 0.0,
        "connection_status": "unknown",
        "health_status": "unknown",
        **{column: row.get(column, 0) for column in COUNTERS},
        **{key: old.get(key, 0) for key in OLD_TOTALS},
        **{key: {} for key in WINDOWS},
        **dict.fromkeys(RATES, 0.0),
    }
    kept = {**(old.get("blank") or {}), **({"name": extra["name"]} if "name" in extra else {})}
    return {**extra, **values, **_as_it_was_written(values, kept, BLANK_STATE)}


def _average_ms(row: Mapping[Any, Any], old: Mapping[str, Any]) -> float | None:
    """The old figure as long as nothing was added to it; else ours over both."""
    measured = row.get("successful_requests", 0)
    before = old.get("successful_requests", 0)
    if measured == before:
        return old.get("avg_latency_ms")
    if "avg_latency_ms" not in old:
        measured -= before  # of these we only know that they were
    return row["latency_total_ms"] / measured if measured > 0 else None
