"""What Azure adds to OpenAI's answers, left out, for clients that trip over it.

- A stream begins with an event without choices, for the prompt's filter results; clients that
  read `choices[0]` break there. OpenAI's only event without choices is that of the usage.
- With the asynchronous filter, events come between or after the text whose choices have no
  `delta`, only what was found up to some character of it.
- Choices and answers have fields of the filter, which strict readers of JSON refuse.

What a filter did to an answer stays: `finish_reason: content_filter`. Errors stay as they are:
they have OpenAI's shape.
"""

import json
import re
from typing import Any

from proxy.core.sse import data_of, json_object
from proxy.core.types import Bytes

STRICT = "openai_strict"  # the `compat` of clients that want it so

ANSWER_FIELDS = frozenset({"prompt_filter_results", "prompt_annotations"})
CHOICE_FIELDS = frozenset(
    {
        *("content_filter_results", "content_filter_result"),
        *("content_filter_offsets", "content_filter_raw"),
    }
)

# Inside a JSON string the quotes would be escaped, so text of the model cannot match.
_AZURE = re.compile(
    rb'"(?:prompt_filter_results|prompt_annotations|content_filter_[a-z]+)"\s*:'
    rb'|"choices"\s*:\s*\[\s*\]'
)


def strict_event(event: bytes) -> bytes:
    """A server-sent event as OpenAI would send it; empty if it would not. What Azure added
    nothing to is not touched."""
    if _AZURE.search(event) is None:
        return event
    payload = json_object(data_of(event))
    if payload.get("error") or not isinstance(payload.get("choices"), list):
        return event
    choices = [_whole(c) for c in map(_stripped, payload["choices"]) if _is_part_of_text(c)]
    if not choices and not payload.get("usage"):
        return b""
    others = [line for line in event.splitlines() if line and not line.startswith(b"data:")]
    data = b"data: " + _json(_without(payload, ANSWER_FIELDS) | {"choices": choices})
    return b"\n".join([*others, data]) + b"\n\n"


def strict_answer(body: Bytes) -> Bytes:
    """A plain answer as OpenAI would give it. What Azure added nothing to is not touched."""
    if _AZURE.search(body) is None:
        return body
    payload = json_object(body)
    if not isinstance(payload.get("choices"), list):
        return body
    choices = [_stripped(choice) for choice in payload["choices"]]
    return _json(_without(payload, ANSWER_FIELDS) | {"choices": choices})


def _is_part_of_text(choice: Any) -> bool:
    """And not a remark about it."""
    if not isinstance(choice, dict):
        return True
    return bool("delta" in choice or "text" in choice or choice.get("finish_reason"))


def _whole(choice: Any) -> Any:
    """A remark that the filter ended the text has no `delta`, which clients look for."""
    if not isinstance(choice, dict) or "delta" in choice or "text" in choice:
        return choice
    return choice | {"delta": {}}


def _stripped(choice: Any) -> Any:
    return _without(choice, CHOICE_FIELDS) if isinstance(choice, dict) else choice


def _without(values: dict[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _json(value: Any) -> bytes:
    # In ASCII: JSON can spell half a character (\ud800), which UTF-8 cannot.
    return json.dumps(value, separators=(",", ":")).encode()
