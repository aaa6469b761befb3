"""Requests that refer to what an instance keeps: whose they are, and where they have to go."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import orjson

from proxy.context import Parts
from proxy.core.kept import Marks, Resumed, Unknown, may_be_read_otherwise, resumed
from proxy.core.types import Bytes, Client
from proxy.errors import BadRequest, NotKept


class TakenUp(NamedTuple):
    """A request as its instance is to get it: `home`, or if that is "", whoever is chosen."""

    body: Bytes
    fields: Mapping[str, Any]
    home: str


def marks_of(mine: Parts, client: Client) -> Marks:
    """As long as no key was ever made there is no secret, and everybody is the same client."""
    return Marks(mine.snapshots.current.pepper or b"", client.name)


def homes_of(mine: Parts, client: Client) -> Iterable[str]:
    """Where something can be kept for it; also by one that is out of service."""
    return client.allowed_instances or mine.snapshots.current.instances


def taken_up(mine: Parts, client: Client, body: Bytes, fields: Mapping[str, Any]) -> TakenUp:
    """`fields` are what the JSON `body` says. Raises BadRequest that names the field.

    What refers to something is written anew: the marks go, and nothing in it can be read in
    two ways. All else stays byte for byte.
    """
    try:
        found = resumed(fields, marks_of(mine, client), homes_of(mine, client))
    except Unknown as error:
        kind = NotKept if error.param == "previous_response_id" else BadRequest
        raise kind(f"{error.param}: {error}.", param=error.param) from None
    if not (found.home or may_be_read_otherwise(body)):
        return TakenUp(body, fields, "")
    return TakenUp(_written(found), found.fields, found.home)


def _written(found: Resumed) -> bytes:
    try:
        return orjson.dumps(found.fields)
    except orjson.JSONEncodeError:  # it writes nothing that is as deep as it reads
        raise BadRequest("The body is nested too deeply.") from None
