"""Work that waits for others, done side by side and within a time."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Done(Generic[Result]):
    """Which of the jobs, and what came of it; None if its time was over before."""

    number: int
    result: Result | None


def together(
    jobs: Sequence[Callable[[], Result]], *, threads: int, seconds: float
) -> Iterator[Done[Result]]:
    """Each as it is done; when the time is over, those that are not. What a job raises is
    raised here.

    Nothing waits for a job that is late: its thread ends when it does, or with the process.
    """
    todo: SimpleQueue[tuple[int, Callable[[], Result]]] = SimpleQueue()
    done: SimpleQueue[Done[Result] | BaseException] = SimpleQueue()
    for job in enumerate(jobs):
        todo.put(job)
    for _ in range(min(threads, len(jobs))):
        # Not a pool of the library's: at the end Python would wait for its threads.
        Thread(target=_work, args=(todo, done), name="together", daemon=True).start()
    ends_at = time.monotonic() + seconds
    left = set(range(len(jobs)))
    while left:
        try:
            found = done.get(timeout=max(ends_at - time.monotonic(), 0.0))
        except Empty:
            break
        if isinstance(found, BaseException):
            raise found
        left.discard(found.number)
        yield found
    for _ in range(todo.qsize()):  # nobody begins what nobody waits for
        _next(todo)
    yield from (Done(number, None) for number in sorted(left))


def _work(
    todo: "SimpleQueue[tuple[int, Callable[[], Result]]]",
    done: "SimpleQueue[Done[Result] | BaseException]",
) -> None:
    while (job := _next(todo)) is not None:
        number, function = job
        try:
            done.put(Done(number, function()))
        except BaseException as error:  # noqa: BLE001  # raised where it is waited for
            done.put(error)


def _next(
    todo: "SimpleQueue[tuple[int, Callable[[], Result]]]",
) -> tuple[int, Callable[[], Result]] | None:
    try:
        return todo.get_nowait()
    except Empty:
        return None
