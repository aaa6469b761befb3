"""What may be shown of a secret."""

from typing import Any
from urllib.parse import urlsplit, urlunsplit

_SHOWN_CHARACTERS = 4
_LEAST_LENGTH = 16  # of shorter keys four characters would be too much


def masked_key(key: str) -> str:
    """`***` and the last characters, to tell keys apart. Not for short keys, nor "NONE"."""
    if key in ("", "NONE"):
        return key
    return "***" + (key[-_SHOWN_CHARACTERS:] if len(key) >= _LEAST_LENGTH else "")


def masked_url(url: str | None) -> str | None:
    """`url` with user and password, if it has them, replaced by `***`."""
    if not url:
        return url
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc="***@" + parts.netloc.rpartition("@")[2]))


def masked(field: str, value: Any) -> Any:
    """A config field's value as it may be shown."""
    if field == "api_key":
        return masked_key(value)
    return masked_url(value) if field == "proxy_url" else value
