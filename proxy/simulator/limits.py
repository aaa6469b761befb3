"""Is there room for a request: Azure's limits for one deployment.

Source: Azure's documentation of quotas and rate limits. Tokens are a budget for a
minute, charged with an estimate when the request arrives. Requests are looked at over
windows of about ten seconds: 600 a minute means 100 in ten seconds, and a burst is
refused though the minute has room. Refused requests count too, so that whoever tries
again at once waits longer.
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal

BUDGET_SECONDS = 60.0
WINDOWS_PER_MINUTE = 6

UNLIMITED_TOKENS_PER_MINUTE = 10_000_000
UNLIMITED_REQUESTS_PER_MINUTE = 60_000
"""What the headers say where there is no limit: Azure never leaves them out."""


@dataclass(frozen=True, slots=True)
class Admission:
    """What was decided about one request.

    `limited_by` is None if it was let in. `retry_after_seconds` is when the same
    request would be, if nobody else came. What remains is after this request, of the
    minute for tokens and of the window for requests.
    """

    limited_by: Literal["token", "call"] | None
    retry_after_seconds: float
    limit_tokens: int
    limit_requests: int
    remaining_tokens: int
    remaining_requests: int


class Limits:
    """The two limits of a deployment; None is no limit.

    `now` is monotonic seconds, from the caller, and never goes back. Not thread-safe:
    whoever owns this holds a lock around it.
    """

    def __init__(
        self, tokens_per_minute: int | None = None, requests_per_minute: int | None = None
    ) -> None:
        self._tokens_per_minute = tokens_per_minute
        self._requests_per_minute = requests_per_minute
        self._tokens: deque[tuple[float, int]] = deque()
        self._spent_tokens = 0  # the sum of them; thousands a minute are usual in load tests
        self._requests: deque[float] = deque()

    def admit(self, tokens: int, now: float) -> Admission:
        """Let a request of so many estimated tokens in, or not; it counts either way."""
        wait_for_calls = self._count_request(now)
        wait_for_tokens = self._wait_for_tokens(tokens, now)
        limited_by: Literal["token", "call"] | None = None
        if wait_for_calls:
            limited_by = "call"
        elif wait_for_tokens:
            limited_by = "token"
        elif self._tokens_per_minute is not None:
            self._tokens.append((now, tokens))
            self._spent_tokens += tokens
        return Admission(
            limited_by,
            max(wait_for_calls, wait_for_tokens),
            self._tokens_per_minute or UNLIMITED_TOKENS_PER_MINUTE,
            self._requests_per_minute or UNLIMITED_REQUESTS_PER_MINUTE,
            self._remaining_tokens(),
            self._remaining_requests(),
        )

    def _count_request(self, now: float) -> float:
        """Seconds until one more fits; 0 if this one did."""
        if self._requests_per_minute is None:
            return 0.0
        size, seconds = window(self._requests_per_minute)
        while self._requests and self._requests[0] + seconds <= now:
            self._requests.popleft()
        self._requests.append(now)
        surplus = len(self._requests) - size
        if surplus <= 0:
            return 0.0
        # Those that are too many must leave, and one more for the request that comes back.
        # In this order: a sum with a large `now` is rounded, and may come out above 60.
        return seconds - (now - self._requests[surplus])

    def _wait_for_tokens(self, tokens: int, now: float) -> float:
        """Seconds until so many fit; 0 if they do. More than the budget never fit."""
        if self._tokens_per_minute is None:
            return 0.0
        while self._tokens and self._tokens[0][0] + BUDGET_SECONDS <= now:
            self._spent_tokens -= self._tokens.popleft()[1]
        missing = tokens - self._remaining_tokens()
        if missing <= 0:
            return 0.0
        for at, spent in self._tokens:
            missing -= spent
            if missing <= 0:
                return BUDGET_SECONDS - (now - at)
        return BUDGET_SECONDS

    def _remaining_tokens(self) -> int:
        if self._tokens_per_minute is None:
            return UNLIMITED_TOKENS_PER_MINUTE
        return self._tokens_per_minute - self._spent_tokens

    def _remaining_requests(self) -> int:
        if self._requests_per_minute is None:
            return UNLIMITED_REQUESTS_PER_MINUTE
        size, _ = window(self._requests_per_minute)
        return max(0, size - len(self._requests))


def window(requests_per_minute: int) -> tuple[int, float]:
    """How many requests in how many seconds.

    About ten seconds, stretched where a whole number of requests needs it: 10 a minute
    are 2 in twelve seconds, so that the rate is exactly what was set.
    """
    size = math.ceil(requests_per_minute / WINDOWS_PER_MINUTE)
    return size, size * 60.0 / requests_per_minute
