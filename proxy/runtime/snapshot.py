"""All configs and clients as of one revision: immutable, replaced whole."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock

from proxy.core.catalog import Catalog
from proxy.core.types import Client, InstanceConfig
from proxy.store import instances, keys, revisions
from proxy.store.db import Database
from proxy.store.instances import StoredInstance


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`catalog` knows the enabled instances, `disabled` the others; `clients`: by key hash."""

    revision: int = 0
    instances: Mapping[str, StoredInstance] = field(default_factory=dict)
    clients: Mapping[str, Client] = field(default_factory=dict)
    catalog: Catalog = field(default_factory=lambda: Catalog([]))
    disabled: Catalog = field(default_factory=lambda: Catalog([]))

    def created_at(self, model: str) -> float:
        """Since when some enabled instance serves `model`."""
        servings = self.catalog.serving(model)
        return min((self.instances[s.config.name].created_at for s in servings), default=0.0)


class Snapshots:
    """Holds the present one. Readers take `current` without a lock and keep what they took."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = Lock()
        self.current = Snapshot()

    def reload(self) -> Snapshot:
        """Reads the database. Never goes back: of two at once the newer revision stays.

        Raises StoreUnavailable, and keeps the present one then.
        """
        with self._database.read() as connection:
            revision = revisions.newest(connection)
            stored = instances.load_all(connection)
            clients = keys.load_all(connection)
        fresh = Snapshot(
            revision,
            {s.config.name: s for s in stored},
            clients,
            Catalog(_configs(stored, enabled=True)),
            Catalog(_configs(stored, enabled=False)),
        )
        with self._lock:
            if fresh.revision >= self.current.revision:
                self.current = fresh
            return self.current

    def is_older_than(self, revision: int) -> bool:
        return self.current.revision < revision


def _configs(stored: list[StoredInstance], *, enabled: bool) -> list[InstanceConfig]:
    return [s.config for s in stored if s.config.enabled is enabled]
