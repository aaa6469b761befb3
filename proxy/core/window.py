"""How much was added during the last minute."""

WINDOW_SECONDS = 60

# Threads that overtake each other are apart by much less.
SET_BACK_SECONDS = 60


class Window:
    """A sum over the last `seconds` whole seconds, in constant memory and time.

    Moments are whole seconds since the epoch, from the caller: the class never reads a
    clock, and several processes can add up theirs. An addition may lie in the past (what
    was reserved then turned out smaller); one that lies before the window has no effect.
    Not thread-safe: whoever owns a window holds a lock around it.
    """

    __slots__ = ("_buckets", "_newest", "_size", "_total")

    def __init__(self, seconds: int = WINDOW_SECONDS) -> None:
        self._size = seconds
        self._buckets = [0] * seconds
        self._newest = 0  # the second the newest bucket stands for
        self._total = 0

    def add(self, amount: int, second: int) -> None:
        if second != self._newest:
            if second > self._newest:
                self._advance(second)
            elif second <= self._newest - self._size:
                return
        self._buckets[second % self._size] += amount
        self._total += amount

    @property
    def newest(self) -> int:
        return self._newest

    def total(self, second: int) -> int:
        """The sum as of `second`; never below 0."""
        if second != self._newest:
            self._look(second)
        total = self._total
        return total if total > 0 else 0

    def recent(self, second: int, seconds: int) -> int:
        """The sum over the last `seconds` only, as of `second`; never below 0."""
        self._look(second)
        size, newest = self._size, self._newest
        oldest = max(second - seconds, newest - size) + 1
        if oldest > newest:
            return 0
        first, last = oldest % size, newest % size
        if first <= last:
            return max(sum(self._buckets[first : last + 1]), 0)
        return max(sum(self._buckets[first:]) + sum(self._buckets[: last + 1]), 0)

    def by_second(self, second: int, seconds: int) -> list[int]:
        """What was added in each of the last `seconds`, oldest first, as of `second`."""
        self._look(second)
        size, oldest = self._size, self._newest - self._size
        return [
            self._buckets[at % size] if oldest < at <= self._newest else 0
            for at in range(second - seconds + 1, second + 1)
        ]

    def seconds_until(
        self, at_most: int, second: int, seconds: int | None = None
    ) -> int | None:
        """Seconds until the sum has fallen to `at_most` if nothing is added; None if never.

        0 if it is there already. `seconds`: of the sum over that many only. `second` may lie
        before the newest addition: then another thread read the clock later, but came first.
        """
        if second != self._newest:
            self._look(second)
        size = self._size
        span = size if seconds is None else min(seconds, size)
        left = max(self._total, 0) if span == size else self.recent(self._newest, span)
        if left <= at_most:
            return 0
        if at_most < 0:
            return None
        for age in range(span - 1, -1, -1):  # the oldest bucket leaves first
            left -= self._buckets[(self._newest - age) % size]
            if left <= at_most:
                return self._newest - second + span - age
        return None

    def _look(self, second: int) -> None:
        """As `_advance`; what lies far in the future was counted by a clock that was set back
        since, and is forgotten."""
        if second < self._newest - SET_BACK_SECONDS:
            self._clear()
            self._newest = second
        self._advance(second)

    def _clear(self) -> None:
        self._buckets = [0] * self._size
        self._total = 0

    def _advance(self, second: int) -> None:
        newest, buckets, size = self._newest, self._buckets, self._size
        if second <= newest:
            return
        self._newest = second
        if second - newest >= size:  # after a long silence every bucket is stale
            self._clear()
            return
        for at in range(newest + 1, second + 1):  # mostly one, or a few
            stale = buckets[at % size]
            if stale:
                buckets[at % size] = 0
                self._total -= stale
