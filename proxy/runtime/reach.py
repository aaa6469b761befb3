"""Whether an upstream's host can be reached, its certificate, and what time it has there."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from proxy.core.headers import http_date
from proxy.core.types import KEY, InstanceConfig
from proxy.runtime.connection import origin_of
from proxy.runtime.dialling import UNKNOWN_HOST
from proxy.runtime.upstream import NotTrusted, Upstream, UpstreamError


@dataclass(frozen=True, slots=True)
class Reached:
    """`area` is "dns", "tls" or "connection": where the problem is, or how far it went without
    one. `certificate_until`: seconds since the epoch; None without TLS. `ahead_seconds` is by
    how much its clock is ahead of ours; None where it told no time."""

    host: str
    area: str
    problem: str | None = None
    certificate_until: float | None = None
    ahead_seconds: float | None = None


def reach(
    upstream: Upstream,
    config: InstanceConfig,
    *,
    seconds: float,
    clock: Callable[[], float] = time.time,
) -> Reached:
    """Connects as a call would, then asks for its root, without a key."""
    host = origin_of(config.api_base).authority
    try:
        until = upstream.certificate_until(config, seconds=seconds)
        ahead = _ahead(upstream, config, seconds, clock)
    except NotTrusted as error:
        return Reached(host, "tls", error.message)
    except UpstreamError as error:
        area = "dns" if error.message == UNKNOWN_HOST else "connection"
        return Reached(host, area, error.message)
    return Reached(host, "connection" if until is None else "tls", None, until, ahead)


def _ahead(
    upstream: Upstream, config: InstanceConfig, seconds: float, clock: Callable[[], float]
) -> float | None:
    """Raises UpstreamError."""
    before = clock()
    answer = upstream.send(
        replace(config, auth=KEY),  # or it would go with a token
        f"{config.api_base.rstrip('/')}/",
        headers={},
        body=None,
        method="GET",
        ends_at=time.monotonic() + seconds,
    )
    after = clock()
    answer.close()
    told = http_date(answer.headers.get("date", ""))
    if told is None:
        return None
    # What is told has no fractions: on average it was half a second later.
    return told + 0.5 - (before + after) / 2
