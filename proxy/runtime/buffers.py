"""What threads receive into, and for how long."""

import ctypes
import math
import struct
import threading

_thread = threading.local()


def thread_buffer(size: int) -> memoryview:
    """The thread's own, to be used before it asks again.

    To allocate one for each wait and give most of it back leaves holes everywhere, and the
    process grows for hours.
    """
    found: memoryview | None = getattr(_thread, "buffer", None)
    if found is None or len(found) < size:
        memory = bytearray(size)
        found = _thread.buffer = memoryview(memory)
        _thread.address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return found if len(found) == size else found[:size]


def thread_address() -> int:
    """Where the buffer begins that the thread was given last."""
    address: int = _thread.address
    return address


def timeval(seconds: float) -> bytes:
    """For setsockopt(SO_RCVTIMEO or SO_SNDTIMEO); infinity is no end."""
    if seconds == math.inf:
        return struct.pack("@ll", 0, 0)
    whole = int(seconds)
    return struct.pack("@ll", whole, max(int((seconds - whole) * 1_000_000), 1))
