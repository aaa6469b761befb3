"""What workers tell each other at once, in memory that they share."""

import mmap
import struct
import zlib
from collections.abc import Iterator

ROW_BYTES = 32_768
_MOMENT = struct.Struct("d")
_HEAD = struct.Struct("II")  # length and checksum
MAX_BYTES = ROW_BYTES - _HEAD.size


class Board:
    """A row for each worker, which only that one writes, and all read.

    Made before the fork; the parent gives each worker its row. Nobody locks: what is
    read while it is being written has a wrong checksum, and counts as nothing. Beside each
    row stands a moment: until then the others are to look at the board.
    """

    def __init__(self, rows: int = 1) -> None:
        self._rows = rows
        self._moments = struct.Struct(f"{rows}d")
        self._start = self._moments.size
        # Shared by all who are forked from here, and gone with the last of them.
        self._memory = mmap.mmap(-1, self._start + rows * ROW_BYTES)
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

    def write(self, data: bytes, until: float) -> None:
        """At most MAX_BYTES."""
        if self._mine is None:
            return
        at = self._start + self._mine * ROW_BYTES
        head = _HEAD.pack(len(data), zlib.crc32(data))
        self._memory[at : at + len(head) + len(data)] = head + data
        _MOMENT.pack_into(self._memory, self._mine * _MOMENT.size, until)

    def others(self) -> Iterator[bytes]:
        """What the other workers wrote."""
        for row in range(self._rows):
            if row != self._mine:
                data = self._read(self._start + row * ROW_BYTES)
                if data:
                    yield data

    def _read(self, at: int) -> bytes | None:
        length, checksum = _HEAD.unpack_from(self._memory, at)
        at += _HEAD.size
        data = self._memory[at : at + min(length, MAX_BYTES)]
        return data if zlib.crc32(data) == checksum else None
