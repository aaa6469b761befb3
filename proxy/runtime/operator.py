"""What an operator may change of the state: first in the database, then in this memory."""

import time

from proxy.core.deltas import OPERATOR, WHOLE_INSTANCE, Deltas, Rest
from proxy.runtime.state import State
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
