"""What workers tell each other of clients through the database."""

from collections.abc import Mapping
from dataclasses import dataclass, field

# (second_at, client) and (day_at, client)
SecondKey = tuple[int, str]
DayKey = tuple[int, str]
Pair = tuple[int, int]


@dataclass(slots=True)
class ClientDeltas:
    """What one worker measured since it last wrote. Owned by whoever holds it.

    `windows` hold tokens and requests, `spending` tokens and cost; `used_at` when clients
    last called.
    """

    used_at: dict[str, float] = field(default_factory=dict)
    windows: dict[SecondKey, Pair] = field(default_factory=dict)
    spending: dict[DayKey, Pair] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.used_at or self.windows or self.spending)

    def add_window(self, key: SecondKey, tokens: int, requests: int) -> None:
        present = self.windows.get(key)
        if present is not None:
            tokens, requests = tokens + present[0], requests + present[1]
        self.windows[key] = (tokens, requests)

    def add_spending(self, key: DayKey, tokens: int, cost_nano: int) -> None:
        present = self.spending.get(key)
        if present is not None:
            tokens, cost_nano = tokens + present[0], cost_nano + present[1]
        self.spending[key] = (tokens, cost_nano)

    def add(self, later: "ClientDeltas") -> None:
        """Takes in what was measured after this."""
        self.used_at |= later.used_at
        for second_key, (tokens, requests) in later.windows.items():
            self.add_window(second_key, tokens, requests)
        for day_key, (tokens, cost_nano) in later.spending.items():
            self.add_spending(day_key, tokens, cost_nano)

    def forget_windows(self, before: int) -> list[tuple[str, int, int]]:
        """Drop seconds that are over, which no limit asks for any more: of whom, and what."""
        dropped = []
        for key in [k for k in self.windows if k[0] < before]:
            tokens, requests = self.windows.pop(key)
            dropped.append((key[1], tokens, requests))
        return dropped


@dataclass(frozen=True, slots=True)
class SharedClients:
    """What all workers measured of clients, or what of it changed since it was last read.

    `windows`: client -> (second, tokens, requests); `spending`: client -> (day, tokens, cost);
    sums, also where only changes were read. `number` is of the last write that is in it.
    """

    used_at: Mapping[str, float] = field(default_factory=dict)
    windows: Mapping[str, list[tuple[int, int, int]]] = field(default_factory=dict)
    spending: Mapping[str, list[tuple[int, int, int]]] = field(default_factory=dict)
    number: int = 0
    is_whole: bool = True
