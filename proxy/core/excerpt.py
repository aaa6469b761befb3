"""What of an upstream's answer may be told to others, in a log, say, or to the client."""

import json

from proxy.core.masking import masked_key
from proxy.core.providers import key_headers
from proxy.core.types import Bytes, InstanceConfig

ERROR_BYTES = 16_384  # of an error answer, more is not read for its message


def is_json(body: Bytes) -> bool:
    """Whether it is one whole JSON value: an answer that broke off is none."""
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def without_key(body: bytes, config: InstanceConfig, token: str) -> bytes:
    """Neither the key nor, if it was asked with one, the token."""
    key = token or (config.api_key if key_headers(config) else "")
    return body.replace(key.encode(), masked_key(key).encode()) if key else body


def excerpt(body: Bytes) -> str:
    """An error answer's message on one line: what its JSON says, else its first words."""
    text = body[:ERROR_BYTES].decode("utf-8", "replace")
    try:
        error = json.loads(text)
    except (ValueError, RecursionError):
        error = {}
    if isinstance(error, dict):
        inner = error.get("error")
        found = inner.get("message") if isinstance(inner, dict) else error.get("message")
        text = found if isinstance(found, str) else text
    # JSON can spell half a character (\ud800), which neither a database nor a client takes.
    return " ".join(text.split()).encode("utf-8", "replace").decode()
