"""Watches a stream of server-sent events go by; changes nothing but what it is told to hide.

The format is the HTML standard's, 9.2.6; an event ends with an empty line. What
matters here: the usage event (`"choices": []` and `"usage": {...}`) comes just before
`data: [DONE]`, and only to those who asked for it with `stream_options.include_usage`.
"""

import json
import re
from typing import Any

from proxy.core.tokens import MAX_TOKENS
from proxy.core.types import Usage

# Inside a JSON string the quotes would be escaped, so text of the model cannot match.
_USAGE = re.compile(rb'"usage"\s*:\s*(?=\{)')
_DONE = re.compile(rb"^data: ?\[DONE\]", re.MULTILINE)
_EVENT_END = re.compile(rb"\r?\n\r?\n")
_USAGE_MAX_BYTES = 8192

# An event larger than this is passed on unseen rather than held or searched again.
MAX_EVENT_BYTES = 1_048_576


class StreamWatcher:
    """Feed it every chunk, send on what it returns; then read `usage`, `events`, `done`.

    Chunks may be split anywhere. With `hide_usage` the usage event is removed, and an
    event of which only a part has arrived waits for the rest; otherwise every byte is
    returned at once. Cheap test first: most events are text deltas, and parsing each of
    them would be most of what the proxy does.
    """

    __slots__ = ("_hide_usage", "_tail", "done", "events", "usage")

    def __init__(self, *, hide_usage: bool = False) -> None:
        self._hide_usage = hide_usage
        self._tail = b""
        self.usage: Usage | None = None
        self.events = 0
        self.done = False  # `data: [DONE]` was seen: whatever comes now, the stream is whole

    def feed(self, chunk: bytes) -> bytes:
        whole = self._whole_events(chunk)
        # At the start of a line: the model may write "data:" too.
        self.events += whole.count(b"\ndata:") + whole.startswith(b"data:")
        if b"[DONE]" in whole:
            self.done = self.done or _DONE.search(whole) is not None
        if not _USAGE.search(whole):
            return whole if self._hide_usage else chunk
        kept = b"".join(event for event in _split(whole) if not self._is_hidden(event))
        return kept if self._hide_usage else chunk

    def finish(self) -> bytes:
        """What was held back when the stream ended in the middle of an event.

        A last event without its empty line is an event all the same.
        """
        tail, self._tail = self._tail, b""
        is_hidden = self._is_hidden(tail)
        self.done = self.done or _DONE.search(tail) is not None
        return tail if self._hide_usage and not is_hidden else b""

    def interrupt(self) -> bytes:
        """What ends the event that is half sent, so that another can follow it."""
        tail, self._tail = self._tail, b""
        return b"\n\n" if tail and not self._hide_usage else b""

    def _whole_events(self, chunk: bytes) -> bytes:
        data = self._tail + chunk if self._tail else chunk
        if data.endswith(b"\n\n"):
            self._tail = b""
            return data
        end = max(data.rfind(b"\n\n") + 2, data.rfind(b"\n\r\n") + 3)
        if end < 3:  # rfind found neither
            end = 0
        if len(data) - end > MAX_EVENT_BYTES:
            end = len(data)
        self._tail = data[end:]
        return data[:end]

    def _is_hidden(self, event: bytes) -> bool:
        """Notes the event's usage, if it has one; true if the client must not see it."""
        if not _USAGE.search(event):
            return False
        payload = _payload(event)
        usage = read_usage(payload.get("usage"))
        if usage is None:
            return False
        self.usage = usage
        return self._hide_usage and not payload.get("choices")


def usage_of_answer(body: bytes) -> Usage | None:
    """The usage of a plain JSON answer; the rest (embeddings are large) is not parsed."""
    found, start = None, len(body)
    while found is None:  # what stands last may be a value, not the key
        start = body.rfind(b'"usage"', 0, start)
        if start < 0:
            return None
        found = _USAGE.match(body, start)
    text = body[found.end() : found.end() + _USAGE_MAX_BYTES].decode("utf-8", "replace")
    try:
        value, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return read_usage(value)


def read_usage(value: Any) -> Usage | None:
    """Azure's and OpenAI's `usage` object; None if it is not one."""
    if not isinstance(value, dict):
        return None
    details = value.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    return Usage(
        prompt_tokens=_count(value.get("prompt_tokens")),
        completion_tokens=_count(value.get("completion_tokens")),
        cached_tokens=_count(cached),
    )


def _count(value: object) -> int:
    return min(max(value, 0), MAX_TOKENS) if isinstance(value, int) else 0


def _split(events: bytes) -> list[bytes]:
    """Events with the empty lines that end them."""
    cuts = [m.end() for m in _EVENT_END.finditer(events)]
    parts = [events[a:b] for a, b in zip([0, *cuts], [*cuts, len(events)], strict=True)]
    return [p for p in parts if p]


def _payload(event: bytes) -> dict[str, Any]:
    lines = (line for line in event.splitlines() if line.startswith(b"data:"))
    try:
        value = json.loads(b"\n".join(line[5:].strip() for line in lines))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
