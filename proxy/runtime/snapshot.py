"""All configs and clients as of one revision: immutable, replaced whole."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Lock

from proxy.core.catalog import Catalog
from proxy.core.door import KnownKey, known_key
from proxy.core.prices import NO_PRICES, Prices, cost_nano, find
from proxy.core.roles import Admin
from proxy.core.types import ENTRA, InstanceConfig, Usage
from proxy.runtime.entra import Tokens
from proxy.store import admin_keys, instances, keys, prices, quota_groups, revisions
from proxy.store.db import Connection, Database
from proxy.store.instances import StoredInstance
from proxy.store.quota_groups import StoredGroup


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an instance is out of service, and since when this worker knows."""

    text: str
    since: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`catalog` knows the enabled instances, `disabled` the others; `keys` are clients' and
    `admins` operators', by their hash.

    `configs`: those of the instances, by name; but where there is a problem with an instance,
    it is in `problems` instead, and is not asked.
    """

    revision: int = 0
    instances: Mapping[str, StoredInstance] = field(default_factory=dict)
    keys: Mapping[str, KnownKey] = field(default_factory=dict)
    groups: Mapping[str, StoredGroup] = field(default_factory=dict)
    catalog: Catalog = field(default_factory=lambda: Catalog([]))
    disabled: Catalog = field(default_factory=lambda: Catalog([]))
    configs: Mapping[str, InstanceConfig] = field(default_factory=dict)
    # What hashes of keys are keyed with; None: no key can be checked.
    pepper: bytes | None = field(default=None, repr=False)
    admins: Mapping[str, Admin] = field(default_factory=dict)
    problems: Mapping[str, Problem] = field(default_factory=dict)
    prices: Prices = NO_PRICES

    def cost_nano(self, model: str, usage: Usage) -> int:
        """What that usage costs, in billionths; 0 where there is no price."""
        price = find(self.prices, model) if self.prices else None
        return cost_nano(price, usage) if price else 0

    def created_at(self, model: str) -> float:
        """Since when some enabled instance serves `model`."""
        servings = self.catalog.serving(model)
        return min((self.instances[s.config.name].created_at for s in servings), default=0.0)

    @property
    def out_of_service(self) -> list[str]:
        """The enabled ones with a problem."""
        return [name for name in self.problems if self.instances[name].config.enabled]


logger = logging.getLogger(__name__)


class Snapshots:
    """Holds the present one. Readers take `current` without a lock and keep what they took.

    `tokens` are told whether an instance needs them, and say whether it can have them.
    """

    def __init__(
        self,
        database: Database,
        tokens: Tokens | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._tokens = tokens
        self._clock = clock
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
        problems = self._problems(stored)
        known = [s.config for s in stored]
        usable = [c for c in known if c.name not in problems]
        fresh = Snapshot(
            revision,
            {s.config.name: s for s in stored},
            {hashed: known_key(*to) for hashed, to in keys.load_all(connection).items()},
            groups,
            Catalog([c for c in usable if c.enabled], limits),
            # What is out of service is known to be there, and is never asked.
            Catalog([c for c in known if c.name in problems or not c.enabled]),
            {c.name: c for c in usable},
            keys.pepper(connection),
            admin_keys.load_all(connection),
            problems,
            prices.load_all(connection),
        )
        with self._lock:
            if fresh.revision > self.current.revision or self._is_another_database:
                self._is_another_database = False
                before, self.current = self.current, fresh
                logger.info("config is at revision %d", revision)
                _tell(before, fresh)
            current = self.current
        if self._tokens is not None:
            self._tokens.want(
                any(c.enabled and c.auth == ENTRA for c in current.configs.values())
            )
        return current

    def _problems(self, stored: list[StoredInstance]) -> dict[str, Problem]:
        """By name. A gateway that cannot ask one instance serves with the others."""
        names = [s.config.name for s in stored if s.config.auth == ENTRA]
        text = self._tokens.problem() if names and self._tokens is not None else None
        if text is None:
            return {}
        now, former = self._clock(), self.current.problems
        problem = Problem(f"auth is entra, but {text}", now)
        return {name: former.get(name, problem) for name in names}


def _tell(former: Snapshot, current: Snapshot) -> None:
    """One line for each reason, when it begins."""
    reasons: dict[str, list[str]] = {}
    for name in current.out_of_service:
        if name not in former.problems:
            reasons.setdefault(current.problems[name].text, []).append(name)
    for reason, names in reasons.items():
        logger.error("out of service: %s: %s", ", ".join(names), reason)
