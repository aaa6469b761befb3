"""Versions of what is changed, so that of two writers the second hears of the first."""

import re

from flask import request

from proxy.errors import PreconditionFailed


def etag(revision: int) -> dict[str, str]:
    """The header that names the version of what is shown (RFC 9110, 8.8.3)."""
    return {"ETag": f'"{revision}"'}


def if_match() -> int | None:
    """The revision the client means to change; None if it does not say. Raises
    PreconditionFailed for one that cannot be ours."""
    given = request.headers.get("If-Match", "*").strip()
    if given == "*":
        return None
    match = re.fullmatch(r'"(\d{1,18})"', given)
    if match is None:
        raise PreconditionFailed(f"If-Match: {given!r} is not an ETag of ours.")
    return int(match[1])
