"""What may be shown of a secret."""

import re
from typing import Any

_SHOWN_CHARACTERS = 4
_LEAST_LENGTH = 16  # of shorter keys four characters would be too much

# Not a URL parser: what is not quite a URL (no scheme, a slash in the password) holds
# a password all the same, and an unreadable one must not raise here.
_CREDENTIALS = re.compile(r"^([a-z][a-z0-9+.-]*://)?.*@", re.IGNORECASE | re.DOTALL)


def masked_key(key: str) -> str:
    """`***` and the last characters, to tell keys apart. Not for short keys, nor "NONE"."""
    if key in ("", "NONE"):
        return key
    return "***" + (key[-_SHOWN_CHARACTERS:] if len(key) >= _LEAST_LENGTH else "")


def masked_url(url: str | None) -> str | None:
    """`url` with user and password, if it has them, replaced by `***`."""
    return _CREDENTIALS.sub(r"\g<1>***@", url) if url else url


def masked(field: str, value: Any) -> Any:
    """A config field's value as it may be shown."""
    if field == "api_key":
        return masked_key(value)
    return masked_url(value) if field == "proxy_url" else value
