"""A large JSON body as far as it has to be understood: with its longest strings cut short.

What is large is mostly a few strings: images and documents in base64. To parse them takes as
much memory again, and again for what comes of it, and nobody here wants to know what they say:
they go on as they came.
"""

from bisect import bisect_left
from collections.abc import Mapping
from typing import NamedTuple

from proxy.core.types import Bytes

# Smaller bodies are parsed as they are.
LARGE_BYTES = 1_048_576
# Of a longer string so much is kept, which is more than an image's size stands in.
LONGEST_BYTES = 131_072
KEPT_BYTES = 98_304
# A body of so many strings before its long ones is of another kind, and to look on takes long.
MOST_QUOTES = 20_000

# After the end of a string (RFC 8259, 2): so no such one begins here.
_BEHIND_A_STRING = b":,]} \t\r\n"
_BACKSLASH = ord("\\")


class Outline(NamedTuple):
    """`text` is the JSON to be parsed; `omitted` says of each string that was cut, by what is
    left of it, how many characters are not. `cuts`: where in the text, and how many bytes up to
    there."""

    text: Bytes
    omitted: Mapping[str, int]
    cuts: tuple[tuple[int, int], ...] = ()

    def place_of(self, at: int) -> int:
        """Where in the body is what is there in the text, outside of what was cut."""
        before = bisect_left(self.cuts, (at,))
        return at + (self.cuts[before - 1][1] if before else 0)


def outline(body: Bytes) -> Outline:
    """Only strings are cut in which a character is a byte: without escapes, and whose beginning
    is ASCII. What is left out is checked by nobody here; it ends no string."""
    parts: list[bytes] = []
    omitted: dict[str, int] = {}
    cuts: list[tuple[int, int]] = []
    done = size = left_out_before = 0
    for start, end in _long_strings(body):
        kept = bytes(body[start : start + KEPT_BYTES])
        if kept.isascii():
            parts += [bytes(body[done:start]), kept]
            text, left_out = kept.decode(), end - start - KEPT_BYTES
            omitted[text] = max(omitted.get(text, 0), left_out)
            size += start - done + KEPT_BYTES
            left_out_before += left_out
            cuts.append((size, left_out_before))
            done = end
    if not omitted:
        return Outline(body, omitted)
    return Outline(b"".join([*parts, body[done:]]), omitted, tuple(cuts))


def _long_strings(body: Bytes) -> list[tuple[int, int]]:
    """Where what is between their quotes begins and ends."""
    found = []
    quote = body.find(b'"')
    for _ in range(MOST_QUOTES):
        following = body.find(b'"', quote + 1)
        if quote < 0 or following < 0:
            break
        if following - quote - 1 > LONGEST_BYTES and _is_string(body, quote, following):
            found.append((quote + 1, following))
        quote = following
    return found


def _is_string(body: Bytes, start: int, end: int) -> bool:
    """From quote to quote, without an escape, and not what is between two strings, or inside
    of one behind a quote of its text."""
    is_escaped = start > 0 and body[start - 1] == _BACKSLASH
    is_beginning = body[start + 1] not in _BEHIND_A_STRING
    return is_beginning and not is_escaped and body.find(b"\\", start, end) < 0
