"""Who may call: clients by their key, operators by the admin key."""

import hmac
from collections.abc import Mapping
from typing import Any

from flask import g, request

from proxy.context import Parts, parts
from proxy.core.types import ANONYMOUS, Client
from proxy.errors import Forbidden, Unauthorized
from proxy.store.keys import KeysClosed, key_hash

# Whose key ADMIN_API_KEY is, in revisions.
FIRST_ADMIN = "admin"
ADMIN_HEADER = "X-Admin-API-Key"


def authenticated_client() -> Client:
    """As `client_of`, of the present request."""
    return client_of(parts(), request.environ)


def client_of(mine: Parts, environ: Mapping[str, Any]) -> Client:
    """The client whose key the request carries. Raises Unauthorized.

    Keys are looked up by their hash, so the time it takes tells nothing about a key. With
    client authentication off, a known key still names its client in log and usage.
    """
    snapshot = mine.snapshots.current
    known, pepper = snapshot.clients, snapshot.pepper
    given = _given_keys(environ)
    for key in given:
        client = known.get(key_hash(pepper, key)) if pepper else None
        if client is not None:
            return client
    if mine.settings.client_auth == "off":
        return ANONYMOUS
    if not given:
        raise Unauthorized(
            "No API key was sent. Send yours as `Authorization: Bearer KEY` or `api-key: KEY`.",
            code="missing_api_key",
        )
    if not pepper:
        raise KeysClosed
    raise Unauthorized("The API key that was sent is not known here.")


def require_admin() -> None:
    """Raises Unauthorized, or Forbidden where no admin key is set: there is no default one."""
    expected = parts().settings.admin_api_key
    if not expected:
        raise Forbidden(
            "The admin API is closed: set ADMIN_API_KEY in the environment or .env, and"
            " restart the proxy.",
            code="admin_api_closed",
        )
    given = request.headers.get(ADMIN_HEADER, "")
    # WSGI gives headers as Latin-1 and the system settings as UTF-8; the bytes must be equal.
    if not hmac.compare_digest(
        given.encode("latin-1", "replace"), expected.encode("utf-8", "surrogateescape")
    ):
        raise Unauthorized(f"The admin API needs its key in the header {ADMIN_HEADER}.")
    g.admin_name = FIRST_ADMIN


def _given_keys(environ: Mapping[str, Any]) -> list[str]:
    """Azure's clients send `api-key`, OpenAI's a bearer token; some send both."""
    keys = [environ.get("HTTP_API_KEY", "")]
    scheme, _, token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() == "bearer":
        keys.append(token.strip())
    return [k for k in keys if k]
