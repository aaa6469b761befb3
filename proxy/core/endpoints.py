"""The OpenAI operations we forward: one row each."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`path` is the operation behind a deployment or behind /v1.

    `streams`: the body's `stream` asks for server-sent events. `prompt_fields` are the
    body's fields whose text counts as prompt tokens.
    """

    path: str
    streams: bool
    prompt_fields: tuple[str, ...]


# Upstreams put definitions into the prompt: of tools, and of the answer's schema.
_OF_CHATS = ("messages", "tools", "functions", "response_format")

ENDPOINTS: dict[str, Endpoint] = {
    e.path: e
    for e in (
        Endpoint("chat/completions", True, _OF_CHATS),
        Endpoint("completions", True, ("prompt", "suffix")),
        Endpoint("embeddings", False, ("input",)),
    )
}
