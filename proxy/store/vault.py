"""The key that secrets in the database are encrypted with, and what it does to them.

Fernet (cryptography's: AES-128-CBC and HMAC-SHA256, https://github.com/fernet/spec). There may
be several keys: the first encrypts, each decrypts, so that one can follow another.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from proxy.errors import Unavailable

# Before what is encrypted, so that it is told from what is not.
MARK = "fernet:"
PRIVATE = 0o600


class VaultClosed(Unavailable):
    """There is no key to encrypt with; the message says where it should be."""

    code = "secret_key_missing"


class CannotOpen(Exception):
    """No key that is known opens it. Its text holds nothing of what was sealed."""


class Vault:
    """`keys` are those of PROXY_SECRET_KEY. Without any they are the lines of `path`, a file
    that `make_key` makes. Thread-safe. Made without reading anything.
    """

    def __init__(self, keys: Sequence[str] = (), path: Path | None = None) -> None:
        self._given = tuple(keys)
        self._path = path
        self._lock = Lock()
        self._fernet: MultiFernet | None = None

    @property
    def source(self) -> str:
        """Where the key comes from, for people."""
        if self._given or self._path is None:
            return "PROXY_SECRET_KEY"
        return f"the file {self._path}"

    def seal(self, text: str) -> str:
        """Raises VaultClosed."""
        fernet = self._present()
        if fernet is None:
            raise VaultClosed(
                "A secret cannot be stored: there is no key to encrypt it with. It belongs in"
                f" {self.source}; put it back, or restore it from a backup."
            )
        return MARK + fernet.encrypt(text.encode("utf-8", "surrogatepass")).decode()

    def open(self, sealed: str) -> str:
        """What `seal` was given. Raises CannotOpen."""
        fernet = self._present()
        if fernet is None:
            raise CannotOpen(f"the key is missing: it belongs in {self.source}")
        try:
            opened = fernet.decrypt(sealed.removeprefix(MARK).encode())
        except InvalidToken:
            raise CannotOpen(f"it was encrypted with another key than {self.source}") from None
        return opened.decode("utf-8", "surrogatepass")

    def make_key(self) -> None:
        """Makes the file with a first key, unless there is one or PROXY_SECRET_KEY is set."""
        if self._given or self._path is None or self._path.exists():
            return
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Whole or not there: of two processes that start at once, the second takes the first's.
        fresh = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        with os.fdopen(
            os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE), "wb"
        ) as f:
            f.write(Fernet.generate_key() + b"\n")
            f.flush()
            os.fsync(f.fileno())
        try:
            os.link(fresh, self._path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()

    def _present(self) -> MultiFernet | None:
        with self._lock:
            if self._fernet is None:
                keys = self._given or self._in_file()
                if keys:
                    self._fernet = MultiFernet([Fernet(k) for k in keys])
            return self._fernet

    def _in_file(self) -> tuple[str, ...]:
        if self._path is None:
            return ()
        try:
            lines = self._path.read_text("ascii").split()
        except OSError:
            return ()
        return tuple(lines)


NO_VAULT = Vault()
