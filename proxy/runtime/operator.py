"""What an operator may change of the state: first in the database, then in this memory."""

import time
from collections.abc import Iterable

from proxy.core.deltas import OPERATOR, WHOLE_INSTANCE, Deltas, Rest
from proxy.core.verdict import MISCONFIGURED
from proxy.runtime.state import State
from proxy.runtime.verify import Check
from proxy.store import states
from proxy.store.db import Database


class OperatorHand:
    """The other workers follow within one sync interval. Thread-safe."""

    def __init__(self, database: Database, state: State) -> None:
        self._database = database
        self._state = state

    def clear_errors(self, name: str) -> None:
        """All is well: errors and rests measured until now are void."""
        with self._database.write() as connection:
            now = time.time()
            states.clear_errors(connection, name, now)
        self._state.clear(name, now)

    def set_rest(self, name: str, until: float | None) -> None:
        """Leave the instance alone until then, instead of any other rest; None: no rest."""
        deltas = Deltas()
        with self._database.write() as connection:
            states.clear_rests(connection, name, time.time())
            if until is not None:
                deltas.add_rest((name, WHOLE_INSTANCE), Rest(until, OPERATOR, time.time()))
                states.add(connection, deltas)
        self._state.clear_rests(name)
        if until is not None:
            self._state.rest(name, until)

    def end_misconfigured(self, name: str, checks: Iterable[Check]) -> bool:
        """What `verify` found well need not rest any longer for a key or a deployment that was
        wrong, nor for its breaker; whether it did. Rests that an upstream asked for with a 429,
        or a person, stand; as do those of deployments that were not found well.

        Raises StoreUnavailable."""
        well = {c.deployment for c in checks if c.ok and c.deployment}
        view = self._state.view(name)
        places = [
            place
            for place, rest in view.rests.items()
            if rest.reason in MISCONFIGURED and place in (*well, WHOLE_INSTANCE)
        ]
        if not well or (not places and view.breaker == "closed"):
            return False
        with self._database.write() as connection:
            states.end_rests(connection, name, places, time.time())
        self._state.end_rests(name, places)
        return True
