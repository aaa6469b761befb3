"""A question about what an upstream keeps, asked there once. It is no call: it takes no room,
and what comes of it says nothing about how well the instance serves a model."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from proxy.core.excerpt import without_key
from proxy.core.providers import PROVIDERS, key_headers
from proxy.core.types import InstanceConfig
from proxy.errors import ProxyError, UpstreamFailed, UpstreamTimeout
from proxy.runtime.line import Line
from proxy.runtime.tell import tell
from proxy.runtime.upstream import Answer, Upstream, UpstreamError

NO_BODY = b""

logger = logging.getLogger(__name__)


class Found(NamedTuple):
    """What the instance answered. `lines` are its headers, none left out."""

    status: int
    lines: list[tuple[str, str]]
    body: bytes


def look_up(
    upstream: Upstream,
    configs: Sequence[InstanceConfig],
    path: str,
    *,
    method: str,
    query: str,
    headers: Mapping[str, str],
    request_id: str,
    line: Line,
    ends_at: float,
) -> Found:
    """What the first says of them that can, all of which know the same. `path` begins with an
    endpoint; `query` is encoded, and may be empty. Raises UpstreamFailed where there is no
    answer that a client may see, UpstreamTimeout where none came until `ends_at`, in monotonic
    seconds; of each that failed the log says why."""
    found: Found | ProxyError = _failed("none is there")
    for config in configs:
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
                body = bytes(answer.read_all())
            finally:
                answer.close()
        except UpstreamError as error:
            if line.is_cut:
                raise _failed(error.message) from None
            found = _failed(error.message, timed_out=error.timed_out)
            _tell(request_id, config.name, error.message)
            continue
        found = _judged(answer, without_key(body, config, answer.token))
        if isinstance(found, Found) and found.status < 500:
            return found
        _tell(request_id, config.name, f"HTTP {answer.status}")
    if isinstance(found, ProxyError):
        raise found
    return found


def _judged(answer: Answer, body: bytes) -> Found | ProxyError:
    if answer.status in (401, 403):
        return UpstreamFailed(
            "The instance that keeps it refuses the gateway. This is for its operator to mend.",
            code="upstream_misconfigured",
            is_worth_retrying=False,
        )
    if not 200 <= answer.status < 300 and answer.status < 400:
        return _failed("it redirected elsewhere")
    return Found(answer.status, answer.header_items(), body)


def _failed(why: str, *, timed_out: bool = False) -> ProxyError:
    kind = UpstreamTimeout if timed_out else UpstreamFailed
    return kind(f"The instance that keeps it gave no answer: {why}.")


def _tell(request_id: str, name: str, why: str) -> None:
    said = "%s %s was asked about what it keeps: %s"
    fields = {"id": request_id, "instance": name, "why": why}
    tell(logger, "no_answer", said, request_id, name, why, **fields)
