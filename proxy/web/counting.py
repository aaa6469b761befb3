"""Requests for which no instance was asked, counted by why."""

from flask import g

from proxy.context import Parts
from proxy.core.deltas import OTHER_MODEL
from proxy.core.usage import ABANDONED, LIMITED, MISTAKEN, REFUSED
from proxy.errors import (
    BudgetSpent,
    ClientLeft,
    LimitReached,
    NoRoom,
    ProxyError,
    RequestTimeout,
)

NOBODY = ""  # who showed no key that we know


def count_refusal(mine: Parts, error: BaseException) -> None:
    """Of what was asked before, the attempts are counted, and the request with them."""
    seen = g._get_current_object().__dict__
    trail = seen.get("trail")
    if trail is not None and trail.attempts:
        return
    client, model = seen.get("client"), seen.get("model") or OTHER_MODEL
    # Names that nobody serves, or would if it were enabled, are inventions, of which there can
    # be any number. Where any model is served, the others are told apart when they are written.
    snapshot = mine.snapshots.current
    is_known = snapshot.spelling(model) is not None or snapshot.catalog.pool(model).servings
    mine.state.refuse(
        client.name if client else NOBODY,
        model if is_known else OTHER_MODEL,
        why(error),
    )


def why(error: BaseException) -> str:
    if not isinstance(error, ProxyError):
        return REFUSED  # a mistake of ours
    # Whose body does not come has mostly left as well, and nothing else is wrong with it.
    if isinstance(error, (ClientLeft, RequestTimeout)):
        return ABANDONED
    if isinstance(error, (LimitReached, BudgetSpent)):
        return LIMITED
    return MISTAKEN if error.status < 500 and not isinstance(error, NoRoom) else REFUSED
