"""What is sent when somebody should hear of an event: grouped, and not too often.

The first is sent a moment after it happened, together with what comes in that moment; then
nothing for a while, and what happens meanwhile is sent together after it, once for each event
and whom it concerns. What was not taken is tried again, later each time.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from proxy.core.events import EVENTS

GATHER_SECONDS = 2.0  # what has one cause mostly comes within that
LEAST_SECONDS = 60.0  # between two messages
FIRST_RETRY_SECONDS = 5.0
LONGEST_RETRY_SECONDS = 300.0
JITTER_SHARE = 0.25
MOST_GROUPS = 50  # of a message; of more, only the number is told
MESSAGE_CHARACTERS = 300
# Of an event's fields, whom it concerns. Not whoever came with a wrong key: they may be many.
SUBJECTS = ("instance", "instances", "worker_pid")

Json = dict[str, Any]


class Alert(NamedTuple):
    """One event of the table in core/events.py. `at` is a moment."""

    event: str
    at: float
    message: str
    fields: Mapping[str, Any]

    @property
    def is_severe(self) -> bool:
        """Clients hear of it; told before others, and instead of them where not all can be."""
        return EVENTS[self.event].level == "error"


@dataclass(frozen=True, slots=True)
class Group:
    """Alerts of one event that concern the same; `last` is the newest of them."""

    last: Alert
    count: int = 1
    first_at: float = 0.0


class Outbox:
    """What is to be sent, and when. `now` is in monotonic seconds. Not thread-safe."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str], Group] = {}
        self._left_out = 0
        self._due_at = 0.0
        self._free_at = 0.0  # not before that
        self._failures = 0

    def add(self, alert: Alert, now: float) -> None:
        if not self._groups:
            self._due_at = now + GATHER_SECONDS
        key = (alert.event, _subject(alert))
        known = self._groups.get(key)
        if known is not None:
            self._groups[key] = replace(known, last=alert, count=known.count + 1)
        elif len(self._groups) < MOST_GROUPS or (alert.is_severe and self._gives_way()):
            self._groups[key] = Group(alert, 1, alert.at)
        else:
            self._left_out += 1

    def leave_out(self, number: int) -> None:
        """So many others happened, of which no more is known."""
        self._left_out += number

    def _gives_way(self) -> bool:
        """One that is not severe, the newest of them; false if there is none."""
        light = [key for key, group in self._groups.items() if not group.last.is_severe]
        if light:
            self._left_out += self._groups.pop(light[-1]).count
        return bool(light)

    def due(self, now: float) -> tuple[tuple[Group, ...], int]:
        """What is to be sent now, and how many others happened; nothing: ((), 0)."""
        if not self._groups or now < max(self._due_at, self._free_at):
            return (), 0
        severe_first = sorted(self._groups.values(), key=lambda g: not g.last.is_severe)
        return tuple(severe_first), self._left_out

    def taken(self, now: float) -> None:
        """What was due has arrived."""
        self._groups.clear()
        self._left_out = self._failures = 0
        self._free_at = now + LEAST_SECONDS

    def refused(self, now: float, chance: float) -> bool:
        """It has not; true if that is new. `chance` is from 0 to 1."""
        seconds = min(FIRST_RETRY_SECONDS * 2**self._failures, LONGEST_RETRY_SECONDS)
        self._free_at = now + seconds * (1 - JITTER_SHARE * chance)
        self._failures = min(self._failures + 1, 16)
        return self._failures == 1


def _subject(alert: Alert) -> str:
    return next((str(alert.fields[s]) for s in SUBJECTS if s in alert.fields), "")


def text(groups: Iterable[Group], left_out: int, host: str) -> str:
    """A line for each."""
    lines = [f"Azure OpenAI gateway on {host}:"]
    for group in groups:
        minutes, seconds = divmod(int(group.last.at) % 86_400, 60)
        moment = f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}"
        times = f" ({group.count} times)" if group.count > 1 else ""
        message = group.last.message[:MESSAGE_CHARACTERS]
        lines.append(f"{moment} UTC {group.last.event}: {message}{times}")
    if left_out:
        lines.append(f"and {left_out} more.")
    return "\n".join(lines)


def _generic(groups: tuple[Group, ...], left_out: int, host: str) -> Json:
    return {
        "source": "azure-openai-gateway",
        "host": host,
        "text": text(groups, left_out, host),
        "left_out": left_out,
        "alerts": [
            {
                "event": group.last.event,
                "message": group.last.message[:MESSAGE_CHARACTERS],
                "count": group.count,
                "first_at": group.first_at,
                "last_at": group.last.at,
                "fields": dict(group.last.fields),
            }
            for group in groups
        ],
    }


def _slack(groups: tuple[Group, ...], left_out: int, host: str) -> Json:
    """An instance's name is no mention of a person, and no link."""
    plain = text(groups, left_out, host)
    for sign, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        plain = plain.replace(sign, escaped)
    return {"text": plain}


def _feishu(groups: tuple[Group, ...], left_out: int, host: str) -> Json:
    plain = text(groups, left_out, host).replace("<", "\N{FULLWIDTH LESS-THAN SIGN}")
    return {"msg_type": "text", "content": {"text": plain}}


FORMATS: Mapping[str, Callable[[tuple[Group, ...], int, str], Json]] = {
    "generic": _generic,
    "slack": _slack,
    "feishu": _feishu,
}


def is_taken(form: str, status: int, answer: Any) -> bool:
    """Whether what the receiver answered, as JSON if it is any, says that it has the message:
    Feishu says no with a 200, too."""
    if not 200 <= status < 300:
        return False
    if form == "feishu" and isinstance(answer, dict):
        return answer.get("code", answer.get("StatusCode", 0)) == 0
    return True
