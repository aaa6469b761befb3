"""The log's files, read from their end: what is looked for mostly happened a moment ago."""

import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from proxy.core.record import Record

FILE_NAME = "proxy.log"
KEPT_FILES = 7  # older ones: proxy.log.1 is the newest of them

BLOCK_BYTES = 65_536
# Longer ones are none of ours; what is kept of a file at a time is bounded by that.
MAX_LINE_BYTES = 1_048_576


@dataclass(frozen=True, slots=True)
class Found:
    """A request's record, or in a log of text its line."""

    record: Record | None = None
    line: str = ""


def files(folder: Path) -> list[Path]:
    """Those that are there, the newest first."""
    names = [FILE_NAME, *(f"{FILE_NAME}.{n}" for n in range(1, KEPT_FILES + 1))]
    return [folder / name for name in names if (folder / name).is_file()]


def find_in_files(request_id: str, paths: Iterable[Path]) -> Found | None:
    """The newest request with that id. Raises OSError."""
    for path in paths:
        with path.open("rb") as file:
            found = next(_matches(request_id, lines_backwards(file)), None)
        if found is not None:
            return found
    return None


def find_in_stream(request_id: str, stream: Iterable[bytes]) -> Found | None:
    """The last that comes, where nobody can read from the end."""
    found = None
    for found in _matches(request_id, stream):  # noqa: B007  # the last is what counts
        pass
    return found


def lines_backwards(file: BinaryIO) -> Iterator[bytes]:
    """The last line first."""
    place = file.seek(0, io.SEEK_END)
    rest = b""  # of a line whose beginning was not read yet
    while place:
        size = min(BLOCK_BYTES, place)
        place -= size
        file.seek(place)
        rest, *lines = (file.read(size) + rest).split(b"\n")
        yield from reversed(lines)
        if len(rest) > MAX_LINE_BYTES:
            rest = b""
    yield rest


def _matches(request_id: str, lines: Iterable[bytes]) -> Iterator[Found]:
    """Cheap test first: a file has tens of thousands of other lines."""
    as_json = json.dumps(request_id).encode()
    as_text = re.compile(rb" request id=" + re.escape(request_id.encode()) + rb"(?: |$)")
    for line in lines:
        if as_json in line:
            record = _record(line)
            if record is not None and record.get("id") == request_id:
                yield Found(record)
        elif as_text.search(line.rstrip()):
            yield Found(line=line.decode("utf-8", "replace").strip())


def _record(line: bytes) -> Record | None:
    """Whatever stands before it: journalctl writes the moment and the host there."""
    try:
        found = json.loads(line[line.index(b"{") :])
    except ValueError:
        return None
    is_record = isinstance(found, dict) and found.get("event") == "request"
    return found if is_record else None
