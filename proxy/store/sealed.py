"""Columns whose values are encrypted in the database and plain in memory.

Which vault does it is the engine's: its dialect is what a type is told of, and each engine has
its own (`use`).
"""

import json
from typing import Any

from sqlalchemy import Dialect, Engine, String
from sqlalchemy.types import TypeDecorator

from proxy.core.references import is_reference
from proxy.store.vault import MARK, NO_VAULT, CannotOpen, Vault

PLAIN = ("", "NONE")  # that there is none is no secret
# The key, in JSON, of what could not be decrypted when it was written there.
STILL_SEALED = "still sealed"


class Unreadable(str):
    """A secret that could not be decrypted: empty, with the reason and what is stored, which
    goes back into the database unchanged."""

    __slots__ = ("reason", "stored")
    reason: str
    stored: str

    @classmethod
    def because(cls, reason: str, stored: str) -> "Unreadable":
        made = cls()
        made.reason, made.stored = reason, stored
        return made


def use(engine: Engine, vault: Vault) -> None:
    """From now on this engine's secrets are the vault's."""
    engine.dialect.vault = vault  # type: ignore[attr-defined]


def vault_of(dialect: Dialect) -> Vault:
    return getattr(dialect, "vault", NO_VAULT)


def is_secret(value: str) -> bool:
    """It is to be encrypted: it neither says that there is none, nor where it is."""
    return value not in PLAIN and not is_reference(value)


class Sealed(TypeDecorator[str]):
    """A secret that is text. What says where it is stays as it is."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if isinstance(value, Unreadable):
            return value.stored
        if value is None or not is_secret(value):
            return value
        return vault_of(dialect).seal(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None or not value.startswith(MARK):
            return value
        try:
            return vault_of(dialect).open(value)
        except CannotOpen as error:
            return Unreadable.because(str(error), value)


class SealedJson(TypeDecorator[Any]):
    """JSON that may hold secrets, encrypted as a whole. Where it cannot be decrypted it is
    Unreadable: empty, as if there were none, and kept."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        if isinstance(value, Unreadable):
            return value.stored
        return None if value is None else vault_of(dialect).seal(json.dumps(_kept(value)))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if not value.startswith(MARK):
            return json.loads(value)  # from before secrets were encrypted
        vault = vault_of(dialect)
        try:
            return json.loads(
                vault.open(value), object_hook=lambda found: _opened(vault, found)
            )
        except CannotOpen as error:
            return Unreadable.because(str(error), value)


def _kept(value: Any) -> Any:
    """What could not be decrypted, in JSON: it may be again when it is read."""
    if isinstance(value, Unreadable):
        return {STILL_SEALED: value.stored}
    if isinstance(value, dict):
        return {k: _kept(v) for k, v in value.items()}
    return [_kept(v) for v in value] if isinstance(value, list) else value


def _opened(vault: Vault, found: dict[str, Any]) -> Any:
    stored = found.get(STILL_SEALED)
    if len(found) != 1 or not isinstance(stored, str) or not stored.startswith(MARK):
        return found
    try:
        return vault.open(stored)
    except CannotOpen as error:
        return Unreadable.because(str(error), stored)
