"""What a client's key opens, and whether it does now."""

import math
from functools import lru_cache
from typing import NamedTuple

from proxy.core.sources import ready
from proxy.core.types import Client

ANY_END = "*"  # a model that is allowed may be the beginning of names, and this

# Why a key does not open.
DISABLED = "disabled"
EXPIRED = "expired"
FOLLOWED = "replaced"  # by another key, and its grace time is over
ELSEWHERE = "elsewhere"  # its client may not call from there


class KnownKey(NamedTuple):
    """Made ready for requests when a snapshot is made. `is_plain`: it opens always and from
    everywhere, as most do, so that there is nothing to look at."""

    client: Client
    is_plain: bool
    valid_until: float


def known_key(client: Client, valid_until: float | None = None) -> KnownKey:
    """`valid_until`: the end of a former key's grace time."""
    has_home = bool(client.allowed_networks and ready(client.allowed_networks))
    is_bound = client.expires_at is not None or valid_until is not None or has_home
    return KnownKey(
        client,
        is_plain=client.enabled and not is_bound,
        valid_until=math.inf if valid_until is None else valid_until,
    )


def hindrance(key: KnownKey, now: float, *, is_elsewhere: bool = False) -> str | None:
    """Why it does not open; None if it does. `now`: seconds since the epoch. `is_elsewhere`: it
    was shown from outside of its client's networks."""
    client = key.client
    if not client.enabled:
        return DISABLED
    if client.expires_at is not None and now >= client.expires_at:
        return EXPIRED
    if now >= key.valid_until:
        return FOLLOWED
    return ELSEWHERE if is_elsewhere else None


@lru_cache(maxsize=4096)  # most clients ask for few models
def is_allowed(allowed: tuple[str, ...], model: str) -> bool:
    """Whether a list of names, and beginnings with a `*`, has the model; an empty one has all.
    Without regard to case, as models are found."""
    folded = model.lower()
    patterns = [a.lower() for a in allowed]
    return not patterns or any(
        folded == p or (p.endswith(ANY_END) and folded.startswith(p[:-1])) for p in patterns
    )
