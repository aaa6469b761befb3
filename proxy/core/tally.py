"""What all workers counted in each second, as last heard of."""

from collections.abc import Iterable

from proxy.core.deltas import Place

# (second, tokens, requests)
Row = tuple[int, int, int]


class Tally:
    """Sums by second and place, so that of a sum heard again only the difference is new.

    Not thread-safe: its owner locks.
    """

    __slots__ = ("_seconds",)

    def __init__(self) -> None:
        self._seconds: dict[int, dict[Place, tuple[int, int]]] = {}

    def hear(self, place: Place, rows: Iterable[Row]) -> list[Row]:
        """By how much each sum is another than before."""
        differences = []
        for second, tokens, requests in rows:
            sums = self._seconds.setdefault(second, {})
            tokens_before, requests_before = sums.get(place, (0, 0))
            sums[place] = (tokens, requests)
            differences.append((second, tokens - tokens_before, requests - requests_before))
        return differences

    def forget(self, until: int) -> None:
        """Seconds up to that one."""
        for second in [s for s in self._seconds if s <= until]:
            del self._seconds[second]
