"""All configs and clients as of one revision: immutable, replaced whole."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from threading import Lock

from proxy.core.catalog import Catalog
from proxy.core.door import KnownKey, known_key
from proxy.core.kept import Homes
from proxy.core.prices import NO_PRICES, Prices, cost_nano, find
from proxy.core.providers import homes
from proxy.core.roles import Admin
from proxy.core.types import ENTRA, InstanceConfig, Usage, is_same_upstream
from proxy.runtime.entra import NO_TOKEN, Tokens
from proxy.runtime.references import References, Resolved, Versions
from proxy.runtime.tell import tell
from proxy.store import admin_keys, instances, keys, prices, quota_groups, revisions
from proxy.store.db import Connection, Database, file_identity
from proxy.store.instances import StoredInstance
from proxy.store.quota_groups import StoredGroup

logger = logging.getLogger(__name__)

# Files that secrets are in are looked at once in so many seconds.
LOOK_SECONDS = 1.0
# What was read before the fork is for the workers that start then, not for one that follows
# another later; even in so many seconds it is used only if the database still is what it was.
PREPARED_SECONDS = 30.0
NAMED = 10  # instances that one log line names
# Of one that took another's place while the database was away.
NO_CONFIG = "This worker began after that, and has no config yet: it answers 503."


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an instance is out of service, and since when this worker knows."""

    text: str
    since: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`catalog` knows the enabled instances, `disabled` the others; `keys` are clients' and
    `admins` operators', by their hash.

    `instances` are as they were written. `configs`, by name, and those in the catalog have the
    secrets that references lead to; where there is a problem with an instance, it is in
    `problems` instead, and is not asked. Who only lacks a token of Entra ID (`lack` says why)
    is in both: verified, it may have one. `files` are those that secrets came from.
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
    lack: str | None = None
    files: Versions = field(default_factory=dict)
    # In lower case.
    models_of_deployments: Mapping[str, str] = field(default_factory=dict)
    # Also by who is out of service.
    homes: Homes = field(default_factory=dict)
    # Of the vault, when it opened what is here.
    vault_version: object = None

    def cost_nano(self, model: str, usage: Usage) -> int:
        """What that usage costs, in billionths; 0 where there is no price. A model that was
        asked for by its deployment's name costs what it costs."""
        if not self.prices:
            return 0
        price = find(self.prices, model, self.model_of(model))
        return cost_nano(price, usage) if price else 0

    def model_of(self, deployment: str) -> str:
        """The model that some instance has under that name; the name itself if none has."""
        return self.models_of_deployments.get(deployment.lower(), deployment)

    def spelling(self, model: str) -> str | None:
        """As some config spells it; None: no config names it."""
        return self.catalog.spelling(model) or self.disabled.spelling(model)

    def created_at(self, model: str) -> float:
        """Since when some enabled instance serves `model`."""
        servings = self.catalog.serving(model)
        return min((self.instances[s.config.name].created_at for s in servings), default=0.0)

    @property
    def keys_are_closed(self) -> bool:
        """There are keys of clients or admins, and none can be checked."""
        return self.pepper is None and bool(self.keys or self.admins)

    @property
    def out_of_service(self) -> list[str]:
        """The enabled ones with a problem."""
        return [name for name in self.problems if self.instances[name].config.enabled]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What was stored `at` a moment, in the database's `file`; references are not followed."""

    stored: Snapshot
    file: tuple[int, int] | None
    at: float


class Snapshots:
    """Holds the present one. Readers take `current` without a lock and keep what they took.

    `tokens` are told whether an instance needs them, and say whether it can have them.
    """

    def __init__(
        self,
        database: Database,
        references: References | None = None,
        tokens: Tokens | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self.references = references or References()
        self._tokens = tokens
        self._clock = clock
        self._lock = Lock()
        self._is_outdated = False
        self._prepared: _Prepared | None = None
        self._looked_at = 0.0
        self._moved: set[str] = set()
        self._vault_problem: str | None = None
        self._heard_lack: str | None = None
        self.current = Snapshot()
        # How often it became another. By it one sees that it did, and keeps no former one.
        self.changes = 0
        self.is_read = False  # ever, by this process: else `current` is empty for that reason

    @property
    def is_outdated(self) -> bool:
        """The next `load` reads the database, whatever its revision. Until then, the present
        one serves."""
        return self._is_outdated

    def forget(self) -> None:
        """The database is another one: its config is right, whatever its revision."""
        self._prepared = None
        self._is_outdated = True

    def prepare(self) -> None:
        """In the parent, before the fork: reads what is stored for all workers, which share its
        memory. `current` stays as it is: each worker takes what was read, with what references
        lead to then, and tells of it. If it cannot be read, they read it themselves."""
        file, now = self._file(), self._clock()
        try:
            with self._database.read() as connection:
                stored = self._stored(connection, revisions.newest(connection))
        except Exception:  # noqa: BLE001  # no start fails here: workers say what is wrong
            return
        self._prepared = _Prepared(stored, file, now)

    def reload(self) -> Snapshot:
        """Reads what this process itself has just changed. Raises StoreUnavailable."""
        with self._database.read() as connection:
            return self.load(connection)

    def load(self, connection: Connection) -> Snapshot:
        """Reads the database if it has a newer revision. Never goes back: of two threads
        at once, the newer revision stays."""
        revision = revisions.newest(connection)
        if revision <= self.current.revision and not self._is_outdated:
            self.is_read = True
            return self.current
        fresh = self._take_prepared(revision) or self._stored(connection, revision)
        lack = self._lack()
        resolved = self._resolved(fresh, lack)
        with self._lock:
            if fresh.revision > self.current.revision or self._is_outdated:
                self._is_outdated = False
                before = self.current.revision
                self._take(fresh, resolved, lack)
                _tell_revision(before, revision)
            current = self.current
        self.is_read = True
        self._tell_tokens(current)
        return current

    def _take_prepared(self, revision: int) -> Snapshot | None:
        """Once, and only what would be read now: the same version of the same file, with the
        same keys of the vault."""
        prepared, self._prepared = self._prepared, None
        if prepared is None:
            return None
        stored = prepared.stored
        is_same = (
            stored.revision == revision
            and prepared.file == self._file()
            and stored.vault_version == self._database.vault.version
            and 0 <= self._clock() - prepared.at < PREPARED_SECONDS
        )
        return stored if is_same else None

    def _file(self) -> tuple[int, int] | None:
        path = self._database.file
        return None if path is None else file_identity(str(path))

    def _stored(self, connection: Connection, revision: int) -> Snapshot:
        """As it is written, with nothing in its catalogs yet."""
        vault_version = self._database.vault.version
        stored = {s.config.name: s for s in instances.load_all(connection)}
        return Snapshot(
            revision,
            stored,
            {hashed: known_key(*to) for hashed, to in keys.load_all(connection).items()},
            {g.group.name: g for g in quota_groups.load_all(connection)},
            pepper=keys.pepper(connection),
            admins=admin_keys.load_all(connection),
            prices=prices.load_all(connection),
            models_of_deployments={
                deployment.lower(): model
                for each in stored.values()
                for model, deployment in each.config.model_deployments.items()
            },
            vault_version=vault_version,
        )

    def follow(self) -> None:
        """At most once a second, looks whether a file that secrets are in has changed, and
        takes them; also the vault's; and whether there is a token. Asks no database."""
        now = self._clock()
        if 0 <= now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        current = self.current
        self._tell_vault()
        if current.vault_version != self._database.vault.version:
            self._is_outdated = True
        lack = self._lack()
        if lack != current.lack or self.references.changed(current.files):
            resolved = self._resolved(current, lack)
            with self._lock:
                if self.current is current:  # else a newer one was resolved meanwhile
                    self._take(current, resolved, lack)
            self._tell_tokens(self.current)

    def _tell_vault(self) -> None:
        """One line when it begins and when it ends. While this process has the keys, all goes
        on; the next start would not find them. One that started without has none."""
        vault = self._database.vault
        former, now = self._vault_problem, vault.problem
        self._vault_problem = now
        if now and not former:
            nor = "nor read after the next start" if vault.count else "nor read"
            said = (
                f"Secrets cannot be stored, {nor}: %s. Put the key back"
                " from where its copy is; `flask secrets check` tells the rest."
            )
            tell(logger, "vault_closed", said, now, why=now)
        elif former and not now:
            tell(logger, "vault_opened", "The key for secrets is there again.")

    def moved(self) -> frozenset[str]:
        """Instances to which references now give another key or address, since `settled`: what
        was measured with the former is void."""
        with self._lock:
            return frozenset(self._moved)

    def settled(self, names: Iterable[str]) -> None:
        with self._lock:
            self._moved.difference_update(names)

    def note_lack(self, why: str | None) -> None:
        """For who has no tokens of its own: why the gateway that runs has none, if it has none.
        `follow` takes it."""
        self._heard_lack = why

    def _lack(self) -> str | None:
        own = self._tokens.lack() if self._tokens is not None else None
        return own or self._heard_lack

    def _resolved(self, snapshot: Snapshot, lack: str | None) -> Resolved:
        """A gateway that cannot ask one instance serves with the others."""
        written = [stored.config for stored in snapshot.instances.values()]
        found = self.references.resolved(written)
        names = [c.name for c in written if c.auth == ENTRA]
        text = self._tokens.problem() if names and self._tokens is not None else None
        if text is None:
            # Who lacks a token stays usable: it is asked for again and again.
            lacking = dict.fromkeys(names, f"{NO_TOKEN}: {lack}.") if lack else {}
            return replace(found, problems={**lacking, **found.problems})
        problems = {**dict.fromkeys(names, f"auth is entra, but {text}."), **found.problems}
        usable = {n: c for n, c in found.configs.items() if n not in problems}
        return replace(found, configs=usable, problems=problems)

    def _tell_tokens(self, current: Snapshot) -> None:
        if self._tokens is not None:
            self._tokens.want(
                any(c.enabled and c.auth == ENTRA for c in current.configs.values())
            )

    def _take(self, fresh: Snapshot, resolved: Resolved, lack: str | None) -> None:
        """With the lock held."""
        former, now = self.current, self._clock()
        groups = {name: g.group for name, g in fresh.groups.items()}
        # What is out of service is known to be there, and is never asked.
        out = [fresh.instances[name].config for name in resolved.problems]
        in_order = [c for n, c in resolved.configs.items() if n not in resolved.problems]
        self.current = replace(
            fresh,
            catalog=Catalog([c for c in in_order if c.enabled], groups),
            disabled=Catalog([*(c for c in in_order if not c.enabled), *out]),
            configs=resolved.configs,
            problems={
                name: Problem(text, former.problems[name].since)
                if name in former.problems
                else Problem(text, now)
                for name, text in resolved.problems.items()
            },
            lack=lack,
            files=resolved.files,
            homes=homes(
                resolved.configs.get(name, stored.config)
                for name, stored in fresh.instances.items()
            ),
        )
        self.changes += 1
        self._moved |= set(_moved(former, self.current))
        _tell(former, self.current)
        self._tell_keys(former, self.current)

    def _tell_keys(self, former: Snapshot, current: Snapshot) -> None:
        if current.keys_are_closed and not former.keys_are_closed:
            vault = self._database.vault
            why = vault.problem or f"the secret for it was not encrypted with {vault.source}"
            said = (
                "No key of a client or admin can be checked, and who comes with one is refused:"
                " %s. Put the right key back; `flask secrets check` tells what else it is for."
            )
            tell(logger, "keys_unreadable", said, why, why=why)
        elif former.keys_are_closed and not current.keys_are_closed:
            tell(logger, "keys_readable", "Keys can be checked again.")


def _tell_revision(before: int, revision: int) -> None:
    said = "config is at revision %d"
    tell(logger, "config_changed", said, revision, revision=revision)
    if revision < before:
        said = "the config went back from revision %d to %d: the database is another one"
        fields = {"revision": revision, "before": before}
        tell(logger, "config_went_back", said, before, revision, **fields)


def _moved(former: Snapshot, current: Snapshot) -> Iterable[str]:
    """Without a change by an operator, who voids by himself what was measured."""
    for name, config in current.configs.items():
        before = former.instances.get(name)
        if before is None or before.revision != current.instances[name].revision:
            continue
        known = former.configs.get(name)
        if known is None or (known is not config and not is_same_upstream(known, config)):
            yield name


def _tell(former: Snapshot, current: Snapshot) -> None:
    """One line for each reason, when it begins and when it ends; names would be thousands where
    the vault's key is lost."""
    before, now = set(former.out_of_service), set(current.out_of_service)
    reasons: dict[str, list[str]] = {}
    for name in sorted(now - before):
        reasons.setdefault(current.problems[name].text, []).append(name)
    for reason, names in reasons.items():
        tell(
            logger,
            "out_of_service",
            "out of service: %s: %s",
            _named(names),
            reason,
            instances=names[:NAMED],
            why=reason,
        )
    # Who was removed or disabled meanwhile is not back.
    asked = {name for name, stored in current.instances.items() if stored.config.enabled}
    back = sorted((before - now) & asked)
    if back:
        said = "no longer out of service: %s"
        tell(logger, "back_in_service", said, _named(back), instances=back[:NAMED])


def _named(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
