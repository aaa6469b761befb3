"""What an upstream's headers say about its limits: they lower our own view, and never raise it.

Source: the headers `x-ratelimit-*` of Azure and OpenAI. Remaining tokens may be stale, or -1 or
0 on some operations, though there is room; the limit may be lower than the quota for hours.
What remains beside a 429 is not looked at: the 429 says itself how long it is to be left alone.
"""

from collections.abc import Mapping
from typing import NamedTuple

from proxy.core.window import SET_BACK_SECONDS

# After that long what remained then says nothing: most of the minute's budget is back.
TRUSTED_SECONDS = 10.0
# A limit that is lower than the config's is a temporary one; the next answer says whether it
# still is.
LIMIT_TRUSTED_SECONDS = 300.0


class Hint(NamedTuple):
    """Of one deployment, as of its last answer. None: it did not say.

    `remaining_*` are what is left of it, less what was begun here since.
    """

    at: float
    limit_tokens: int | None = None
    remaining_tokens: int | None = None
    remaining_requests: int | None = None

    def wait_seconds(self, tokens: int, now: float) -> float:
        """Until what remained then does not keep a call of `tokens` away any more."""
        left = self.at + TRUSTED_SECONDS - now
        if left <= 0 or left > TRUSTED_SECONDS + SET_BACK_SECONDS:  # the clock was set back
            return 0.0
        lacks_tokens = self.remaining_tokens is not None and tokens > self.remaining_tokens
        lacks_requests = self.remaining_requests is not None and self.remaining_requests < 1
        return left if lacks_tokens or lacks_requests else 0.0

    def lower_limit_tokens(self, now: float) -> int | None:
        """Tokens a minute, if it said so lately."""
        age_seconds = now - self.at
        is_trusted = -SET_BACK_SECONDS <= age_seconds < LIMIT_TRUSTED_SECONDS
        return self.limit_tokens if is_trusted else None

    def less(self, tokens: int) -> "Hint":
        """After a call of `tokens` was begun."""
        return Hint(
            self.at,
            self.limit_tokens,
            _less(self.remaining_tokens, tokens),
            _less(self.remaining_requests, 1),
        )


def hint(headers: Mapping[str, str], now: float, *, is_throttled: bool) -> Hint | None:
    """What an answer's headers say; None if nothing. The names are in lower case."""
    limit_tokens = _number(headers.get("x-ratelimit-limit-tokens"))
    tokens = requests = None
    if not is_throttled:
        tokens = _number(headers.get("x-ratelimit-remaining-tokens"))
        requests = _number(headers.get("x-ratelimit-remaining-requests"))
    if limit_tokens is None and tokens is None and requests is None:
        return None
    return Hint(now, limit_tokens, tokens, requests)


def _number(text: str | None) -> int | None:
    """A whole number from 1; None if it is none."""
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 15:
        return None
    return int(text) or None


def _less(remaining: int | None, used: int) -> int | None:
    return None if remaining is None else remaining - used
