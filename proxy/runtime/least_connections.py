"""How many connections each worker has, so that a new one goes to who has the fewest.

All workers wait at the same listening socket, and one that is awake takes a dozen connections
before another has come round: a client's whole pool would wait for one processor while the
others have nothing to do, for as long as the pool is kept.
"""

import mmap
from struct import Struct

# What a row says where nobody is, or nobody takes connections; more than any count.
TAKES_NONE = 2**62
# More than another has by so many is worth a moment; of many, by a part of them: a crowd is
# to be let in, not counted.
FEW, PART = 2, 8

_CELL = Struct("q")


class LeastConnections:
    """Made before the workers are forked. Each worker has a row, which only that one writes;
    their parent calls `use_row` for the next child, and `free_row` for one that is dead."""

    def __init__(self, rows: int = 1) -> None:
        self._all = Struct(f"{rows}q")
        self._memory = mmap.mmap(-1, self._all.size)
        self._mine: int | None = 0
        for row in range(rows):
            self.free_row(row)

    def use_row(self, row: int | None) -> None:
        """None: there is none for the next child, and others do not hear of it."""
        self._mine = row

    def free_row(self, row: int) -> None:
        _CELL.pack_into(self._memory, row * _CELL.size, TAKES_NONE)

    # A worker's.

    def note(self, count: int) -> None:
        """This worker has so many; TAKES_NONE: it takes no more."""
        if self._mine is not None:
            _CELL.pack_into(self._memory, self._mine * _CELL.size, count)

    def is_another(self, count: int) -> bool:
        """Who has clearly fewer than this worker, which has so many, and takes more."""
        fewest: int = min(self._all.unpack_from(self._memory))
        return fewest + max(FEW, count // PART) <= count
