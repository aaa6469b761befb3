"""What in a request costs tokens, counted before anybody knows how many.

The counts of a prompt become tokens by an estimator (core/estimator.py).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from proxy.core.images import UNKNOWN_TOKENS, answer_tokens, image_tokens
from proxy.core.prompt import Prompt

# Of text that nobody counts better: a completion whose upstream did not say.
BYTES_PER_TOKEN = 4

# Of recorded speech, from OpenAI's prices: gpt-4o-transcribe takes 1,000 tokens a minute, which
# compressed has about a megabyte; what is said there has a fifth as many.
SOUND_TOKENS_PER_MINUTE = 1_000
SOUND_BYTES_PER_TOKEN = 1_000
SOUND_HEAD_BYTES = 36
_OF_WAV = ((22, 2), (24, 4), (28, 4), (34, 2))  # where they stand there, and in how many bytes
SOUND_TOKENS_PER_TEXT_TOKEN = 5

# Keys of data that is not text, and the types of what they stand in: parts of messages, items.
_MEDIA: Mapping[str, tuple[str, ...]] = {
    "image_url": ("image_url", "input_image", "computer_screenshot"),
    "input_audio": ("input_audio",),
    "file": ("file",),
    "file_data": ("input_file",),
    "result": ("image_generation_call",),
}

# The largest number we count with: above every limit, and sums of it still fit the
# database's 64 bits. Clients may write any number.
MAX_TOKENS = 2**31 - 1

# What Azure admits a chat request with when it names no limit of its own.
DEFAULT_COMPLETION_TOKENS = 16

PART_CHARACTERS = 65_536  # looked at together

LIMIT_FIELDS = ("max_completion_tokens", "max_tokens")
LIMIT_FIELDS_OF_RESPONSES = ("max_output_tokens",)
_MORE_FIELDS = frozenset(("n", "best_of", "prompt"))  # that ask for more answers than one

NOTHING_OMITTED: Mapping[str, int] = MappingProxyType({})

_LETTERS = bytes(range(65, 91)) + bytes(range(97, 123))
_DIGITS = b"0123456789"
_SPACES = b" \n\t\r"


def _all_but(bytes_: Iterable[int]) -> bytes:
    return bytes(set(range(256)) - set(bytes_))


# First bytes of characters in UTF-8 that have two bytes, and three or four.
_NOT_TWO = _all_but(range(0xC0, 0xE0))
_NOT_THREE = _all_but(range(0xE0, 0xF8))


def prompt(
    body: Mapping[str, Any], fields: Iterable[str], omitted: Mapping[str, int] = NOTHING_OMITTED
) -> Prompt:
    """Of the text in `fields` of a request's body.

    Every string counts, keys too: a tool's schema is part of the prompt. A list of integers is
    text that is tokenized already and counts one each. `omitted` is what an outline left out.
    """
    texts: list[str] = []
    media = ready = 0
    todo: list[Any] = [body[f] for f in fields if f in body]
    while todo:
        value = todo.pop()
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, dict):
            for key, inner in value.items():
                # A tool may have a parameter of such a name; a medium says its type.
                if key in _MEDIA and value.get("type") in _MEDIA[key]:
                    media += _media_tokens(value, key)
                else:
                    texts.append(key)
                    (texts if isinstance(inner, str) else todo).append(inner)
        elif isinstance(value, list):
            todo.extend(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            ready += 1
    counts = _counts(texts)
    return Prompt(_whole(counts, texts, omitted) if omitted else counts, media, ready)


def _media_tokens(part: Mapping[str, Any], key: str) -> int:
    data = part[key]
    if key != "image_url":
        return UNKNOWN_TOKENS
    if isinstance(data, str):  # as an item has it
        data = {"url": data, "detail": part.get("detail")}
    return image_tokens(data)


def _whole(
    counts: tuple[int, ...], texts: Iterable[str], omitted: Mapping[str, int]
) -> tuple[int, ...]:
    """With what was left out, of which the rest of its text tells what it is like."""
    for text in filter(omitted.__contains__, texts):
        times = omitted[text] / len(text)
        more = (round(count * times) for count in _counts([text])[1:])
        counts = (1, *map(sum, zip(counts[1:], more, strict=True)))
    return counts


def _counts(texts: Sequence[str]) -> tuple[int, ...]:
    """Of all, with a line end between each and the next."""
    if sum(map(len, texts)) < PART_CHARACTERS:
        return _counts_of("\n".join(texts))
    counts = [_counts_of(part)[1:] for part in _parts(texts)]
    return (1, *map(sum, zip(*counts, strict=True)))


def _parts(texts: Iterable[str]) -> Iterator[str]:
    """The texts as one, in parts of about PART_CHARACTERS: a prompt may have megabytes, which
    are not to be copied again and again, or millions of short ones."""
    gathered: list[str] = []
    size = 0
    for text in texts:
        gathered.append(text)
        size += len(text)
        if size >= PART_CHARACTERS:
            whole = "\n".join(gathered) if len(gathered) > 1 else text
            for at in range(0, len(whole), PART_CHARACTERS):
                yield whole[at : at + PART_CHARACTERS]
            gathered, size = [""], 0  # a line end before what comes next
    yield "\n".join(gathered)


def _counts_of(text: str) -> tuple[int, ...]:
    data = text.encode("utf-8", "surrogatepass")
    size = len(data)
    letters = size - len(data.translate(None, _LETTERS))
    spaces = size - len(data.translate(None, _SPACES))
    digits = size - len(data.translate(None, _DIGITS))
    two = three = 0
    if not text.isascii():
        two, three = (len(data.translate(None, drop)) for drop in (_NOT_TWO, _NOT_THREE))
    signs = len(text) - two - three - letters - spaces - digits
    return 1, letters, spaces, digits, signs, two, three


def completion_limit_tokens(
    body: Mapping[str, Any], limit_fields: Iterable[str] = LIMIT_FIELDS
) -> int:
    """The most the answer may cost: the client's limit times `n`, for each of several prompts.

    Without a limit, what Azure counts then; at most MAX_TOKENS. Values of a wrong type
    are the upstream's to refuse, and count as absent here.
    """
    limit = DEFAULT_COMPLETION_TOKENS
    for name in limit_fields:
        value = positive(body[name]) if name in body else None
        if value is not None:
            limit = value
            break
    if not _MORE_FIELDS.isdisjoint(body):
        answers = max(positive(body.get("n")) or 1, positive(body.get("best_of")) or 1)
        limit *= answers * _prompts(body)
    return min(limit, MAX_TOKENS)


def sound_tokens(head: bytes, size: int) -> int:
    """Of a recording by the first bytes of its file, and its size. Of a WAV file they tell how
    many bytes a second has (Microsoft's and IBM's RIFF, 1991); others are compressed."""
    if head[:4] == b"RIFF" and head[8:16] == b"WAVEfmt " and len(head) >= SOUND_HEAD_BYTES:
        channels, rate, bytes_a_second, bits = (
            int.from_bytes(head[at : at + size_], "little") for at, size_ in _OF_WAV
        )
        if bytes_a_second == channels * rate * bits // 8 > 0:  # else it is not to be believed
            return size * SOUND_TOKENS_PER_MINUTE // (60 * bytes_a_second)
    return size // SOUND_BYTES_PER_TOKEN


def image_answer_tokens(body: Mapping[str, Any]) -> int:
    """Of the images that are asked for; at most MAX_TOKENS."""
    images = positive(body.get("n")) or 1
    return min(images * answer_tokens(body.get("quality")), MAX_TOKENS)


def choices(body: Mapping[str, Any]) -> int:
    """How many an answer has: `n` for each prompt."""
    if _MORE_FIELDS.isdisjoint(body):
        return 1
    return (positive(body.get("n")) or 1) * _prompts(body)


def _prompts(body: Mapping[str, Any]) -> int:
    """`completions` takes several; a list of integers is one that is tokenized already."""
    prompt = body.get("prompt")
    if isinstance(prompt, list) and not all(isinstance(p, int) for p in prompt):
        return len(prompt)
    return 1


def positive(value: object) -> int | None:
    """The value, if it is a whole number above 0."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    return None
