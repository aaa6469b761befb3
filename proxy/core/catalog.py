"""Which instances serve which model, and under which deployment."""

from collections.abc import Iterable

from proxy.core.types import InstanceConfig, Serving


class Catalog:
    """Built once a snapshot; a look-up costs the same with 3 instances and with 1,000.

    Names match exactly first, then without regard to case. An instance without
    `supported_models` serves any model.
    """

    def __init__(self, configs: Iterable[InstanceConfig]) -> None:
        configs = list(configs)
        self._any_model = [c for c in configs if not c.supported_models]
        self._exact: dict[str, tuple[Serving, ...]] = {}
        self._folded: dict[str, tuple[Serving, ...]] = {}
        by_folded: dict[str, list[InstanceConfig]] = {}
        for config in configs:
            for folded in {m.lower() for m in config.supported_models}:
                by_folded.setdefault(folded, []).append(config)
        for folded, some in by_folded.items():
            self._folded[folded] = self._servings(folded, some)
            spellings = {m for c in some for m in c.supported_models if m.lower() == folded}
            for model in spellings:
                self._exact[model] = self._servings(model, some)

    def serving(self, model: str) -> tuple[Serving, ...]:
        """Those who serve `model`, in the order of the configs; empty if nobody does."""
        found = self._exact.get(model) or self._folded.get(model.lower())
        return found if found is not None else self._servings(model, [])

    def models(self) -> list[str]:
        """The names a client may ask for, as far as they are known. Sorted, each once."""
        named = dict.fromkeys(self._exact)
        for config in self._any_model:
            named.update(dict.fromkeys(config.model_deployments))
        return sorted(named)

    def _servings(self, model: str, naming_it: list[InstanceConfig]) -> tuple[Serving, ...]:
        servings = [Serving(c, deployment(c, _spelling(c, model))) for c in naming_it]
        servings += [Serving(c, deployment(c, model)) for c in self._any_model]
        return tuple(servings)


def _spelling(config: InstanceConfig, model: str) -> str:
    """The instance's own spelling of `model`: the exact one if it has it."""
    if model in config.supported_models:
        return model
    return next(m for m in config.supported_models if m.lower() == model.lower())


def deployment(config: InstanceConfig, model: str) -> str:
    """The name under which the instance serves `model`; the model's own by default."""
    named = config.model_deployments.get(model)
    if named is not None:
        return named
    folded = model.lower()
    for other, name in config.model_deployments.items():
        if other.lower() == folded:
            return name
    return model
