"""What the pages show of instances and models now."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from proxy.context import Parts
from proxy.core import outlook as told
from proxy.core import standing as core
from proxy.core.outlook import DISABLED, Budget, Outlook, outlook
from proxy.core.types import Serving
from proxy.store.instances import StoredInstance
from proxy.web.admin import OUT_OF_SERVICE, view_of

Json = dict[str, Any]

STATUS_WORDS = {
    "healthy": "healthy",
    "rate_limited": "rests",
    "error": "fails",
    OUT_OF_SERVICE: "misconfigured",
    DISABLED: "disabled",
}


@dataclass(frozen=True, slots=True)
class Standing:
    """One instance. `status` as the admin API has it, or DISABLED; `until` is when it may be
    asked again, where that is known; `deployments` are those that rest alone."""

    config: Json
    state: Json
    status: str
    reason: str = ""
    until: float | None = None
    deployments: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return str(self.config["name"])

    @property
    def words(self) -> str:
        return STATUS_WORDS.get(self.status, self.status)

    @property
    def max_tpm(self) -> int:
        """0: no limit that is enforced."""
        return self.config["max_tpm"] if self.config["rate_limit_enabled"] else 0


def standing(mine: Parts, stored: StoredInstance) -> Standing:
    measured = mine.state.view(stored.config.name)
    view = view_of(stored, measured)
    config, state = view["config"], view["state"]
    now = core.standing(
        state["status"],
        enabled=config["enabled"],
        rests=measured.rests,
        last_error=state["last_error"],
        open_until=measured.open_until,
    )
    return Standing(config, state, now.status, now.reason, now.until, now.deployments)


def standings(mine: Parts) -> list[Standing]:
    """By priority, the first who are asked first, and by name."""
    found = [standing(mine, s) for s in mine.snapshots.current.instances.values()]
    return sorted(found, key=lambda s: (s.config["priority"], s.name))


def groups(found: Iterable[Standing]) -> list[tuple[int, list[Standing]]]:
    """The sorted, by their priority."""
    return [(p, list(g)) for p, g in groupby(found, key=lambda s: int(s.config["priority"]))]


def budgets(mine: Parts, found: Iterable[Standing]) -> list[Budget]:
    """Of each model that some instance names."""
    by_name = {s.name: s for s in found}
    catalog = mine.snapshots.current.catalog
    served = {
        model: [s for s in catalog.serving(model) if s.config.name in by_name]
        for model in catalog.models()
    }
    used = mine.state.used_tokens(told.bounding(served))
    return told.budgets(served, used, lambda s: _may_ask(by_name[s.config.name], s))


def _may_ask(one: Standing, serving: Serving) -> bool:
    if one.status == "healthy":
        return True
    return bool(one.deployments) and serving.deployment not in one.deployments


def of_all(found: list[Standing], models: list[Budget]) -> Outlook:
    return outlook((s.status for s in found), models)
