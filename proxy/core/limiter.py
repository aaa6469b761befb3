"""Whether there is room for a call, and when there will be; mirrors how Azure admits calls.

Tokens are a budget a minute: what a call may cost is taken when it begins, and settled with
what it did cost when it ends. Requests are looked at over about ten seconds, though the limit
is one a minute: 600 a minute are 100 in ten seconds, and a burst is refused though the minute
has room. (Source: Azure's documentation of quotas and limits. Its own counter gives nothing
back when an answer is short.)

Workers hear of each other's counts once in each sync interval. Until then each takes it that
every other one did as much as itself lately, and leaves so much of the room to them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from proxy.core.types import InstanceConfig, Limit, MeterKey, QuotaGroup, Serving
from proxy.core.window import WINDOW_SECONDS, Window

WINDOWS_PER_MINUTE = 6

# What began in a second counts until all of that second is a minute old: counted by whole
# seconds, a minute would end up to a second early, and a burst at its end be one too many.
EDGE_SECONDS = 1
COUNTED_SECONDS = WINDOW_SECONDS + EDGE_SECONDS

# Where clients compete for a minute's tokens, these are handed out evenly: taken all at once,
# they come back all at once, and who comes in between finds none for long.
EVEN_SECONDS = 2  # the parts of so many may be taken at once
EVEN_MEMORY_SECONDS = 10  # what was taken longer ago does not count
LEAST_EVEN_SECONDS = 0.01  # however much is kept for others: when nothing was taken a call goes

DEPLOYMENT = "deployment"  # the kind of a meter

KNOWN_LIMITS = 256


@dataclass(frozen=True, slots=True)
class Peers:
    """The other workers on this host, and how often all hear of each other."""

    others: int = 0
    sync_seconds: float = 0.0


class Lately:
    """Tokens and requests of few seconds, so it has none of the room that a window has: what
    this worker added to a meter that the others may not have heard of, or only when they had
    added as much."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: list[list[int]] = []  # second, tokens and requests of each

    def add(self, tokens: int, requests: int, second: int) -> None:
        for each in reversed(self._counts):  # mostly it is the last
            if each[0] == second:
                each[1] += tokens
                each[2] += requests
                return
        if len(self._counts) > 2 * COUNTED_SECONDS:  # no sync for long
            oldest = second - COUNTED_SECONDS
            self._counts = [each for each in self._counts if each[0] > oldest]
        self._counts.append([second, tokens, requests])

    def tokens(self, second: int) -> int:
        """The sum as of `second`; never below 0."""
        oldest = second - COUNTED_SECONDS
        return max(sum([each[1] for each in self._counts if each[0] > oldest]), 0)

    def requests(self, second: int, seconds: int = COUNTED_SECONDS) -> int:
        """The sum over so many seconds, as of `second`."""
        oldest = second - seconds
        return sum([each[2] for each in self._counts if each[0] > oldest])


class Meter:
    """Tokens and requests of the last COUNTED_SECONDS. Not thread-safe: its owner locks."""

    __slots__ = ("requests", "tokens")

    def __init__(self) -> None:
        self.tokens = Window(COUNTED_SECONDS)
        self.requests = Window(COUNTED_SECONDS)

    def add(self, tokens: int, requests: int, second: int) -> None:
        if tokens:
            self.tokens.add(tokens, second)
        if requests:
            self.requests.add(requests, second)

    def seconds(self) -> Iterator[tuple[int, int, int]]:
        """Those in which something was added: second, tokens and requests."""
        newest = self.newest
        tokens = self.tokens.by_second(newest, COUNTED_SECONDS)
        requests = self.requests.by_second(newest, COUNTED_SECONDS)
        oldest = newest - COUNTED_SECONDS + 1
        for at, sums in enumerate(zip(tokens, requests, strict=True), oldest):
            if sums != (0, 0):
                yield at, *sums

    @property
    def newest(self) -> int:
        """The last second to which anything was added."""
        return max(self.tokens.newest, self.requests.newest)


def instance_meter(name: str) -> MeterKey:
    return ("instance", name, "")


def ungrouped(name: str, deployment: str) -> tuple[MeterKey, ...]:
    """What a call to this deployment counts in whatever the config is."""
    return instance_meter(name), (DEPLOYMENT, name, deployment)


def meters(config: InstanceConfig, deployment: str) -> tuple[MeterKey, ...]:
    """What a call to this deployment counts in; the instance's first."""
    keys = [*ungrouped(config.name, deployment)]
    if config.quota_group:
        model = _model(config, deployment)
        keys += [("group", config.quota_group, ""), ("group", config.quota_group, model)]
    return tuple(keys)


def serving(
    config: InstanceConfig, deployment: str, groups: Mapping[str, QuotaGroup] | None = None
) -> Serving:
    """The instance and its deployment, with all limits that bound a call there."""
    enabled = config.rate_limit_enabled
    limits = tuple(_limits(config, deployment, groups or {})) if enabled else ()
    least = min((limit.max_tpm for limit in limits if limit.max_tpm > 0), default=0)
    counted = meters(config, deployment)
    return Serving(config, deployment, limits, counted, least, not limits or least > 0)


def may_be_limited(config: InstanceConfig) -> bool:
    """Whether what a call to it counts in can have a limit; where it cannot, nobody asks what
    was lately. In a group it counts in what limits the others, too, whatever it is itself."""
    if config.quota_group:
        return True
    own = config.max_tpm > 0 or config.max_rpm > 0 or bool(config.model_limits)
    return config.rate_limit_enabled and own


def _limits(
    config: InstanceConfig, deployment: str, groups: Mapping[str, QuotaGroup]
) -> list[Limit]:
    model = _model(config, deployment)
    found = [
        Limit(instance_meter(config.name), config.max_tpm, config.max_rpm),
        _limit_of_model((DEPLOYMENT, config.name, deployment), config.model_limits, model),
    ]
    group = groups.get(config.quota_group or "")
    if group is not None:
        found += [
            Limit(("group", group.name, ""), group.max_tpm, group.max_rpm),
            _limit_of_model(("group", group.name, model), group.model_limits, model),
        ]
    return [limit for limit in found if limit.max_tpm > 0 or limit.max_rpm > 0]


def _limit_of_model(
    meter: MeterKey, limits: Mapping[str, Mapping[str, int]], model: str
) -> Limit:
    named = next((found for name, found in limits.items() if name.lower() == model), {})
    return Limit(meter, named.get("max_tpm", 0), named.get("max_rpm", 0))


def _model(config: InstanceConfig, deployment: str) -> str:
    """The model that a deployment serves, in lower case: by that its limits are found, and
    counted together over the instances of a group."""
    for model, name in config.model_deployments.items():
        if name == deployment:
            return model.lower()
    return deployment.lower()


@lru_cache(KNOWN_LIMITS)
def request_window(max_rpm: int) -> tuple[int, int]:
    """(how many requests, in how many whole seconds) a limit a minute allows.

    About ten seconds, longer where a whole number of requests needs it: 10 a minute are 2 in
    twelve seconds.
    """
    size = math.ceil(max_rpm / WINDOWS_PER_MINUTE)
    return size, math.ceil(size * WINDOW_SECONDS / max_rpm)


def reservation_tokens(serving: Serving, tokens: int) -> int:
    """What a call of `tokens` estimated tokens reserves.

    At most the smallest whole limit: a call estimated above it may go when nothing else does,
    because the estimate may be too high, and waiting would not make it fit.
    """
    return serving.least_tpm if 0 < serving.least_tpm < tokens else tokens


def has_plenty(limit: Limit, meter: Meter, tokens: int, second: int, others: int) -> bool:
    """There is room for a call of `tokens`, also if others have taken all of their part. So it
    mostly is, and this is all that is looked at then."""
    if limit.max_tpm > 0:
        used = meter.tokens.total(second) + tokens
        if used + _part(limit.max_tpm, others) > limit.max_tpm:
            return False
    if limit.max_rpm > 0:
        size, _ = request_window(limit.max_rpm)
        if meter.requests.total(second) + 1 + _part(size, others) > size:
            return False
    return True


def wait_seconds(limit: Limit, meter: Meter, tokens: int, second: int) -> int:
    """Seconds until a call of `tokens` has room, 0 if it has now."""
    wait = 0
    if limit.max_tpm > 0:
        room_for = limit.max_tpm - min(tokens, limit.max_tpm)
        # A reservation is at most the limit, so an empty window always has room.
        wait = meter.tokens.seconds_until(room_for, second) or 0
    if limit.max_rpm > 0:
        size, seconds = request_window(limit.max_rpm)
        if meter.requests.total(second) >= size:  # else fewer seconds have no more
            span = seconds + EDGE_SECONDS
            wait = max(wait, meter.requests.seconds_until(size - 1, second, span) or 0)
    return wait


def even_wait_seconds(limit: Limit, meter: Meter, second: int, kept: float) -> int:
    """Seconds until a call has room where the minute's tokens are handed out evenly; 0 where
    they have no limit. `kept` are for others, of each second's.

    A leaky bucket: it leaks what is each second's part of the minute, and while it holds less
    than a few of these there is room, for a call of whatever size.
    """
    if limit.max_tpm <= 0:
        return 0
    part = limit.max_tpm / COUNTED_SECONDS
    level = 0.0
    for tokens in meter.tokens.by_second(second, EVEN_MEMORY_SECONDS):
        level = max(level - part, 0.0) + tokens
    # Into an empty one a call goes whatever is kept.
    space = max(EVEN_SECONDS - kept / part, LEAST_EVEN_SECONDS)
    return max(math.floor(level / part - space) + 1, 0)


def is_left_to_others(
    limit: Limit, meter: Meter, mine: Lately, tokens: int, second: int, others: int
) -> bool:
    """Whether the room that a call of `tokens` has is one that others may have taken, if each
    of them did as `mine` is.

    However long nothing is heard of them, they have no more than their part: a worker always
    has its own. Where there is room for all of that, `mine` is not looked at.
    """
    if limit.max_tpm > 0:
        part = _part(limit.max_tpm, others)
        used = meter.tokens.total(second) + min(tokens, limit.max_tpm)
        if used + part > limit.max_tpm:
            theirs = min(others * mine.tokens(second), part)
            if theirs and used + theirs > limit.max_tpm:
                return True
    if limit.max_rpm > 0:
        size, seconds = request_window(limit.max_rpm)
        part = _part(size, others)
        if meter.requests.total(second) + part + 1 > size:
            span = seconds + EDGE_SECONDS
            theirs = min(others * mine.requests(second, span), part)
            return theirs > 0 and meter.requests.recent(second, span) + theirs + 1 > size
    return False


def _part(limit: int, others: int) -> int:
    """All that the others may have of it."""
    return limit * others // (others + 1)


def used_share(limit: Limit, meter: Meter, second: int) -> float:
    """Of the limit, tokens or requests, whichever is more."""
    share = 0.0
    if limit.max_tpm > 0:
        share = meter.tokens.total(second) / limit.max_tpm
    if limit.max_rpm > 0:
        size, seconds = request_window(limit.max_rpm)
        share = max(share, meter.requests.recent(second, seconds + EDGE_SECONDS) / size)
    return share


def largest_share(
    limits: Sequence[Limit], meters: Mapping[MeterKey, Meter], second: int
) -> float:
    """Of the limits' shares in use; 0.0 without a limit."""
    return max(
        (used_share(lim, meters[lim.meter], second) for lim in limits if lim.meter in meters),
        default=0.0,
    )


def accepts_prompt(config: InstanceConfig, prompt_tokens: int) -> bool:
    """`max_input_tokens` allows it; 0 allows everything."""
    return config.max_input_tokens == 0 or prompt_tokens <= config.max_input_tokens
