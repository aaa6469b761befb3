"""How many files a process may have open: each client and each upstream is one.

Where they run out, a worker cannot accept, and what it asks of upstreams fails as if they did.
"""

import resource

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
