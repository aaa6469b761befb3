"""How many tokens an image costs: by its tiles, whatever the length of its base64.

Source: OpenAI's vision guide, for models that count tiles: in low detail 85; else the image is
scaled to fit into 2048 x 2048, then to a shortest side of 768, and costs 85 and 170 for each
tile of 512 x 512 it touches.
"""

import base64
import binascii
import math
import re
from collections.abc import Callable
from typing import Any

BASE_TOKENS = 85
TILE_TOKENS = 170
LONGEST_SIDE = 2048
SHORTEST_SIDE = 768
TILE_SIDE = 512

# A 1024 x 1024 image, for one whose size nobody tells: it is somewhere else, or of a format
# that is not read here.
UNKNOWN_TOKENS = 765

# A JPEG's size stands behind its preview and profile.
LOOKED_AT_BYTES = 65_536
LOOKED_AT_CHARACTERS = LOOKED_AT_BYTES // 3 * 4  # of base64

MEDIUM_TOKENS = 1056
ANSWER_TOKENS = {"low": 272, "medium": MEDIUM_TOKENS, "high": 4160}

_DATA_URL = re.compile(r"data:image/[a-z0-9.+-]+;base64,", re.ASCII | re.IGNORECASE)

Size = tuple[int, int]


def image_tokens(image: Any) -> int:
    """`image` is the value of a content part's `image_url`: an object, or just the URL."""
    url = image.get("url") if isinstance(image, dict) else image
    if isinstance(image, dict) and image.get("detail") == "low":
        return BASE_TOKENS
    size = size_of(url) if isinstance(url, str) else None
    return UNKNOWN_TOKENS if size is None else tile_tokens(*size)


def file_tokens(head: bytes) -> int:
    """Of an image by the first bytes of its file; LOOKED_AT_BYTES are enough."""
    size = _size_in(head)
    return UNKNOWN_TOKENS if size is None else tile_tokens(*size)


def answer_tokens(quality: object) -> int:
    """Of one that a model makes, a square of 1024. Source: OpenAI's guide to images, for
    gpt-image-1; larger ones cost half as much more."""
    known = quality if isinstance(quality, str) else ""
    return ANSWER_TOKENS.get(known, MEDIUM_TOKENS)


def tile_tokens(width: int, height: int) -> int:
    shrink = min(1.0, LONGEST_SIDE / max(width, height))
    shrink *= min(1.0, SHORTEST_SIDE / (min(width, height) * shrink))
    tiles = math.ceil(width * shrink / TILE_SIDE) * math.ceil(height * shrink / TILE_SIDE)
    return BASE_TOKENS + TILE_TOKENS * tiles


def size_of(url: str) -> Size | None:
    """(width, height) of the image in a data URL; None if it cannot be told."""
    match = _DATA_URL.match(url[:64])
    if match is None:
        return None
    start = match.end()
    # Whole groups of four characters, so that they can be decoded.
    text = url[start : start + LOOKED_AT_CHARACTERS // 4 * 4]
    try:
        head = base64.b64decode(text[: len(text) // 4 * 4])
    except (binascii.Error, ValueError):
        return None
    return _size_in(head)


def _size_in(head: bytes) -> Size | None:
    for magic, read in _FORMATS:
        if head.startswith(magic):
            size = read(head)
            return size if size and min(size) > 0 else None
    return None


def _png(head: bytes) -> Size | None:
    """PNG specification, 11.2.1: the header chunk comes first."""
    return _numbers(head, 16, 4, "big")


def _gif(head: bytes) -> Size | None:
    return _numbers(head, 6, 2, "little")


def _webp(head: bytes) -> Size | None:
    """RFC 9649: lossy, lossless and extended files write their size in three ways."""
    kind = head[12:16]
    if kind == b"VP8X" and len(head) >= 30:
        width, height = (int.from_bytes(head[i : i + 3], "little") + 1 for i in (24, 27))
        return width, height
    if kind == b"VP8 ":
        size = _numbers(head, 26, 2, "little")
        return (size[0] & 0x3FFF, size[1] & 0x3FFF) if size else None
    if kind == b"VP8L" and len(head) >= 25:
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return None


def _jpeg(head: bytes) -> Size | None:
    """ITU T.81, B.1: segments, each with its length, until the one that starts the frame."""
    at = 2
    while at + 9 <= len(head) and head[at] == 0xFF:
        marker = head[at + 1]
        # Start of frame, but not the tables and the restart interval among its numbers.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            size = _numbers(head, at + 5, 2, "big")
            return size and (size[1], size[0])
        at += 2 + int.from_bytes(head[at + 2 : at + 4], "big")
    return None


def _numbers(head: bytes, at: int, width: int, order: Any) -> Size | None:
    if len(head) < at + 2 * width:
        return None
    one, two = (head[i : i + width] for i in (at, at + width))
    return int.from_bytes(one, order), int.from_bytes(two, order)


_FORMATS: tuple[tuple[bytes, Callable[[bytes], Size | None]], ...] = (
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"\xff\xd8", _jpeg),
    (b"GIF8", _gif),
    (b"RIFF", _webp),
)
