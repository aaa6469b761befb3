"""How the C library keeps memory: what is given back is there for all."""

import ctypes
from typing import Any

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # mallopt(3)
# What is read or sent at once is smaller, and made again and again.
LARGE_BYTES = 4_194_304


def give_back(libc: Any = None) -> bool:
    """Before threads are begun. From now on what is larger has a mapping of its own: it grows
    without being copied, and is given back at once. By itself glibc raises that bound to 32 MB
    with the first that is freed, and keeps a heap for each few threads: what one of them freed
    others cannot use. Since Python runs one thread at a time, one heap is enough.

    False where the C library knows no such settings, as musl does: it has no such habits."""
    mallopt = getattr(libc or ctypes.CDLL(None), "mallopt", None)
    asked = (M_MMAP_THRESHOLD, LARGE_BYTES), (M_ARENA_MAX, 1)
    return mallopt is not None and all(mallopt(*each) for each in asked)


def trim(libc: Any = None) -> bool:
    """What lies free between what is used is given back to the system, by whole pages: after
    work that is done rarely, and takes much for a moment. Takes a millisecond or a few, for
    which nobody else has memory from the C library. False where that cannot (musl)."""
    malloc_trim = getattr(libc or ctypes.CDLL(None), "malloc_trim", None)
    return malloc_trim is not None and bool(malloc_trim(ctypes.c_size_t(0)))
