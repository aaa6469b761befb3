"""Text in columns, for terminals."""

import unicodedata
from collections.abc import Iterator, Sequence

GAP = "  "


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A line for each row, all cells of a column as wide as its widest. Nothing in a cell can
    move the cursor: some come from outside."""
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(width, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        cells = (c + " " * (w - width(c)) for c, w in zip(row, widths, strict=True))
        yield GAP.join(cells).rstrip()


def printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def width(text: str) -> int:
    """On a terminal. East Asian characters take two places (UAX 11), combining ones none."""
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )
