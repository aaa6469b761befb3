"""What upstreams keep of a call, and what later calls say of it: names of the Responses API.

Only the instance that made it knows a response by its id, the items of one by theirs, and how
to read the reasoning that it encrypted. So each such name goes to the client with a mark at its
end, by which the gateway finds that instance again: the home of what is kept. Nothing is
remembered: whatever worker or host gets the next call, before or after a restart, knows it.

A mark is of the client, too: with a name that was given to somebody else, or that has none,
nobody gets at what is kept.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

Bytes = bytes | bytearray

MARK_BYTES = 8
_MARKED = re.compile(r"(.+)_gw([0-9a-f]{16})", re.DOTALL)
_MARK_IN_JSON = re.compile(rb'_gw[0-9a-f]{16}"')
KEY_BYTES = 64  # the most that the hash takes

# Of an item; what an upstream keeps is named by these.
_NAMES = ("id", "encrypted_content", "approval_request_id")
# Of an event or an answer besides.
_MORE_NAMES = ("item_id", "response_id", "previous_response_id", "first_id", "last_id")
# Fields of a request by which something that is kept can be got at.
_BINDING = frozenset({"previous_response_id", "conversation", "input"})
_OF_REFERENCE = frozenset({"id", "type"})
REFERENCE = "item_reference"

# Where one of these stands, or the input twice, parsers may differ in what a body refers to: of
# two fields of the same name either may be believed, and a name can be written with escapes.
_TELLING = (b"previous_response_id", b"item_reference", b'"conversation"')
_ESCAPED_LETTER = re.compile(rb"\\u00[4-7]")


class Marks(NamedTuple):
    """Those of one client. `key` is the gateway's secret."""

    key: bytes
    client: str

    def marked(self, name: str, home: str) -> str:
        return f"{name}_gw{self._mark(name, home)}"

    def opened(self, marked: str, homes: Iterable[str]) -> tuple[str, str] | None:
        """The name as its upstream knows it, and which of `homes` that is; None: it was not
        given to this client, or its home is gone."""
        found = _MARKED.fullmatch(marked)
        if found is None:
            return None
        name, mark = found.groups()
        return next(((name, home) for home in homes if self._mark(name, home) == mark), None)

    def _mark(self, name: str, home: str) -> str:
        text = "\0".join((self.client, home, name)).encode("utf-8", "replace")
        key = self.key[:KEY_BYTES]
        return blake2b(text, digest_size=MARK_BYTES, key=key, person=b"kept").hexdigest()


class Unknown(Exception):
    """What a request refers to is not to be had by it. `param` is the field's name, the text
    says why, without it."""

    def __init__(self, param: str, text: str) -> None:
        super().__init__(text)
        self.param = param


class Resumed(NamedTuple):
    """`fields` without marks. `home` has all that they refer to; "" if that is nothing."""

    fields: Mapping[str, Any]
    home: str = ""


NOT_GIVEN = "it was not given to this API key by the gateway, or its instance was removed"
ELSEWHERE = "it is kept by another instance than what this request refers to besides"
NO_CONVERSATIONS = (
    "conversations are kept by a single instance, and the gateway does not pass them on; send"
    " previous_response_id instead"
)


def has_marks(body: Bytes) -> bool:
    return _MARK_IN_JSON.search(body) is not None


def may_be_read_otherwise(body: Bytes) -> bool:
    """Whether an upstream could take it to refer to something else than is seen here. What is
    written anew from what was seen cannot."""
    if any(word in body for word in _TELLING) or body.count(b'"input"') > 1:
        return True
    return _ESCAPED_LETTER.search(body) is not None


def resumed(fields: Mapping[str, Any], marks: Marks, homes: Iterable[str]) -> Resumed:
    """A request for a response, by what its JSON says. Raises Unknown."""
    _check_spelling(fields, _BINDING)
    if fields.get("conversation") is not None:
        raise Unknown("conversation", NO_CONVERSATIONS)
    search = _Search(marks, homes)
    changed = dict(fields)
    previous = fields.get("previous_response_id")
    if previous is not None:
        changed["previous_response_id"] = search.name(previous, "previous_response_id")
    items = fields.get("input")
    if isinstance(items, list):
        changed["input"] = [
            search.item(item, f"input[{number}]") if isinstance(item, dict) else item
            for number, item in enumerate(items)
        ]
    return Resumed(changed, search.home)


class _Search:
    """For the one home of all that a request refers to."""

    def __init__(self, marks: Marks, homes: Iterable[str]) -> None:
        self._marks = marks
        self._homes = tuple(homes)
        self.home = ""

    def name(self, given: object, param: str) -> str:
        """One that has to be known."""
        found = self._opened(given, param)
        if found is None:
            raise Unknown(param, NOT_GIVEN)
        return found

    def item(self, item: Mapping[str, Any], param: str) -> Mapping[str, Any]:
        """What a client says itself may have any id; what has a mark was given by us."""
        _check_spelling(item, _OF_REFERENCE, f"{param}.")
        is_bare = item.keys() <= _OF_REFERENCE and item.get("type") in (None, REFERENCE)
        if is_bare or item.get("type") == REFERENCE:
            return {**item, "id": self.name(item.get("id"), f"{param}.id")}
        opened = {}
        for name in _NAMES:
            given = item.get(name)
            if isinstance(given, str) and _MARKED.fullmatch(given):
                opened[name] = self.name(given, f"{param}.{name}")
        return {**item, **opened} if opened else item

    def _opened(self, given: object, param: str) -> str | None:
        if not isinstance(given, str):
            return None
        # Mostly all are of one: who has the first is asked about first.
        homes = (self.home, *self._homes) if self.home else self._homes
        found = self._marks.opened(given, homes)
        if found is None:
            return None
        name, home = found
        if self.home and home != self.home:
            raise Unknown(param, ELSEWHERE)
        self.home = home
        return name


def _check_spelling(fields: Mapping[str, Any], names: Iterable[str], prefix: str = "") -> None:
    """Some upstreams take Input for input (Go's encoding/json does)."""
    for field in fields:
        if field not in names and field.lower() in names:
            said = f"write it as {field.lower()}; an upstream could take it for that"
            raise Unknown(f"{prefix}{field}", said)


def marked(body: bytes, payload: Mapping[str, Any], marks: Marks, home: str) -> bytes:
    """The JSON `body` of an answer or an event, which says `payload`, with marks at the names
    of what `home` keeps. Nothing else in it changes."""
    for name in dict.fromkeys(_names_in(payload)):
        body = body.replace(_in_json(name), _in_json(marks.marked(name, home)))
    return body


def _in_json(name: str) -> bytes:
    return f'"{name}"'.encode("utf-8", "replace")


def _names_in(payload: Mapping[str, Any]) -> Iterator[str]:
    """Of a response, of what it is part of, and of the items in both."""
    response, item = payload.get("response"), payload.get("item")
    for thing in (payload, response):
        if isinstance(thing, dict):
            yield from _named(thing, ("id", *_MORE_NAMES))
            for list_ in ("output", "data"):
                items = thing.get(list_)
                for each in items if isinstance(items, list) else ():
                    if isinstance(each, dict):
                        yield from _named(each, _NAMES)
    if isinstance(item, dict):
        yield from _named(item, _NAMES)


def _named(thing: Mapping[str, Any], names: Iterable[str]) -> Iterator[str]:
    for name in names:
        value = thing.get(name)
        # What has an escape in JSON is no name.
        if isinstance(value, str) and value and '"' not in value and "\\" not in value:
            yield value
