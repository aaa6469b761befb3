"""That the server is about to stop, for all its processes: before it refuses connections, load
balancers are to hear that it will."""

import mmap


class Draining:
    """Made before the fork, so that all processes share it. One byte: no lock is needed."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 1)

    def begin(self) -> None:
        self._shared[0] = 1

    @property
    def has_begun(self) -> bool:
        return self._shared[0] == 1
