"""Which instances serve which model, and under which deployment."""

from collections.abc import Iterable

from proxy.core.types import InstanceConfig, Serving


class Catalog:
    """Built once a snapshot; a look-up by a name that an instance spells the same costs the
    same with 3 instances and with 1,000.

    Names match without regard to case; of two spellings in one instance, the exact one. An
    instance without `supported_models` serves any model.
    """

    def __init__(self, configs: Iterable[InstanceConfig]) -> None:
        configs = list(configs)
        self._any_model = [c for c in configs if not c.supported_models]
        self._naming: dict[str, list[InstanceConfig]] = {}  # by the name in lower case
        for config in configs:
            for folded in {m.lower() for m in config.supported_models}:
                self._naming.setdefault(folded, []).append(config)
        spellings = {m for c in configs for m in c.supported_models}
        self._exact = {model: self._servings(model) for model in spellings}

    def serving(self, model: str) -> tuple[Serving, ...]:
        """First those who name `model`, then those who serve any; empty if nobody does."""
        found = self._exact.get(model)
        return found if found is not None else self._servings(model)

    def models(self) -> list[str]:
        """The names a client may ask for, as far as they are known. Sorted, each once."""
        named = dict.fromkeys(self._exact)
        for config in self._any_model:
            named.update(dict.fromkeys(config.model_deployments))
        return sorted(named)

    def _servings(self, model: str) -> tuple[Serving, ...]:
        naming_it = self._naming.get(model.lower(), [])
        servings = [Serving(c, deployment(c, _spelling(c, model))) for c in naming_it]
        servings += [Serving(c, deployment(c, model)) for c in self._any_model]
        return tuple(servings)


def names_model(config: InstanceConfig, model: str) -> bool:
    """The operator wrote that the instance has it; otherwise only the client says so."""
    folded = model.lower()
    return any(
        m.lower() == folded for m in (*config.supported_models, *config.model_deployments)
    )


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
