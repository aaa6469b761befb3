"""Secrets of instances as they are used: references followed, what leads nowhere told."""

import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from proxy.core.masking import SECRET_FIELDS
from proxy.core.references import ENV, FILE, is_reference, is_variable, key_mistake
from proxy.core.types import InstanceConfig
from proxy.store.sealed import Unreadable
from proxy.store.vault import FileVersion, file_version

MAX_BYTES = 16_384  # of a file; no key is nearly as long

Versions = Mapping[str, FileVersion | None]


class LeadsNowhere(Exception):
    """Why there is no secret where it should be, and what to do. Holds nothing of it."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """`configs`: those that can be used, by name; `problems`: why the others cannot. `files`
    are what was read, as it was then."""

    configs: Mapping[str, InstanceConfig] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    files: Versions = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class References:
    """`environ` is what `env:` names are looked up in. `ours`: files that no upstream may be
    sent."""

    environ: Mapping[str, str] = field(default_factory=lambda: MappingProxyType(os.environ))
    ours: tuple[Path, ...] = ()

    def names_ours(self, reference: str) -> str | None:
        """Why it may not even be written, though it is looked at again when it is followed: a
        link may lead elsewhere by then. None if it may."""
        if reference.startswith(FILE) and self._is_ours(reference.removeprefix(FILE)):
            return "Names a file of the gateway itself, which no upstream may be sent."
        return None

    def _is_ours(self, path: str) -> bool:
        return any(_is_same(path, our) for our in self.ours)

    def resolved(self, written: Iterable[InstanceConfig]) -> Resolved:
        """Each file is read once, however many instances it is for."""
        configs: dict[str, InstanceConfig] = {}
        problems: dict[str, str] = {}
        files: dict[str, FileVersion | None] = {}
        known: dict[str, str | LeadsNowhere] = {}

        def followed(field: str, reference: str) -> str:
            if reference not in known:
                try:
                    known[reference] = self._followed(reference, files)
                except LeadsNowhere as problem:
                    known[reference] = problem
            found = known[reference]
            if isinstance(found, LeadsNowhere):
                raise found
            return _checked(field, reference, found)

        for config in written:
            try:
                configs[config.name] = _resolved(config, followed)
            except LeadsNowhere as problem:
                problems[config.name] = str(problem)
        return Resolved(configs, problems, files)

    def problem(self, name: str, reference: str) -> str | None:
        """Why there is no secret for the field `name` where it says; None if there is one."""
        try:
            _checked(name, reference, self._followed(reference, {}))
        except LeadsNowhere as problem:
            return f"{name}: {problem}."
        return None

    @staticmethod
    def changed(files: Versions) -> bool:
        """One of them is not any more what was read."""
        return any(file_version(path) != version for path, version in files.items())

    def _followed(self, reference: str, files: dict[str, FileVersion | None]) -> str:
        if reference.startswith(ENV):
            name = reference.removeprefix(ENV)
            try:
                return self.environ[name].strip()
            except KeyError:
                raise LeadsNowhere(
                    f"the gateway's environment has no variable {name}; set it (or in .env) and"
                    " restart the gateway, or change the reference"
                ) from None
        path = reference.removeprefix(FILE)
        # Before it is read: what is written meanwhile is another version.
        files[path] = file_version(path)
        if self._is_ours(path):
            raise LeadsNowhere(f"{path} is the gateway's own, which no upstream may be sent")
        return _content(path)


def _resolved(config: InstanceConfig, followed: Callable[[str, str], str]) -> InstanceConfig:
    """Raises LeadsNowhere that names the field."""
    changes: dict[str, Any] = {}
    for name in sorted(SECRET_FIELDS):
        value = getattr(config, name)
        try:
            if isinstance(value, Unreadable):
                raise LeadsNowhere(
                    f"it cannot be decrypted, because {value.reason}; put the right key back,"
                    f" or set {name} anew"
                )
            if value and is_reference(value):
                changes[name] = followed(name, value)
        except LeadsNowhere as problem:
            raise LeadsNowhere(f"{name}: {problem}.") from None
    return replace(config, **changes) if changes else config


def _content(path: str) -> str:
    try:
        # Of a pipe there might be no end, nor even a beginning.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise LeadsNowhere(f"{path} is no file")
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it has no such name"
        raise LeadsNowhere(
            f"{path} cannot be read: {reason}; put the secret there, readable for the gateway's"
            " user, or change the reference"
        ) from None
    if len(content) > MAX_BYTES:
        raise LeadsNowhere(f"{path} is larger than {MAX_BYTES} bytes, as no secret is")
    return content.decode("utf-8", "replace").strip()


def _checked(name: str, reference: str, found: str) -> str:
    """What a field may hold that was read from elsewhere. Raises LeadsNowhere."""
    where = reference.removeprefix(FILE).removeprefix(ENV)
    if not found:
        raise LeadsNowhere(f"{where} is empty; put the secret there")
    if is_reference(found):
        raise LeadsNowhere(f"{where} holds a reference itself; put the secret there")
    if name == "api_key" and is_variable(found):
        raise LeadsNowhere(
            f"{where} names another variable, which nothing replaced; put the secret there"
        )
    if name == "api_key" and key_mistake(found):
        raise LeadsNowhere(f"{where} holds no key: it must be printable ASCII without spaces")
    if name == "proxy_url" and not _is_url(found):
        raise LeadsNowhere(f"{where} holds no http:// or https:// URL with a host")
    return found


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _is_same(path: str, our: Path) -> bool:
    try:
        return os.path.samefile(path, our)
    except (OSError, ValueError):
        return False
