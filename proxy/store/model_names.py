"""Under which names of models usage is kept: clients can invent any number of them."""

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, bindparam, func, select, union_all

from proxy.core.deltas import OTHER_MODEL, UsageKey
from proxy.store.models import UsageRow, UsageTotalRow
from proxy.store.statements import Prepared
from proxy.store.usage import rolled_until

# The config's own spelling of a model's name; None: no config names it.
Spelling = Callable[[str], str | None]

# That no config names, where instances serve any model: each is in the totals for ever.
MOST_UNNAMED = 500

_MINUTE, _TOTAL = UsageRow.__table__, UsageTotalRow.__table__
_SINCE: Any = bindparam("since")
_COUNTED = union_all(
    select(_TOTAL.c.model, _TOTAL.c.succeeded).where(_TOTAL.c.succeeded > 0),
    select(_MINUTE.c.model, _MINUTE.c.succeeded).where(
        _MINUTE.c.minute_at >= _SINCE, _MINUTE.c.succeeded > 0
    ),
).subquery()
# The ones with the most answers first.
_ANSWERED = Prepared(
    select(_COUNTED.c.model)
    .group_by(_COUNTED.c.model)
    .order_by(func.sum(_COUNTED.c.succeeded).desc(), _COUNTED.c.model)
)


class ModelNames:
    """A name that some config has is kept in the config's spelling. Another is admitted when
    there was an answer under it, as long as there is room; all else is OTHER_MODEL's.

    What was admitted is what the usage itself has. It is read when there is a name to admit, by
    one who keeps others from adding to it meanwhile: so all workers together admit no more
    than one would. Not thread-safe.
    """

    def __init__(self) -> None:
        self._admitted: frozenset[str] | None = None
        # Admitted here since that was read, if it was written: that may have failed.
        self._fresh: frozenset[str] = frozenset()

    def forget(self) -> None:
        """The database is another one."""
        self._admitted = None

    def kept(
        self,
        connection: Connection,
        usage: Mapping[UsageKey, Mapping[str, int]],
        spelling: Spelling,
    ) -> dict[str, str]:
        """For each model in `usage`, the name under which it is kept."""
        spelt = {model: spelling(model) for _, _, model, _ in usage}
        unnamed = frozenset(m for m, name in spelt.items() if name is None and m != OTHER_MODEL)
        if unnamed:
            answered = {model for (_, _, model, _), c in usage.items() if c.get("succeeded")}
            known = self._known(unnamed & (self._fresh | answered), connection, spelling)
            room = MOST_UNNAMED - len(known)
            fresh = sorted((unnamed & answered) - known)[:room]
            self._fresh |= frozenset(fresh)
            spelt |= {model: model for model in (*(unnamed & known), *fresh)}
        return {model: name or OTHER_MODEL for model, name in spelt.items()}

    def _known(
        self, wanted: frozenset[str], connection: Connection, spelling: Spelling
    ) -> frozenset[str]:
        """All that were admitted, as of now if there is room for those that are wanted."""
        known = self._admitted
        if known is None or (len(known) < MOST_UNNAMED and not wanted <= known):
            rows = _ANSWERED.rows(connection, since=rolled_until(connection))
            found = [name for (name,) in rows if name and spelling(name) is None]
            known = self._admitted = frozenset(found[:MOST_UNNAMED])
            self._fresh = frozenset()
        return known
