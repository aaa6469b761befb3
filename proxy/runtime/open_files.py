"""How many files a process may have open: each client and each upstream is one.

Where they run out, a worker cannot accept, and what it asks of upstreams fails as if they did.
"""

import errno
import logging
import math
import resource
import time
from collections.abc import Callable

from proxy.runtime.tell import tell

logger = logging.getLogger(__name__)

# What the system says where a process, or all of them together, may open no more.
NO_MORE = (errno.EMFILE, errno.ENFILE)
# From one word of it to the next.
TOLD_SECONDS = 60.0
# After which somebody may have closed one.
PAUSE_SECONDS = 0.1

# Besides connections: the database, logs, pipes, libraries.
SPARE = 100


def allow_all() -> int:
    """As many as the system lets us have; how many that is. Children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return allowed()


def allowed() -> int:
    """As many as the system would let us have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 10**9 if hard == resource.RLIM_INFINITY else hard


def needed(threads: int) -> int:
    """By a worker: two for each call, and one for a client that is connected and idle."""
    return 3 * threads + 2 * SPARE


def connections(threads: int, files: int) -> int:
    """How many clients may be connected: one for each thread and as many idle ones, but not
    more than leaves a file for what each call asks upstream."""
    return max(min(2 * threads + SPARE, files - threads - SPARE), threads // 2)


class Shortage:
    """That there are no more files to be had. Of one thread; `clock` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told_at = -math.inf
        self._until = -math.inf

    @property
    def is_on(self) -> bool:
        """It was noted a moment ago: to try again now would only be work."""
        return self._clock() < self._until

    def note(self, connections: int) -> None:
        """Told once a minute. `connections` are the worker's clients."""
        now = self._clock()
        self._until = now + PAUSE_SECONDS
        if now < self._told_at + TOLD_SECONDS:
            return
        self._told_at = now
        said = (
            "The system lets the worker open no more files: with %d clients connected, others"
            " wait until some are closed. Raise the limit (ulimit -Hn, or LimitNOFILE= in"
            " systemd), or lower PROXY_THREADS."
        )
        tell(logger, "files_exhausted", said, connections, connections=connections)
