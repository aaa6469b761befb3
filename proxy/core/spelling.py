"""Which name was meant by one that nobody knows."""

import difflib
from collections.abc import Iterable

LIKENESS = 0.6  # of 1; difflib's own: `timeout` is that like `timeout_seconds`


def did_you_mean(name: str, known: Iterable[str], *, likeness: float = LIKENESS) -> str:
    """A sentence that names the nearest, with a space before it; empty if none is near. Case
    does not count."""
    by_fold = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), by_fold, n=1, cutoff=likeness)
    return f" Did you mean {by_fold[near[0]]!r}?" if near else ""
