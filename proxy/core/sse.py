"""Watches a stream of server-sent events go by; changes nothing but what it is told to.

The format is the HTML standard's, 9.2.6; an event ends with an empty line. What
matters here:

- The first events often say nothing yet: Azure's has no choices, the next only who speaks.
- The usage event (`"choices": []` and `"usage": {...}`) comes just before `data: [DONE]`, and
  only to those who asked for it with `stream_options.include_usage`.
- A stream that began with 200 may still fail: `data: {"error": {...}}` or `event: error`.
"""

import json
import math
import re
from collections.abc import Callable
from typing import Any

from proxy.core.tokens import MAX_TOKENS, SOUND_TOKENS_PER_MINUTE
from proxy.core.types import Bytes, Usage

# Inside a JSON string the quotes would be escaped, so text of the model cannot match.
_USAGE = re.compile(rb'"usage"\s*:\s*(?=\{)')
_ERROR = re.compile(
    rb'"error"\s*:\s*(?=[{"])|"object"\s*:\s*"error"|^event: ?error', re.MULTILINE
)
_ERROR_NAME = re.compile(rb"^event: ?error", re.MULTILINE)
_CHOICES = re.compile(rb'"choices"\s*:\s*\[')
_FINISH = re.compile(rb'"finish_reason"\s*:\s*"')
_DONE = re.compile(rb"^data: ?\[DONE\]", re.MULTILINE)
_EVENT_END = re.compile(rb"\r?\n\r?\n")
_USAGE_MAX_BYTES = 8192
_USAGES = 16  # as many are looked at in an answer
# OpenAI's words: of completions and embeddings, and of all that came later.
_NAMES = ("prompt_tokens", "completion_tokens")
_NEW_NAMES = ("input_tokens", "output_tokens")
_USAGE_NAMES = (*_NAMES, *_NEW_NAMES)
# What an event of the usage may have besides; one with more says something.
_USAGE_EVENT = frozenset(
    "id object created model system_fingerprint service_tier choices usage".split()
)
_DECODER = json.JSONDecoder()

ERROR_CHARACTERS = 300

# By these an error is the client's, whatever its type is; by these the instance's, though its
# type is that of a client's: statuses as `verdict.of` has them.
_CLIENTS_CODES = frozenset(
    {
        *("content_filter", "content_policy_violation", "moderation_blocked"),
        *("context_length_exceeded", "invalid_prompt"),
        # Of a response's `error`.
        *("empty_image_file", "failed_to_download_image", "image_content_policy_violation"),
        *("image_file_not_found", "image_file_too_large", "image_parse_error"),
        *("image_too_large", "image_too_small", "invalid_base64_image", "invalid_image"),
        *("invalid_image_format", "invalid_image_mode", "invalid_image_url"),
        "unsupported_image_media_type",
    }
)
_INSTANCES_STATUSES = frozenset({401, 403, 404, 408, 429})
_INSTANCES_CODES = frozenset(
    {
        "DeploymentNotFound",
        "insufficient_quota",
        "invalid_api_key",
        "model_not_found",
        "rate_limit_exceeded",
    }
)

# An event larger than this is passed on unseen rather than held or searched again.
MAX_EVENT_BYTES = 1_048_576
# One that goes on for so long has no end. Images come as one event of some megabytes.
ENDLESS_BYTES = 16_777_216


class StreamWatcher:
    """Feed it every chunk, send on what it returns; then read what it saw.

    `content`: an event said something: text, refusal, reasoning, a tool call, an end.
    `error`: what an error event says; `is_clients_error`: it blames the request;
    `is_unclear_error`: it may. `events` counts those with data. `done`: `data: [DONE]` came, so
    whatever comes now, the stream is whole; `finished`: as many `choices` said that they end as
    were asked for, or no event had any, and nobody knows how such a stream ends.
    `endless`: an event is above ENDLESS_BYTES, and no better than none.

    Chunks may be split anywhere. With `hide_usage` the usage event is removed, and an
    event of which only a part has arrived waits for the rest; otherwise every byte is
    returned at once. So it is with `rewrite`, which is given each event, as far as that is not
    hidden, and gives what to send on instead. Cheap test first: most events are text deltas,
    and parsing each of them would be most of what the proxy does.
    """

    goes_on = False

    __slots__ = (
        "_choices",
        "_ended",
        "_has_choices",
        "_hide_usage",
        "_holds",
        "_rewrite",
        "_tail",
        "_unseen_bytes",
        "content",
        "done",
        "endless",
        "error",
        "events",
        "is_clients_error",
        "is_unclear_error",
        "usage",
    )

    def __init__(
        self,
        *,
        hide_usage: bool = False,
        choices: int = 1,
        rewrite: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self._hide_usage = hide_usage
        self._rewrite = rewrite
        self._holds = hide_usage or rewrite is not None
        self._choices = choices
        self._ended: set[object] = set()  # by their `index`
        self._has_choices = False
        self._tail = b""
        self._unseen_bytes = 0  # of an event of which the beginning was passed on
        self.usage: Usage | None = None
        self.events = 0
        self.content = False
        self.error: str | None = None
        self.is_clients_error = self.is_unclear_error = False
        self.done = False
        self.endless = False

    @property
    def finished(self) -> bool:
        if self._has_choices:
            return len(self._ended) >= self._choices
        return self.content

    @property
    def has_ended(self) -> bool:
        """It said itself that it ends, in whatever way."""
        ended = self._has_choices and len(self._ended) >= self._choices
        return self.done or self.error is not None or ended

    def feed(self, chunk: bytes) -> bytes:
        was_unseen = self._unseen_bytes
        if self._tail or not chunk.endswith(b"\n\n"):
            whole = self._whole_events(chunk)
        else:
            whole, self._unseen_bytes = chunk, 0
        # At the start of a line: the model may write "data:" too.
        self.events += whole.count(b"\ndata:") + whole.startswith(b"data:")
        if b"[DONE]" in whole:
            self.done = self.done or _DONE.search(whole) is not None
        if not self._has_choices or _FINISH.search(whole) is not None:
            self._follow_choices(whole)
        may_fail = b"error" in whole and _ERROR.search(whole) is not None
        if may_fail or not self.content:
            self._look_at_each(whole, may_fail=may_fail)
        if b'"usage"' in whole and _USAGE.search(whole):
            if was_unseen or self._unseen_bytes:  # it stands in an event that has an image
                self.usage = usage_of_answer(whole) or self.usage
            whole = b"".join(event for event in split(whole) if not self._is_hidden(event))
        if not self._holds:
            return chunk
        return b"".join(map(self._rewrite, split(whole))) if self._rewrite else whole

    def is_whole(self) -> bool:
        """Whether a stream that ends now has come to its end; a last event may lack the empty
        line behind it."""
        tail = self._tail
        if json_object(data_of(tail)):
            self._look_into(tail)
        self._follow_choices(tail)
        self.done = self.done or _DONE.search(tail) is not None
        has_end = not self.endless and (self.finished or self.error is not None)
        return self.done or has_end

    def finish(self) -> bytes:
        """What was held back when the stream ended in the middle of an event.

        A last event without its empty line is an event all the same.
        """
        tail, self._tail = self._tail, b""
        self.events += bool(json_object(data_of(tail)))
        is_hidden = self._is_hidden(tail)
        self._look_into(tail)
        self._follow_choices(tail)
        self.done = self.done or _DONE.search(tail) is not None
        if is_hidden or not self._holds:
            return b""
        return self._rewrite(tail) if self._rewrite else tail

    def interrupt(self) -> bytes:
        """What ends the event that is half sent, so that another can follow it."""
        is_half_sent = self._unseen_bytes or (self._tail and not self._holds)
        self._tail, self._unseen_bytes = b"", 0
        return b"\n\n" if is_half_sent else b""

    def last_words(self, event: bytes) -> bytes:
        """What tells whoever reads it that it breaks off here."""
        return self.interrupt() + event

    def _whole_events(self, chunk: bytes) -> bytes:
        data = self._tail + chunk
        begin = max(len(self._tail) - 2, 0)  # no event ends in what was left of one
        end = max(data.rfind(b"\n\n", begin) + 2, data.rfind(b"\n\r\n", begin) + 3)
        if end < 3 and not data.startswith(b"\n\n"):  # rfind found neither
            end = 0
        else:
            self._unseen_bytes = 0
        if len(data) - end > MAX_EVENT_BYTES:
            self._unseen_bytes += len(data) - end
            self.endless = self.endless or self._unseen_bytes > ENDLESS_BYTES
            end = len(data)
        self._tail = data[end:]
        return data[:end]

    def _look_at_each(self, events: bytes, *, may_fail: bool) -> None:
        for event in split(events):
            if self.content and not may_fail:
                break  # it says something: that is all there is to know
            self._look_into(event)

    def _look_into(self, event: bytes) -> None:
        """Notes whether the event says something, or that something went wrong."""
        data = data_of(event)
        if not data or data == b"[DONE]":
            return
        payload = json_object(data)
        error = payload.get("error")
        if error or payload.get("object") == "error" or _ERROR_NAME.search(event):
            told = error or payload or data.decode("utf-8", "replace")
            if self.error is None:
                self.error, self.is_clients_error = message_of(told), is_of_client(told)
                self.is_unclear_error = not self.is_clients_error and is_unclear(told)
        elif not self.content:
            is_known = isinstance(payload.get("choices"), list)
            self.content = not is_known or any(map(_says_something, payload["choices"]))

    def _follow_choices(self, events: bytes) -> None:
        if not self._has_choices:
            self._has_choices = _CHOICES.search(events) is not None
        if _FINISH.search(events) is None:
            return
        for event in filter(_FINISH.search, split(events)):
            choices = json_object(data_of(event)).get("choices")
            for choice in choices if isinstance(choices, list) else ():
                if isinstance(choice, dict) and choice.get("finish_reason"):
                    self._ended.add(str(choice.get("index")))

    def _is_hidden(self, event: bytes) -> bool:
        """Notes the event's usage, if it has one; true if the client must not see it."""
        if not _USAGE.search(event):
            return False
        payload = json_object(data_of(event))
        given = payload.get("usage")
        self.usage = read_usage(given) or self.usage
        if not (self._hide_usage and isinstance(given, dict)) or payload.get("error"):
            return False
        choices = payload.get("choices")
        return choices == [] or (choices is None and payload.keys() <= _USAGE_EVENT)


def usage_of_answer(body: Bytes) -> Usage | None:
    """The usage of a plain JSON answer; the rest (embeddings are large) is not parsed."""
    start = len(body)
    for _ in range(_USAGES):  # what stands last may be a value, or another object's
        start = body.rfind(b'"usage"', 0, start)
        if start < 0:
            return None
        found = _USAGE.match(body, start)
        usage = _usage_at(body, found.end()) if found is not None else None
        if usage is not None:
            return usage
    return None


def _usage_at(body: Bytes, start: int) -> Usage | None:
    text = body[start : start + _USAGE_MAX_BYTES].decode("utf-8", "replace")
    try:
        value, _ = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return read_usage(value)


def read_usage(value: Any) -> Usage | None:
    """Azure's and OpenAI's `usage` object; None if it is not one. Of one that counts seconds of
    sound, as Whisper's, the prompt is estimated."""
    if isinstance(value, dict) and value.get("type") == "duration":
        return _of_seconds(value.get("seconds"))
    if not isinstance(value, dict) or not any(map(_is_number, map(value.get, _USAGE_NAMES))):
        return None
    is_new = value.get("prompt_tokens") is None and value.get("completion_tokens") is None
    in_name, out_name = _NEW_NAMES if is_new else _NAMES
    return Usage(
        prompt_tokens=_count(value.get(in_name)),
        completion_tokens=_count(value.get(out_name)),
        cached_tokens=_detail(value.get(f"{in_name}_details"), "cached_tokens"),
        reasoning_tokens=_detail(value.get(f"{out_name}_details"), "reasoning_tokens"),
    )


def _of_seconds(seconds: object) -> Usage | None:
    if not isinstance(seconds, int | float) or not 0 <= seconds < MAX_TOKENS:
        return None
    heard = math.ceil(seconds * SOUND_TOKENS_PER_MINUTE / 60)
    return Usage(prompt_tokens=min(heard, MAX_TOKENS), estimated=True)


def _detail(details: object, name: str) -> int:
    return _count(details.get(name)) if isinstance(details, dict) else 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _count(value: object) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # some write 10.0
    if not isinstance(value, int) or value < 0:
        return 0
    return value if value < MAX_TOKENS else MAX_TOKENS


def split(events: bytes) -> list[bytes]:
    """Events with the empty lines that end them."""
    if b"\r" not in events:
        *whole, rest = events.split(b"\n\n")
        found = [part + b"\n\n" for part in whole]
        return [*found, rest] if rest else found
    cuts = [m.end() for m in _EVENT_END.finditer(events)]
    parts = [events[a:b] for a, b in zip([0, *cuts], [*cuts, len(events)], strict=True)]
    return [p for p in parts if p]


def data_of(event: bytes) -> bytes:
    """What its lines with data say."""
    if event.startswith(b"data:") and event.find(b"\n") == len(event) - 2:
        return event[5:].strip()  # the usual: one line, and the empty one
    lines = (line for line in event.splitlines() if line.startswith(b"data:"))
    return b"\n".join(line[5:].strip() for line in lines)


def json_object(data: Bytes) -> dict[str, Any]:
    """Empty if it is none."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _says_something(choice: Any) -> bool:
    if not isinstance(choice, dict):
        return True
    delta = choice.get("delta")
    said = delta if isinstance(delta, dict) else {}
    return bool(
        choice.get("finish_reason")
        or choice.get("text")
        or any(value for name, value in said.items() if name != "role")
    )


def is_of_client(error: Any) -> bool:
    """An error object, or what stands for one, tells of the request: every instance would say
    the same. By its code, which may be a status, and its type, as OpenAI and Azure have
    them."""
    if not isinstance(error, dict):
        return False
    code = str(error.get("code") or "")
    if code in _CLIENTS_CODES or str(error.get("type")).endswith("user_error"):
        return True
    if error.get("type") != "invalid_request_error":
        return False
    return _is_clients_status(code) if code.isdecimal() else code not in _INSTANCES_CODES


def is_unclear(error: Any) -> bool:
    """It has a status of a client's mistake, and nothing else says so: servers that speak
    OpenAI's API report by it whatever went wrong, a bad request too."""
    return isinstance(error, dict) and _is_clients_status(str(error.get("code")))


def _is_clients_status(code: str) -> bool:
    if not (code.isascii() and code.isdecimal()):
        return False
    return 400 <= int(code[:4]) < 500 and int(code[:4]) not in _INSTANCES_STATUSES


def message_of(error: Any) -> str:
    """What an error object, or what stands for one, says; short, and in a line."""
    text = error.get("message") if isinstance(error, dict) else error
    words = " ".join(str(text or "an error without a message").split())[:ERROR_CHARACTERS]
    # JSON can spell half a character (\ud800), which neither a database nor a client takes.
    return words.encode("utf-8", "replace").decode()
