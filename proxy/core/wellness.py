"""How the gateway is, in one word and in reasons: for whoever watches it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from proxy.core.outlook import DISABLED, WORDS, Budget

HEALTHY, DEGRADED, CRITICAL = "healthy", "degraded", "critical"

# Of the last minutes' requests, those that were answered well; below it is told.
DEGRADED_RATE, CRITICAL_RATE = 0.95, 0.5
LEAST_REQUESTS = 10  # of fewer a rate says little
LITTLE_LEFT = 0.1  # of a budget


@dataclass(frozen=True, slots=True)
class Watched:
    """`statuses`: each instance's. `rate`: of the last minutes, of `judged` requests.
    `problem`: what is wrong with the gateway itself; `outage`: why it serves nobody."""

    statuses: Mapping[str, str]
    budgets: Sequence[Budget] = ()
    rate: float | None = None
    judged: int = 0
    problem: str | None = None
    outage: str | None = None


@dataclass(frozen=True, slots=True)
class Health:
    status: str
    reasons: tuple[str, ...]


def judge(seen: Watched) -> Health:
    """The worst that is true of it. Critical: clients get errors now, for a model at least."""
    critical, degraded = tuple(_critical(seen)), tuple(_degraded(seen))
    status = CRITICAL if critical else DEGRADED if degraded else HEALTHY
    return Health(status, (*critical, *degraded))


def _critical(seen: Watched) -> Iterable[str]:
    if seen.outage:
        yield seen.outage
    in_service = [status for status in seen.statuses.values() if status != DISABLED]
    if not in_service:
        yield "No instance is in service."
    elif HEALTHY not in in_service:
        yield "None of the instances in service can be asked for all that it serves."
    for budget in seen.budgets:
        if not budget.available:
            yield f"No instance that serves {budget.model} can be asked now."
    if _is_telling(seen) and (seen.rate or 0.0) < CRITICAL_RATE:
        yield _of_rate(seen)


def _degraded(seen: Watched) -> Iterable[str]:
    if seen.problem:
        yield seen.problem
    for name, status in sorted(seen.statuses.items()):
        if status in WORDS:
            yield f"The instance {name} {WORDS[status][1]}."
    for budget in seen.budgets:
        if budget.available and budget.left_share < LITTLE_LEFT:
            yield f"{budget.model} has {budget.left_share * 100:.0f} % of its budget left."
    if _is_telling(seen) and CRITICAL_RATE <= (seen.rate or 0.0) < DEGRADED_RATE:
        yield _of_rate(seen)


def _is_telling(seen: Watched) -> bool:
    return seen.judged >= LEAST_REQUESTS and seen.rate is not None


def _of_rate(seen: Watched) -> str:
    share = 100 * (seen.rate or 0.0)
    return f"Of the requests of the last minutes {share:.1f} % succeeded."
