"""What each model's prompts cost, learned as answers come in."""

from collections import Counter
from threading import Lock

from proxy.core.estimator import Estimator
from proxy.core.prompt import Prompt
from proxy.core.tokens import MAX_TOKENS

# Clients choose the names where an instance serves any model.
MAX_MODELS = 1000

# After so many answers of a model, one in eight is enough; after more, one in 32: where so many
# come, that is soon enough for prompts of another kind, too.
LEARNED_ANSWERS = 50
EVERY = 8
WELL_KNOWN_ANSWERS = 1000
EVERY_WELL_KNOWN = 32


class Estimates:
    """One estimator a model, however its name is spelled. Thread-safe: one lock, held for
    arithmetic only."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._estimators: dict[str, Estimator] = {}
        self._unknown = Estimator()
        # Answers, by model: where models alternate, none is left out.
        self._seen: Counter[str] = Counter()

    def tokens(self, model: str, prompt: Prompt) -> int:
        """About how many tokens the prompt has for this model; at least 1."""
        estimator = self._estimators.get(model.lower(), self._unknown)
        text_tokens = round(estimator.tokens(prompt.counts))
        return min(text_tokens + prompt.media_tokens + prompt.ready_tokens, MAX_TOKENS)

    def learn(self, model: str, prompt: Prompt, tokens: int) -> None:
        """The upstream counted `tokens` for it. Of one with media nobody can tell what part
        was the text's."""
        tokens -= prompt.ready_tokens
        if prompt.media_tokens or tokens < 1:
            return
        model = model.lower()
        with self._lock:
            estimator = self._estimators.get(model)
            if estimator is None:
                if len(self._estimators) >= MAX_MODELS:
                    self._estimators.clear()
                    self._seen.clear()
                estimator = self._estimators[model] = Estimator()
            seen = self._seen[model] = self._seen[model] + 1
            every = EVERY if seen < WELL_KNOWN_ANSWERS else EVERY_WELL_KNOWN
            if estimator.answers < LEARNED_ANSWERS or seen % every == 0:
                estimator.learn(prompt.counts, tokens)
