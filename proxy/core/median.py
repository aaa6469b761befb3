"""The median of the latest values, kept up to date."""

from bisect import bisect_left, insort
from collections import deque

KEPT_VALUES = 21  # odd, so that one of them is in the middle


class MovingMedian:
    """Of the last `KEPT_VALUES` that were added. Not thread-safe: its owner locks."""

    __slots__ = ("_in_order", "_latest")

    def __init__(self) -> None:
        self._latest: deque[float] = deque()
        self._in_order: list[float] = []

    def add(self, value: float) -> None:
        if len(self._latest) == KEPT_VALUES:
            del self._in_order[bisect_left(self._in_order, self._latest.popleft())]
        self._latest.append(value)
        insort(self._in_order, value)

    @property
    def value(self) -> float | None:
        """None before the first; of an even number the lower of the two in the middle."""
        values = self._in_order
        return values[(len(values) - 1) // 2] if values else None
