"""How many tokens a request will cost, estimated before anybody counts them."""

from collections.abc import Iterable, Mapping
from typing import Any

# English prose has about four bytes a token with OpenAI's encodings; code and most other
# languages have fewer bytes a token, JSON's own punctuation makes up for part of it.
BYTES_PER_TOKEN = 4

# A 1024 x 1024 image in high detail: 85 + 4 tiles of 170 (OpenAI's vision guide). The
# length of its base64 text says nothing about its cost.
IMAGE_TOKENS = 765
_MEDIA_KEYS = frozenset({"image_url", "input_audio", "file"})

# The largest number we count with: above every limit, and sums of it still fit the
# database's 64 bits. Clients may write any number.
MAX_TOKENS = 2**31 - 1

# What Azure admits a chat request with when it names no limit of its own.
DEFAULT_COMPLETION_TOKENS = 16

_LIMIT_FIELDS = ("max_completion_tokens", "max_tokens")


def prompt_tokens(body: Mapping[str, Any], fields: Iterable[str]) -> int:
    """Tokens of the text in `fields` of a request's body, at least 1.

    Every string counts, keys too: a tool's schema is part of the prompt. A list of
    integers is text that is tokenized already and counts one each.
    """
    text_bytes = media = ready = 0
    todo: list[Any] = [body[f] for f in fields if f in body]
    while todo:
        value = todo.pop()
        if isinstance(value, str):
            text_bytes += _bytes(value)
        elif isinstance(value, dict):
            for key, inner in value.items():
                # A tool may have a parameter of such a name; a medium says its type.
                if key in _MEDIA_KEYS and value.get("type") == key:
                    media += 1
                else:
                    text_bytes += len(key)
                    todo.append(inner)
        elif isinstance(value, list):
            todo.extend(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            ready += 1
    return max(1, text_bytes // BYTES_PER_TOKEN + media * IMAGE_TOKENS + ready)


def completion_limit_tokens(body: Mapping[str, Any]) -> int:
    """The most the answer may cost: the client's limit times `n`.

    Without a limit, what Azure counts then; at most MAX_TOKENS. Values of a wrong type
    are the upstream's to refuse, and count as absent here.
    """
    limit = next(
        (v for f in _LIMIT_FIELDS if (v := _positive(body.get(f))) is not None),
        DEFAULT_COMPLETION_TOKENS,
    )
    answers = max(_positive(body.get("n")) or 1, _positive(body.get("best_of")) or 1)
    return min(limit * answers, MAX_TOKENS)


def _positive(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    return None


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
