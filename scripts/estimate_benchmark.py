"""How well the gateway guesses the tokens of a prompt, against a real tokenizer.

    python scripts/estimate_benchmark.py [--prompts 1000] [--json FILE]

Prompts of mixed languages come one after the other, each is guessed before its true count is
told, as an answer's `usage` would. Prints the median error before and after 200 answers, in all
and by language, as a Markdown table; figures are reported, never judged. The tokenizer is a
development dependency (requirements-dev.txt).
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent))

from estimatelib.corpus import LANGUAGES

from proxy.core.tokens import prompt
from proxy.runtime.estimates import Estimates

LEARNED_FROM = 200
ENCODING = "o200k_base"  # of gpt-4o and what came after it
SEED = 1
MODEL = "gpt-4o"
# OpenAI's cookbook on counting: each message costs so much besides its text, and the answer's
# beginning is counted with the prompt.
TOKENS_A_MESSAGE = 4
TOKENS_A_REPLY = 3


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parsed(argv)
    errors = measured(arguments.prompts, tokenizer())
    print(markdown(errors))
    if arguments.json:
        arguments.json.write_text(json.dumps(errors, indent=2) + "\n")
    return 0


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    arguments = parser.parse_args(argv)
    if arguments.prompts <= LEARNED_FROM:
        parser.error(f"--prompts: more than {LEARNED_FROM} are needed")
    return arguments


def tokenizer() -> Callable[[str], int]:
    """Counts the tokens of a text."""
    try:
        import bpe_openai
    except ImportError:
        sys.exit("The tokenizer is missing: pip install -r requirements-dev.txt")
    encoding = bpe_openai.get_encoding(ENCODING)
    return lambda text: len(encoding.encode(text))


def measured(number: int, count: Callable[[str], int]) -> dict[str, dict[str, float]]:
    """{language: {"before": median error, "after": median error}}; "all" is one of them."""
    estimates = Estimates()
    errors: defaultdict[str, dict[str, list[float]]] = defaultdict(
        lambda: {"before": [], "after": []}
    )
    for done, (language, messages) in enumerate(prompts(number)):
        found = prompt({"messages": messages}, ("messages",))
        true = true_tokens(messages, count)
        error = abs(estimates.tokens(MODEL, found) - true) / true
        for row in (language, "all"):
            errors[row]["before" if done < LEARNED_FROM else "after"].append(error)
        estimates.learn(MODEL, found, true)
    return {
        row: {when: median(values) for when, values in both.items()}
        for row, both in errors.items()
    }


def prompts(number: int) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """(language, messages), always the same: one to eight messages of one to thirty lines."""
    rng = Random(SEED)
    for _ in range(number):
        language = rng.choice(list(LANGUAGES))
        lines = LANGUAGES[language]
        yield (
            language,
            [
                {
                    "role": "user" if turn % 2 == 0 else "assistant",
                    "content": "\n".join(rng.choices(lines, k=rng.randint(1, 30))),
                }
                for turn in range(rng.choice([1, 1, 1, 2, 4, 8]))
            ],
        )


def true_tokens(messages: list[dict[str, str]], count: Callable[[str], int]) -> int:
    text = sum(count(m["content"]) for m in messages)
    return text + TOKENS_A_MESSAGE * len(messages) + TOKENS_A_REPLY


def markdown(errors: dict[str, dict[str, Any]]) -> str:
    lines = [
        f"| prompts in | median error, first {LEARNED_FROM} answers | after them |",
        "|---|---|---|",
    ]
    for row in ("all", *(r for r in LANGUAGES if r in errors)):
        before, after = (f"{100 * errors[row][when]:.1f} %" for when in ("before", "after"))
        lines.append(f"| {row} | {before} | {after} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
