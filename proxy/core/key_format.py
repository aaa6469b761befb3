"""How our keys look: a prefix, 256 random bits, and a checksum that tells a slip of the pen.

As GitHub's tokens: recognisable for programs that search for secrets, a word for whoever clicks
on it, and with a CRC32, so that a key that was mistyped or cut off is told from one that is not
known. The checksum protects nothing; it follows from the rest.
"""

import re
import zlib

PREFIX = "gw_"
ADMIN_PREFIX = "gwa_"
RANDOM_BYTES = 32
RANDOM_CHARACTERS = 43  # 62 ** 43 is just above 256 bits
CHECKSUM_CHARACTERS = 6  # 62 ** 6 is above 32 bits
CHARACTERS = len(PREFIX) + RANDOM_CHARACTERS + CHECKSUM_CHARACTERS

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BODY = re.compile(r"[0-9A-Za-z]+", re.ASCII)


def key_of(random: bytes, prefix: str = PREFIX) -> str:
    """The key of RANDOM_BYTES bytes from the system's source of secrets."""
    if len(random) != RANDOM_BYTES:
        raise ValueError(f"a key is made of {RANDOM_BYTES} bytes, not {len(random)}")
    body = _base62(int.from_bytes(random, "big"), RANDOM_CHARACTERS)
    return prefix + body + _checksum(body)


def mistake(text: str, prefix: str = PREFIX) -> str | None:
    """What is wrong with a key that is written as ours are, in words that do not quote it;
    None if nothing is, or if it is another kind of key."""
    if not text.startswith(prefix):
        return None
    body = text[len(prefix) :]
    characters = CHARACTERS - len(PREFIX) + len(prefix)
    if len(text) < characters:
        return f"it is cut off: it has {len(text)} of {characters} characters"
    if len(text) > characters:
        return f"it is too long: it has {len(text)} characters, and a key {characters}"
    if not _BODY.fullmatch(body):
        return "it has a character that no key has"
    if _checksum(body[:RANDOM_CHARACTERS]) != body[RANDOM_CHARACTERS:]:
        return "it is mistyped: its checksum is wrong"
    return None


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), CHECKSUM_CHARACTERS)


def _base62(number: int, characters: int) -> str:
    digits = []
    for _ in range(characters):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
