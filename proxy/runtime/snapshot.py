"""All configs and clients as of one revision: immutable, replaced whole."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock

from proxy.core.catalog import Catalog
from proxy.core.roles import Admin
from proxy.core.types import Client, InstanceConfig
from proxy.store import admin_keys, instances, keys, quota_groups, revisions
from proxy.store.db import Connection, Database
from proxy.store.instances import StoredInstance
from proxy.store.quota_groups import StoredGroup


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`catalog` knows the enabled instances, `disabled` the others; `clients` and `admins`: by
    key hash.

    `configs`: those of the instances, by name.
    """

    revision: int = 0
    instances: Mapping[str, StoredInstance] = field(default_factory=dict)
    clients: Mapping[str, Client] = field(default_factory=dict)
    groups: Mapping[str, StoredGroup] = field(default_factory=dict)
    catalog: Catalog = field(default_factory=lambda: Catalog([]))
    disabled: Catalog = field(default_factory=lambda: Catalog([]))
    configs: Mapping[str, InstanceConfig] = field(default_factory=dict)
    # What hashes of keys are keyed with; None: no key can be checked.
    pepper: bytes | None = field(default=None, repr=False)
    admins: Mapping[str, Admin] = field(default_factory=dict)

    def created_at(self, model: str) -> float:
        """Since when some enabled instance serves `model`."""
        servings = self.catalog.serving(model)
        return min((self.instances[s.config.name].created_at for s in servings), default=0.0)


logger = logging.getLogger(__name__)


class Snapshots:
    """Holds the present one. Readers take `current` without a lock and keep what they took."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = Lock()
        self._is_another_database = False
        self.current = Snapshot()

    def forget(self) -> None:
        """The database is another one: its config is right, whatever its revision. Until it is
        loaded, the present one serves."""
        self._is_another_database = True

    def reload(self) -> Snapshot:
        """Reads what this process itself has just changed. Raises StoreUnavailable."""
        with self._database.read() as connection:
            return self.load(connection)

    def load(self, connection: Connection) -> Snapshot:
        """Reads the database if it has a newer revision. Never goes back: of two threads
        at once, the newer revision stays."""
        revision = revisions.newest(connection)
        if revision <= self.current.revision and not self._is_another_database:
            return self.current
        stored = instances.load_all(connection)
        groups = {g.group.name: g for g in quota_groups.load_all(connection)}
        limits = {name: g.group for name, g in groups.items()}
        fresh = Snapshot(
            revision,
            {s.config.name: s for s in stored},
            keys.load_all(connection),
            groups,
            Catalog(_configs(stored, enabled=True), limits),
            Catalog(_configs(stored, enabled=False)),
            {s.config.name: s.config for s in stored},
            keys.pepper(connection),
            admin_keys.load_all(connection),
        )
        with self._lock:
            if fresh.revision > self.current.revision or self._is_another_database:
                self._is_another_database = False
                self.current = fresh
                logger.info("config is at revision %d", revision)
            return self.current


def _configs(stored: list[StoredInstance], *, enabled: bool) -> list[InstanceConfig]:
    return [s.config for s in stored if s.config.enabled is enabled]
