"""What commands see of the gateway: the database's config and state, as a worker knows them."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from proxy.context import parts
from proxy.core.standing import Standing, standing
from proxy.core.types import ENTRA
from proxy.errors import NotFound
from proxy.runtime import running
from proxy.runtime.onlooker import Onlooker
from proxy.store.instances import StoredInstance
from proxy.web.admin import OUT_OF_SERVICE, view_of

ASKED_SECONDS = 0.5
LACK = "the gateway gets none; `flask doctor` says why"

LOGGER = logging.getLogger("proxy")


def onlooker() -> Onlooker:
    mine = parts()
    return Onlooker(mine.database, mine.snapshots, mine.state)


def look() -> None:
    with without_log():
        onlooker().look()


def look_and_ask() -> None:
    """As `look`, with what only the gateway that runs can tell."""
    with without_log():
        onlooker().look()
        if needs_token():
            address = parts().settings.address
            note_heard(running.health(address, seconds=ASKED_SECONDS))


def needs_token() -> bool:
    """Some instance in service is asked with one of Entra ID's."""
    configs = parts().snapshots.current.configs.values()
    return any(config.enabled and config.auth == ENTRA for config in configs)


def note_heard(heard: Mapping[str, Any] | None) -> None:
    """What only the gateway that runs knows, as its /health tells it: no database does."""
    snapshots = parts().snapshots
    snapshots.note_lack(LACK if heard and heard.get("lacks_token") else None)
    snapshots.follow()


@contextmanager
def without_log() -> Iterator[None]:
    """A person sees what a command says; the lines are a worker's."""
    before = LOGGER.level
    LOGGER.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        LOGGER.setLevel(before)


@contextmanager
def asking() -> Iterator[None]:
    """Around calls to upstreams: as in a worker there may be tokens of Entra ID for them."""
    mine = parts()
    mine.tokens.start()
    try:
        yield
    finally:
        mine.upstream.close()
        mine.tokens.stop()


def in_order() -> list[StoredInstance]:
    """Those who are asked first come first."""
    found = parts().snapshots.current.instances.values()
    return sorted(found, key=lambda s: (s.config.priority, s.config.name))


def stored(name: str) -> StoredInstance:
    found = parts().snapshots.current.instances.get(name)
    if found is None:
        raise NotFound(f"There is no instance named {name!r}.", code="instance_not_found")
    return found


def standing_of(found: StoredInstance) -> Standing:
    name = found.config.name
    view = parts().state.view(name)
    problem = parts().snapshots.current.problems.get(name)
    return standing(
        view.status if problem is None else OUT_OF_SERVICE,
        enabled=found.config.enabled,
        rests=view.rests if problem is None else {},
        last_error=view.last_error if problem is None else problem.text,
        open_until=view.open_until,
    )


def seen(found: StoredInstance, now: float) -> dict[str, Any]:
    """As the admin API shows it, and how it stands."""
    stands = standing_of(found)
    return view_of(found) | {
        "standing": {
            "status": stands.status,
            "reason": stands.reason,
            "seconds_left": stands.seconds_left(now),
            "deployments": list(stands.deployments),
            "text": stands.in_words(now),
        }
    }
