"""Who may call: clients by their key, operators by an admin key and its role."""

import hmac
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from flask import current_app, g, request

from proxy.context import Parts, parts
from proxy.core.door import DISABLED, ELSEWHERE, EXPIRED, FOLLOWED, hindrance
from proxy.core.key_format import ADMIN_PREFIX, mistake
from proxy.core.log_lines import text_of
from proxy.core.request_head import KEPT, KeptHead
from proxy.core.roles import ADMIN, ADMINISTER, FIRST_ADMIN, READ, Admin, least_role
from proxy.core.sources import Address, comes_from, source
from proxy.core.types import ANONYMOUS, Client
from proxy.core.wrong_keys import UNKNOWN, Refused
from proxy.errors import Forbidden, ProxyError, TooManyWrongKeys, Unauthorized
from proxy.runtime.snapshot import NO_CONFIG
from proxy.runtime.tell import tell
from proxy.store.db import StoreUnavailable
from proxy.store.keys import KeysClosed, key_hash

ADMIN_HEADER = "X-Admin-API-Key"
FIRST = Admin(FIRST_ADMIN)

logger = logging.getLogger(__name__)


def authenticated_client() -> Client:
    """As `client_of`, of the present request, which is no call."""
    mine = parts()
    client = client_of(mine, request.environ)
    mine.clients.note_use(client)
    return client


def client_of(mine: Parts, environ: Mapping[str, Any]) -> Client:
    """The client whose key the request carries. Raises Unauthorized, Forbidden where it may not
    call from, and StoreUnavailable while no config could be read.

    Keys are looked up by their hash, so the time it takes tells nothing about a key. With
    client authentication off, a key that opens still names its client.
    """
    snapshot = mine.snapshots.current
    keys, pepper = snapshot.keys, snapshot.pepper
    closed = None
    for found in _key_hashes(environ, pepper) if pepper else ():
        known = keys.get(found)
        if known is None:
            continue
        if known.is_plain:
            return known.client
        is_elsewhere = _is_elsewhere(mine, known.client, environ)
        why = hindrance(known, time.time(), is_elsewhere=is_elsewhere)
        if why is None:
            return known.client
        closed = closed or (known.client, why)
    check_config(mine)
    if mine.settings.client_auth == "off":
        return ANONYMOUS
    if closed is not None:
        raise _closed(*closed, _source(mine, environ))
    given = _given_keys(environ)
    if given and pepper:
        _note_client_key(mine, environ)
    raise _not_known(given, is_readable=pepper is not None)


def check_config(mine: Parts) -> None:
    """A worker that took another's place while the database was away knows no instance and no
    key. To say that they do not exist, or that keys are lost, would be wrong."""
    if not mine.snapshots.is_read and mine.syncer.problem:
        raise StoreUnavailable(
            f"{mine.syncer.problem} {NO_CONFIG}",
            retry_after_seconds=1,
        )


def _is_elsewhere(mine: Parts, client: Client, environ: Mapping[str, Any]) -> bool:
    """It may not call from there."""
    return bool(client.allowed_networks) and not comes_from(
        client.allowed_networks,
        environ.get("REMOTE_ADDR", ""),
        environ.get("HTTP_X_FORWARDED_FOR", ""),
        mine.settings.trusted_proxies,
    )


def _closed(client: Client, why: str, address: Address | None) -> ProxyError:
    """Who is told has the key. The request's record says whose it is and where it came from:
    so one finds who still uses an old one."""
    g.client, g.source = client, str(address or UNKNOWN)
    if why == ELSEWHERE:
        return Forbidden(
            f"This API key may not be used from {address or 'an unknown address'}.",
            code="source_not_allowed",
        )
    said = {
        DISABLED: "This API key is disabled.",
        EXPIRED: "This API key has expired.",
        FOLLOWED: "This API key was replaced by another, and its time is over.",
    }
    return Unauthorized(said[why], code=f"api_key_{why}")


def _not_known(given: Sequence[str], *, is_readable: bool) -> ProxyError:
    if not given:
        return Unauthorized(
            "No API key was sent. Send yours as `Authorization: Bearer KEY` or `api-key: KEY`.",
            code="missing_api_key",
        )
    if not is_readable:
        return KeysClosed()
    # In OpenAI's words: by them clients that read no code tell it from a bad request.
    slip = next(filter(None, map(mistake, given)), None)
    if slip is not None:
        return Unauthorized(f"Incorrect API key provided: it cannot be one: {slip}.")
    return Unauthorized("Incorrect API key provided: it is not known here.")


def source_of(mine: Parts, environ: Mapping[str, Any]) -> str:
    """The address that a request comes from; empty where nobody knows it."""
    return str(_source(mine, environ) or "")


def _source(mine: Parts, environ: Mapping[str, Any]) -> Address | None:
    return source(
        environ.get("REMOTE_ADDR", ""),
        environ.get("HTTP_X_FORWARDED_FOR", ""),
        mine.settings.trusted_proxies,
    )


def require_admin() -> None:
    """Before each request of the admin API: whose key it has, and whether that may what the
    view asks for. Then the view sees what others changed. Raises Unauthorized, Forbidden,
    KeysClosed, StoreUnavailable."""
    mine, given = parts(), request.headers.get(ADMIN_HEADER, "")
    where = f"the header {ADMIN_HEADER}"
    # First by what is known: who has no key cannot have the database asked.
    admin = admin_with(mine, given, where=where)
    if mine.syncer.catch_up():  # the key itself may be removed
        admin = admin_with(mine, given, where=where)
    check_config(mine)
    g.admin, g.admin_name = admin, admin.name
    demand(_right())


def demand(right: str, what: str = "This") -> None:
    """Raises Forbidden if whoever makes the present request has not this right; `what` needs
    it."""
    admin: Admin = g.admin
    if not admin.may(right):
        raise Forbidden(
            f"{what} needs the role {least_role(right)!r}; the admin key {admin.name!r} has the"
            f" role {admin.role!r}.",
            code="role_not_sufficient",
        )


def admin_with(mine: Parts, given: str, *, where: str) -> Admin:
    """Whose key was given there. Raises Unauthorized, KeysClosed, Forbidden while the admin API
    is closed, and TooManyWrongKeys."""
    snapshot = mine.snapshots.current
    if not mine.settings.admin_api_key and not snapshot.admins:
        raise Forbidden(
            "The admin API is closed: make a key on the host with `flask admins add NAME --role"
            " admin`, or set ADMIN_API_KEY in the environment or .env and restart the proxy.",
            code="admin_api_closed",
        )
    if not given:
        raise Unauthorized(
            f"The admin API needs its key in {where}.",
            code="missing_api_key",
        )
    admin = admin_of(mine, given)
    if admin is not None and not admin.is_expired(time.time()):
        # Not for others: who has another key could guess on and on, for one that may more.
        if admin.role == ADMIN:
            mine.admin_key_watch.forgive(source_of(mine, request.environ))
        return admin
    if not snapshot.pepper and snapshot.admins and given.startswith(ADMIN_PREFIX):
        raise KeysClosed
    _note_wrong(mine, "admin key", is_known=admin is not None)
    raise Unauthorized(f"The key in {where} opens nothing here: {_why(admin, given)}.")


def note_wrong_token(mine: Parts) -> None:
    """Of /metrics, as of a wrong admin key. Raises TooManyWrongKeys."""
    _note_wrong(mine, "metrics token")


def _note_wrong(mine: Parts, what: str, *, is_known: bool = False) -> None:
    """Counts a wrong one. Raises TooManyWrongKeys if many came from there; but who has one
    that is expired is told so."""
    refused = mine.admin_key_watch.wrong(source_of(mine, request.environ))
    _log(mine, "wrong_admin_key", f"a wrong {what}", refused, request.environ)
    if refused.wait_seconds and not is_known:
        raise TooManyWrongKeys(
            f"Too many wrong {what}s came from your address. The right one is let in at any"
            f" time; another wrong one is looked at in {refused.wait_seconds:.1f} s.",
            retry_after_seconds=refused.wait_seconds,
        )


def _note_client_key(mine: Parts, environ: Mapping[str, Any]) -> None:
    refused = mine.client_key_watch.wrong(source_of(mine, environ))
    _log(mine, "unknown_client_key", "an unknown client key", refused, environ)


def _log(
    mine: Parts, event: str, what: str, refused: Refused, environ: Mapping[str, Any]
) -> None:
    """Never the key, nor a part of it: a mistyped one is nearly the right one."""
    if refused.told:
        fields = {
            "source": str(source_of(mine, environ) or UNKNOWN),
            "method": environ["REQUEST_METHOD"],
            "path": environ["PATH_INFO"],
            "id": g.request_id,
            "count": refused.told,
        }
        if refused.dropped:
            fields["unlogged"] = refused.dropped
        tell(logger, event, "%s: %s", what, text_of(fields), **fields)


def admin_of(mine: Parts, given: str) -> Admin | None:
    """Whose admin key it is, also if it is expired; None if nobody's."""
    expected = mine.settings.admin_api_key
    # WSGI gives headers as Latin-1 and the system settings as UTF-8; the bytes must be equal.
    # An empty key would be equal to one that is not set.
    if expected and hmac.compare_digest(
        given.encode("latin-1", "replace"), expected.encode("utf-8", "surrogateescape")
    ):
        return FIRST
    snapshot = mine.snapshots.current
    # By its hash, so the time it takes tells nothing about a key.
    return snapshot.admins.get(key_hash(snapshot.pepper, given)) if snapshot.pepper else None


def _why(admin: Admin | None, given: str) -> str:
    if admin is not None:
        return "it is expired"
    return mistake(given, ADMIN_PREFIX) or "it is not known"


def _right() -> str:
    """What the present request's view asks for (web/documented.py). One that does not say is
    closed to all but admins."""
    view: Any = current_app.view_functions[request.endpoint or ""]
    resource = getattr(view, "view_class", None)
    if resource is None:
        return getattr(view, "right", ADMINISTER)
    if request.method == "OPTIONS":
        return READ  # the framework's answer: which methods there are
    method = "get" if request.method == "HEAD" else request.method.lower()
    return getattr(getattr(resource, method, None), "right", ADMINISTER)


def _key_hashes(environ: Mapping[str, Any], pepper: bytes) -> Sequence[str]:
    """Of the keys that were given."""
    kept: KeptHead | None = environ.get(KEPT)
    known = kept.keys if kept is not None else None
    if known is not None and known[0] is pepper:
        return known[1]
    found = [key_hash(pepper, key) for key in _given_keys(environ)]
    if kept is not None:
        kept.keys = pepper, found
    return found


def _given_keys(environ: Mapping[str, Any]) -> list[str]:
    """Azure's clients send `api-key`, OpenAI's a bearer token; some send both."""
    keys = [environ.get("HTTP_API_KEY", "")]
    scheme, _, token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() == "bearer":
        keys.append(token.strip())
    return [k for k in keys if k]
