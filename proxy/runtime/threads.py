"""Threads that serve requests: the one that was busy last is asked first.

The standard library's pool hands its tasks to whoever has waited longest, so every thread of
many is used in turn, and each finds its stack and the processor's caches cold.
"""

import logging
from collections import deque
from collections.abc import Callable
from threading import Lock, Thread

from proxy.runtime.cpu_affinity import run_as_the_first
from proxy.runtime.tell import tell

logger = logging.getLogger(__name__)

# One that was not needed for so long ends; after a burst its memory goes back.
IDLE_SECONDS = 60.0

Task = Callable[[], object]


class _Idle:
    """A thread that waits for its next task."""

    __slots__ = ("task", "woken")

    def __init__(self) -> None:
        self.woken = Lock()
        self.woken.acquire()
        self.task: Task | None = None


class ThreadPool:
    """At most `size` threads, of which `ready` are made at once and stay. Thread-safe.

    What is submitted while all are busy waits, and is begun in order.
    """

    def __init__(
        self, size: int, *, ready: int = 0, idle_seconds: float = IDLE_SECONDS
    ) -> None:
        self.size = size
        self._ready = min(ready, size)
        self._idle_seconds = idle_seconds
        self._lock = Lock()
        self._idle: list[_Idle] = []
        self._waiting: deque[Task] = deque()
        self._closed = False
        self.count = self._ready
        for _ in range(self._ready):
            self._start(None)

    @property
    def is_full(self) -> bool:
        """Somebody waits for a thread."""
        return bool(self._waiting)

    @property
    def busy(self) -> int:
        """How many threads have a task."""
        return max(self.count - len(self._idle), 0)

    def submit(self, task: Task) -> None:
        """Begins the task, or lets it wait. What it raises is logged."""
        idle = None
        with self._lock:
            if self._idle:
                idle = self._idle.pop()
                idle.task = task
            elif self.count < self.size:
                self.count += 1
                # Of those for whom there was no thread the first has waited longest.
                self._waiting.append(task)
                task = self._waiting.popleft()
            else:
                self._waiting.append(task)
                return
        if idle is not None:
            idle.woken.release()
        else:
            self._start(task)

    def shutdown(self, **_wait: bool) -> None:
        """Idle threads end, busy ones after their task; what waits is not begun any more.
        Nobody waits for that: an executor's `wait` is taken for gunicorn's sake."""
        with self._lock:
            self._closed = True
            self._waiting.clear()
            idle, self._idle = self._idle, []
        for each in idle:
            each.woken.release()

    def _start(self, task: Task | None) -> None:
        try:
            Thread(target=self._run, args=(task,), name="request", daemon=True).start()
        except RuntimeError:  # the system has no more; those that are there go on
            said = "No more threads can be made: there are %d."
            there = self.count - 1
            tell(logger, "threads_exhausted", said, there, threads=there)
            self._give_back(task)

    def _give_back(self, task: Task | None) -> None:
        """No thread could be made for it: whoever is idle by now begins it, or it waits."""
        idle = None
        with self._lock:
            self.count -= 1
            if task is None:
                return
            if self._idle:
                idle = self._idle.pop()
                idle.task = task
            else:
                self._waiting.appendleft(task)  # it was the next
        if idle is not None:
            idle.woken.release()

    def _run(self, task: Task | None) -> None:
        mine = _Idle()
        if task is not None:  # whoever submitted it made this thread
            run_as_the_first()
        while True:
            if task is not None:
                try:
                    task()
                except BaseException:  # noqa: BLE001  # it ends its task, not its thread
                    tell(
                        logger,
                        "unexpected_error",
                        "A request's thread failed.",
                        with_traceback=True,
                    )
                task = None  # while it is idle a thread keeps nothing of it
            task = self._next(mine)
            if task is None:
                return

    def _next(self, mine: _Idle) -> Task | None:
        """The thread's next task; None: it ends."""
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            if self._closed:
                self.count -= 1
                return None
            mine.task = None
            self._idle.append(mine)
        while not mine.woken.acquire(timeout=self._idle_seconds):
            with self._lock:
                # A task may have been given to it just now: then it is woken.
                if mine in self._idle and self.count > self._ready:
                    self._idle.remove(mine)
                    self.count -= 1
                    return None
        if mine.task is None:  # woken by `shutdown`; something may have come since
            with self._lock:
                if self._waiting:
                    return self._waiting.popleft()
                self.count -= 1
        return mine.task
