"""The keys that secrets in the database are encrypted with, and what they do to them.

Fernet (cryptography's: AES-128-CBC and HMAC-SHA256, https://github.com/fernet/spec). There may
be several keys: the first encrypts, each decrypts, so that one can follow another.
"""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from proxy.errors import Unavailable

# Before what is encrypted, so that it is told from what is not.
MARK = "fernet:"
PRIVATE = 0o600
PRIVATE_FOLDER = 0o700

# What was opened is kept: config is read whole at each change, and 10,000 values take a second.
MAX_KEPT = 100_000

FileVersion = tuple[int, int, int, int]  # device, inode, size, when it was written


class VaultClosed(Unavailable):
    """There is no key to encrypt with, or it cannot be replaced; the message says why."""

    code = "secret_key_missing"


class CannotOpen(Exception):
    """No key that is known opens it. Its text holds nothing of what was sealed."""


@dataclass(frozen=True, slots=True)
class _Keys:
    """As they were read from the file's version. `problem`: why that could not be read;
    then the keys are those of before."""

    texts: tuple[str, ...] = ()
    version: FileVersion | None = None
    problem: str | None = None
    fernets: tuple[Fernet, ...] = ()
    opened: dict[str, str] = field(default_factory=dict)


class Vault:
    """`keys` are those of PROXY_SECRET_KEY. Without any they are the lines of `path`, a file
    that `make_key` makes; when it changes, the next secret is opened with what it holds then.

    Thread-safe: what is known of the file is replaced whole. Made without reading anything.
    """

    def __init__(self, keys: Sequence[str] = (), path: Path | None = None) -> None:
        self._path = None if keys else path
        self._keys: _Keys | None = None
        if self._path is None:
            problem = None if keys else f"the key is missing: it belongs in {self.source}"
            self._keys = _of(keys, None, problem)

    @property
    def source(self) -> str:
        """Where the keys come from, for people."""
        return "PROXY_SECRET_KEY" if self._path is None else f"the file {self._path}"

    @property
    def path(self) -> Path | None:
        """Their file; None if they are those of PROXY_SECRET_KEY."""
        return self._path

    @property
    def problem(self) -> str | None:
        """Why nothing can be encrypted now; None if it can."""
        return self._present().problem

    @property
    def version(self) -> object:
        """Another one when the file is."""
        return self._present().version

    def seal(self, text: str) -> str:
        """Raises VaultClosed."""
        keys = self._present()
        if keys.problem or not keys.fernets:
            raise VaultClosed(
                f"A secret cannot be stored: {keys.problem}. Put the key back, or restore it"
                " from where it is kept besides."
            )
        return _sealed(keys, text)

    def open(self, sealed: str) -> str:
        """What `seal` was given. Raises CannotOpen."""
        keys = self._present()
        found = keys.opened.get(sealed)
        if found is None:
            found = self._opened(keys, sealed)
            if len(keys.opened) >= MAX_KEPT:
                keys.opened.clear()
            keys.opened[sealed] = found
        return found

    def resealed(self, sealed: str) -> str | None:
        """The same with the first key; None if it is that already. Raises CannotOpen."""
        keys = self._present()
        try:
            keys.fernets[0].decrypt(_token(sealed))
        except (InvalidToken, IndexError):
            return _sealed(keys, self._opened(keys, sealed))
        return None

    def make_key(self) -> None:
        """Makes the file with a first key, unless there is one or PROXY_SECRET_KEY is set.
        Raises VaultClosed."""
        if self._path is None or os.path.lexists(self._path):
            return
        try:
            make_private_folder(self._path.parent)
            # Whole or not there: of two that start at once, the second takes the first's.
            fresh = _written_beside(self._path, [new_key()])
            try:
                os.link(fresh, self._path)
            except FileExistsError:
                pass
            finally:
                fresh.unlink()
        except OSError as error:
            raise VaultClosed(
                f"A key for secrets cannot be kept in {self._path}: {error.strerror}. Set"
                " PROXY_SECRET_KEY_FILE to a place that can be written, or PROXY_SECRET_KEY."
            ) from error

    def add_key(self) -> None:
        """A new key goes before those in the file. Raises VaultClosed."""
        keys = self._in_file()
        self._replace([new_key(), *keys.texts])

    def forget_old(self) -> int:
        """Takes all keys but the first from the file; how many. Raises VaultClosed."""
        keys = self._in_file()
        if len(keys.texts) > 1:
            self._replace(keys.texts[:1])
        return len(keys.texts) - 1

    @property
    def count(self) -> int:
        """Of the keys that are known."""
        return len(self._present().texts)

    @property
    def is_exposed(self) -> bool:
        """Others than its owner may read the file."""
        try:
            return self._path is not None and bool(self._path.stat().st_mode & 0o077)
        except OSError:
            return False

    def _in_file(self) -> _Keys:
        keys = self._present()
        if self._path is None or keys.problem:
            raise VaultClosed(
                f"The keys in {self.source} cannot be changed:"
                f" {keys.problem or 'they are not in a file'}."
            )
        return keys

    def _replace(self, texts: Sequence[str]) -> None:
        assert self._path is not None, "asked before"
        path = self._path.resolve()  # of a link, what it leads to
        try:
            before = path.stat()
            fresh = _written_beside(path, texts)
            if os.geteuid() == 0:  # root does it for the user who has to read it
                os.chown(fresh, before.st_uid, before.st_gid)
            os.replace(fresh, path)
            _sync_folder(path.parent)
        except OSError as error:
            raise VaultClosed(
                f"{self.source[0].upper()}{self.source[1:]} cannot be written:"
                f" {error.strerror}. Put a key made by `flask secrets key` in its first line,"
                " and leave the others there."
            ) from error

    @staticmethod
    def _opened(keys: _Keys, sealed: str) -> str:
        if not keys.fernets:
            raise CannotOpen(keys.problem or "there is no key")
        try:
            opened = MultiFernet(keys.fernets).decrypt(_token(sealed))
        except InvalidToken:
            reason = keys.problem or "it was encrypted with another key"
            raise CannotOpen(reason) from None
        return opened.decode("utf-8", "surrogatepass")

    def _present(self) -> _Keys:
        known = self._keys
        if self._path is None:
            assert known is not None, "made at once"
            return known
        version = file_version(self._path)
        if known is None or known.version != version:
            known = self._keys = _read(self._path, version, known or _Keys())
        return known


def new_key() -> str:
    return Fernet.generate_key().decode()


def file_version(path: str | Path) -> FileVersion | None:
    """Another one when the file was replaced or written; None if there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def make_private_folder(folder: Path) -> None:
    """With those it is in; what is there stays as it is. Raises OSError."""
    if not folder.is_dir():
        make_private_folder(folder.parent)
        folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)


def _read(path: Path, version: FileVersion | None, former: _Keys) -> _Keys:
    """What the file holds. If it is gone, or holds something else, what it held before still
    opens secrets: they need not be lost as long as this process lives."""
    where = f"the file {path} (PROXY_SECRET_KEY_FILE)"
    try:
        if version is not None and not stat.S_ISREG(path.stat().st_mode):
            raise ValueError
        texts = path.read_text("ascii").split()
        if texts:
            return _of(texts, version, None)
        problem = f"{where} is empty"
    except FileNotFoundError:
        problem = f"the key is missing: it belongs in {where}"
    except OSError as error:
        problem = f"{where}, which holds the key, cannot be read: {error.strerror}"
    except ValueError:
        problem = f"{where} holds something else than keys made by `flask secrets key`"
    return _Keys(former.texts, version, problem, former.fernets, former.opened)


def _of(texts: Sequence[str], version: FileVersion | None, problem: str | None) -> _Keys:
    """Raises ValueError for what is no key."""
    return _Keys(tuple(texts), version, problem, tuple(Fernet(text) for text in texts))


def _sealed(keys: _Keys, text: str) -> str:
    return MARK + keys.fernets[0].encrypt(text.encode("utf-8", "surrogatepass")).decode()


def _token(sealed: str) -> bytes:
    return sealed.removeprefix(MARK).encode("utf-8", "surrogatepass")


def _written_beside(path: Path, texts: Sequence[str]) -> Path:
    """A file with these keys, to be put in the place of `path`."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)  # of a process that died, and had this number
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.writelines(f"{text}\n" for text in texts)
        file.flush()
        os.fsync(descriptor)
    return fresh


def _sync_folder(folder: Path) -> None:
    """A file's new name outlives a power cut only then."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


NO_VAULT = Vault()
