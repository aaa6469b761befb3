"""The one loop that tries again: from a call to the attempt whose answer the client gets."""

import logging
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import count

from proxy.core import limiter
from proxy.core.catalog import names_model
from proxy.core.routing import Turn, order
from proxy.core.types import Call, Candidate, Serving
from proxy.core.verdict import MISCONFIGURED, NO_DEPLOYMENT
from proxy.errors import (
    BadRequest,
    ModelNotFound,
    NoRoom,
    ProxyError,
    Unavailable,
    UpstreamFailed,
    UpstreamTimeout,
)
from proxy.runtime.attempt import Attempt
from proxy.runtime.snapshot import Snapshots
from proxy.runtime.state import Refusal, State
from proxy.runtime.upstream import Upstream

logger = logging.getLogger(__name__)

# "No room" without a moment when there will be: other threads took it just now.
SOON_SECONDS = 1.0

MAX_TURNS = 10_000


class Forward:
    """Thread-safe. `policy` is a key of POLICIES."""

    def __init__(
        self,
        snapshots: Snapshots,
        state: State,
        upstream: Upstream,
        *,
        policy: str,
        on_close: Callable[[Attempt], None] = lambda _: None,
    ) -> None:
        self._snapshots = snapshots
        self._state = state
        self._upstream = upstream
        self._policy = policy
        self._on_close = on_close
        self._random = random.Random()  # draws instances, not secrets
        self._turns: defaultdict[str, count[int]] = defaultdict(count)
        self._open: set[Attempt] = set()  # adding and discarding are atomic

    def forward(self, call: Call, tried: list[str]) -> Attempt:
        """The first attempt another instance could not better, or else the last.

        Its answer may be an error one; read `body` or iterate it, then close it. `tried`
        takes one entry an attempt, for the log. Raises a ProxyError if there is nothing
        that may be shown: an unknown model, no room, no instance that answers.
        """
        servings = self._servings(call)
        attempt: Attempt | None = None
        left = 0
        for candidate in self._ordered(call, servings):
            left = left or 1 + candidate.config.retry_count  # of the one chosen first
            if attempt is not None:
                logger.info("%s %s, trying another", call.request_id, attempt)
            following = self._try(call, candidate, previous=attempt)
            if following is None:
                continue
            attempt = following
            tried.append(_tried(attempt))
            left -= 1
            if not attempt.verdict.try_next or not left:
                break
        if attempt is None:
            self._state.refuse(call)
            raise self._nobody(call, servings)
        return self._shown(call, servings, attempt)

    def _closed(self, attempt: Attempt) -> None:
        self._open.discard(attempt)
        self._on_close(attempt)

    def settle_open(self) -> int:
        """Counts the answers that are still open as they stand; how many. For the end of a
        worker: what their threads do after it is not counted any more."""
        cut_off = [a for a in self._open.copy() if a.settle()]
        for attempt in cut_off:
            logger.warning(
                "%s %s was still answering when the worker ended",
                attempt.request_id,
                attempt.serving.config.name,
            )
        return len(cut_off)

    def _servings(self, call: Call) -> Sequence[Serving]:
        snapshot = self._snapshots.current
        servings = snapshot.catalog.serving(call.model)
        if not servings:
            if snapshot.disabled.serving(call.model):
                raise Unavailable(f"No instance that serves {call.model!r} is enabled.")
            raise _model_not_found(call)
        fitting = [s for s in servings if limiter.accepts_prompt(s.config, call.prompt_tokens)]
        if not fitting:
            most = max(s.config.max_input_tokens for s in servings)
            raise BadRequest(
                f"The prompt has about {call.prompt_tokens} tokens; for {call.model!r} at most"
                f" {most} are accepted.",
                code="context_length_exceeded",
            )
        return fitting

    def _ordered(self, call: Call, servings: Sequence[Serving]) -> list[Candidate]:
        candidates, _ = self._state.candidates(servings, call.reserved_tokens)
        if not candidates:
            return []
        if len(self._turns) > MAX_TURNS:  # clients choose the names where any model is served
            self._turns.clear()
        turn = Turn(self._random, next(self._turns[call.model]))
        return order(self._policy, candidates, turn)

    def _try(
        self, call: Call, candidate: Candidate, *, previous: Attempt | None
    ) -> Attempt | None:
        """One attempt; None if the instance has no room any more.

        The previous one is closed first, so that its connection and its count are settled.
        """
        reservation = self._state.start(candidate.serving, call)
        if reservation is None:
            return None
        if previous is not None:
            previous.close(answered=False)
        attempt = Attempt(
            self._state, reservation, call, candidate.serving, on_close=self._closed
        )
        self._open.add(attempt)
        try:
            attempt.open(self._upstream)
        except BaseException:
            attempt.close()  # whatever it was, the room is given back
            raise
        return attempt

    def _shown(self, call: Call, servings: Sequence[Serving], attempt: Attempt) -> Attempt:
        """The attempt, if a client may see its answer. Raises what to say instead."""
        verdict = attempt.verdict
        if attempt.error is None and not verdict.try_next:
            return attempt
        if attempt.error is None and verdict.shown and verdict.outcome != "throttled":
            return attempt
        logger.warning("%s %s, and nobody else can serve it", call.request_id, attempt)
        attempt.close()
        if verdict.outcome in ("throttled", "misconfigured"):
            raise self._nobody(call, servings)
        raise _unreachable(call, attempt)

    def _nobody(self, call: Call, servings: Sequence[Serving]) -> ProxyError:
        """Why nobody was, or can be, asked now, and when to come back."""
        candidates, refused = self._state.candidates(servings, call.reserved_tokens)
        waiting = [r for r in refused if r.reason not in MISCONFIGURED]
        if refused and not waiting and not candidates:
            unknown = all(r.reason == NO_DEPLOYMENT for r in refused)
            if unknown and not any(names_model(s.config, call.model) for s in servings):
                return _model_not_found(call)
            return _misconfigured(call)
        wait = SOON_SECONDS if candidates else min(r.wait_seconds for r in waiting)
        return NoRoom(
            f"All instances that serve {call.model!r} are at their limit. {_why(waiting)}",
            retry_after_seconds=wait,
        )


def _why(refused: Sequence[Refusal]) -> str:
    resting = sum(1 for r in refused if r.reason != "no room")
    return f"{resting} rest, {len(refused) - resting} have no tokens left this minute."


def _tried(attempt: Attempt) -> str:
    """For the log: instance, and status or outcome."""
    what = attempt.verdict.outcome if attempt.error else str(attempt.answer.status)
    return f"{attempt.serving.config.name}:{what}"


def _model_not_found(call: Call) -> ProxyError:
    return ModelNotFound(
        f"The model {call.model!r} does not exist here, or no instance serves it.",
        param="model",
    )


def _misconfigured(call: Call) -> ProxyError:
    return UpstreamFailed(
        f"The instances that serve {call.model!r} refuse the gateway: their key or deployment"
        " is wrong. This is for the gateway's operator to mend.",
        code="upstream_misconfigured",
    )


def _unreachable(call: Call, attempt: Attempt) -> ProxyError:
    error = attempt.error
    if error is None:
        return UpstreamFailed(
            f"No instance gave an answer for {call.model!r}: the last redirected elsewhere."
        )
    kind = UpstreamTimeout if error.timed_out else UpstreamFailed
    return kind(f"No instance gave an answer for {call.model!r}: the last, {error.message}.")
