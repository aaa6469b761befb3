"""On which cores a worker runs.

Its threads take turns at the interpreter, so they gain little from more than one core, and lose
what that one's caches have of theirs wherever the system wakes one of them on another.
"""

import os
from collections.abc import Iterable, Sequence


def share(cores: Iterable[int], number: int, workers: int) -> set[int]:
    """Of these cores those of the worker with that number, of so many. Each core is somebody's;
    where there are fewer cores than workers, some have the same one."""
    ordered = sorted(cores)
    return set(ordered[number % len(ordered) :: workers])


def free_number(taken: Sequence[int], workers: int) -> int:
    """The next worker's: one that nobody has of those who stay beside it. `taken`: of all that
    run, the oldest first; where they are too many, as while a reload replaces all, these go."""
    staying = taken[max(len(taken) - workers + 1, 0) :]
    return next(number for number in range(workers) if number not in staying)


def run_as_the_first() -> None:
    """This thread, where the process's first one may: by itself it does where that may which
    made it."""
    try:
        cores = os.sched_getaffinity(os.getpid())
    except OSError:
        return  # as below
    run_on(cores)


def run_on(cores: set[int]) -> None:
    """This thread, and all that it makes from now on. Where the system does not let it, all is
    as before."""
    try:
        os.sched_setaffinity(0, cores)
    except OSError:
        pass  # a sandbox that allows no such call
