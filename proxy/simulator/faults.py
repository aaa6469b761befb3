"""The faults a resource can be told to have, one row each.

A fault is chosen by the deployment's name, which then contains `fault-NAME` somewhere
(`gpt-4o-fault-429`), or at run time by `Faults`, which wins.
"""

import re
import threading
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from typing import Literal

from proxy.simulator.errors import (
    ACCESS_DENIED,
    RESOURCE_NOT_FOUND,
    Answer,
    deployment_not_found,
    error,
    invalid,
    json_answer,
    too_many,
)

EVENTS_BEFORE_END = 3
"""How much of a stream gets through before it breaks: some text, and not all of it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong. Without `answer` the request is answered as always, up to a point.

    `stops` is that point: before the head is sent, after it, before the first event of a
    stream that says something, or in the middle of the body. `then` is what follows there:
    the connection is closed, nothing at all until the peer leaves, or an error inside the
    stream (a 500 if it is no stream).
    """

    summary: str
    answer: Answer | None = None
    delay_seconds: float = 0.0
    stops: Literal["before head", "after head", "before content", "in middle"] | None = None
    then: Literal["close", "silence", "error"] = "close"


_FILTERED = json_answer(
    {
        "error": {
            "message": "The response was filtered due to the prompt triggering Azure OpenAI's "
            "content management policy. Please modify your prompt and retry.",
            "type": None,
            "param": "prompt",
            "code": "content_filter",
            "status": 400,
            "innererror": {
                "code": "ResponsibleAIPolicyViolation",
                "content_filter_result": {
                    "hate": {"filtered": True, "severity": "high"},
                    "jailbreak": {"detected": False, "filtered": False},
                    "self_harm": {"filtered": False, "severity": "safe"},
                    "sexual": {"filtered": False, "severity": "safe"},
                    "violence": {"filtered": False, "severity": "safe"},
                },
            },
        }
    },
    400,
)
_TOO_LONG = invalid(
    "This model's maximum context length is 128000 tokens. However, your messages resulted in "
    "130000 tokens. Please reduce the length of the messages.",
    code="context_length_exceeded",
    param="messages",
)
_UNSUPPORTED = invalid(
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
    "'max_completion_tokens' instead.",
    code="unsupported_parameter",
    param="max_tokens",
)
_FLAT = json_answer(
    {
        "statusCode": 500,
        "message": "Internal server error",
        "activityId": "00000000-0000-0000-0000-000000000000",
    },
    500,
)
_NO_UPSTREAM = Answer(
    503, b"upstream connect error or disconnect/reset before headers", "text/plain"
)
_HTML = Answer(
    502, b"<html><head><title>502 Bad Gateway</title></head><body></body></html>", "text/html"
)
_WAIT = {"retry-after": "2"}
_WAIT_MS = {"retry-after-ms": "1500", "retry-after": "2"}
_RESET = too_many("token", 2, {"x-ratelimit-reset-tokens": "2"})
_MOVED = Answer(302, b"", "text/html", {"location": "/redirected"})

FAULTS: dict[str, Fault] = {
    "429": Fault("over its token limit, back in 2 s", too_many("token", 2, _WAIT)),
    "429-reset": Fault("over its token limit, says only when that is reset", _RESET),
    "429-ms": Fault("over its token limit, back in 1500 ms", too_many("token", 2, _WAIT_MS)),
    "401": Fault("refuses the key", ACCESS_DENIED),
    "403": Fault(
        "refuses the network",
        error(403, "403", "Access denied due to Virtual Network/Firewall rules."),
    ),
    "404": Fault("does not have the deployment", deployment_not_found("azure")),
    "404-path": Fault("does not have the path", RESOURCE_NOT_FOUND),
    "408": Fault("times out", error(408, "Timeout", "The operation was timeout.")),
    "504": Fault("times out at its front door", error(504, "Timeout", "Gateway timeout.")),
    "500": Fault(
        "fails", error(500, "InternalServerError", "The server had an internal error.")
    ),
    "500-flat": Fault("fails, with the flat shape of a body", _FLAT),
    "503-text": Fault("has nothing behind its front door; plain text", _NO_UPSTREAM),
    "502-html": Fault("has a broken front door; HTML", _HTML),
    "content-filter": Fault("filters the prompt: 400", _FILTERED),
    "context-length": Fault("finds the prompt too long: 400", _TOO_LONG),
    "bad-request": Fault("does not know a parameter: 400", _UNSUPPORTED),
    "hang": Fault("never answers", stops="before head", then="silence"),
    "break-before-head": Fault("closes without a byte", stops="before head"),
    "break-before-first-event": Fault("closes after the head", stops="after head"),
    "break-before-content": Fault("closes before it said anything", stops="before content"),
    "stall-before-content": Fault(
        "stalls before it said anything", stops="before content", then="silence"
    ),
    "error-before-content": Fault(
        "fails inside the stream before it said anything", stops="before content", then="error"
    ),
    "break-in-middle": Fault("closes in the middle", stops="in middle"),
    "stall-in-middle": Fault("stalls in the middle", stops="in middle", then="silence"),
    "error-event": Fault("fails inside the stream", stops="in middle", then="error"),
    "slow-head": Fault("takes 2 s more for the head", delay_seconds=2.0),
    "redirect": Fault("redirects to /redirected on itself", _MOVED),
    "empty": Fault("answers 200 without a body", Answer(200, b"")),
}

# Longest first, or `429-ms` would be read as `429`; and whole words, or `default-500` and
# `fault-5000` would be faults.
_NAMES = "|".join(re.escape(name) for name in sorted(FAULTS, key=len, reverse=True))
IN_A_NAME = re.compile(rf"(?<![a-z0-9])fault-({_NAMES})(?![a-z0-9])")


def of_name(deployment: str) -> Fault | None:
    """The fault a deployment is named after, if any."""
    match = IN_A_NAME.search(deployment)
    return FAULTS[match[1]] if match else None


def parsed(text: str) -> tuple[str, int | None]:
    """`500` is ("500", None), always; `500*2` is ("500", 2), twice. Raises ValueError."""
    name, star, times = text.partition("*")
    if name not in FAULTS:
        raise ValueError(f"no fault named {name!r}; there are {', '.join(FAULTS)}")
    if not star:
        return name, None
    if not times.isdecimal() or int(times) == 0:
        raise ValueError(f"{text!r}: after the * comes how many times, 1 or more")
    return name, int(times)


class Faults(MutableMapping[str, str]):
    """Faults set at run time: deployment, or "*" for every request, to a fault's name.

    `faults["gpt-4o"] = "500*2"` concerns the next two requests and then removes itself;
    reading it tells how many are left. Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[str, tuple[str, int | None]] = {}

    def take(self, deployment: str) -> Fault | None:
        """The fault of the next request to a deployment. Counts it."""
        with self._lock:
            for key in (deployment, "*"):
                if key not in self._rows:
                    continue
                name, left = self._rows[key]
                if left == 1:
                    del self._rows[key]
                elif left is not None:
                    self._rows[key] = (name, left - 1)
                return FAULTS[name]
        return of_name(deployment)

    def __setitem__(self, deployment: str, fault: str) -> None:
        row = parsed(fault)
        with self._lock:
            self._rows[deployment] = row

    def __getitem__(self, deployment: str) -> str:
        with self._lock:
            name, left = self._rows[deployment]
        return name if left is None else f"{name}*{left}"

    def __delitem__(self, deployment: str) -> None:
        with self._lock:
            del self._rows[deployment]

    def __iter__(self) -> Iterator[str]:
        with self._lock:
            return iter(list(self._rows))

    def __len__(self) -> int:
        return len(self._rows)

    def clear(self) -> None:
        """At once: the inherited one removes row by row, and a counted fault may go first."""
        with self._lock:
            self._rows.clear()
