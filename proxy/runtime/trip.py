"""One call on its way from instance to instance, and what its attempts tell of who is left."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from proxy.core.limiter import accepts_prompt
from proxy.core.record import Trail
from proxy.core.refusal import TOO_LONG, Refusal, is_short
from proxy.core.routing import Pool, Turn
from proxy.core.types import Call, Serving, Usage
from proxy.core.verdict import MODEL_ERROR, NO_DEPLOYMENT, NO_SUCH_MODEL, NOT_ASKED, UNSUPPORTED
from proxy.errors import ProxyError
from proxy.runtime import no_answer
from proxy.runtime.attempt import Attempt
from proxy.runtime.line import Line
from proxy.runtime.waiting import Waiter

# Told once what the answer used, which the client gets, and what that costs.
Charge = Callable[[Usage, int], None]


def charge_nobody(_usage: Usage, _cost_nano: int) -> None:
    """For calls of which nobody keeps an account."""


def queue_of(call: Call) -> str:
    """Where a call waits, and for what it competes: in whatever way a client spells a model, it
    is the same one."""
    return call.model.lower()


@dataclass(slots=True)
class Trip:
    """`queue` is where the call waits, and for what it competes. `trail` is what the log tells
    of it.

    `pool` is of the config after so many `changes`.
    `left`: how many more attempts there may be, None before the first instance is chosen.
    `patience_seconds`: how long it may still wait. `asked`: the instances that are not to be
    asked twice in this pass, `refused`: why others were not. `failed`: those that can do
    nothing for this call any more, `unknown`: of these, to whom its model is none.
    `again` is who failed last in a way that may pass, and `failure` what of that to tell.
    """

    call: Call
    changes: int
    pool: Pool
    queue: str
    line: Line
    trail: Trail
    turn: Turn
    patience_seconds: float
    charge: Charge
    left: int | None = None
    attempt: Attempt | None = None
    asked: set[str] = field(default_factory=set)
    refused: list[Refusal] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    again: Serving | None = None
    failure: ProxyError | None = None

    def ends_with(self, attempt: Attempt) -> bool:
        """Nobody else is to be asked."""
        return not attempt.verdict.try_next or not self.left

    def note(self, attempt: Attempt) -> None:
        """What an attempt tells of who can still do something for the call."""
        name, verdict = attempt.serving.config.name, attempt.verdict
        if verdict is NO_SUCH_MODEL:
            self.failed.add(name)
            self.unknown.add(name)
            self.left = (self.left or 0) + 1  # it was no attempt at anything
        if verdict is UNSUPPORTED:
            self.failed.add(name)
        if verdict is MODEL_ERROR:
            self.failed.add(name)
            self.failure = no_answer.unreachable(self.call, attempt)
            self.failure.is_worth_retrying = False  # the prompt is the same
            self.left = min(self.left or 0, 1)  # a sibling may be of another mind; no more
        if verdict.failure or verdict is NOT_ASKED:
            self.failed.add(name)
            self.again = attempt.serving
            self.failure = no_answer.unreachable(self.call, attempt)

    def barred(self) -> frozenset[str]:
        """Whom it would not take, however much room there is."""
        prompt_tokens = self.call.prompt_tokens
        too_long = (
            s.config.name
            for s in self.pool.servings
            if not accepts_prompt(s.config, prompt_tokens)
        )
        return frozenset((*self.failed, *too_long, *self.pool.barred))

    @property
    def cost(self) -> float:
        """Of whatever clients compete for, whoever is asked."""
        return self.call.reserved_tokens if self.pool.counts_tokens else 1.0

    def waiter(self) -> Waiter:
        name = self.call.client.name
        return Waiter(name, self.cost, self.barred(), is_short(self.refused))

    def is_of_no_model(self, found: Sequence[Refusal | None]) -> bool:
        """No upstream that could be asked knows the model, which the client made up. `found`:
        why those of the pool cannot be asked now."""
        return bool(self.unknown) and all(
            s.config.name in self.unknown or (r and r.reason in (NO_DEPLOYMENT, TOO_LONG))
            for s, r in zip(self.pool.servings, found, strict=True)
        )
