"""Columns whose values are encrypted in the database and plain in memory.

Which vault does it is the engine's: its dialect is what a type is told of, and each engine has
its own (`use`).
"""

import json
from typing import Any

from sqlalchemy import Dialect, Engine, String
from sqlalchemy.types import TypeDecorator

from proxy.core.masking import REFERENCES
from proxy.store.vault import MARK, NO_VAULT, CannotOpen, Vault

PLAIN = ("", "NONE")  # that there is none is no secret


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


def is_reference(value: str) -> bool:
    """It says where the secret is, and holds none."""
    return value.startswith(REFERENCES)


class Sealed(TypeDecorator[str]):
    """A secret that is text."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if isinstance(value, Unreadable):
            return value.stored
        if value is None or value in PLAIN or is_reference(value):
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
    """JSON that may hold secrets, encrypted as a whole. None where it cannot be decrypted."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else vault_of(dialect).seal(json.dumps(value))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if not value.startswith(MARK):
            return json.loads(value)  # from before secrets were encrypted
        try:
            return json.loads(vault_of(dialect).open(value))
        except CannotOpen:
            return None
