"""What a prompt is made of, as far as it costs tokens."""

from typing import NamedTuple


class Prompt(NamedTuple):
    """`counts` as an estimator takes them: 1, letters, spaces, digits, other ASCII, characters
    of two bytes, of three or more. `media_tokens` and `ready_tokens` (text that is tokenized
    already) are added to what it says."""

    counts: tuple[int, ...] = (1, 0, 0, 0, 0, 0, 0)
    media_tokens: int = 0
    ready_tokens: int = 0


NO_PROMPT = Prompt()
