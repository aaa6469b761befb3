"""The responses that a simulated resource keeps, and what it is asked of them."""

import threading
from dataclasses import dataclass, replace

from proxy.simulator.errors import Answer, Refused, error, invalid, json_answer
from proxy.simulator.forms import Json

MOST_KEPT = 1000
_DONE = {"status": "completed"}


@dataclass(frozen=True, slots=True)
class Kept:
    """`asked` are the items of its input; `told` the events of one that goes on in the
    background, and streams."""

    response: Json
    asked: list[Json]
    told: tuple[Json, ...] = ()


class Shelf:
    """Thread-safe. The oldest goes where there are too many."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, Kept] = {}

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()

    def put(self, kept: Kept) -> None:
        with self._lock:
            self._kept[kept.response["id"]] = kept
            while len(self._kept) > MOST_KEPT:
                del self._kept[next(iter(self._kept))]

    def get(self, name: str) -> Kept | None:
        with self._lock:
            return self._kept.get(name)

    def has_item(self, name: str) -> bool:
        with self._lock:
            return any(
                item.get("id") == name
                for kept in self._kept.values()
                for item in (*kept.response["output"], *kept.asked)
            )

    def retrieved(self, name: str) -> Answer:
        """One in the background is ready when it is asked for. Raises Refused."""
        kept = self._found(name)
        if kept.response["status"] == "queued":
            kept = self._changed(kept, _DONE)
        return json_answer(kept.response)

    def events(self, name: str, after: int) -> list[Json]:
        """Those behind the one with that number. Raises Refused."""
        kept = self._found(name)
        if not kept.told:
            raise Refused(invalid("This response was not begun in the background as a stream."))
        return [event for event in kept.told if event["sequence_number"] > after]

    def items(self, name: str) -> Answer:
        """What its input was. Raises Refused."""
        data = self._found(name).asked
        ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {}
        return json_answer({"object": "list", "data": data, **ends, "has_more": False})

    def cancelled(self, name: str) -> Answer:
        """Raises Refused, also where it did not go on in the background."""
        kept = self._found(name)
        if not kept.response["background"]:
            said = "Cannot cancel a synchronous response."
            raise Refused(invalid(said))
        if kept.response["status"] == "queued":
            kept = self._changed(kept, {"status": "cancelled"})
        return json_answer(kept.response)

    def deleted(self, name: str) -> Answer:
        """Raises Refused."""
        self._found(name)
        with self._lock:
            self._kept.pop(name, None)
        return json_answer({"id": name, "object": "response", "deleted": True})

    def _found(self, name: str) -> Kept:
        kept = self.get(name)
        if kept is None:
            raise Refused(error(404, None, f"Response with id '{name}' not found."))
        return kept

    def _changed(self, kept: Kept, fields: Json) -> Kept:
        changed = replace(kept, response={**kept.response, **fields})
        self.put(changed)
        return changed
