"""What an operator may change of all config at once: first looked at, then in one revision."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from proxy.core.config_document import Document
from proxy.core.config_history import REMOVED
from proxy.core.config_plan import (
    Change,
    Plan,
    differences,
    other_upstreams,
    planned,
    shown_plan,
    without_lost_secrets,
)
from proxy.core.masking import SECRET_FIELDS
from proxy.core.references import is_reference
from proxy.errors import NotFound, PreconditionFailed
from proxy.runtime.snapshot import Snapshots
from proxy.runtime.state import State
from proxy.store import config, revisions
from proxy.store.db import Connection, Database
from proxy.store.revisions import Author

# From the present document to the wanted one, and sentences about it. It may raise.
Wanted = Callable[[Document], tuple[Document, Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """`revision` is the config's from now on: the plan's own if it was carried out."""

    plan: Plan
    revision: int
    is_applied: bool = False


def shown_outcome(outcome: Outcome) -> dict[str, Any]:
    """As JSON; secrets are masked."""
    return {
        "applied": outcome.is_applied,
        "revision": outcome.revision,
        "plan": shown_plan(outcome.plan),
    }


class ConfigHand:
    """The other workers follow within one sync interval. Thread-safe."""

    def __init__(self, database: Database, state: State, snapshots: Snapshots) -> None:
        self._database = database
        self._state = state
        self._snapshots = snapshots

    def document(self) -> tuple[Document, int]:
        """The present config, secrets whole, and its revision."""
        with self._database.read() as connection:
            return config.load(connection), revisions.newest(connection)

    def difference(self, older: int, newer: int | None) -> tuple[tuple[Change, ...], int]:
        """What became other from one revision to another, None: the newest; and the number of
        that. Raises NotFound."""
        with self._database.read() as connection:
            present = revisions.newest(connection)
            newer = present if newer is None else newer
            _check_known(present, older, newer)
            found = differences(
                config.as_of(connection, older), config.as_of(connection, newer)
            )
            return found, newer

    def bring(
        self, wanted: Wanted, *, author: Author, dry_run: bool, if_match: int | None = None
    ) -> Outcome:
        """The config becomes the wanted one. What is equal already makes no revision; nor does
        a dry run. Raises PreconditionFailed if `if_match` is not the config's revision."""

        def plan(connection: Connection) -> Plan:
            present = config.load(connection)
            return planned(present, *wanted(present))

        return self._carry_out(plan, "config imported", author, dry_run, if_match)

    def roll_back(
        self, number: int, *, author: Author, dry_run: bool, if_match: int | None = None
    ) -> Outcome:
        """The config becomes what revision `number` left. As `bring`; raises NotFound, too."""

        def plan(connection: Connection) -> Plan:
            _check_known(revisions.newest(connection), number)
            present = config.load(connection)
            then = config.as_of(connection, number)
            return planned(present, *without_lost_secrets(present, then))

        action = f"config rolled back to {number}"
        return self._carry_out(plan, action, author, dry_run, if_match)

    def _carry_out(
        self,
        plan: Callable[[Connection], Plan],
        action: str,
        author: Author,
        dry_run: bool,
        if_match: int | None,
    ) -> Outcome:
        with self._database.read() as connection:
            revision = revisions.newest(connection)
            _check_match(if_match, revision)
            made = self._with_lacks(plan(connection))
        if dry_run or not made.changes:
            return Outcome(made, revision)
        with self._database.session() as session:
            connection = session.connection()
            # It was made without the lock, which nobody should hold for long.
            now = revisions.newest(connection)
            if now != revision:
                _check_match(if_match, now)
                made = self._with_lacks(plan(connection))
            if not made.changes:
                return Outcome(made, now)
            revision = config.apply(session, made.changes, author=author, action=action)
        self._follow(made.changes)
        return Outcome(made, revision, is_applied=True)

    def _with_lacks(self, plan: Plan) -> Plan:
        """It tells, too, of new references that lead nowhere: with these an instance cannot be
        asked. They are followed where this runs."""
        notes = (
            f"instance {change.name!r}: {problem} Until then it is out of service."
            for change in plan.changes
            if change.kind == "instance" and change.effect != REMOVED
            for name, (_, value) in sorted(change.fields.items())
            if name in SECRET_FIELDS and isinstance(value, str) and is_reference(value)
            if (problem := self._snapshots.references.problem(name, value)) is not None
        )
        return replace(plan, notes=(*plan.notes, *notes))

    def _follow(self, changes: Iterable[Change]) -> None:
        """In this process' memory."""
        for name in other_upstreams(changes):
            self._state.clear_rests(name)
        self._snapshots.reload()


def _check_known(newest: int, *numbers: int) -> None:
    for number in numbers:
        if not 0 <= number <= newest:
            raise NotFound(
                f"There is no revision {number}: the newest is {newest}.",
                code="revision_not_found",
            )


def _check_match(if_match: int | None, revision: int) -> None:
    if if_match is not None and if_match != revision:
        raise PreconditionFailed(
            f"The config is at revision {revision}, not {if_match}: somebody changed it. Make"
            " the plan again, then repeat the change."
        )
