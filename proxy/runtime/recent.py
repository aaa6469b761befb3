"""The last requests of the host, in memory that all workers share.

A row of slots for each worker, in which only that worker writes, one after the other and round
again. Nobody locks: of a slot that is written while it is read the checksum is wrong, and it
counts as empty. What a worker wrote stays when it dies, until whoever has its row next has
filled it again.
"""

import json
import mmap
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from itertools import islice
from typing import cast

from proxy.core.record import Record

KEPT = 1_000  # of the host; and as many slots has each row, for one worker may have had all
SLOT_BYTES = 4_096
_HEAD = struct.Struct("=dII")  # the moment, length and checksum
MAX_BYTES = SLOT_BYTES - _HEAD.size
_COUNT = struct.Struct("=Q")  # of the entries that a row ever had


class Recent:
    """Made before the fork; the parent gives each worker its row. `add` is called by one thread
    of a worker. What nobody touched takes no memory."""

    def __init__(self, rows: int = 1, kept: int = KEPT) -> None:
        self._rows = max(rows, 1)
        self._kept = kept
        self._start = self._rows * _COUNT.size
        self._memory = mmap.mmap(-1, self._start + self._rows * kept * SLOT_BYTES)
        self._mine: int | None = 0

    def use_row(self, row: int | None) -> None:
        """In the parent: the next child's, which goes on where the last one ended. None: it
        only reads."""
        self._mine = row

    def add(self, entry: bytes, at: float) -> None:
        """JSON of at most MAX_BYTES; `at` is the moment by which entries are ordered."""
        if self._mine is None or not 0 < len(entry) <= MAX_BYTES:
            return
        count = self._count(self._mine)
        offset = self._slot(self._mine, count)
        head = _HEAD.pack(at, len(entry), zlib.crc32(entry))
        self._memory[offset : offset + len(head) + len(entry)] = head + entry
        _COUNT.pack_into(self._memory, self._mine * _COUNT.size, count + 1)

    def newest(
        self,
        limit: int = KEPT,
        *,
        client: str | None = None,
        model: str | None = None,
        instance: str | None = None,
        outcome: str | None = None,
    ) -> list[Record]:
        """At most so many, the newest first. `instance`: it was asked, whatever came of it."""
        asked = {"client": client, "model": model, "outcome": outcome}
        wanted = {name: value for name, value in asked.items() if value is not None}
        found = (
            each
            for each in map(_record, self._entries(wanted.values()))
            if all(each.get(name) == value for name, value in wanted.items())
            and (instance is None or instance in _asked(each))
        )
        return list(islice(found, limit))

    def find(self, request_id: str) -> Record | None:
        """The newest with that id: clients may use one twice."""
        found = map(_record, self._entries([request_id]))
        return next((each for each in found if each.get("id") == request_id), None)

    def counts(self) -> tuple[int, ...]:
        """How many entries each row ever had."""
        return tuple(self._count(row) for row in range(self._rows))

    def between(self, before: Sequence[int], now: Sequence[int]) -> list[Record]:
        """What came between these two `counts`, the oldest first, as far as it is kept."""
        rows = enumerate(zip(before, now, strict=True))
        newest_first = merge(
            *(self._row(row, then, since) for row, (since, then) in rows),
            key=lambda entry: entry[0],
            reverse=True,
        )
        return [_record(entry) for _, entry in newest_first][::-1]

    def _entries(self, mentioned: Iterable[str]) -> Iterator[bytes]:
        """Of the host's last those in which all these words occur, the newest first. To look
        for them costs far less than to parse the others."""
        words = [json.dumps(word).encode() for word in mentioned]
        rows = [self._row(row, count) for row, count in enumerate(self.counts()) if count]
        newest_first = merge(*rows, key=lambda entry: entry[0], reverse=True)
        for _, entry in islice(newest_first, self._kept):
            if all(word in entry for word in words):
                yield entry

    def _row(self, row: int, count: int, since: int = 0) -> Iterator[tuple[float, bytes]]:
        for number in range(count - 1, max(count - self._kept, since) - 1, -1):
            at, length, checksum = _HEAD.unpack_from(self._memory, self._slot(row, number))
            start = self._slot(row, number) + _HEAD.size
            entry = self._memory[start : start + min(length, MAX_BYTES)]
            if zlib.crc32(entry) == checksum:
                yield at, entry

    def _count(self, row: int) -> int:
        return cast(int, _COUNT.unpack_from(self._memory, row * _COUNT.size)[0])

    def _slot(self, row: int, number: int) -> int:
        return self._start + (row * self._kept + number % self._kept) * SLOT_BYTES


def _record(entry: bytes) -> Record:
    return cast(Record, json.loads(entry))


def _asked(record: Record) -> set[str]:
    return {attempt["instance"] for attempt in record.get("attempts", ())}
