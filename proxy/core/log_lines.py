"""What a line of the log looks like, as text for people's eyes and as JSON for programs."""

import json
import re
from collections.abc import Mapping
from typing import Any

_PLAIN = re.compile(r"[!#-<>-~]+")  # printable ASCII without space, quote and equals sign


def quoted(value: object) -> str:
    """Names come from clients: what could break the line, or look like a field, is quoted."""
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def text_of(fields: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={quoted(value)}" for name, value in fields.items())
