"""What a request asks for: its body checked, its tokens counted.

There is no tokenizer here. Four characters are a token, so that whoever knows the
request knows what the answer will report (`expected_usage`). Of the text of an answer a
word is one, of JSON four characters again.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from proxy.simulator import forms, uploads
from proxy.simulator.errors import Refused, invalid, not_supported
from proxy.simulator.forms import CHARACTERS_PER_TOKEN, Form, Json, compact
from proxy.simulator.routes import Operation, Route, Style

TOKENS = 20
"""Completion tokens of an answer, unless its resource says otherwise."""

ADMISSION_TOKENS = 16
"""What Azure was measured to reserve for a request which names no maximum."""

CACHE_FROM_TOKENS, CACHE_STEP_TOKENS = 1024, 128
"""Azure's prompt cache begins at 1024 tokens and grows in steps of 128."""

COUNTS = {
    "n": 128,
    "best_of": 128,
    "max_tokens": 1_000_000,
    "max_completion_tokens": 1_000_000,
    "max_output_tokens": 1_000_000,
}
"""Fields that are whole numbers from 1, and the most they may be."""


NEVER_STREAMED = ("embeddings", "audio/translations", "responses/compact")

FILES: dict[str, tuple[str, ...]] = {
    "images/edits": ("image", "image[]"),
    "audio/transcriptions": ("file",),
    "audio/translations": ("file",),
}
"""Operations whose body is a form, and the names of which one has the file."""

MEDIA_MODELS: dict[str, str] = {
    "whisper": "audio/",
    "gpt-4o-transcribe": "audio/",
    "gpt-4o-mini-transcribe": "audio/",
    "gpt-4o-mini-tts": "audio/speech",
    "tts": "audio/speech",
    "dall-e": "images/",
    "gpt-image": "images/",
}
"""Beginnings of models that are for nothing else, and of what they are for."""


@dataclass(frozen=True)  # without slots, which leave no room for what is kept of it
class Ask:
    """One request for tokens, checked."""

    style: Style
    operation: Operation
    deployment: str
    body: Json

    @property
    def streamed(self) -> bool:
        if self.operation == "audio/speech":
            return self.body.get("stream_format") == "sse"
        return self.operation not in NEVER_STREAMED and self.body.get("stream") is True

    @property
    def is_of_responses(self) -> bool:
        return self.operation.startswith("responses")

    @property
    def includes_usage(self) -> bool:
        options = self.body.get("stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True

    @cached_property
    def form(self) -> Form | None:
        if self.operation == "responses":
            return forms.wanted_of_response(self.body)
        return form(self.body) if self.operation == "chat/completions" else None


NOT_PARSED = invalid("We could not parse the JSON body of your request.")


def read(operation: Operation, raw: bytes, headers: Mapping[str, str]) -> Json:
    """The body's fields, whether it is JSON or a form. Raises Refused with a 400."""
    content_type = headers.get("content-type", "")
    if operation not in FILES or not uploads.is_upload(content_type):
        return parsed(raw)
    fields = uploads.parsed(raw, content_type)
    if fields is None:
        raise Refused(invalid("Could not parse multipart form"))
    return fields


def parsed(raw: bytes) -> Json:
    """The body's JSON object. Raises Refused with the 400 that Azure gives."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as problem:
        raise Refused(NOT_PARSED) from problem
    if not isinstance(body, dict):
        raise Refused(invalid("The body of your request is not a JSON object."))
    return body


def checked(route: Route, body: Json) -> Ask:
    """The request, if its fields are usable. Raises Refused with a 400 that names one."""
    deployment = route.deployment or body.get("model")
    if not isinstance(deployment, str) or not deployment:
        raise Refused(invalid("you must provide a model parameter", param="model"))
    for name, most in COUNTS.items():
        _check_count(name, body.get(name), most)
    if route.operation == "chat/completions":
        _check_messages(body.get("messages"))
        form(body)
    elif route.operation in ("embeddings", "audio/speech") and not body.get("input"):
        raise Refused(invalid("'input' is a required property", param="input"))
    elif route.operation.startswith("images/") and not body.get("prompt"):
        raise Refused(invalid("'prompt' is a required property", param="prompt"))
    _check_file(route.operation, body)
    _check_model(route.operation, deployment)
    return Ask(route.style, route.operation, deployment, body)


def _check_file(operation: Operation, body: Json) -> None:
    names = FILES.get(operation, ())
    if names and not any(isinstance(body.get(name), bytes) for name in names):
        raise Refused(invalid(f"'{names[0]}' is a required property", param=names[0]))


def _check_model(operation: Operation, deployment: str) -> None:
    for model, family in MEDIA_MODELS.items():
        if deployment.startswith(model) and not operation.startswith(family):
            raise Refused(not_supported(operation, deployment))


def _check_count(name: str, value: object, most: int) -> None:
    if value is None or (type(value) is int and 1 <= value <= most):
        return
    message = f"Invalid value for '{name}': expected an integer from 1 to {most}."
    raise Refused(invalid(message, code="invalid_value", param=name))


def _check_messages(messages: object) -> None:
    if not isinstance(messages, list) or not messages:
        raise Refused(invalid("'messages' is a required property", param="messages"))
    if not all(isinstance(message, dict) for message in messages):
        raise Refused(invalid("'messages' must hold objects", param="messages"))


def expected_usage(body: Json, tokens: int = TOKENS) -> Json:
    """The `usage` of the answer to this body, from a resource with that many `tokens`.

    With embeddings (a body with `input`) there are no completion tokens to report.
    A long prompt counts as cached up to the last whole step: real caches forget, and
    tests want to know the number.
    """
    prompt = prompt_tokens(body)
    if "input" in body:
        return {"prompt_tokens": prompt, "total_tokens": prompt}
    completion = completion_tokens(body, tokens) * choices(body)
    cached = 0 if prompt < CACHE_FROM_TOKENS else prompt - prompt % CACHE_STEP_TOKENS
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def completion_tokens(body: Json, tokens: int) -> int:
    """Of each choice: as many as its resource says, or as its JSON has, up to the maximum."""
    shape = form(body)
    whole = tokens if shape is None else len(shape.pieces)
    return min(whole, maximum_tokens(body) or whole)


def form(body: Json) -> Form | None:
    """What its answer is to have, but for text. Only chats are asked for one."""
    return forms.wanted(body) if "messages" in body else None


def estimated_tokens(body: Json) -> int:
    """What the request counts against the limits, known before it is answered.

    Azure documents prompt plus maximum times choices, and gives nothing back when the
    answer turns out shorter.
    """
    if "input" in body:
        return prompt_tokens(body)
    times = max(body.get("best_of") or 1, choices(body))
    return prompt_tokens(body) + (maximum_tokens(body) or ADMISSION_TOKENS) * times


def prompt_tokens(body: Json) -> int:
    """What is said, and what was defined for the answer: Azure charges for that as well."""
    prompt = body.get("messages") or body.get("prompt") or body.get("input")
    format_ = body.get("response_format")
    schema = format_.get("json_schema") if isinstance(format_, dict) else None
    text = body.get("text")  # of a response
    defined = [body.get("tools"), body.get("functions"), schema]
    defined.append(text.get("format") if isinstance(text, dict) else None)
    characters = sum(map(_characters, (prompt, body.get("suffix"), body.get("instructions"))))
    characters += sum(len(compact(each)) for each in defined if each)
    return max(1, -(-characters // CHARACTERS_PER_TOKEN))


def _characters(value: object) -> int:
    """Of text in messages, in their parts, in lists; a number is a token already."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return sum(_characters(item) for item in value)
    if isinstance(value, dict):
        return _characters(value.get("content")) + _characters(value.get("text"))
    return CHARACTERS_PER_TOKEN if isinstance(value, int) else 0


def maximum_tokens(body: Json) -> int | None:
    """The client's limit for each choice; the newer name wins."""
    names = ("max_completion_tokens", "max_tokens", "max_output_tokens")
    limit: int | None = next(filter(None, map(body.get, names)), None)
    return limit


def choices(body: Json) -> int:
    """How many: `n` for each prompt, and completions take a list of prompts."""
    n: int = body.get("n") or 1
    return n * len(inputs(body.get("prompt")))


def inputs(value: object) -> list[object]:
    """A text, a list of texts, one list of tokens or many: the single ones."""
    if isinstance(value, list) and not all(isinstance(item, int) for item in value):
        return value
    return [value]
