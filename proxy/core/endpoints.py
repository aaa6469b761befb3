"""The OpenAI operations we forward: one row each."""

from dataclasses import dataclass
from typing import Literal

# What an answer is made of, if it is no error: a completion, whose length the request bounds by
# `max_tokens`, and of whose stream it may ask the usage; a transcript, which is text as well,
# and may be no JSON; images; speech, which is no JSON and comes bit by bit; a response, which
# its upstream keeps, so that later calls can refer to it (core/kept.py); or data of which
# nothing counts.
Answer = Literal["completion", "transcript", "images", "speech", "response", "data"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`path` is the operation behind a deployment or behind /v1.

    `prompt_fields` are the body's fields whose text counts as prompt tokens. `streams`: its
    `stream` asks for server-sent events; speech comes bit by bit without that. `is_form`: the
    body is multipart/form-data, because it has files.
    """

    path: str
    prompt_fields: tuple[str, ...]
    answer: Answer
    streams: bool = True
    is_form: bool = False


# Upstreams put definitions into the prompt: of tools, and of the answer's schema.
_OF_CHATS = ("messages", "tools", "functions", "response_format")

ENDPOINTS: dict[str, Endpoint] = {
    e.path: e
    for e in (
        Endpoint("chat/completions", _OF_CHATS, "completion"),
        Endpoint("completions", ("prompt", "suffix"), "completion"),
        Endpoint("embeddings", ("input",), "data", streams=False),
        Endpoint("images/generations", ("prompt",), "images"),
        Endpoint("images/edits", ("prompt",), "images", is_form=True),
        Endpoint("audio/transcriptions", ("prompt",), "transcript", is_form=True),
        Endpoint("audio/translations", ("prompt",), "transcript", streams=False, is_form=True),
        Endpoint("audio/speech", ("input", "instructions"), "speech"),
        Endpoint("responses", ("input", "instructions", "tools", "text"), "response"),
        Endpoint("responses/compact", ("input", "instructions"), "response", streams=False),
    )
}
