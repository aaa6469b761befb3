"""A body of multipart/form-data (RFC 7578): what its fields say and where they stand, without a
copy of its files.

It goes on as it came, and whoever reads it next is another parser: what two of them could
understand differently is refused, or a client could ask for another model than the one that it
may use. So each head has nothing but what is needed, and the boundary stands nowhere else.
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

# RFC 2046, 5.1.1, without blanks; what is no token stands in quotes, or some end it there.
_VALUE = r"(?:\"[\w'()+,./:=?-]+\"|[\w'+.-]+)"
_CONTENT_TYPE = re.compile(
    rf"multipart/form-data[ \t]*((?:;[ \t]*[a-z]+={_VALUE}[ \t]*)*);?", re.ASCII | re.IGNORECASE
)
_OF_TYPE = re.compile(r';[ \t]*([a-z]+)="?([^";\s]+)"?', re.ASCII | re.IGNORECASE)
MAX_BOUNDARY = 70
_AFTER_BOUNDARY = re.compile(rb"(--[ \t\r\n]*\Z)|[ \t]*\r\n")

_LINE = re.compile(r"([A-Za-z0-9-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
# Neither a quote nor a backslash before one: parsers differ in what that means.
_PARAMETER = re.compile(
    r""";[ \t]*(name|filename\*?)=(?:"((?:[^"\\]|\\(?!"))*)"|([^\s;"\\]+))[ \t]*""",
    re.ASCII | re.IGNORECASE,
)
_NAMES = re.compile(r";\s*name", re.IGNORECASE)
_NAME = re.compile(r"[\w.\[\]-]+", re.ASCII)
_SIGNS = re.compile(r"[.\[\]-]")
_PLAIN_ENCODINGS = ("", "7bit", "8bit", "binary")
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([\w.:-]*)", re.ASCII | re.IGNORECASE)
_CHARSETS = ("utf-8", "us-ascii", "iso-8859-1")  # in which ASCII is the same
_WHOLE = re.compile(r"[0-9]{1,9}")


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
            model = _only(part, model)
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


def boundary_of(content_type: str) -> bytes:
    """Raises BrokenForm."""
    match = _CONTENT_TYPE.fullmatch(content_type.strip(" \t"))
    told = [(n.lower(), v) for n, v in _OF_TYPE.findall(match[1])] if match else []
    boundaries: list[str] = [value for name, value in told if name == "boundary"]
    is_usual = all(
        n == "boundary" or (n == "charset" and v.lower() in _CHARSETS) for n, v in told
    )
    if len(boundaries) != 1 or not is_usual or len(boundaries[0]) > MAX_BOUNDARY:
        raise BrokenForm(f"must be {TYPE} with one boundary.", "Content-Type")
    return boundaries[0].encode()


def _only(part: Part, former: Part | None) -> Part:
    """The one model."""
    if part.is_file:
        raise BrokenForm("must be text, not a file.", "model")
    if former is not None:
        raise BrokenForm("stands in the form more than once.", "model")
    return part


def _parts(body: Bytes, delimiter: bytes) -> list[Part]:
    parts: list[Part] = []
    if not body.startswith(delimiter):
        raise BrokenForm("The form does not begin with its boundary.")
    at = 0
    while True:
        match = _AFTER_BOUNDARY.match(body, at + len(delimiter))
        if match is None:
            raise BrokenForm(
                "The form's boundary stands in the middle of a line, or too early."
            )
        if match[1]:
            return parts
        if len(parts) == MOST_PARTS:
            raise BrokenForm(f"The form has more than {MOST_PARTS} fields.")
        part = _part(body, delimiter, match.end())
        parts.append(part)
        at = part.end + len(CRLF)


def _part(body: Bytes, delimiter: bytes, at: int) -> Part:
    """The one whose head begins there."""
    head_end = body.find(CRLF + CRLF, at, at + MAX_HEAD_BYTES)
    if head_end < 0:
        raise BrokenForm(f"A field of the form has no head of {MAX_HEAD_BYTES} bytes at most.")
    name, is_file = _named(body[at:head_end])
    start = head_end + 2 * len(CRLF)
    # Wherever it stands: some take it for one also where no line end is before it.
    following_at = body.find(delimiter, start)
    if following_at < 0:
        raise BrokenForm("the form has no end: its last boundary is missing.", name)
    end = following_at - len(CRLF)
    if end < start or body[end:following_at] != CRLF:
        raise BrokenForm("the form's boundary stands in the middle of a line.", name)
    return Part(name, is_file, start, end)


def _named(head: Bytes) -> tuple[str, bool]:
    """A part's name, and whether it is a file's."""
    lines: dict[str, str] = {}
    for line in head.decode("utf-8", "replace").split("\r\n"):
        match = _LINE.fullmatch(line)
        if match is None or match[1].lower() in lines:
            raise BrokenForm(
                "A field of the form has a head with lines that are none, or twice."
            )
        lines[match[1].lower()] = match[2].rstrip(" \t")
    name, is_file = _disposed(lines.get("content-disposition", ""))
    if lines.get("content-transfer-encoding", "").lower() not in _PLAIN_ENCODINGS:
        raise BrokenForm("has a Content-Transfer-Encoding; send it as it is.", name)
    kind = lines.get("content-type", "").lower()
    charset = _CHARSET.search(kind)
    is_plain = charset is None or charset[1] in _CHARSETS
    if kind.startswith("multipart/") or not (is_file or is_plain):
        raise BrokenForm(f"has a Content-Type that fields do not have: {kind[:100]}.", name)
    if _resembles_model(name) or name.lower() == "_charset_":
        raise BrokenForm("write it as model; an upstream could take it for that.", name)
    return name, is_file


def _resembles_model(name: str) -> bool:
    """Some take it for `model`, whatever its case, or for a part of one: `model[0]`."""
    lower = name.lower()
    is_part = lower.startswith(("model[", "model."))
    return name != "model" and (is_part or _SIGNS.sub("", lower) == "model")


def _disposed(line: str) -> tuple[str, bool]:
    kind, at = "form-data", len("form-data")
    told: dict[str, str] = {}
    line = line.rstrip(" \t;")
    while match := _PARAMETER.match(line, at):
        parameter = match[1].lower()
        if parameter in told:
            raise BrokenForm(f"A field of the form has two of {parameter} in its head.")
        told[parameter], at = match[2] if match[2] is not None else match[3], match.end()
    name = told.get("name", "")
    is_clear = line[: len(kind)].lower() == kind and at >= len(line)
    if not is_clear or not _NAME.fullmatch(name) or len(_NAMES.findall(line)) != 1:
        raise BrokenForm(
            "A field of the form has no clear Content-Disposition: form-data with a name, and"
            " perhaps a filename, without a backslash before a quote."
        )
    return name, "filename" in told or "filename*" in told
