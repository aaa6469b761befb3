"""What threads receive into."""

import threading

_thread = threading.local()


def thread_buffer(size: int) -> memoryview:
    """The thread's own, to be used before it asks again.

    To allocate one for each wait and give most of it back leaves holes everywhere, and the
    process grows for hours.
    """
    found: memoryview | None = getattr(_thread, "buffer", None)
    if found is None or len(found) < size:
        found = _thread.buffer = memoryview(bytearray(size))
    return found if len(found) == size else found[:size]
