"""What tokens cost, by the model that was asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from proxy.core.types import Usage

ANY_END = "*"  # a name that ends with it stands for all that begin so
# A price is for a million tokens, a cost is counted in billionths: so many make one.
NANO = 1_000_000_000
NANO_PER_TOKEN = NANO / 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """Of a million tokens, in whatever currency the operator counts. Tokens of a prompt that
    the upstream had in its cache have a price of their own."""

    prompt_per_million: float
    cached_per_million: float
    completion_per_million: float


class Prices:
    """The prices by name, made ready for look-ups. Immutable."""

    __slots__ = ("beginnings", "exact", "others")

    def __init__(self, table: Mapping[str, Price]) -> None:
        folded = {name.lower(): price for name, price in table.items()}
        self.exact = {n: price for n, price in folded.items() if not n.endswith(ANY_END)}
        self.others = folded.pop(ANY_END, None)
        # The longest first: it says most of the name.
        self.beginnings = tuple(
            (name[:-1], folded[name])
            for name in sorted(folded, key=len, reverse=True)
            if name.endswith(ANY_END)
        )

    def __bool__(self) -> bool:
        return bool(self.exact or self.beginnings or self.others)


NO_PRICES = Prices({})


@lru_cache(maxsize=1024)  # most clients ask for few models
def find(prices: Prices, *names: str) -> Price | None:
    """Of the first of a model's names that has a price: that of this very name, else of the
    longest `beginning*`. If none has one, that of all others; None if there is none.
    Without regard to case, as models are found."""
    for name in map(str.lower, names):
        if name in prices.exact:
            return prices.exact[name]
        for start, price in prices.beginnings:
            if name.startswith(start):
                return price
    return prices.others


def cost_nano(price: Price, usage: Usage) -> int:
    """In billionths of the currency, to the nearest: sums of many calls stay exact."""
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    per_million = (
        price.prompt_per_million * (usage.prompt_tokens - cached)
        + price.cached_per_million * cached
        + price.completion_per_million * usage.completion_tokens
    )
    return round(per_million * NANO_PER_TOKEN)
