"""How many tokens a prompt has, learned from the `usage` of past answers: no tokenizer.

A token is a part of a word, a number, a sign: their count follows from how many letters,
spaces, digits, signs and characters of other scripts there are, each with a weight that
depends on the model's tokenizer. The weights are found by recursive least squares (Plackett
1950) on the relative error, as answers come in.
"""

from collections.abc import Sequence

# Letters, spaces, digits, other ASCII, characters of two bytes, and of three or four; before
# them what any prompt costs. The first weights are about those of OpenAI's o200k_base.
FIRST_WEIGHTS = (1.0, 0.25, 0.2, 0.9, 0.2, 0.7, 0.85)

# How far from the first weights the true ones may lie (variances), and how much of that
# comes back with each answer, so that prompts of another kind are learned too.
DOUBTS = (10.0, 0.03, 0.03, 0.15, 0.15, 0.15, 0.15)
FORGETTING_SHARE = 1e-4

# How far from any weighted sum a prompt's tokens are (variance): about a tenth.
NOISE = 0.01

# An answer that is further off than this had something in it that is not text.
BELIEVED_RATIO = 5.0


class Estimator:
    """Of one model. Not thread-safe where it learns; `weights` may be read at any time."""

    __slots__ = ("_doubt", "answers", "weights")

    def __init__(self) -> None:
        self.weights: tuple[float, ...] = FIRST_WEIGHTS
        self.answers = 0  # learned from
        self._doubt = [
            [DOUBTS[i] if i == j else 0.0 for j in range(len(DOUBTS))]
            for i in range(len(DOUBTS))
        ]

    def tokens(self, counts: Sequence[int]) -> float:
        """`counts` as `tokens.Prompt` has them. At least 1."""
        return max(1.0, sum([w * n for w, n in zip(self.weights, counts, strict=True)]))

    def learn(self, counts: Sequence[int], tokens: int) -> None:
        """A prompt of these counts had `tokens` tokens."""
        estimate = self.tokens(counts)
        if not estimate / BELIEVED_RATIO <= tokens <= estimate * BELIEVED_RATIO:
            return
        self.answers += 1
        # Of the relative error: a long prompt is not to count more than a short one. What it
        # has nothing of adds nothing, and most prompts are letters, spaces and a few signs.
        x = [(j, n / tokens) for j, n in enumerate(counts) if n]
        doubt = self._doubt
        px = [sum([row[j] * n for j, n in x]) for row in doubt]
        gain = 1.0 / (NOISE + sum([px[j] * n for j, n in x]))
        error = 1.0 - sum([self.weights[j] * n for j, n in x])
        self.weights = tuple(
            [max(0.0, w + gain * p * error) for w, p in zip(self.weights, px, strict=True)]
        )
        changed = [(i, p) for i, p in enumerate(px) if p]
        for i, p in changed:
            row = doubt[i]
            for j, q in changed:
                row[j] -= gain * p * q
        for i, row in enumerate(doubt):
            row[i] = min(row[i] + DOUBTS[i] * FORGETTING_SHARE, DOUBTS[i])
