"""A question about what an instance keeps, asked there once. It is no call: it takes no room,
and what comes of it says nothing about how well the instance serves a model."""

import logging
import time
from collections.abc import Mapping
from typing import NamedTuple

from proxy.core.excerpt import without_key
from proxy.core.providers import PROVIDERS, key_headers
from proxy.core.types import InstanceConfig
from proxy.errors import ProxyError, UpstreamFailed, UpstreamTimeout
from proxy.runtime.line import Line
from proxy.runtime.tell import tell
from proxy.runtime.upstream import Upstream, UpstreamError

NO_BODY = b""

logger = logging.getLogger(__name__)


class Found(NamedTuple):
    """What the instance answered. `lines` are its headers, none left out."""

    status: int
    lines: list[tuple[str, str]]
    body: bytes


def look_up(
    upstream: Upstream,
    config: InstanceConfig,
    path: str,
    *,
    method: str,
    query: str,
    headers: Mapping[str, str],
    request_id: str,
    line: Line,
    ends_at: float,
) -> Found:
    """`path` begins with an endpoint; `query` is encoded, and may be empty. Raises
    UpstreamFailed where there is no answer that a client may see, UpstreamTimeout where none
    came until `ends_at`, in monotonic seconds; the log then says why."""
    url = PROVIDERS[config.provider_type].url(config, path, "")
    if query:
        url += ("&" if "?" in url else "?") + query
    try:
        answer = upstream.send(
            config,
            url,
            headers={**headers, **key_headers(config)},
            body=NO_BODY if method == "POST" else None,
            method=method,
            line=line,
            ends_at=min(ends_at, time.monotonic() + config.timeout_seconds),
        )
        try:
            body = answer.read_all()
        finally:
            answer.close()
    except UpstreamError as error:
        if not line.is_cut:
            _tell(request_id, config.name, error.message)
        kind = UpstreamTimeout if error.timed_out else UpstreamFailed
        said = f"The instance that keeps it gave no answer: {error.message}."
        raise kind(said) from None
    if answer.status in (401, 403):
        _tell(request_id, config.name, f"HTTP {answer.status}")
        raise _refused()
    if not 200 <= answer.status < 300 and answer.status < 400:
        _tell(request_id, config.name, f"HTTP {answer.status}")
        raise UpstreamFailed("The instance that keeps it redirected elsewhere.")
    shown = without_key(bytes(body), config, answer.token)
    return Found(answer.status, answer.header_items(), shown)


def _tell(request_id: str, name: str, why: str) -> None:
    said = "%s %s: %s, and nobody else keeps it"
    fields = {"id": request_id, "instance": name, "why": why}
    tell(logger, "no_answer", said, request_id, name, why, **fields)


def _refused() -> ProxyError:
    return UpstreamFailed(
        "The instance that keeps it refuses the gateway. This is for its operator to mend.",
        code="upstream_misconfigured",
        is_worth_retrying=False,
    )
