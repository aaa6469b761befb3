"""What upstreams keep of a call, and what later calls say of it: names of the Responses API.

Only the resource that made it knows a response by its id, the items of one by theirs, and how
to read the reasoning that it encrypted. So each such name goes to the client with a mark at its
end, by which the gateway finds an instance of that resource again: the home of what is kept.
Nothing is remembered: whatever worker or host gets the next call, before or after a restart,
knows it.

A mark is of the client, too: with a name that was given to somebody else, or that has none,
nobody gets at what is kept. It is put on names alone that an upstream made. So no item goes up
with an id of the client's own: what an upstream tells of it later would have a mark then.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple
from unicodedata import normalize

Bytes = bytes | bytearray

MARK_BYTES = 8
_MARKED = re.compile(r"(.+)_gw([0-9a-f]{16})", re.DOTALL)
KEY_BYTES = 64  # the most that the hash takes

# Of an item; what an upstream keeps is named by these, or can be read by it alone.
_NAMES = ("id", "encrypted_content", "approval_request_id")
_NAMES_OF_RESPONSES = ("id", "item_id", "response_id", "previous_response_id")
_ALL_NAMES = sorted({*_NAMES, *_NAMES_OF_RESPONSES, "first_id", "last_id"})
# Inside a JSON string the quotes would be escaped, so text of the model cannot match.
_NAMED = re.compile(
    rf'("(?:{"|".join(_ALL_NAMES)})"\s*:\s*)("[^"\\]*+(?:\\.[^"\\]*+)*+")'.encode()
)

# Fields of a request by which something that is kept can be got at.
_BINDING = frozenset(
    {
        *("previous_response_id", "conversation", "input", "instructions"),
        *("request_id", "stream", "background", "max_output_tokens"),
    }
)
_OF_ITEMS = frozenset({"type", "role", *_NAMES})
REFERENCE = "item_reference"
# Items that say all that there is of them: whoever gets one needs nothing that is kept.
_WHOLE = frozenset(
    {
        *("message", "function_call", "custom_tool_call"),
        *("function_call_output", "custom_tool_call_output"),
    }
)
# What a client says a tool has done; the id is its call's, which mostly has no mark.
_OF_CLIENTS = ("local_shell_call_output",)

# Without any of these a body refers to nothing, whatever parser reads it. With one it may, and
# parsers may differ: of two fields of the same name either may be believed, and what is ASCII
# may be written with escapes.
_TELLING = (
    *(b'"id"', b"previous_response_id", b'"conversation"', b"encrypted_content"),
    *(b"approval_request_id", REFERENCE.encode(), b'"request_id"'),
)
_ONCE = (
    *(b'"input"', b'"instructions"', b'"stream"', b'"background"'),
    b'"max_output_tokens"',
)
_ESCAPED = re.compile(rb"\\u00[2-7]")
_NO_LETTER = re.compile("[^a-z_]")

NOT_GIVEN = (
    "it was not given to this API key by the gateway, or its instance was removed, or may not"
    " be used with this key any more"
)
ELSEWHERE = "it is kept by another instance than what this request refers to besides"
NO_CONVERSATIONS = (
    "conversations are kept by a single instance, and the gateway does not pass them on; send"
    " previous_response_id instead"
)
NO_NAME = "how a response is called is for its upstream to say"
NO_INPUT = "it must be a text, or a list of objects"
NO_TEXT = "it must be a text"


class Marks(NamedTuple):
    """Those of one client. `key` is the gateway's secret."""

    key: bytes
    client: str

    def __repr__(self) -> str:
        return f"Marks(client={self.client!r})"

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


# Resources where something can be kept, and the names of the instances that ask each.
Homes = Mapping[str, Sequence[str]]


class Unknown(Exception):
    """What a request refers to is not to be had by it. `param` is the field's name, the text
    says why, without it."""

    def __init__(self, param: str, text: str) -> None:
        super().__init__(text)
        self.param = param


class Resumed(NamedTuple):
    """`fields` without marks; the same ones if nothing in them had to change. `home` has all
    that they refer to; "" if that is nothing."""

    fields: Mapping[str, Any]
    home: str = ""


def may_refer(body: Bytes) -> bool:
    """Whether an upstream could find in it that it refers to something. What is written anew
    from what was seen here tells nobody anything else."""
    if any(word in body for word in _TELLING) or _ESCAPED.search(body) is not None:
        return True
    return any(body.count(word) > 1 for word in _ONCE)


def resumed(fields: Mapping[str, Any], marks: Marks, homes: Iterable[str]) -> Resumed:
    """A request for a response, by what its JSON says. Raises Unknown."""
    _check(fields)
    search = _Search(marks, homes)
    changed: dict[str, Any] = {}
    previous = fields.get("previous_response_id")
    if previous is not None:
        changed["previous_response_id"] = search.name(previous, "previous_response_id")
    items = fields.get("input")
    if isinstance(items, list):
        found = [search.item(item, f"input[{number}]") for number, item in enumerate(items)]
        found = [search.whole(item) if _is_whole(item) else item for item in found]
        if found != items:
            changed["input"] = found
    return Resumed({**fields, **changed} if changed else fields, search.home)


def _check(fields: Mapping[str, Any]) -> None:
    _check_spelling(fields, _BINDING)
    if fields.get("conversation") is not None:
        raise Unknown("conversation", NO_CONVERSATIONS)
    if fields.get("request_id") is not None:  # by which some call what they make
        raise Unknown("request_id", NO_NAME)
    if not isinstance(fields.get("stream"), bool | None):
        raise Unknown("stream", "it must be true or false")
    if not isinstance(fields.get("instructions"), str | None):
        raise Unknown("instructions", NO_TEXT)
    if not isinstance(fields.get("input"), str | list | None):
        raise Unknown("input", NO_INPUT)


def _is_whole(item: Mapping[str, Any]) -> bool:
    return item.get("type") in _WHOLE or (item.get("type") is None and "role" in item)


class _Search:
    """For the one home of all that a request refers to."""

    def __init__(self, marks: Marks, homes: Iterable[str]) -> None:
        self._marks = marks
        self._homes = homes
        self.home = ""

    def name(self, given: object, param: str) -> str:
        """One that has to be known."""
        # Mostly all are of one: who has the first is asked about first.
        opened = self._opened(given, (self.home,)) or self._opened(given, self._homes)
        if opened is None:
            raise Unknown(param, NOT_GIVEN)
        name, home = opened
        if self.home and home != self.home:
            raise Unknown(param, ELSEWHERE)
        self.home = home
        return name

    def item(self, item: Any, param: str) -> Mapping[str, Any]:
        """As its home knows it; an id that is not from there is left out."""
        if not isinstance(item, dict):
            raise Unknown(param, "it must be an object")
        _check_spelling(item, _OF_ITEMS, f"{param}.")
        for text in ("type", "role"):
            if not isinstance(item.get(text), str | None):
                raise Unknown(f"{param}.{text}", NO_TEXT)
        if _is_reference(item):
            return {**item, "id": self.name(item.get("id"), f"{param}.id")}
        changed = {
            name: self.name(item[name], f"{param}.{name}")
            for name in _NAMES[1:]
            if item.get(name)
        }
        given = item.get("id")
        if given is not None and not _is_whole(item):
            if isinstance(given, str) and _MARKED.fullmatch(given):
                changed["id"] = self.name(given, f"{param}.id")
            elif item.get("type") not in _OF_CLIENTS:
                return _without_id(item) | changed
        return {**item, **changed} if changed else item

    def whole(self, item: Mapping[str, Any]) -> Mapping[str, Any]:
        """At its home it keeps its id, everywhere else it does without. To be asked for last,
        when that is known."""
        given = item.get("id")
        if given is None:
            return item
        opened = self._opened(given, (self.home,))
        return _without_id(item) if opened is None else {**item, "id": opened[0]}

    def _opened(self, given: object, homes: Iterable[str]) -> tuple[str, str] | None:
        return self._marks.opened(given, homes) if isinstance(given, str) else None


def _is_reference(item: Mapping[str, Any]) -> bool:
    """Or a parser could take it for one."""
    kind = item.get("type")
    if kind is None:
        return item.get("role") is None
    return kind.casefold() in (REFERENCE, "")


def _without_id(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name != "id"}


def _check_spelling(fields: Mapping[str, Any], names: Iterable[str], prefix: str = "") -> None:
    """Some upstreams take Input for input (Go's encoding/json does), or less alike."""
    for field in fields:
        if field not in names and (meant := _folded(field)) in names:
            said = f"write it as {meant}; an upstream could take it for that"
            raise Unknown(f"{prefix}{field}", said)


def _folded(field: str) -> str:
    """What somebody may take it for who does not look at case, accents or what is no letter."""
    if field.isascii() and field.isidentifier():
        return field.lower()
    plain = normalize("NFKD", field.casefold()).replace("\u0131", "i")
    return _NO_LETTER.sub("", plain)


def marked(body: bytes, payload: Mapping[str, Any], marks: Marks, home: str) -> bytes:
    """The JSON `body` of an answer or an event, which says `payload`, with marks at the names
    of what `home` keeps. Nothing else in it changes."""
    names = set(_names_in(payload))
    if not names:
        return body

    def with_mark(found: re.Match[bytes]) -> bytes:
        try:
            name = json.loads(found[2])
        except ValueError:  # in a comment, say, nobody reads it
            return found[0]
        if name not in names:
            return found[0]
        return found[1] + json.dumps(marks.marked(name, home)).encode()

    return _NAMED.sub(with_mark, body)


def _names_in(payload: Mapping[str, Any]) -> Iterator[str]:
    """Of a response, of an event of one, or of a list of items."""
    if payload.get("object") == "list":
        yield from _named(payload, ("first_id", "last_id"))
        yield from _named_in(payload.get("data"))
        return
    for thing in (payload, payload.get("response")):
        if isinstance(thing, dict):
            yield from _named(thing, _NAMES_OF_RESPONSES)
            yield from _named_in(thing.get("output"))
    yield from _named_in([payload.get("item")])


def _named_in(items: object) -> Iterator[str]:
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict) and item.get("type") not in _OF_CLIENTS:
            yield from _named(item, _NAMES)


def _named(thing: Mapping[str, Any], names: Iterable[str]) -> Iterator[str]:
    for name in names:
        value = thing.get(name)
        if isinstance(value, str) and value:
            yield value
