"""Counts that wait for a few seconds where many are asked, in the database and not in memory.

To add each round what was used of a thousand instances is a statement for each, and most say 1.
So a worker writes such a round's increments of usage, and of totals that are but shown, as one
row of JSON in `held_counts`. Every few seconds it takes its rows out again and adds their sums
to the tables, in one transaction: it *folds* them. Of a worker that was killed another one does
so. What is folded is what is in a row that was deleted, never what memory believes, so each
count is added once, whoever does it and whatever fails meanwhile.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from secrets import token_hex
from typing import Any, NamedTuple, TypeVar

import orjson
from sqlalchemy import Connection, bindparam, delete, insert, select

from proxy.core.deltas import Deltas, Totals, UsageKey
from proxy.store.db import as_json
from proxy.store.models import HeldCountsRow
from proxy.store.statements import Prepared

# Of an instance that is asked each second five requests are one row then. Less than usage's
# GRACE_SECONDS.
HELD_SECONDS = 5.0
# Nothing waits in a round that has no more, of instances or of usage.
FEW_ROWS = 32
# Of usage, after which no more is folded at once; what it began with may have as many. So it
# takes a tenth of a second, or half of one where they are late.
MOST_ROWS = 2_000
# Who has not folded for so long is dead; if not, as after a sleep of the host, it does no harm.
ABANDONED_SECONDS = 60.0

_OWNER: Any = HeldCountsRow.owner == bindparam("owner")
_WRITE = Prepared(insert(HeldCountsRow), ("owner", "number", "written_at", "added"))
_NUMBERS = Prepared(
    select(HeldCountsRow.owner, HeldCountsRow.number)
    .where(_OWNER)
    .order_by(HeldCountsRow.number)
)
_ABANDONED = Prepared(
    select(HeldCountsRow.owner, HeldCountsRow.number)
    .where(
        (HeldCountsRow.written_at < bindparam("before"))
        # By a clock that was set back since.
        | (HeldCountsRow.written_at > bindparam("after"))
    )
    .order_by(HeldCountsRow.owner, HeldCountsRow.number)
)
_ALL = select(HeldCountsRow.owner, HeldCountsRow.number)
# At once, so that nobody else can take it too, whatever the database locks.
_TAKE = Prepared(
    delete(HeldCountsRow)
    .where(_OWNER, HeldCountsRow.number == bindparam("number"))
    .returning(HeldCountsRow.added)
)


class _Written(NamedTuple):
    at: float
    totals: Totals


Number = TypeVar("Number", int, float)
# By number.
Waiting = Mapping[int, _Written]


class _Found(NamedTuple):
    """What several rows have for each name or key."""

    totals: defaultdict[str, list[dict[str, int]]]
    moments: defaultdict[str, list[dict[str, float]]]
    usage: defaultdict[UsageKey, list[dict[str, int]]]


class Held:
    """What waits of one process. Not thread-safe.

    In each transaction `exchange`, then `waiting`; `settled` once it is committed.
    """

    def __init__(self) -> None:
        self._owner = token_hex(8)
        self._number = 0
        self._is_ending = False
        self._waiting: Waiting = {}
        self._fresh: Waiting = {}  # perhaps written, by the last transaction

    def begin(self) -> None:
        """In the process that writes, after the fork: others that came of it write, too."""
        self._is_ending = False
        if not self._waiting:
            self._owner = token_hex(8)

    def end(self) -> None:
        """Nothing waits any longer."""
        self._is_ending = True

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def is_due(self, now: float) -> bool:
        """Something has waited long enough."""
        oldest = next(iter(self._waiting.values()), None)
        if oldest is None:
            return False
        return self._is_ending or not oldest.at <= now < oldest.at + HELD_SECONDS

    def exchange(self, connection: Connection, deltas: Deltas, now: float) -> Deltas:
        """What is to be added to the tables in this transaction: of `deltas` what is not
        written as a row of its own, and what has waited. `deltas` are left whole."""
        self._fresh = {}
        folded, adds_all = Deltas(), self._is_ending or _are_few(deltas)
        if self.is_due(now):
            rows = _NUMBERS.rows(connection, owner=self._owner)
            folded, adds_all = _fold(connection, rows)
        added, waits = (deltas, Deltas()) if adds_all else deltas.split()
        if waits:
            self._write(connection, waits, now)
        if not folded:
            return added
        folded.add(added)
        return folded

    def _write(self, connection: Connection, waits: Deltas, now: float) -> None:
        self._number += 1
        row = {"owner": self._owner, "number": self._number, "written_at": now}
        _WRITE.run(connection, **row, added=_as_text(waits))
        self._fresh = {self._number: _Written(now, waits.totals)}

    def waiting(self, connection: Connection) -> Waiting:
        """What this process wrote and nobody has folded, as this transaction sees it."""
        known = {**self._waiting, **self._fresh}
        if not known:
            return known
        there = {number for _, number in _NUMBERS.rows(connection, owner=self._owner)}
        return {number: written for number, written in known.items() if number in there}

    def settled(self, waiting: Waiting) -> list[Totals]:
        """The transaction was committed. What of the totals is not in the tables yet."""
        self._waiting, self._fresh = waiting, {}
        return [written.totals for written in waiting.values()]


def fold_abandoned(connection: Connection, now: float) -> Deltas:
    """Takes out some of what others left behind, to be added in this transaction; of it nothing
    if there is no more."""
    before, after = now - ABANDONED_SECONDS, now + ABANDONED_SECONDS
    rows = _ABANDONED.rows(connection, before=before, after=after)
    return _fold(connection, rows)[0]


def fold_all(connection: Connection) -> Deltas:
    """As fold_abandoned, while no gateway runs."""
    return _fold(connection, connection.execute(_ALL).all())[0]


def _fold(connection: Connection, rows: Iterable[Any]) -> tuple[Deltas, bool]:
    """Takes out these rows, or the first of them where there is much in them: whether it is
    all."""
    found = _Found(defaultdict(list), defaultdict(list), defaultdict(list))
    for owner, number in rows:
        if len(found.usage) >= MOST_ROWS:
            return _sums(found), False
        for (added,) in _TAKE.rows(connection, owner=owner, number=number):
            _take_in(found, added)
    return _sums(found), True


def _are_few(deltas: Deltas) -> bool:
    return len(deltas.usage) <= FEW_ROWS and len(deltas.totals) <= FEW_ROWS


def _as_text(deltas: Deltas) -> str:
    usage = [[key, counts] for key, counts in deltas.usage.items()]
    whole = {"totals": deltas.totals, "moments": deltas.moments, "usage": usage}
    return orjson.dumps(whole).decode()


def _take_in(found: _Found, text: str) -> None:
    whole = as_json(text, HeldCountsRow.__tablename__)
    for name, counts in whole["totals"].items():
        found.totals[name].append(counts)
    for name, moments in whole["moments"].items():
        found.moments[name].append(moments)
    for key, counts in whole["usage"]:
        found.usage[tuple(key)].append(counts)


def _sums(found: _Found) -> Deltas:
    return Deltas(
        {name: _merged(each, sum) for name, each in found.totals.items()},
        {name: _merged(each, max) for name, each in found.moments.items()},
        usage={key: _merged(each, sum) for key, each in found.usage.items()},
    )


def _merged(
    rows: list[dict[str, Number]], how: Callable[[Iterable[Number]], Number]
) -> dict[str, Number]:
    """One of all, in which each name has what its values make together."""
    if len(rows) == 1:
        return rows[0]
    names, *others = set(map(tuple, rows))
    if not others:  # as nearly always; it takes a fifth of the time
        columns = zip(*map(dict.values, rows), strict=True)
        return dict(zip(names, map(how, columns), strict=True))
    every = dict.fromkeys(name for row in rows for name in row)
    return {name: how([row[name] for row in rows if name in row]) for name in every}
