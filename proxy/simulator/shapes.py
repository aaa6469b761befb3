"""What a simulated Azure answers: the bodies of answers and the events of streams.

Everything follows from the request, so that tests can compare; only `id` and `created`
are the caller's. The plain OpenAI style leaves out what Azure adds: content filter
results and the dated model name.
"""

import base64
import json
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from proxy.simulator.asks import Ask, choices, expected_usage, inputs, maximum_tokens
from proxy.simulator.forms import Form, Json
from proxy.simulator.routes import Style

FILLER = "It goes on for a while, so that there is a stream to look at.".split()
VECTOR_SIZE = 8

_SAID = re.compile(
    rb'"(?:content|text|name|arguments|finish_reason|delta|b64_json|audio)":"[^"]'
)

DONE = b"data: [DONE]\n\n"
ERROR_EVENT = (
    b'data: {"error":{"message":"The server had an error while processing your request. '
    b'Sorry about that!","type":"server_error","param":null,"code":null}}\n\n'
)

DATED_MODELS = {
    "gpt-35-turbo": "gpt-3.5-turbo-0125",
    "gpt-4": "gpt-4-0613",
    "gpt-4o": "gpt-4o-2024-11-20",
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "gpt-4.1": "gpt-4.1-2025-04-14",
    "gpt-4.1-mini": "gpt-4.1-mini-2025-04-14",
    "gpt-4.1-nano": "gpt-4.1-nano-2025-04-14",
    "o3-mini": "o3-mini-2025-01-31",
    "o4-mini": "o4-mini-2025-04-16",
    "text-embedding-ada-002": "text-embedding-ada-002",
    "text-embedding-3-small": "text-embedding-3-small",
    "text-embedding-3-large": "text-embedding-3-large",
}
"""What Azure's base models call themselves in `model`; those for embeddings have no date."""

SAFE = {
    category: {"filtered": False, "severity": "safe"}
    for category in ("hate", "self_harm", "sexual", "violence")
}
PROMPT_FILTER_RESULTS = [
    {
        "prompt_index": 0,
        "content_filter_results": {**SAFE, "jailbreak": {"detected": False, "filtered": False}},
    }
]


@dataclass(frozen=True, slots=True)
class Voice:
    """Who answers: the resource's name, its completion tokens, and this answer's marks."""

    resource: str
    tokens: int
    id: str
    created: int  # Unix time, whole seconds


def dated_model(ask: Ask) -> str:
    """The `model` of an answer: on Azure a dated name, never the deployment's.

    The longest base model that begins the deployment's name; for a deployment that is
    named after something else, whatever a person would probably have deployed.
    """
    if ask.style == "openai":
        return ask.deployment
    fitting = [name for name in DATED_MODELS if ask.deployment.startswith(name)]
    default = "text-embedding-3-small" if ask.operation == "embeddings" else "gpt-4o"
    return DATED_MODELS[max(fitting, key=len, default=default)]


def pieces(ask: Ask, voice: Voice) -> list[str]:
    """What a choice says, a token each; fewer if the client set a maximum."""
    said = words(ask, voice) if ask.form is None else ask.form.pieces
    return said[: maximum_tokens(ask.body)]


def words(ask: Ask, voice: Voice) -> list[str]:
    """The text of a choice, a word a token."""
    first = f"Hello from {voice.resource}, deployment {ask.deployment}.".split()
    rest = [FILLER[i % len(FILLER)] for i in range(max(0, voice.tokens - len(first)))]
    texts = (first + rest)[: voice.tokens]
    return texts[:1] + [f" {text}" for text in texts[1:]]


def finish_reason(ask: Ask, voice: Voice) -> str:
    whole = voice.tokens if ask.form is None else len(ask.form.pieces)
    if (maximum_tokens(ask.body) or whole) < whole:
        return "length"
    if ask.form is None or ask.form.function is None:
        return "stop"
    return "function_call" if ask.form.is_legacy else "tool_calls"


def whole(ask: Ask, voice: Voice) -> Json:
    """The answer of chat/completions or completions in one piece."""
    text = "".join(pieces(ask, voice))
    finish = finish_reason(ask, voice)
    answer = {
        **_frame(ask, voice, streamed=False),
        "choices": [
            _choice(ask, index, _said(ask, voice, index, text), finish)
            for index in range(choices(ask.body))
        ],
        "usage": expected_usage(ask.body, voice.tokens),
    }
    if ask.style != "openai":
        answer["prompt_filter_results"] = PROMPT_FILTER_RESULTS
    return answer


def _said(ask: Ask, voice: Voice, index: int, text: str) -> Json:
    """Of a choice that is not streamed."""
    if ask.operation != "chat/completions":
        return {"text": text}
    message: Json = {"role": "assistant", "content": text, "refusal": None}
    if ask.form is not None and ask.form.function is not None:
        message |= {"content": None, **_call(ask.form, voice, index, text)}
    return {"message": message}


def _call(form: Form, voice: Voice, index: int, arguments: str) -> Json:
    function = {"name": form.function, "arguments": arguments}
    if form.is_legacy:
        return {"function_call": function}
    # Tools answer by the id, and each choice makes a call of its own.
    call = {"id": f"call_{index}_{voice.id}", "type": "function", "function": function}
    return {"tool_calls": [call]}


def events(ask: Ask, voice: Voice) -> Iterator[bytes]:
    """The answer as server-sent events, `data: ...` with an empty line each.

    Azure begins with an event that has no choices, only the prompt's filter results.
    `usage` is in the events only if the client asked: null, and at last the numbers.
    """
    frame = _frame(ask, voice, streamed=True)
    nothing_yet: Json = {"usage": None} if ask.includes_usage else {}
    if ask.style != "openai":
        yield _event(_preamble() | nothing_yet)
    for choice in _streamed_choices(ask, voice):
        yield _event({**frame, "choices": [choice], **nothing_yet})
    if ask.includes_usage:
        usage = expected_usage(ask.body, voice.tokens)
        yield _event({**frame, "choices": [], "usage": usage})
    yield DONE


def says_something(event: bytes) -> bool:
    """Text, or that a choice ends; not Azure's first event, nor who speaks."""
    return _SAID.search(event) is not None


def _streamed_choices(ask: Ask, voice: Voice) -> Iterator[Json]:
    """One for each token of each choice in turn, between who speaks and why it ends.

    Who calls a function says so with its name, which is the first token.
    """
    chat = ask.operation == "chat/completions"
    calls = ask.form is not None and ask.form.function is not None
    each = range(choices(ask.body))
    if chat:
        yield from (_choice(ask, index, _opening(ask, voice, index)) for index in each)
    for piece in pieces(ask, voice)[1 if calls else 0 :]:
        yield from (_choice(ask, index, _piece(ask, piece)) for index in each)
    last: Json = {"delta": {}} if chat else {"text": ""}
    finish = finish_reason(ask, voice)
    yield from (_choice(ask, index, last, finish) for index in each)


def _opening(ask: Ask, voice: Voice, index: int) -> Json:
    delta: Json = {"role": "assistant", "content": "", "refusal": None}
    if ask.form is not None and ask.form.function is not None:
        call = _call(ask.form, voice, index, "")
        delta |= {"content": None, **_numbered(call)}
    return {"delta": delta}


def _piece(ask: Ask, piece: str) -> Json:
    if ask.operation != "chat/completions":
        return {"text": piece}
    if ask.form is None or ask.form.function is None:
        return {"delta": {"content": piece}}
    function = {"arguments": piece}
    call = (
        {"function_call": function}
        if ask.form.is_legacy
        else {"tool_calls": [{"function": function}]}
    )
    return {"delta": _numbered(call)}


def _numbered(call: Json) -> Json:
    """Streamed calls say which of a choice's they are; here it is always the first."""
    calls = call.get("tool_calls")
    return call if calls is None else {"tool_calls": [{"index": 0, **calls[0]}]}


def _frame(ask: Ask, voice: Voice, *, streamed: bool) -> Json:
    if ask.operation == "chat/completions":
        prefix, kind = "chatcmpl", "chat.completion" + (".chunk" if streamed else "")
    else:
        prefix, kind = "cmpl", "text_completion"
    return {
        "id": f"{prefix}-{voice.id}",
        "object": kind,
        "created": voice.created,
        "model": dated_model(ask),
        "system_fingerprint": "fp_simulated",
    }


def _preamble() -> Json:
    return {
        "id": "",
        "object": "",
        "created": 0,
        "model": "",
        "prompt_filter_results": PROMPT_FILTER_RESULTS,
        "choices": [],
    }


def _choice(ask: Ask, index: int, said: Json, finish: str | None = None) -> Json:
    choice = {"index": index, **said, "logprobs": None, "finish_reason": finish}
    if ask.style != "openai":
        # Azure says nothing of the filter where there is no text: role, call and end.
        part = said.get("message") or said.get("delta", said)
        is_text = part.get("content") or part.get("text")
        choice["content_filter_results"] = SAFE if is_text else {}
    return choice


def _event(body: Json) -> bytes:
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def embeddings(ask: Ask, voice: Voice) -> Json:
    """A vector for each input; equal inputs have equal vectors."""
    size = ask.body.get("dimensions") or VECTOR_SIZE
    encoded = ask.body.get("encoding_format") == "base64"
    return {
        "object": "list",
        "model": dated_model(ask),
        "data": [
            {"object": "embedding", "index": index, "embedding": _vector(item, size, encoded)}
            for index, item in enumerate(inputs(ask.body["input"]))
        ],
        "usage": expected_usage(ask.body, voice.tokens),
    }


def _vector(item: object, size: int, encoded: bool) -> Any:
    """Floats, or their 32 bits little-endian in base64, as the openai package asks for."""
    chance = Random(json.dumps(item))
    packed = struct.pack(f"<{size}f", *(chance.uniform(-1, 1) for _ in range(size)))
    if encoded:
        return base64.b64encode(packed).decode()
    return list(struct.unpack(f"<{size}f", packed))


def models(style: Style, deployments: list[str]) -> Json:
    """The list of models. Azure lists base models, not what was deployed from them."""
    azure = {"capabilities": {"inference": True}, "lifecycle_status": "generally-available"}
    extra: Json = {} if style == "openai" else azure
    names = deployments if style == "openai" and deployments else sorted(DATED_MODELS)
    rows = [
        {"id": name, "object": "model", "created": 0, "owned_by": "simulator", **extra}
        for name in names
    ]
    return {"object": "list", "data": rows}
