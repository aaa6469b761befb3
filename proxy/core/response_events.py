"""Watches the events of a response go by, of the Responses API, and marks what they name.

Other than a chat's, each has a `type`; none is `[DONE]`. The first say that there is a
response, and nothing of it yet: `response.created`, `.queued`, `.in_progress`; nor do those
that say that a message begins, and its text. The last, `response.completed`, `.incomplete`,
`.failed` or `.cancelled`, has the whole response once more, with its usage; instead of it there
may be an `error`.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from proxy.core.sse import (
    data_of,
    is_of_client,
    is_unclear,
    json_object,
    message_of,
    read_usage,
    split,
)
from proxy.core.types import Usage

_SAYS_NOTHING = frozenset(
    {
        *("response.created", "response.queued", "response.in_progress"),
        "response.content_part.added",
    }
)
_ITEM_BEGINS = "response.output_item.added"  # of reasoning, nothing more may come for minutes
FAILED = "response.failed"
UNDER_WAY = ("queued", "in_progress")  # as a response's status
# One that is larger has no end: the last one has all images that were made.
MAX_EVENT_BYTES = 67_108_864
_LAST = frozenset({"response.completed", "response.incomplete", "response.cancelled", FAILED})
_DELTA = ".delta"

Mark = Callable[[bytes, Mapping[str, Any]], bytes]


class ResponseWatcher:
    """As a StreamWatcher. Each event waits until it is there as a whole: `mark` is given its
    bytes and what they say, and gives what to send on.

    One that goes on in the background is heard of at once: it may say nothing for long.
    `after`: the number of the event that it is taken up again after.
    """

    __slots__ = (
        "_has_seen_tail",
        "_mark",
        "_number",
        "_tail",
        "content",
        "done",
        "endless",
        "error",
        "events",
        "goes_on",
        "is_clients_error",
        "is_unclear_error",
        "usage",
    )

    def __init__(self, mark: Mark, *, after: int = -1) -> None:
        self._mark = mark
        self._tail = bytearray()
        self._has_seen_tail = False
        self._number = after  # of the last event that was seen
        self.usage: Usage | None = None
        self.events = 0  # that say something more; about one token each
        self.content = self.done = self.endless = False
        self.goes_on = False  # in the background, also if nobody listens any more
        self.error: str | None = None
        self.is_clients_error = self.is_unclear_error = False

    @property
    def has_ended(self) -> bool:
        return self.done or self.error is not None

    def feed(self, chunk: bytes) -> bytes:
        tail = self._tail
        begin = max(len(tail) - 3, 0)  # no event ends before that
        tail += chunk
        self._has_seen_tail = False
        end = max(tail.rfind(b"\n\n", begin) + 2, tail.rfind(b"\n\r\n", begin) + 3)
        if end < 3:  # found neither
            self.endless = len(tail) > MAX_EVENT_BYTES
            return b""
        whole = bytes(tail[:end])
        del tail[:end]
        return b"".join(map(self._seen, split(whole)))

    def is_whole(self) -> bool:
        """A last event may lack the empty line behind it."""
        payload = json_object(data_of(bytes(self._tail)))
        if payload and not self._has_seen_tail:
            self._look_into(payload)
            self._has_seen_tail = True
        return self.has_ended and not self.endless

    def finish(self) -> bytes:
        tail = bytes(self._tail)
        self._tail.clear()
        return self._seen(tail)

    def last_words(self, event: bytes) -> bytes:
        """`event` tells of an error, as chats have it; here one has a type, too. What was held
        back of another is left out. It has the number of the last one before it: whoever asks
        for what comes after that misses nothing."""
        self._tail.clear()
        payload = json_object(data_of(event))
        error = payload.get("error", {})
        told = {"type": "error", "code": error.get("code"), "message": error.get("message")}
        data = json.dumps(
            {**told, "param": None, "sequence_number": max(self._number, 0), **payload}
        )
        return b"event: error\ndata: " + data.encode() + b"\n\n"

    def _seen(self, event: bytes) -> bytes:
        payload = json_object(data_of(event))
        if not payload:
            return event
        if not self._has_seen_tail:
            self._look_into(payload)
        return self._mark(event, payload)

    def _look_into(self, payload: Mapping[str, Any]) -> None:
        response = payload.get("response")
        if not isinstance(response, dict):
            response = {}
        kind = str(payload.get("type"))
        self.goes_on = self.goes_on or response.get("background") is True
        number = payload.get("sequence_number")
        self._number = number if isinstance(number, int) else self._number + 1
        self.events += kind.endswith(_DELTA)
        if kind in _LAST:
            self.done, self.goes_on = True, False
            self.usage = read_usage(response.get("usage")) or self.usage
        if kind == FAILED:
            self._note_error(response.get("error") or "it failed")
        elif kind == "error" or payload.get("error"):
            self._note_error(payload.get("error") or payload)
        elif self.goes_on or not _says_nothing(kind, payload):
            self.content = True

    def _note_error(self, error: Any) -> None:
        if self.error is None:
            self.error = message_of(error)
            self.is_clients_error = is_of_client(error)
            self.is_unclear_error = not self.is_clients_error and is_unclear(error)


def _says_nothing(kind: str, payload: Mapping[str, Any]) -> bool:
    item = payload.get("item")
    if kind == _ITEM_BEGINS:
        return isinstance(item, dict) and item.get("type") == "message"
    return kind in _SAYS_NOTHING


def failure_of(payload: Mapping[str, Any]) -> Any:
    """The `error` of a response that is no stream, and failed; None if it did not."""
    return payload.get("error") if payload.get("status") == "failed" else None
