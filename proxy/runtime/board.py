"""What workers tell each other at once, in memory that they share."""

import mmap
import struct
import zlib
from collections.abc import Iterator

ROW_BYTES = 32_768
_MOMENT = struct.Struct("d")
_HEAD = struct.Struct("II")  # length and checksum
MAX_BYTES = ROW_BYTES - _HEAD.size
# What is written just now is whole a moment later.
READS = 3


class Board:
    """A row for each worker, which only that one writes, and all read.

    Made before the fork; the parent gives each worker its row. Nobody locks: what is
    read while it is being written has a wrong checksum, and counts as nothing. Beside each
    row stands a moment: until then the others are to look at the board.
    """

    def __init__(self, rows: int = 1, row_bytes: int = ROW_BYTES) -> None:
        self._rows = rows
        self._row_bytes = row_bytes
        self._moments = struct.Struct(f"{rows}d")
        self._start = self._moments.size
        # Shared by all who are forked from here, and gone with the last of them.
        self._memory = mmap.mmap(-1, self._start + rows * row_bytes)
        self._mine: int | None = 0

    def use_row(self, row: int | None) -> None:
        """In the parent: the next child's. None: it only reads."""
        self._mine = row
        self.write(b"", 0.0)

    @property
    def until(self) -> float:
        """The latest of these moments."""
        latest: float = max(self._moments.unpack_from(self._memory))
        return latest

    @property
    def max_bytes(self) -> int:
        """Of what a row takes."""
        return self._row_bytes - _HEAD.size

    def clear(self, row: int) -> None:
        """In the parent: its worker is dead."""
        at = self._start + row * self._row_bytes
        self._memory[at : at + _HEAD.size] = bytes(_HEAD.size)

    def write(self, data: bytes, until: float) -> None:
        """At most `max_bytes`."""
        if self._mine is None:
            return
        at = self._start + self._mine * self._row_bytes
        head = _HEAD.pack(len(data), zlib.crc32(data))
        self._memory[at : at + len(head) + len(data)] = head + data
        _MOMENT.pack_into(self._memory, self._mine * _MOMENT.size, until)

    def others(self) -> Iterator[bytes]:
        """What the other workers wrote."""
        for row in range(self._rows):
            if row != self._mine:
                data = self._read(self._start + row * self._row_bytes)
                if data:
                    yield data

    def all(self) -> Iterator[tuple[int, bytes]]:
        """Each row in use, and what its worker wrote."""
        for row in range(self._rows):
            at = self._start + row * self._row_bytes
            data = next(filter(None, (self._read(at) for _ in range(READS))), None)
            if data:
                yield row, data

    def _read(self, at: int) -> bytes | None:
        length, checksum = _HEAD.unpack_from(self._memory, at)
        at += _HEAD.size
        data = self._memory[at : at + min(length, self.max_bytes)]
        return data if zlib.crc32(data) == checksum else None
