"""One simulated Azure resource: what it is told to be, and what has happened to it."""

import hmac
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from ssl import SSLContext

from proxy.simulator.asks import TOKENS
from proxy.simulator.faults import Faults
from proxy.simulator.limits import Admission, Limits
from proxy.simulator.shelf import Shelf
from proxy.simulator.wire import Received

REMEMBERED_REQUESTS = 1000


@dataclass(eq=False)
class Resource:
    """The options may be changed while it runs, and the next request sees them; new limits
    count from the next `reset`.

    The limits are those of each deployment; None is no limit, and with `api_key` no
    check, unless there are `access_tokens`: then one of those is good too, as a bearer's.
    `deployments` None: whatever is asked for exists. Counters are safe to read
    from any thread. Raises ValueError for a limit or tokens below 1.
    """

    name: str
    api_key: str | None = field(default=None, repr=False)
    access_tokens: Collection[str] = field(default=(), repr=False)  # of Entra ID
    tokens_per_minute: int | None = None
    requests_per_minute: int | None = None
    latency_ms: float = 0.0  # to the first byte
    event_interval_ms: float = 0.0  # between the events of a stream, from its first text on
    tokens: int = TOKENS  # completion tokens of an answer, and events of a stream
    deployments: Collection[str] | None = None
    region: str = "East US"
    refuses_stream_options: bool = False  # as api-versions up to 2024-06-01 do
    ssl_context: SSLContext | None = field(default=None, repr=False)

    url: str = field(default="", init=False)  # http://127.0.0.1:PORT once it is started
    faults: Faults = field(default_factory=Faults, init=False, repr=False)
    shelf: Shelf = field(default_factory=Shelf, init=False, repr=False)

    def __post_init__(self) -> None:
        for option in ("tokens_per_minute", "requests_per_minute", "tokens"):
            value = getattr(self, option)
            if value is not None and value < 1:
                raise ValueError(f"{option} of {self.name!r} is {value}; it starts at 1")
        # Reentrant, because predicates of `wait_for` read the properties below.
        self._changed = threading.Condition(threading.RLock())
        self._requests: deque[Received] = deque(maxlen=REMEMBERED_REQUESTS)
        self._limits: dict[str, Limits] = {}
        self._aborted = 0
        self._open_streams = 0

    @property
    def requests(self) -> list[Received]:
        """What was received, oldest first; the newest thousand."""
        with self._changed:
            return list(self._requests)

    @property
    def aborted(self) -> int:
        """How many times a peer went away before its answer was complete."""
        with self._changed:
            return self._aborted

    @property
    def open_streams(self) -> int:
        """Streams that are being sent now."""
        with self._changed:
            return self._open_streams

    def wait_for(
        self, predicate: Callable[["Resource"], bool], timeout_seconds: float = 5.0
    ) -> bool:
        """Wait until something is true of this resource; False if it did not come true.

        Asked again whenever a request arrives, a stream begins or ends, or a peer leaves.
        """
        with self._changed:
            return self._changed.wait_for(lambda: predicate(self), timeout_seconds)

    def reset(self) -> None:
        """Forget requests, aborts, faults, what was used of the limits, and what is kept."""
        self.faults.clear()
        self.shelf.clear()
        with self._changed:
            self._requests.clear()
            self._limits.clear()
            self._aborted = 0
            self._changed.notify_all()

    def accepts(self, headers: Mapping[str, str]) -> bool:
        """Whether a request has the key, in one of the two places Azure looks for it, or a
        token."""
        if self.api_key is None and not self.access_tokens:
            return True
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme == "Bearer" and bearer in self.access_tokens:
            return True
        given = headers.get("api-key") or bearer
        key = self.api_key
        return key is not None and hmac.compare_digest(given.encode(), key.encode())

    def serves(self, deployment: str) -> bool:
        return self.deployments is None or deployment in self.deployments

    def admit(self, deployment: str, tokens: int) -> Admission:
        """Let a request in, or not; it counts either way."""
        with self._changed:
            if deployment not in self._limits:
                limits = Limits(self.tokens_per_minute, self.requests_per_minute)
                self._limits[deployment] = limits
            return self._limits[deployment].admit(tokens, time.monotonic())

    def note(self, received: Received) -> None:
        with self._changed:
            self._requests.append(received)
            self._changed.notify_all()

    def note_abort(self) -> None:
        with self._changed:
            self._aborted += 1
            self._changed.notify_all()

    @contextmanager
    def streaming(self) -> Iterator[None]:
        self._count_streams(1)
        try:
            yield
        finally:
            self._count_streams(-1)

    def _count_streams(self, change: int) -> None:
        with self._changed:
            self._open_streams += change
            self._changed.notify_all()
