"""How the C library keeps memory: what is given back is there for all."""

import ctypes
import os
from collections.abc import Callable
from typing import Any

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # mallopt(3)
# What is read or sent at once is smaller, and made again and again.
LARGE_BYTES = 4_194_304
# Of which a process has become larger before its heap is gone through again.
GROWN_BYTES = 524_288

_LIBC = ctypes.CDLL(None)


def give_back(libc: Any = _LIBC) -> bool:
    """Before threads are begun. From now on what is larger has a mapping of its own: it grows
    without being copied, and is given back at once. By itself glibc raises that bound to 32 MB
    with the first that is freed, and keeps a heap for each few threads: what one of them freed
    others cannot use. Since Python runs one thread at a time, one heap is enough.

    False where the C library knows no such settings, as musl does: it has no such habits."""
    mallopt = getattr(libc, "mallopt", None)
    asked = (M_MMAP_THRESHOLD, LARGE_BYTES), (M_ARENA_MAX, 1)
    return mallopt is not None and all(mallopt(*each) for each in asked)


def resident_bytes() -> int:
    """What this process has in memory."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")


class Heap:
    """One a process. Not thread-safe."""

    def __init__(self, libc: Any = _LIBC, resident: Callable[[], int] = resident_bytes) -> None:
        self._trim = getattr(libc, "malloc_trim", None)
        self._resident = resident
        self._left_bytes = 0

    def trim(self) -> bool:
        """What lies free between what is used is given back to the system, by whole pages; for
        after work that is done rarely, and takes much for a moment.

        Nobody else has memory from the C library meanwhile: 1 to 3 us for each hole of a page
        or more, which is some milliseconds after a burst of large bodies. So it is done only
        where the process has grown since the last time, if the library can: else False."""
        if self._trim is None or self._resident() < self._left_bytes + GROWN_BYTES:
            return False
        self._trim(ctypes.c_size_t(0))
        self._left_bytes = self._resident()
        return True
