"""Who makes the present request's change of config, and why."""

from flask import g, request

from proxy.errors import Unprocessable
from proxy.store.revisions import REASON_CHARACTERS, Author

REASON_HEADER = "X-Change-Reason"


def author(reason: str | None = None) -> Author:
    """For the revision; the reason is in the request's header, unless it is given. Raises
    Unprocessable for one that cannot be kept."""
    reason = _of_header() if reason is None else reason.strip()
    if len(reason) > REASON_CHARACTERS or not reason.isprintable():
        raise Unprocessable(
            f"{REASON_HEADER}: must have at most {REASON_CHARACTERS} printable characters.",
            param=REASON_HEADER,
        )
    return Author(g.admin_name, reason or None, g.request_id)


def _of_header() -> str:
    given = request.headers.get(REASON_HEADER, "").strip()
    try:
        # WSGI gives headers as Latin-1; people write UTF-8.
        return given.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return given
