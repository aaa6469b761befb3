"""Memory for large bodies, which the system gets back when they are gone."""

import ctypes
from typing import Any

M_MMAP_THRESHOLD = -3  # mallopt(3)
# What is read or sent at once is smaller, and made again and again.
LARGE_BYTES = 4_194_304


def give_back(libc: Any = None) -> bool:
    """From now on what is larger has a mapping of its own: it grows without being copied, and
    is given back at once. By itself glibc raises that bound to 32 MB with the first that is
    freed, and the heap of each thread keeps its largest. False where the C library knows no
    such setting, as musl does: it has no such bound."""
    mallopt = getattr(libc or ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(M_MMAP_THRESHOLD, LARGE_BYTES))
