"""A bar on a terminal that shows how far a load is; nothing where nobody looks."""

import os
from typing import TextIO

BAR_CHARACTERS = 20
USUAL_COLUMNS = 80
CLEAR_LINE = "\r\x1b[K"


class Bar:
    """One line on `stream`, replaced each time it is shown, if that is a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_seen = stream.isatty()

    def show(self, text: str, share: float | None = None) -> None:
        """`share` is of the whole, from 0 to 1; None if nobody knows how long it takes."""
        # The width each time: windows are made wider and smaller.
        self._write(line(text, share, _columns(self._stream)) if self._is_seen else "")

    def clear(self) -> None:
        self._write("")

    def _write(self, text: str) -> None:
        if self._is_seen:
            self._stream.write(f"{CLEAR_LINE}{text}")
            self._stream.flush()


def line(text: str, share: float | None, columns: int) -> str:
    """Never more than fits: what wraps cannot be replaced. Rounded down: 100 % is all."""
    shown = text
    if share is not None:
        full = "#" * int(share * BAR_CHARACTERS)
        shown = f"{int(share * 100):3} % [{full:<{BAR_CHARACTERS}}] {text}"
    return shown[: columns - 1]


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or USUAL_COLUMNS
    except OSError:
        return USUAL_COLUMNS
