"""What threads receive into, and for how long."""

import ctypes
import math
import struct
import threading


class _Own(threading.local):
    buffer = memoryview(b"")
    address = 0


_thread = _Own()


def thread_buffer(size: int) -> memoryview:
    """The thread's own, to be used before it asks again.

    To allocate one for each wait and give most of it back leaves holes everywhere, and the
    process grows for hours.
    """
    found = _thread.buffer
    if len(found) == size:
        return found
    if len(found) < size:
        memory = bytearray(size)
        found = _thread.buffer = memoryview(memory)
        _thread.address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return found[:size]


def thread_address() -> int:
    """Where the buffer begins that the thread was given last."""
    return _thread.address


def timeval(seconds: float) -> bytes:
    """For setsockopt(SO_RCVTIMEO or SO_SNDTIMEO); infinity is no end."""
    if seconds == math.inf:
        return struct.pack("@ll", 0, 0)
    whole = int(seconds)
    return struct.pack("@ll", whole, max(int((seconds - whole) * 1_000_000), 1))
