"""What may be shown of a secret."""

import re
from typing import Any

from proxy.core.references import is_reference

# Fields of config that are, or may hold, a secret.
SECRET_FIELDS = frozenset({"api_key", "proxy_url"})

MASK = "***"

_SHOWN_CHARACTERS = 4
_LEAST_LENGTH = 16  # of shorter keys four characters would be too much

# Not a URL parser: what is not quite a URL (no scheme, a slash in the password) holds
# a password all the same, and an unreadable one must not raise here.
_CREDENTIALS = re.compile(r"^([a-z][a-z0-9+.-]*://)?.*@", re.IGNORECASE | re.DOTALL)


def masked_key(key: str) -> str:
    """`***` and the last characters, to tell keys apart. Not for short keys, nor "NONE", nor
    what only says where the key is."""
    if key in ("", "NONE") or is_reference(key):
        return key
    return MASK + (key[-_SHOWN_CHARACTERS:] if len(key) >= _LEAST_LENGTH else "")


def masked_url(url: str | None) -> str | None:
    """`url` with user and password, if it has them, replaced by `***`."""
    if not url or is_reference(url):
        return url
    return _CREDENTIALS.sub(rf"\g<1>{MASK}@", url)


def masked(field: str, value: Any) -> Any:
    """A config field's value as it may be shown."""
    if field == "api_key" and value is not None:
        return masked_key(value)
    return masked_url(value) if field == "proxy_url" else value
