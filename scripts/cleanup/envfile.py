"""The old program's `.env`: names that go or changed, and a view of it without its secrets."""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

from dotenv.parser import Binding, parse_stream

GOES = "USE_NEW_IMPLEMENTATION"
# The aliases of proxy.settings.SETTINGS; other old names are still the names.
RENAMED = {"LOG_LEVEL": "PROXY_LOG_LEVEL"}
OLD_NAMES = "|".join([GOES, *RENAMED])

BOM = b"\xef\xbb\xbf"
MASK = "***"
SHOWN = {GOES, *RENAMED, *RENAMED.values()}
PLAIN_VALUE = re.compile(r"\w{0,10}", re.ASCII)
# Of a key that spans lines without quotes, each line is read as a name.
PLAIN_NAME = re.compile(r"[A-Z][A-Z0-9_]*")


@dataclass(frozen=True, slots=True)
class Problem:
    line: int
    what: str


def updated(content: bytes) -> tuple[bytes, list[Problem]]:
    """The file with new names and without what goes, and what needs a person."""
    bindings = _bindings(content)
    names = {binding.key for binding in bindings}
    problems = [p for binding in bindings if (p := _problem(binding, names))]
    text = "".join(_updated(binding, names) for binding in bindings)
    bom = BOM if content.startswith(BOM) else b""
    return bom + text.encode("utf-8", "surrogateescape"), problems


def masked(content: bytes) -> str:
    """For a diff: as many lines, but of values only those that are plain words of ours.

    Comments are masked as well: keys that are not used at the moment are kept in them.
    """
    return "".join(map(_masked, _bindings(content)))


def _bindings(content: bytes) -> list[Binding]:
    """The file in pieces, complete: their texts make up the file without its BOM."""
    text = content.removeprefix(BOM).decode("utf-8", "surrogateescape")
    return list(parse_stream(io.StringIO(text, newline="")))


def _blank(binding: Binding) -> str:
    """The empty lines that a piece begins with."""
    return re.match(r"(?:\s*[\r\n])?", binding.original.string).group()  # type: ignore[union-attr]


def _line(binding: Binding) -> int:
    return binding.original.line + len(re.findall(r"\r\n|\r|\n", _blank(binding)))


def _updated(binding: Binding, names: set[str | None]) -> str:
    text = binding.original.string
    if binding.key == GOES:
        return _blank(binding)
    new = RENAMED.get(binding.key or "")
    if new is None or new in names:
        return text
    return re.sub(rf"^(\s*(?:export\s+)?'?){binding.key}", rf"\g<1>{new}", text, count=1)


def _problem(binding: Binding, names: set[str | None]) -> Problem | None:
    line = _line(binding)
    new = RENAMED.get(binding.key or "")
    if new in names and new is not None:
        return Problem(line, f"{binding.key} is {new} now, which is set as well; keep one")
    text = binding.original.string
    if binding.error and (name := re.match(rf"\s*(?:export\s+)?({OLD_NAMES})\b", text)):
        return Problem(line, f"the line of {name[1]} cannot be read")
    if reference := re.search(rf"\$\{{({OLD_NAMES})\b", binding.value or ""):
        return Problem(line, f"{binding.key} refers to {reference[1]}, which goes")
    return None


def _masked(binding: Binding) -> str:
    blank = _blank(binding)
    lines = binding.original.string[len(blank) :].splitlines(keepends=True)
    return blank + "".join(
        shown + line[len(line.rstrip("\r\n")) :]
        for shown, line in zip(_shown(binding), lines, strict=False)
    )


def _shown(binding: Binding) -> Iterator[str]:
    """For each line of a piece, however many it has."""
    name = binding.key or ""
    if binding.key is None and not binding.error:
        first = f"# {MASK}"
    elif binding.value is None or not PLAIN_NAME.fullmatch(name):
        first = name if name in SHOWN else MASK
    else:
        is_plain = name in SHOWN and PLAIN_VALUE.fullmatch(binding.value)
        first = f"{name}={binding.value if is_plain else MASK}"
    yield first
    while True:
        yield MASK
