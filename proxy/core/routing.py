"""In which order to try those who serve a model: one small function a policy, in one registry.

A policy gives an order, one after the other: mostly the first is taken, and nobody wants to pay
for the rest. Who rests or has no room is found out when its turn comes.
"""

import math
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import accumulate
from random import Random

from proxy.core.types import Candidate, Serving

# The fractional parts of its multiples fill 0 .. 1 as evenly as can be (Weyl 1916; Knuth, The
# Art of Computer Programming 3, 6.4): shares are exact after few draws, not on average only.
GOLDEN_RATIO = (math.sqrt(5) - 1) / 2

# So often `latency` lets chance decide, to learn how fast the others are by now.
EXPLORING_SHARE = 0.05

# Of more than these, `least_loaded` and `latency` compare a sample: the best of sixteen is in
# the best tenth four times of five, and to look at a thousand takes longer than to ask one.
COMPARED = 16


class Group:
    """Servings that a draw in proportion to weight chooses from."""

    __slots__ = ("_cumulative", "_weighted", "servings")

    def __init__(self, servings: Sequence[Serving]) -> None:
        self.servings = tuple(servings)
        self._weighted = tuple(s for s in servings if s.config.weight > 0)
        self._cumulative = list(accumulate(s.config.weight for s in self._weighted))

    def drawn(self, point: float) -> Serving | None:
        """Who stands at `point`, from 0 to 1; None if all have weight 0."""
        if not self._weighted:
            return None
        at = bisect(self._cumulative, point * self._cumulative[-1])
        return self._weighted[min(at, len(self._weighted) - 1)]


class Pool:
    """Those who serve a model. Made once for many calls.

    `barred`: the names of others, who serve it too, but not for these calls. `counts_tokens`:
    what clients compete for there is tokens; where all are limited by requests alone, these.
    """

    __slots__ = ("barred", "by_name", "counts_tokens", "everybody", "groups", "servings")

    def __init__(self, servings: Sequence[Serving], barred: Iterable[str] = ()) -> None:
        self.servings = tuple(servings)
        self.barred = frozenset(barred)
        self.counts_tokens = any(s.counts_tokens for s in servings)
        self.by_name = tuple(sorted(servings, key=lambda s: s.config.name))
        self.everybody = Group(servings)
        priorities = sorted({s.config.priority for s in servings})
        # Lowest priority first.
        self.groups = tuple(
            Group([s for s in servings if s.config.priority == p]) for p in priorities
        )


def _nobody(servings: Sequence[Serving]) -> list[Candidate]:
    return [Candidate(s) for s in servings]


@dataclass(frozen=True, slots=True)
class Turn:
    """What a policy may know of a call, given from outside.

    `number` counts the calls for a model. `look` tells the load of servings. `affinity` is
    what calls with the same beginning of a prompt have in common.
    """

    rng: Random
    number: int = 0
    affinity: bytes = b""
    look: Callable[[Sequence[Serving]], list[Candidate]] = field(default=_nobody)


Policy = Callable[[Pool, Turn], Iterator[Serving]]
POLICIES: dict[str, Policy] = {}


def policy(name: str) -> Callable[[Policy], Policy]:
    def register(function: Policy) -> Policy:
        if name in POLICIES:
            raise ValueError(f"two policies named {name!r}")
        POLICIES[name] = function
        return function

    return register


def order(name: str, pool: Pool, turn: Turn) -> Iterator[Serving]:
    """All of the pool, each once, in the policy's order."""
    if len(pool.servings) < 2:
        return iter(pool.servings)
    return POLICIES[name](pool, turn)


@policy("failover")
def by_priority(pool: Pool, turn: Turn) -> Iterator[Serving]:
    """Lowest `priority` first, as long as it has room; equals in proportion to `weight`."""
    for group in pool.groups:
        yield from _by_weight(group, turn)


@policy("weighted")
def by_weight(pool: Pool, turn: Turn) -> Iterator[Serving]:
    """Weight 3 comes first three times as often as weight 1; weight 0 comes last."""
    return _by_weight(pool.everybody, turn)


@policy("round_robin")
def in_turn(pool: Pool, turn: Turn) -> Iterator[Serving]:
    """One after the other, by name; each call for the model begins one further on."""
    start = turn.number % len(pool.by_name)
    yield from pool.by_name[start:]
    yield from pool.by_name[:start]


@policy("least_loaded")
def by_load(pool: Pool, turn: Turn) -> Iterator[Serving]:
    """Smallest share of its limits in use first, then fewest in flight, then by chance."""

    def key(c: Candidate) -> tuple[float, int, float]:
        return c.load, c.in_flight, turn.rng.random()

    return _by_look(pool.servings, turn, key)


@policy("latency")
def by_latency(pool: Pool, turn: Turn) -> Iterator[Serving]:
    """Lowest `priority` first; of equals whose median time to the first byte is shortest.

    Those nobody measured yet come first. One call in twenty is drawn by weight instead.
    """

    def key(c: Candidate) -> tuple[float, int, float]:
        return c.first_byte_ms or 0.0, c.in_flight, turn.rng.random()

    explores = turn.rng.random() < EXPLORING_SHARE
    for group in pool.groups:
        if explores:
            yield from _by_weight(group, turn)
        else:
            yield from _by_look(group.servings, turn, key)


@policy("sticky")
def by_affinity(pool: Pool, turn: Turn) -> Iterator[Serving]:
    """Lowest `priority` first; of equals always the same for the same beginning of a prompt,
    so that its prompt cache is hit, in proportion to `weight` over all beginnings.

    Rendezvous hashing (Thaler & Ravishankar 1998): who comes or goes moves only its own share.
    """
    for group in pool.groups:
        yield from sorted(group.servings, key=lambda s: _score(s, turn.affinity), reverse=True)


def _by_weight(group: Group, turn: Turn) -> Iterator[Serving]:
    first = group.drawn(turn.number * GOLDEN_RATIO % 1.0)
    if first is not None:
        yield first

    def key(s: Serving) -> float:
        # Efraimidis & Spirakis 2006: sorting by random ** (1 / weight) draws without
        # replacement in proportion to weight. Among several of weight 0 chance decides.
        weight = s.config.weight
        return turn.rng.random() ** (1 / weight) if weight else turn.rng.random() - 1

    yield from sorted((s for s in group.servings if s is not first), key=key, reverse=True)


def _by_look(
    servings: Sequence[Serving],
    turn: Turn,
    key: Callable[[Candidate], tuple[float, int, float]],
) -> Iterator[Serving]:
    if len(servings) > COMPARED:
        servings = turn.rng.sample(servings, len(servings))
    yield from (c.serving for c in sorted(turn.look(servings[:COMPARED]), key=key))
    yield from servings[COMPARED:]


def _score(serving: Serving, affinity: bytes) -> float:
    """Weighted rendezvous (Schindelhauer & Schomaker 2005): -weight / ln(hash)."""
    name = serving.config.name.encode()
    digest = blake2b(affinity, digest_size=8, key=blake2b(name, digest_size=32).digest())
    # 52 bits, so that no share is rounded to 1, whose logarithm is 0.
    share = ((int.from_bytes(digest.digest(), "big") >> 12) + 0.5) / 2**52
    return -serving.config.weight / math.log(share)
