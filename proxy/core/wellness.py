"""How the gateway is, in one word, in reasons, and in a sentence that a person can read."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

HEALTHY, DEGRADED, CRITICAL = "healthy", "degraded", "critical"

# Of the last minutes' requests, those that were answered well; below it is told.
DEGRADED_RATE, CRITICAL_RATE = 0.95, 0.5
LEAST_REQUESTS = 10  # of fewer a rate says little
LITTLE_LEFT = 0.1  # of a budget

# An instance's status, and what several of them do.
DOES = {
    "rate_limited": ("rests", "rest"),
    "error": ("fails", "fail"),
    "misconfigured": ("is misconfigured", "are misconfigured"),
    "disabled": ("is disabled", "are disabled"),
}
WELL = "healthy"


@dataclass(frozen=True, slots=True)
class Seen:
    """`statuses`: each instance's; `serving`: model -> the instances that serve it; `budgets`:
    model -> the share of its tokens a minute that is left, where there is a limit. `rate`: of
    the last minutes, of `judged` requests."""

    statuses: Mapping[str, str]
    serving: Mapping[str, Sequence[str]]
    budgets: Mapping[str, float]
    rate: float | None = None
    judged: int = 0
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Health:
    status: str
    reasons: tuple[str, ...]
    sentence: str


def judge(seen: Seen) -> Health:
    """The worst that is true of it. Critical: clients get errors now, for a model at least."""
    critical = tuple(_critical(seen))
    degraded = tuple(_degraded(seen))
    status = CRITICAL if critical else DEGRADED if degraded else HEALTHY
    return Health(status, (*critical, *degraded), sentence(seen))


def sentence(seen: Seen) -> str:
    """Such as: 2 of 5 instances rest; gpt-4o has 61 % of its budget left."""
    parts = list(_instances(seen.statuses))
    if seen.budgets:
        model, left = min(seen.budgets.items(), key=lambda item: (item[1], item[0]))
        parts.append(f"{model} has {left:.0%} of its budget left".replace("%", " %"))
    return "; ".join(parts) + "."


def _instances(statuses: Mapping[str, str]) -> Iterable[str]:
    if not statuses:
        yield "There is no instance"
        return
    whole = len(statuses)
    counts = {s: list(statuses.values()).count(s) for s in DOES}
    ill = [(s, n) for s, n in counts.items() if n]
    if not ill:
        yield "The only instance is well" if whole == 1 else f"All {whole} instances are well"
    for number, (status, count) in enumerate(ill):
        noun = (" instance" if whole == 1 else " instances") if not number else ""
        yield f"{count} of {whole}{noun} {DOES[status][count > 1]}"


def _critical(seen: Seen) -> Iterable[str]:
    in_service = {n for n, status in seen.statuses.items() if status != "disabled"}
    if not in_service:
        yield "No instance is in service."
    elif not any(seen.statuses[n] == WELL for n in in_service):
        yield "None of the instances in service can be asked now."
    else:
        for model, names in sorted(seen.serving.items()):
            if not any(seen.statuses.get(n) == WELL for n in names):
                yield f"No instance that serves {model} can be asked now."
    if seen.judged >= LEAST_REQUESTS and seen.rate is not None and seen.rate < CRITICAL_RATE:
        yield _of_rate(seen.rate)


def _degraded(seen: Seen) -> Iterable[str]:
    if seen.problem:
        yield seen.problem
    for name, status in sorted(seen.statuses.items()):
        if status in DOES and status != "disabled":
            yield f"The instance {name} {DOES[status][0]}."
    for model, left in sorted(seen.budgets.items()):
        if left < LITTLE_LEFT:
            yield f"{model} has {left:.0%} of its tokens a minute left.".replace("%", " %")
    rate = seen.rate
    if seen.judged < LEAST_REQUESTS or rate is None:
        return
    if CRITICAL_RATE <= rate < DEGRADED_RATE:
        yield _of_rate(rate)


def _of_rate(rate: float) -> str:
    return f"Of the requests of the last minutes {rate:.1%} succeeded.".replace("%", " %")
