"""Our tables as the database has them: migrations must not trust later models."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import JSON, Connection, MetaData, Table
from sqlalchemy.types import TypeEngine

from proxy.store.sealed import Sealed, SealedJson

# What a database cannot tell of its columns: that we encrypt them.
SEALED: Mapping[tuple[str, str], TypeEngine[Any]] = {
    ("instance_config", "api_key"): Sealed(),
    ("instance_config", "proxy_url"): Sealed(),
    ("instance_config", "legacy_extra"): SealedJson(),
    ("config_change", "secrets"): SealedJson(),
}


def reflected(connection: Connection, name: str, metadata: MetaData | None = None) -> Table:
    found = Table(name, metadata or MetaData(), autoload_with=connection)
    for column in found.columns:
        sealed = SEALED.get((name, column.name))
        if sealed is not None:
            column.type = sealed
        elif isinstance(column.type, JSON):
            column.type.none_as_null = True
    return found
