"""Who uses the console: a cookie that says which admin key signed in, and when.

It is signed with what the hashes of keys are keyed with, so that all workers read it and a
restart ends none; it holds that hash, never the key. Kept is only which ones were ended before
their time. At each request the key is looked up again, and with it goes the session.
"""

import hmac
import secrets
import time
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from flask import request
from itsdangerous import BadData, URLSafeTimedSerializer
from werkzeug.wrappers import Response

from proxy.context import Parts
from proxy.core.roles import Admin
from proxy.core.sources import is_in, source
from proxy.errors import Forbidden, Unauthorized
from proxy.store import signed_out
from proxy.store.db import StoreUnavailable
from proxy.store.keys import KeysClosed, key_hash
from proxy.web.auth import FIRST, admin_with, check_config

COOKIE = "gateway_console"
PATH = "/admin/ui"
PURPOSE = b"sessions of the console"
LONGEST_SECONDS = 12 * 3600
TOKEN_BYTES = 16
TOKEN_FIELD, TOKEN_HEADER = "csrf_token", "X-CSRF-Token"


@dataclass(frozen=True, slots=True)
class Session:
    """`token` goes with each POST: another site's page cannot read it. Before somebody signed
    in there is nobody, and `admin` None."""

    token: str
    admin: Admin | None = None
    hashed: str = ""
    ends_at: float = 0.0


def begun() -> Session:
    """Nobody's yet."""
    return Session(secrets.token_urlsafe(TOKEN_BYTES))


def signed_in(mine: Parts, given: str) -> Session:
    """Of whoever has that key. Raises what `admin_with` does."""
    # As a header would bring it: each byte a character.
    key = given.strip().encode().decode("latin-1")
    admin = admin_with(mine, key, where="the field")
    return Session(begun().token, admin, _hash(mine, admin, key))


def present(mine: Parts) -> Session:
    """The request's. Raises Unauthorized where there is none, somebody ended it, or its key is
    gone, expired, or has another role by now."""
    found = of_cookie(mine)
    if found is None or not found.hashed or _is_ended(mine, found):
        raise Unauthorized("Nobody is signed in here, or not any more.", code="not_signed_in")
    admin = _still(mine, found)
    if admin is None:
        raise Unauthorized(
            "The admin key that signed in here is removed, expired, or has another role now.",
            code="session_over",
        )
    ends_at = min(found.ends_at, admin.expires_at or found.ends_at)
    return replace(found, admin=admin, ends_at=ends_at)


def end(mine: Parts, session: Session) -> None:
    """Its cookie opens nothing more, whoever has a copy. Raises StoreUnavailable."""
    now = time.time()
    with mine.database.session() as database:
        # Not `ends_at`: a key that expires may be given more time.
        signed_out.add(database, session.token, now + LONGEST_SECONDS, now)


def _is_ended(mine: Parts, session: Session) -> bool:
    try:
        with mine.database.read() as connection:
            return signed_out.has(connection, session.token)
    except StoreUnavailable:
        return False  # the console is to show that the database is away


def of_cookie(mine: Parts) -> Session | None:
    """What the cookie says; whether that still holds is not looked at. None if it is none of
    ours, or too old."""
    try:
        found = _read(secret(mine), request.cookies.get(COOKIE, ""))
    except BadData:
        return None
    return found if time.time() < found.ends_at else None


@lru_cache(maxsize=256)  # open pages ask each second
def _read(key: bytes, cookie: str) -> Session:
    """Raises BadData."""
    held: Any
    held, signed_at = URLSafeTimedSerializer(key, salt=PURPOSE).loads(
        cookie, return_timestamp=True
    )
    admin = Admin(held["name"], held["role"]) if held.get("name") else None
    ends_at = signed_at.timestamp() + LONGEST_SECONDS
    return Session(held["token"], admin, held.get("hash", ""), ends_at)


def set_cookie(mine: Parts, response: Response, session: Session) -> None:
    held = {"token": session.token}
    if session.admin is not None:
        held |= {
            "name": session.admin.name,
            "role": session.admin.role,
            "hash": session.hashed,
        }
    response.set_cookie(
        COOKIE,
        URLSafeTimedSerializer(secret(mine), salt=PURPOSE).dumps(held),
        path=PATH,
        secure=_is_https(mine),
        httponly=True,
        samesite="Strict",
    )


def delete_cookie(response: Response) -> None:
    response.delete_cookie(COOKIE, path=PATH, httponly=True, samesite="Strict")


def check_token(session: Session | None) -> None:
    """Raises Forbidden for a POST that no page of this session sent."""
    # The form is not even read for somebody who has none.
    is_known = session is not None and hmac.compare_digest(
        (request.headers.get(TOKEN_HEADER) or request.form.get(TOKEN_FIELD, "")).encode(),
        session.token.encode(),
    )
    if not is_known:
        raise Forbidden(
            "This did not come from a page of your session, or before its scripts were there;"
            " nothing was changed. Load the page again, then repeat it.",
            code="csrf_token_missing",
        )


def _still(mine: Parts, session: Session) -> Admin | None:
    """Whose key it is now; None if it may not what it might when it signed in."""
    snapshot = mine.snapshots.current
    held = session.admin
    assert held is not None  # a session has its hash from somebody
    if held == FIRST:
        expected = mine.settings.admin_api_key
        is_same = expected and hmac.compare_digest(_hash(mine, FIRST, ""), session.hashed)
        return FIRST if is_same else None
    admin = snapshot.admins.get(session.hashed)
    if admin is None or admin.role != held.role or admin.is_expired(time.time()):
        return None
    return admin


def _hash(mine: Parts, admin: Admin, key: str) -> str:
    return key_hash(_pepper(mine), mine.settings.admin_api_key if admin == FIRST else key)


def secret(mine: Parts) -> bytes:
    """The console's, which all workers have and no restart changes. Raises KeysClosed."""
    return hmac.digest(_pepper(mine), PURPOSE, "sha256")


def _pepper(mine: Parts) -> bytes:
    """A secret of this gateway alone, which the vault keeps. Raises KeysClosed without it,
    StoreUnavailable where nothing could be read yet."""
    pepper = mine.snapshots.current.pepper
    if pepper is None:
        check_config(mine)
        raise KeysClosed
    return pepper


def _is_https(mine: Parts) -> bool:
    """Whether a browser came by TLS, as a proxy in front of us says that we trust."""
    environ = request.environ
    peer = source(environ.get("REMOTE_ADDR", ""), "", ())
    scheme = environ.get("HTTP_X_FORWARDED_PROTO", "").rpartition(",")[2].strip().lower()
    return scheme == "https" and is_in(peer, mine.settings.trusted_proxies)
