"""What a report may show of what stands in old files: no secrets, and not all of a book."""

import json
import re
from collections.abc import Iterable
from typing import Any

from proxy.core.masking import masked

MAX_CHARACTERS = 120
SECRET = "***"

# Credentials of a URL; words that look like OpenAI's keys; what stands behind "key=".
SECRETS_IN_TEXT = (
    (re.compile(r"://[^/\s@]+@"), "://***@"),
    (re.compile(r"\bsk-[\w-]{8,}"), "sk-***"),
    (
        re.compile(r"(?i)(key|token|password|secret)(\s*[=:]\s*)[^\s,;]+"),
        r"\1\2***",
    ),
)
MARKS = ("@", "sk-", "key", "token", "password", "secret")  # one is in each of those
NAMES_A_SECRET = re.compile(r"(?i).*(key|token|password|secret)")
# As long as keys are: what is shorter, or only a number, is none. Names of models may be as
# long, but where a bad value stands, they are known from the file, record and field.
LIKE_A_KEY = re.compile(r"(?![\d.+-]+(?![\w/+=-]))[\w/+=-]{16,}")
# The name of a field may be as long, with words in it and years; a key has neither.
NAME_LIKE_A_KEY = re.compile(r"(?=[a-zA-Z/+]*\d)(?=[\d/+]*[a-zA-Z])[a-zA-Z\d/+=]{16,}")
# Of keys that are known, these are what is not shown anywhere else.
WORD = re.compile(r"[^\s'\"`,;:=()\[\]{}<>]{8,}")
# What stands before the host in an address, also where its beginning is lost.
CREDENTIALS = re.compile(r"[^\s'\"@/]+@(?=\w)")
# Of any other a part may be a secret: columns that were mixed up hold keys.
SHOWABLE_URL = re.compile(r"https?://[^@?#]*", re.IGNORECASE)


def shown(field: str, value: Any) -> str:
    """A bad value of that field; of one that may be or hold a secret, what kind it is."""
    is_text = isinstance(value, str)
    if field == "api_key" and is_text:
        return repr(masked(field, value))
    if field == "api_base" and is_text and SHOWABLE_URL.fullmatch(value):
        return cut(told(repr(value)))
    if field in ("api_key", "api_base", "proxy_url"):
        return kind_of(value)
    # A name stands in every line about its instance.
    return cut(told(repr(value))) if field == "name" else brief(repr(value))


def brief(text: str) -> str:
    """Without what looks like a secret, and cut."""
    return cut(LIKE_A_KEY.sub("***", CREDENTIALS.sub("***@", told(text))))


def words_of(keys: Iterable[Any]) -> frozenset[str]:
    """Of keys that are known, for `without`."""
    return frozenset(w for key in keys if isinstance(key, str) for w in WORD.findall(key))


def without(words: frozenset[str], text: str) -> str:
    """The text without keys that are known, however they look."""
    return WORD.sub(lambda word: SECRET if word[0].rstrip(".") in words else word[0], text)


def name_of_field(words: frozenset[str], name: str) -> str:
    """Of one that nobody knows: where a line was lost, it may be a key."""
    return cut(NAME_LIKE_A_KEY.sub(SECRET, told(without(words, name))))


def told(value: Any) -> Any:
    """A value that may be shown but for the secrets that old error texts quote, and that stand
    where two lines of a file were joined."""
    if isinstance(value, dict):
        return {key: _told_of(str(key), inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [told(each) for each in value]
    if not isinstance(value, str) or not _is_suspect(value):
        return value
    for secret, instead in SECRETS_IN_TEXT:
        value = secret.sub(instead, value)
    return value


def _is_suspect(text: str) -> bool:
    """Cheap, because of a hundred thousand values hardly one is."""
    lower = text.lower()
    return any(mark in lower for mark in MARKS)


def _told_of(key: str, value: Any) -> Any:
    return SECRET if NAMES_A_SECRET.fullmatch(key) else told(value)


def json_of(value: Any) -> Any:
    """As JSON has it: YAML has sets and bytes, and Python's JSON has NaN."""
    return json.loads(json.dumps(value, default=str), parse_constant=str)


def cut(text: str) -> str:
    if len(text) <= MAX_CHARACTERS:
        return text
    return f"{text[:MAX_CHARACTERS]}... ({len(text)} characters)"


def kind_of(value: object) -> str:
    """What a value is, for people: never what it says."""
    if isinstance(value, str):
        return f"text of {len(value)} characters"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    kinds = {dict: "an object", list: "a list", int: "a number", float: "a number"}
    return kinds.get(type(value), type(value).__name__)
