"""Alerts to the operator's webhook, sent by one worker of a host for all of them.

Each worker writes its alerts into a row of memory that all share; who holds a lock, which the
system takes from a process that ends, sends them. So what two workers tell of the same event
is one message, and what a worker told before it was killed is sent by another.
"""

import fcntl
import json
import logging
import mmap
import os
import random
import socket
import struct
import time
from collections.abc import Callable, Sequence

from proxy.core.alerts import FORMATS, MESSAGE_CHARACTERS, Alert, Group, Outbox, is_taken
from proxy.core.types import InstanceConfig
from proxy.runtime.line import Line
from proxy.runtime.periodic import Periodic
from proxy.runtime.recent import MAX_BYTES, Recent
from proxy.runtime.tell import tell
from proxy.runtime.upstream import Upstream, UpstreamError

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
SEND_SECONDS = 5.0
LAST_SECONDS = 1.0  # of what is sent when the worker ends
KEPT = 64  # of a worker and severity, while nobody takes them
FIELD_CHARACTERS = 200
LEAST_CHARACTERS = 10  # with so many even six bytes each fit
NO_WEBHOOK = InstanceConfig(name="", api_base="", api_key="NONE")


class Alerts:
    """Made before the fork, as `Recent` is. Without a `url` it does nothing.

    `note` is for the thread that keeps records; `start` once a process, after the fork.
    """

    def __init__(
        self,
        upstream: Upstream,
        *,
        url: str,
        form: str = "generic",
        rows: int = 1,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._upstream = upstream
        self._url = url
        self._form = form
        self._clock = clock
        self._chance = chance
        self._outbox = Outbox()
        self._line = Line()
        self._periodic = Periodic("alerts", LOOK_SECONDS, self.work)
        if not url:
            return
        # The severe ones have memory of their own: no flood of others pushes them out.
        self._rings = Recent(rows, KEPT), Recent(rows, KEPT)
        # How many of each row are sent: written by whoever holds the lock.
        self._sent = struct.Struct(f"{len(self._counts())}Q")
        self._memory = mmap.mmap(-1, self._sent.size)
        self._lock = os.memfd_create("alerts")
        self._read: tuple[int, ...] | None = None  # of each row, by this worker; None: no lock

    def use_row(self, row: int | None) -> None:
        """In the parent: the next child's."""
        if self._url:
            for ring in self._rings:
                ring.use_row(row)

    def start(self) -> None:
        if self._url:
            self._line = Line()
            self._periodic.start()

    def stop(self) -> None:
        """Idempotent. Waits for no receiver longer than LAST_SECONDS; what is left is another
        worker's, if there is one."""
        if not self._url:
            return
        self._line.cut()
        self._periodic.stop()
        if self._read is not None:
            self._line = Line()
            self._collect()
            groups, left_out = self._outbox.due(float("inf"))
            if groups:
                self._deliver(groups, left_out, LAST_SECONDS)
            self._read = None
            fcntl.lockf(self._lock, fcntl.LOCK_UN)

    def note(self, alert: Alert) -> None:
        if not self._url:
            return
        self._rings[alert.is_severe].add(_fitted(alert), alert.at)

    def work(self) -> None:
        """Sends what is due, if this worker is the one that does."""
        if not self._is_mine():
            return
        self._collect()
        groups, left_out = self._outbox.due(self._clock())
        if groups:
            self._deliver(groups, left_out, SEND_SECONDS)

    def _is_mine(self) -> bool:
        if self._read is None:
            try:
                fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False  # another worker's
            self._outbox = Outbox()
            self._read = self._sent.unpack_from(self._memory)
        return True

    def _collect(self) -> None:
        assert self._read is not None, "only with the lock"
        counts, known = self._counts(), 0
        half = len(counts) // len(self._rings)
        for number, ring in enumerate(self._rings):
            rows = slice(number * half, (number + 1) * half)
            for values in ring.between(self._read[rows], counts[rows]):
                self._outbox.add(Alert(**values), self._clock())
                known += 1
        self._outbox.leave_out(sum(counts) - sum(self._read) - known)
        self._read = counts

    def _counts(self) -> tuple[int, ...]:
        """Of each row of each ring, how many were ever noted."""
        return tuple(count for ring in self._rings for count in ring.counts())

    def _deliver(self, groups: tuple[Group, ...], left_out: int, seconds: float) -> None:
        assert self._read is not None, "only with the lock"
        problem = self._problem(groups, left_out, seconds)
        if problem is None:
            self._outbox.taken(self._clock())
            self._sent.pack_into(self._memory, 0, *self._read)
        elif self._outbox.refused(self._clock(), self._chance()) and not self._line.is_cut:
            said = "the webhook does not take alerts: %s. They are tried again."
            tell(logger, "alerts_failed", said, problem, why=problem)

    def _problem(self, groups: tuple[Group, ...], left_out: int, seconds: float) -> str | None:
        """What kept them from arriving, without the URL, which is a secret."""
        body = json.dumps(FORMATS[self._form](groups, left_out, socket.gethostname()))
        try:
            answer = self._upstream.send(
                NO_WEBHOOK,
                self._url,
                headers={"Content-Type": "application/json"},
                body=body.encode(),
                line=self._line,
                ends_at=time.monotonic() + seconds,
            )
            try:
                received = bytes(answer.read_all())
            finally:
                answer.close()
        except UpstreamError as error:
            return error.message
        if is_taken(self._form, answer.status, _parsed(received)):
            return None
        return f"it answered {answer.status}"


def _parsed(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _fitted(alert: Alert) -> bytes:
    """With as much of its fields as a row's entry holds."""
    characters = FIELD_CHARACTERS
    while True:
        values = alert._asdict() | {
            "message": alert.message[:MESSAGE_CHARACTERS],
            "fields": {n: _short(value, characters) for n, value in alert.fields.items()},
        }
        entry = json.dumps(values, ensure_ascii=False).encode("utf-8", "replace")
        if len(entry) <= MAX_BYTES or characters <= LEAST_CHARACTERS:
            return entry
        characters //= 2


def _short(value: object, characters: int) -> object:
    if isinstance(value, str):
        return value[:characters]
    if isinstance(value, Sequence):
        return [str(each)[:characters] for each in value[:5]]
    return value
