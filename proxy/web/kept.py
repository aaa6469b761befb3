"""Requests that refer to what an instance keeps: whose they are, and where they have to go."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from proxy.context import Parts
from proxy.core.kept import Homes, Marks, Unknown, may_refer, resumed
from proxy.core.types import Bytes, Client
from proxy.errors import BadRequest, NotKept


class TakenUp(NamedTuple):
    """A request as one of `homes` is to get it, or, if there are none, whoever is chosen."""

    body: Bytes
    fields: Mapping[str, Any]
    homes: tuple[str, ...]


def marks_of(mine: Parts, client: Client) -> Marks:
    """As long as no key was ever made there is no secret, and everybody is the same client."""
    return Marks(mine.snapshots.current.pepper or b"", client.name)


def homes_of(mine: Parts, client: Client) -> Homes:
    """Where something can be kept for it; also by one that is out of service."""
    homes, allowed = mine.snapshots.current.homes, client.allowed_instances
    if not allowed:
        return homes
    mine_alone = {home: [n for n in names if n in allowed] for home, names in homes.items()}
    return {home: names for home, names in mine_alone.items() if names}


def taken_up(mine: Parts, client: Client, body: Bytes, fields: Mapping[str, Any]) -> TakenUp:
    """`fields` are all that the JSON `body` says, at least if it may refer to something.
    Raises BadRequest that names the field.

    What may refer to something is written anew: the marks go, and nothing in it can be read in
    two ways. All else stays byte for byte.
    """
    try:
        homes = homes_of(mine, client)
        found = resumed(fields, marks_of(mine, client), homes)
    except Unknown as error:
        kind = NotKept if error.param == "previous_response_id" else BadRequest
        raise kind(f"{error.param}: {error}.", param=error.param) from None
    if not may_refer(body):
        # What answers repeat of it, none of which may be deeper than they can be read.
        _written({name: value for name, value in fields.items() if name != "input"})
        return TakenUp(body, fields, ())
    names = tuple(homes[found.home]) if found.home else ()
    return TakenUp(_written(found.fields), found.fields, names)


def _written(fields: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(fields)
    except orjson.JSONEncodeError:  # it writes nothing that is as deep as it reads
        raise BadRequest("The body is nested too deeply.") from None
