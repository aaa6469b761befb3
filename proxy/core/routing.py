"""In which order to try the candidates: one small function a policy, in one registry."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from proxy.core.types import Candidate


@dataclass(frozen=True, slots=True)
class Turn:
    """Chance and sequence, given from outside. `number` counts the calls for a model."""

    rng: Random
    number: int = 0


Policy = Callable[[Sequence[Candidate], Turn], list[Candidate]]
POLICIES: dict[str, Policy] = {}


def policy(name: str) -> Callable[[Policy], Policy]:
    def register(function: Policy) -> Policy:
        if name in POLICIES:
            raise ValueError(f"two policies named {name!r}")
        POLICIES[name] = function
        return function

    return register


def order(name: str, candidates: Sequence[Candidate], turn: Turn) -> list[Candidate]:
    """The policy's order, but those that failed a moment ago after all others.

    They are not left out: when nobody else can serve, a late try is better than none.
    """
    if len(candidates) < 2:
        return list(candidates)
    return sorted(POLICIES[name](candidates, turn), key=lambda c: c.failing)


@policy("failover")
def by_priority(candidates: Sequence[Candidate], turn: Turn) -> list[Candidate]:
    """Lowest `priority` first; among equals, drawn in proportion to `weight`."""
    return sorted(by_weight(candidates, turn), key=lambda c: c.config.priority)


@policy("weighted")
def by_weight(candidates: Sequence[Candidate], turn: Turn) -> list[Candidate]:
    """Weight 3 comes first three times as often as weight 1; weight 0 comes last.

    Among several of weight 0 chance decides.
    """

    def key(c: Candidate) -> float:
        # Efraimidis & Spirakis 2006: sorting by random ** (1 / weight) draws
        # without replacement in proportion to weight.
        weight = c.config.weight
        return turn.rng.random() ** (1 / weight) if weight else turn.rng.random() - 1

    return sorted(candidates, key=key, reverse=True)


@policy("round_robin")
def in_turn(candidates: Sequence[Candidate], turn: Turn) -> list[Candidate]:
    """One after the other, by name; each call for the model begins one further on."""
    by_name = sorted(candidates, key=lambda c: c.config.name)
    start = turn.number % len(by_name)
    return by_name[start:] + by_name[:start]


@policy("least_loaded")
def by_load(candidates: Sequence[Candidate], turn: Turn) -> list[Candidate]:
    """Smallest share of `max_tpm` in use first, then fewest in flight, then by chance."""
    return sorted(candidates, key=lambda c: (c.load, c.in_flight, turn.rng.random()))
