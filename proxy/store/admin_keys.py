"""Keys of the admin API: whose, and with which role. Only a keyed hash is kept."""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.orm import Session

from proxy.core import roles
from proxy.core.key_format import ADMIN_PREFIX, RANDOM_BYTES, key_of
from proxy.core.masking import MASK
from proxy.core.roles import Admin
from proxy.errors import Conflict, NotFound, Unprocessable
from proxy.store import revisions
from proxy.store.keys import KeysClosed, key_hash, pepper
from proxy.store.models import AdminKeyRow
from proxy.store.revisions import Author, Change

KIND = "admin_key"
FIELDS = ("role", "expires_at")


@dataclass(frozen=True, slots=True)
class StoredAdmin:
    """An admin and what the table knows about its key, of which `hint` are the last characters.
    `revision` is its version for If-Match."""

    admin: Admin
    hint: str
    created_at: float
    updated_at: float
    revision: int

    def shown(self, now: float) -> dict[str, Any]:
        """As JSON."""
        return {
            "name": self.admin.name,
            "role": self.admin.role,
            "key_hint": f"{MASK}{self.hint}",
            "expires_at": self.admin.expires_at,
            "expired": self.admin.is_expired(now),
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "revision": self.revision,
        }


def load_all(connection: Connection) -> dict[str, Admin]:
    """Admins by the hash of their key, the expired among them."""
    columns = (AdminKeyRow.key_hash, AdminKeyRow.name, AdminKeyRow.role, AdminKeyRow.expires_at)
    rows = connection.execute(select(*columns))
    return {row.key_hash: Admin(row.name, row.role, row.expires_at) for row in rows}


def listed(connection: Connection) -> list[StoredAdmin]:
    """All of them, by name."""
    rows = connection.execute(select(AdminKeyRow.__table__).order_by(AdminKeyRow.name))
    return [
        StoredAdmin(
            Admin(row.name, row.role, row.expires_at),
            row.key_hint,
            row.created_at,
            row.updated_at,
            row.revision,
        )
        for row in rows
    ]


def add(
    session: Session,
    name: str,
    role: str,
    *,
    author: Author,
    expires_at: float | None = None,
) -> str:
    """Makes a key and returns it, this once. Raises Conflict, Unprocessable, and KeysClosed
    while keys cannot be hashed."""
    problem = roles.name_problem(name)
    if problem:
        raise Unprocessable(f"name: {problem}", param="name")
    _check_role(role)
    if session.scalar(select(AdminKeyRow.id).where(AdminKeyRow.name == name)) is not None:
        raise Conflict(
            f"An admin key named {name!r} exists already. Remove it first, or choose another"
            " name.",
            param="name",
        )
    found = pepper(session.connection())
    if found is None:
        raise KeysClosed
    made: dict[str, list[Any]] = {"role": [None, role], "expires_at": [None, expires_at]}
    number = revisions.record(session, author, "admin key added", [Change(KIND, name, made)])
    key = key_of(secrets.token_bytes(RANDOM_BYTES), ADMIN_PREFIX)
    now = time.time()
    session.add(
        AdminKeyRow(
            name=name,
            role=role,
            key_hash=key_hash(found, key),
            key_hint=key[-4:],
            expires_at=expires_at,
            created_at=now,
            updated_at=now,
            revision=number,
        )
    )
    session.flush()
    return key


def change(
    session: Session,
    name: str,
    values: Mapping[str, Any],
    *,
    author: Author,
    is_first_set: bool,
    if_match: int | None = None,
) -> None:
    """Sets `role`, `expires_at`, or both. What is equal already makes no revision.

    Raises NotFound, PreconditionFailed, Unprocessable, and Conflict if nobody with role admin
    would be left; `is_first_set` says that ADMIN_API_KEY is.
    """
    row = _row(session, name, if_match)
    _check_role(values.get("role", row.role))
    changes = {f: [getattr(row, f), v] for f, v in values.items() if getattr(row, f) != v}
    if not changes:
        return
    after = Admin(name, values.get("role", row.role), values.get("expires_at", row.expires_at))
    if not is_first_set and not _administers(after, time.time()):
        _check_that_one_is_left(session, row)
    row.revision = revisions.record(
        session, author, "admin key changed", [Change(KIND, name, changes)]
    )
    for field, (_, value) in changes.items():
        setattr(row, field, value)
    row.updated_at = time.time()
    session.flush()


def remove(
    session: Session,
    name: str,
    *,
    author: Author,
    is_first_set: bool,
    if_match: int | None = None,
) -> None:
    """The key is worth nothing from now on. Raises as `change` does."""
    row = _row(session, name, if_match)
    if not is_first_set:
        _check_that_one_is_left(session, row)
    lost = {f: [getattr(row, f), None] for f in FIELDS}
    revisions.record(session, author, "admin key removed", [Change(KIND, name, lost)])
    session.delete(row)
    session.flush()


def _row(session: Session, name: str, if_match: int | None) -> AdminKeyRow:
    row = session.scalar(select(AdminKeyRow).where(AdminKeyRow.name == name))
    if row is None:
        raise unknown(name)
    revisions.check_match(f"Admin key {name!r}", row.revision, if_match)
    return row


def unknown(name: str) -> NotFound:
    first = (
        " ADMIN_API_KEY is changed in the environment or .env."
        if name == roles.FIRST_ADMIN
        else ""
    )
    return NotFound(f"There is no admin key named {name!r}.{first}", code="admin_key_not_found")


def _check_role(role: str) -> None:
    if role not in roles.ROLES:
        names = ", ".join(roles.ROLES)
        raise Unprocessable(f"role: {role!r} is none; there are {names}.", param="role")


def _administers(admin: Admin, now: float) -> bool:
    return admin.may(roles.ADMINISTER) and not admin.is_expired(now)


def _check_that_one_is_left(session: Session, leaving: AdminKeyRow) -> None:
    """Nobody could make the next admin key by the API. The rows stay as they are until the
    transaction ends, so that two who take each other away are told."""
    rows = session.scalars(select(AdminKeyRow).with_for_update())
    now = time.time()
    administering = {
        row.id for row in rows if _administers(Admin(row.name, row.role, row.expires_at), now)
    }
    if administering == {leaving.id}:
        raise Conflict(
            f"{leaving.name!r} is the last admin key with role admin, and ADMIN_API_KEY is not"
            " set: nobody could administer any more. Add another with role admin first, or set"
            " ADMIN_API_KEY and restart the proxy.",
            code="last_admin_key",
        )
