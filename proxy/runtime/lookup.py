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
from proxy.runtime.answer_stream import EVENT_STREAM
from proxy.runtime.line import Line
from proxy.runtime.tell import tell
from proxy.runtime.upstream import Answer, Upstream, UpstreamError

NO_BODY = b""

logger = logging.getLogger(__name__)


class Question(NamedTuple):
    """`path` begins with an endpoint; `query` is encoded, and may be empty. `ends_at` is in
    monotonic seconds. `of_stream`: the answer is wanted as one."""

    path: str
    method: str
    query: str
    headers: Mapping[str, str]
    request_id: str
    line: Line
    ends_at: float
    of_stream: bool = False


class Found(NamedTuple):
    """What the instance answered. `lines` are its headers, none left out."""

    status: int
    lines: list[tuple[str, str]]
    body: bytes


class Begun(NamedTuple):
    """A stream of the instance `name`, of which the head has come. Whoever has it closes it."""

    name: str
    answer: Answer


def look_up(
    upstream: Upstream, configs: Sequence[InstanceConfig], asked: Question
) -> Found | Begun:
    """What the first says of them that can, all of which know the same. Raises UpstreamFailed
    where there is no answer that a client may see, UpstreamTimeout where none came in time; of
    each that failed the log says why.

    What may have been deleted is deleted nowhere else: there it would not be known any more.
    """
    found: Found | ProxyError = _failed("none is there")
    for config in configs:
        try:
            answer = _sent(upstream, config, asked)
            if asked.of_stream and _is_stream(answer):
                return Begun(config.name, answer)
            body = _read(answer)
        except UpstreamError as error:
            if asked.line.is_cut:
                raise _failed(error.message) from None
            found = _failed(error.message, timed_out=error.timed_out)
            _tell(asked.request_id, config.name, error.message)
            if asked.method == "DELETE" and error.was_sent:
                raise found from None
            continue
        found = _judged(answer, without_key(body, config, answer.token))
        if _is_last(asked, config, answer, found):
            break
    if isinstance(found, ProxyError):
        raise found
    return found


def _sent(upstream: Upstream, config: InstanceConfig, asked: Question) -> Answer:
    url = PROVIDERS[config.provider_type].url(config, asked.path, "")
    if asked.query:
        url += ("&" if "?" in url else "?") + asked.query
    return upstream.send(
        config,
        url,
        headers={**asked.headers, **key_headers(config)},
        body=NO_BODY if asked.method == "POST" else None,
        method=asked.method,
        line=asked.line,
        ends_at=min(asked.ends_at, time.monotonic() + config.timeout_seconds),
    )


def _is_last(
    asked: Question, config: InstanceConfig, answer: Answer, found: Found | ProxyError
) -> bool:
    """Nobody else is to be asked. Tells of an answer that is none."""
    if isinstance(found, Found) and found.status < 500:
        return True
    _tell(asked.request_id, config.name, f"HTTP {answer.status}")
    return asked.method == "DELETE" and answer.status >= 500


def _read(answer: Answer) -> bytes:
    try:
        return bytes(answer.read_all())
    except UpstreamError as error:
        error.was_sent = True
        raise
    finally:
        answer.close()


def _is_stream(answer: Answer) -> bool:
    kind = answer.headers.get("content-type", "").lower()
    return answer.status == 200 and kind.startswith(EVENT_STREAM)


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
