"""A body of multipart/form-data (RFC 7578): what its fields say and where they stand, without a
copy of its files.

Nothing here is guessed. What two parsers could understand differently is refused, because an
upstream is another one: it might read another model than the one that the client may use.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

Bytes = bytes | bytearray

TYPE = "multipart/form-data"
MOST_PARTS = 100  # clients send ten or so
MAX_HEAD_BYTES = 8_192
MAX_TEXT_BYTES = 131_072  # of all fields that are no files
CRLF = b"\r\n"

# RFC 2046, 5.1.1; also those that should stand in quotes, and do not.
_BOUNDARY = re.compile(
    r';[ \t]*boundary=(?:"([^\r\n"\\]{0,69}[^\s"\\])"|([^\s;",\\]{1,70}))[ \t]*(?=;|\Z)',
    re.ASCII | re.IGNORECASE,
)
_WHOLE = re.compile(r"[0-9]{1,9}")
_AFTER_BOUNDARY = re.compile(rb"(--)|[ \t]*\r\n")
_DISPOSITION = re.compile(r"content-disposition[ \t]*:[ \t]*form-data[ \t]*", re.IGNORECASE)
_PARAMETER = re.compile(
    r""";[ \t]*([\w.*-]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))[ \t]*""", re.ASCII
)


class BrokenForm(ValueError):
    """It cannot be understood for certain. The text says why; `name`: the field's, if one is to
    blame."""

    def __init__(self, message: str, name: str | None = None) -> None:
        super().__init__(message)
        self.name = name


class Part(NamedTuple):
    """A field: its content begins at `start` of the body and ends before `end`."""

    name: str
    is_file: bool
    start: int
    end: int


class Form(NamedTuple):
    """`fields`: what those say that are no files; of several of a name the last. `files` in
    their order. `model` is its part, if it has one; parts begin with `delimiter`."""

    delimiter: bytes
    fields: dict[str, str]
    files: tuple[Part, ...]
    model: Part | None

    def first_part(self, name: str, value: str) -> bytes:
        """Bytes of another field, to stand before all others."""
        head = f'Content-Disposition: form-data; name="{name}"'
        return CRLF.join((self.delimiter, head.encode(), b"", value.encode(), b""))


def form_of(body: Bytes, content_type: str) -> Form:
    """Raises BrokenForm."""
    delimiter = b"--" + boundary_of(content_type)
    found = _parts(body, delimiter)
    fields: dict[str, str] = {}
    left_bytes, model = MAX_TEXT_BYTES, None
    for part in found:
        if part.name == "model":
            if part.is_file:
                raise BrokenForm("must be text, not a file.", "model")
            if model is not None:
                raise BrokenForm("stands in the form more than once.", "model")
            model = part
        if part.is_file:
            continue
        left_bytes -= part.end - part.start
        if left_bytes < 0:
            size = f"the form's fields have more than {MAX_TEXT_BYTES} bytes, without files"
            raise BrokenForm(f"{size}; a file has a filename in its head.", part.name)
        fields[part.name] = body[part.start : part.end].decode("utf-8", "replace")
    return Form(delimiter, fields, tuple(p for p in found if p.is_file), model)


def typed(fields: Mapping[str, str]) -> dict[str, Any]:
    """As JSON would have those that are not text: `stream` and `n`."""
    found: dict[str, Any] = {**fields}
    if "stream" in fields:
        found["stream"] = fields["stream"].strip().lower() in ("true", "1")
    if "n" in fields and _WHOLE.fullmatch(fields["n"]):
        found["n"] = int(fields["n"])
    return found


def is_form(content_type: str) -> bool:
    return content_type.split(";", 1)[0].strip().lower() == TYPE


def boundary_of(content_type: str) -> bytes:
    """Raises BrokenForm."""
    found = _BOUNDARY.findall(content_type) if is_form(content_type) else []
    if len(found) != 1:
        raise BrokenForm(f"must be {TYPE} with one boundary.", "Content-Type")
    return "".join(found[0]).encode()


def _parts(body: Bytes, delimiter: bytes) -> list[Part]:
    parts: list[Part] = []
    at = len(CRLF) if body.startswith(CRLF) else 0
    if not body.startswith(delimiter, at):
        raise BrokenForm("The form does not begin with its boundary.")
    while True:
        match = _AFTER_BOUNDARY.match(body, at + len(delimiter))
        if match is None:
            raise BrokenForm("The form's boundary stands in the middle of a line.")
        if match[1]:
            return parts
        if len(parts) == MOST_PARTS:
            raise BrokenForm(f"The form has more than {MOST_PARTS} fields.")
        head_end = body.find(CRLF + CRLF, match.end(), match.end() + MAX_HEAD_BYTES)
        if head_end < 0:
            raise BrokenForm(
                f"A field of the form has no head that ends in {MAX_HEAD_BYTES} bytes."
            )
        name, is_file = _named(body[match.end() : head_end])
        start = head_end + 2 * len(CRLF)
        # The line end before a boundary is the boundary's; an empty field may share its head's.
        end = body.find(CRLF + delimiter, start - len(CRLF))
        if end < 0:
            raise BrokenForm("The form has no end: its last boundary is missing.", name)
        parts.append(Part(name, is_file, start, max(start, end)))
        at = end + len(CRLF)


def _named(head: Bytes) -> tuple[str, bool]:
    """A part's name, and whether it is a file's."""
    lines = head.decode("utf-8", "replace").split("\r\n")
    if any(line[:1] in (" ", "\t") or "\r" in line or "\n" in line for line in lines):
        raise BrokenForm("A field of the form has line ends in its head that are none.")
    found = [(line, match.end()) for line in lines if (match := _DISPOSITION.match(line))]
    if len(found) != 1:
        raise BrokenForm("A field of the form lacks its Content-Disposition, or has two.")
    told: dict[str, str] = {}
    line, at = found[0]
    line = line.rstrip(" \t;")
    while match := _PARAMETER.match(line, at):
        name = match[1].lower()
        if name in told:
            raise BrokenForm(f"A field of the form has two of {name} in its head.")
        told[name], at = match[2] if match[2] is not None else match[3], match.end()
    name = told.get("name", "")
    if at < len(line) or not name or "\\" in name or "name*" in told:
        raise BrokenForm("A field of the form has a Content-Disposition without a clear name.")
    return name, "filename" in told or "filename*" in told
