"""Which instances serve which model, and under which deployment."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from proxy.core import limiter
from proxy.core.routing import Pool
from proxy.core.types import InstanceConfig, QuotaGroup, Serving

# Clients choose the names where an instance serves any model.
MAX_POOLS = 1000
# Of pools for clients that may not use all instances.
MAX_PARTS = 10_000


class Catalog:
    """Made once a snapshot; the pool of a model is made once and found again by its name, so
    that a look-up costs the same with 3 instances and with 1,000.

    Names match without regard to case; of two spellings in one instance, the exact one. An
    instance without `supported_models` serves any model. Thread-safe: two threads may make
    the same pool, and either is right.
    """

    def __init__(
        self,
        configs: Iterable[InstanceConfig],
        groups: Mapping[str, QuotaGroup] = MappingProxyType({}),
    ) -> None:
        configs = self._configs = list(configs)
        self._groups = groups
        self._any_model = [c for c in configs if not c.supported_models]
        self._naming: dict[str, list[InstanceConfig]] = {}  # by the name in lower case
        for config in configs:
            for folded in {m.lower() for m in config.supported_models}:
                self._naming.setdefault(folded, []).append(config)
        self._spellings = {m for c in configs for m in c.supported_models}
        self._known_as = _known_as(configs)
        self._pools: dict[str, Pool] = {}
        self._parts: dict[tuple[str, tuple[str, ...]], Pool] = {}

    def pool(self, model: str, only: tuple[str, ...] = ()) -> Pool:
        """First those who name `model`, then those who serve any; empty if nobody does.
        `only`: the names of those who may be asked, if that is not everybody."""
        if only:
            return self._part(model, only)
        pool = self._pools.get(model)
        if pool is None:
            pool = Pool(self._servings(model))
            if len(self._pools) >= MAX_POOLS + len(self._spellings):
                self._pools = {}
            self._pools[model] = pool
        return pool

    def serving(self, model: str) -> tuple[Serving, ...]:
        return self.pool(model).servings

    def models(self, only: tuple[str, ...] = ()) -> list[str]:
        """The names a client may ask for, as far as they are known. Sorted, each once. `only`:
        the names of the instances it may use, if that is not all."""
        configs = [c for c in self._configs if not only or c.name in only]
        return sorted({m for c in configs for m in c.supported_models or c.model_deployments})

    def spelling(self, model: str) -> str | None:
        """The name by which usage of it is kept; None: no config names it. One for all who
        spell it differently, unless an instance has two models whose names differ by case."""
        return self._known_as.get(model) or self._known_as.get(model.lower())

    def _part(self, model: str, only: tuple[str, ...]) -> Pool:
        part = self._parts.get((model, only))
        if part is None:
            servings = self.serving(model)
            part = Pool(
                [s for s in servings if s.config.name in only],
                barred=(s.config.name for s in servings if s.config.name not in only),
            )
            if len(self._parts) >= MAX_PARTS:
                self._parts = {}
            self._parts[model, only] = part
        return part

    def _servings(self, model: str) -> tuple[Serving, ...]:
        naming_it = self._naming.get(model.lower(), [])
        places = [(c, deployment(c, _spelling(c, model))) for c in naming_it]
        places += [(c, deployment(c, model)) for c in self._any_model]
        return tuple(limiter.serving(c, d, self._groups) for c, d in places)


def _known_as(configs: Sequence[InstanceConfig]) -> dict[str, str]:
    """By the name in lower case; and by the name itself where that is another model's."""
    deployments = {d for c in configs for d in c.model_deployments.values()}
    models = {m for c in configs for m in (*c.supported_models, *c.model_deployments)}
    # The last in the alphabet, in which small letters come last: whatever the configs' order.
    known_as = {name.lower(): name for name in (*sorted(deployments), *sorted(models))}
    if len({m.lower() for m in models}) < len(models):
        for config in configs:
            folds = Counter(m.lower() for m in set(config.supported_models))
            known_as |= {m: m for m in config.supported_models if folds[m.lower()] > 1}
    return known_as


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
