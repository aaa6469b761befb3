"""Where wrong keys come from, how often, and how long the next ones are turned away.

Nobody is kept waiting: who is turned away is told when to come back. A right key is let in all
the same, so that who shares an address with somebody who guesses is not locked out. So this
tells of guessing, and what protects a key from it is that it is long.
"""

from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network, ip_address

FREE_MISTAKES = 5  # of people who paste the wrong line
FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 60.0
FORGET_SECONDS = 600.0
MOST_SOURCES = 4_096  # half a MB
LINES_A_MINUTE = 60

UNKNOWN = "unknown"
# Who has one IPv6 address usually has all of its network (RFC 6177).
IPV6_BITS = 64


def source_group(address: str) -> str:
    """What is counted as one source: an IPv4 address, the network of an IPv6 one. What is no
    address, such as the other end of a Unix socket, is one source together."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return UNKNOWN
    if isinstance(found, IPv6Address):
        mapped = found.ipv4_mapped
        return str(mapped or IPv6Network((found, IPV6_BITS), strict=False))
    return str(found)


@dataclass(frozen=True, slots=True)
class Refused:
    """What is to be done about a wrong key.

    `wait_seconds`: it is turned away, and another is not before then; 0.0: it is told that it
    is wrong. `told`: how many wrong keys from there a line of the log stands for now, 0 for no
    line; `dropped`: how many from anywhere found no place in the log before it.
    """

    wait_seconds: float = 0.0
    told: int = 0
    dropped: int = 0


@dataclass(slots=True)
class _Source:
    mistakes: int = 0
    last_at: float = 0.0
    closed_until: float = 0.0
    untold: int = 0


class WrongKeys:
    """Counts them by source. `now` is monotonic seconds, from the caller.

    The first `free` are told that they are wrong. From then on each that is told closes the
    door to the next ones, for twice as long as the one before it: 1 s, 2 s, 4 s, up to
    LONGEST_WAIT_SECONDS. What comes to a closed door changes nothing but a count. After
    FORGET_SECONDS without one all is forgotten; of more than MOST_SOURCES the one that was
    quiet longest. Not thread-safe.
    """

    def __init__(
        self, *, free: int = FREE_MISTAKES, first_wait_seconds: float = FIRST_WAIT_SECONDS
    ) -> None:
        self._free = free
        self._first_wait_seconds = first_wait_seconds
        self._sources: dict[str, _Source] = {}  # the one that was quiet longest is first
        self._minute = 0.0
        self._lines = 0
        self._dropped = 0

    def __len__(self) -> int:
        return len(self._sources)

    def came(self, source: str, now: float) -> Refused:
        """A wrong key came from there."""
        seen = self._sources.pop(source, None)
        if seen is None or now - seen.last_at >= FORGET_SECONDS:
            seen = _Source()
        self._sources[source] = seen
        if len(self._sources) > MOST_SOURCES:
            del self._sources[next(iter(self._sources))]
        seen.last_at = now
        seen.untold += 1
        if now < seen.closed_until:
            return Refused(wait_seconds=seen.closed_until - now)
        seen.mistakes += 1
        if seen.mistakes >= self._free:
            seen.closed_until = now + self._wait_seconds(seen.mistakes - self._free)
        return self._told(seen, now)

    def forget(self, source: str) -> None:
        """Somebody from there has shown that it was a mistake."""
        self._sources.pop(source, None)

    def _wait_seconds(self, doublings: int) -> float:
        # Beyond that many it is the longest in any case, and 2.0 ** 1024 is too large.
        return min(self._first_wait_seconds * 2.0 ** min(doublings, 10), LONGEST_WAIT_SECONDS)

    def _told(self, seen: _Source, now: float) -> Refused:
        """Who comes from many sources must not fill the log."""
        told, seen.untold = seen.untold, 0
        if now - self._minute >= 60.0:
            self._minute, self._lines = now, 0
        if self._lines >= LINES_A_MINUTE:
            self._dropped += told
            return Refused()
        self._lines += 1
        dropped, self._dropped = self._dropped, 0
        return Refused(told=told, dropped=dropped)
