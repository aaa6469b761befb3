"""Streams that have begun: one thread a worker passes on what arrives of all of them.

A stream is silent nearly all of its time. A thread of its own would cost memory, and at each
event two switches of threads and a fight for the interpreter with all the others. What is not
usual is left to a request's thread: an end, an error, a client that does not take what it is
sent.
"""

import logging
import math
import os
import select
import time
from collections.abc import Callable
from threading import Event, Thread
from typing import Protocol

from proxy.runtime.client_socket import ClientSocket
from proxy.runtime.cpu_affinity import run_on
from proxy.runtime.tell import tell

logger = logging.getLogger(__name__)

# How late it may be noticed that a stream was silent for too long, or that much comes.
LOOK_SECONDS = 0.25
# Where so many pieces come in a second, more come in a moment. After a pause they go together:
# the thread is woken once for several streams, and what came of one takes one call. That is
# worth a pause where the worker has much to do, as this share of a core; else nobody would have
# anything of it, and each piece come later. While it pauses there are fewer pieces, and less to
# do: then less of both is still enough.
MANY_A_SECOND, STILL_MANY_A_SECOND = 3_000, 750
BUSY_SHARE, STILL_BUSY_SHARE = 0.4, 0.3
PAUSE_SECONDS = 0.001


class StreamSource(Protocol):
    """Where a stream comes from. Times are monotonic seconds."""

    silence_seconds: float  # the longest
    ends_at: float
    is_over: bool  # whoever waits for it has to go on: there is an end, or an error

    def watched(self) -> int | None:
        """The number of the file by which more is seen to arrive; None if it has to be waited
        for."""

    def pass_on(self) -> bytes:
        """What is to be passed on of what has arrived; b"" if that is nothing. Raises
        BlockingIOError where nothing has, as of the beginning of a TLS record."""

    def fail(self, error: Exception) -> None:
        """To be raised to whoever goes on."""

    def time_out(self) -> None:
        """As `fail`: nothing came in time."""


class Stream:
    """What is still to come of an answer. Its `source` is watched by `number`, a file's; what
    comes goes to `client` as `framed` writes it. Then `go_on` is called, once, when a thread is
    needed; what the client did not take yet is `unsent`, and is to go first.

    `expires_at` is when to look whether it was silent for too long; what came since it was set
    is in `passed_on_at`."""

    __slots__ = (
        "client",
        "expires_at",
        "framed",
        "go_on",
        "number",
        "passed_on_at",
        "source",
        "unsent",
    )

    def __init__(
        self,
        number: int,
        source: StreamSource,
        client: ClientSocket,
        framed: Callable[[bytes], bytes],
        go_on: Callable[[], None],
    ) -> None:
        self.number = number
        self.source = source
        self.client = client
        self.framed = framed
        self.go_on = go_on
        self.unsent = b""
        self.expires_at = 0.0
        self.passed_on_at = -math.inf


class Streams:
    """`start` once a process, after the fork. `add` is for any thread.

    `cores`, where its worker has a part of them: the thread may run on each of these. It mostly
    receives and sends, and who comes as fast as that would have to wait for the worker's own.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.process_time,
    ) -> None:
        self.cores: set[int] | None = None
        self._clock = clock
        self._cpu_clock = cpu_clock  # seconds that all of the worker's threads took
        self._poll: select.epoll | None = None
        self._waker: int | None = None  # wakes who waits, at the end
        # Adding, and taking one out, is atomic; only the thread of `start` takes out.
        self._streams: dict[int, Stream] = {}
        self._stopping = Event()
        self._thread: Thread | None = None
        # At silent ones, and how much there is to do: when, by both clocks; and how often there
        # was something of a stream since.
        self._looked_at = self._looked_cpu = 0.0
        self._pieces = 0
        self._is_busy = False

    @property
    def is_running(self) -> bool:
        return self._thread is not None

    def open(self) -> None:
        """What `start` does first; for who calls `look` instead."""
        self._poll = select.epoll()
        self._waker = os.eventfd(0)
        self._poll.register(self._waker, select.EPOLLIN)

    def start(self) -> None:
        self.open()
        self._thread = Thread(target=self._run, name="streams", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """What is still here goes nowhere. Idempotent."""
        self._stopping.set()
        waker, self._waker = self._waker, None
        if waker is not None:
            os.eventfd_write(waker, 1)
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        if self._poll is not None:
            self._poll.close()
        if waker is not None:
            os.close(waker)

    def add(self, stream: Stream) -> None:
        """From now on it is nobody else's, until `go_on` is called."""
        assert self._poll is not None, "only what is started takes streams"
        stream.expires_at = _expires_at(stream.source, self._clock())
        self._streams[stream.number] = stream
        try:
            self._poll.register(stream.number, select.EPOLLIN)
        except (OSError, ValueError):  # it cannot be watched, or all is being stopped
            del self._streams[stream.number]
            stream.go_on()

    def look(self, seconds: float = 0.0) -> None:
        """Passes on what has arrived, or else what arrives within that time."""
        assert self._poll is not None, "only what is started takes streams"
        asked_at = self._clock()
        ready = self._poll.poll(seconds)
        now = self._clock()
        self._pieces += len(ready)
        for number, _ in ready:
            stream = self._streams.get(number)
            if stream is not None:  # it is none where only the waker was told
                self._pass_on(stream, now)
        if now >= self._looked_at + LOOK_SECONDS:
            self._note_busy(now)
            # As of when it was asked for: of what came after that, as where the process
            # was stopped for a while, nobody has been told yet.
            self._end_silent(asked_at)

    def _note_busy(self, now: float) -> None:
        seconds, cpu = now - self._looked_at, self._cpu_clock()
        many, busy = MANY_A_SECOND, BUSY_SHARE
        if self._is_busy:
            many, busy = STILL_MANY_A_SECOND, STILL_BUSY_SHARE
        is_much = cpu - self._looked_cpu >= busy * seconds
        self._is_busy = is_much and self._pieces >= many * seconds
        self._looked_at, self._looked_cpu, self._pieces = now, cpu, 0

    def _run(self) -> None:
        if self.cores:
            run_on(self.cores)
        while not self._stopping.is_set():
            try:
                self.look(LOOK_SECONDS)
                if self._is_busy:
                    time.sleep(PAUSE_SECONDS)
            except Exception:  # noqa: BLE001  # a bug must not end all streams there will be
                said = "The streams could not be looked at."
                tell(logger, "unexpected_error", said, with_traceback=True)
                self._stopping.wait(LOOK_SECONDS)

    def _end_silent(self, now: float) -> None:
        for stream in list(self._streams.values()):
            if stream.expires_at <= now:
                stream.expires_at = _expires_at(stream.source, stream.passed_on_at)
                if stream.expires_at <= now:
                    stream.source.time_out()
                    self._give_back(stream)

    def _pass_on(self, stream: Stream, now: float) -> None:
        source = stream.source
        if now >= stream.expires_at and now >= source.ends_at:
            source.time_out()  # nothing is passed on after its time
            self._give_back(stream)
            return
        try:
            piece = source.pass_on()
            if piece:
                data = stream.framed(piece)
                sent = stream.client.send_now(data)
                if sent < len(data):
                    stream.unsent = data[sent:]
        except BlockingIOError:
            return  # it is as silent as before
        except Exception as error:  # noqa: BLE001  # it ends its stream, not all of them
            source.fail(error)
        if stream.unsent or source.is_over:
            self._give_back(stream)
        else:
            stream.passed_on_at = now

    def _give_back(self, stream: Stream) -> None:
        # Before anybody else has it: its connection may carry another answer then.
        assert self._poll is not None, "it was added"
        try:
            self._poll.unregister(stream.number)
        except FileNotFoundError:
            return  # it is being added just now, and is over then, too
        del self._streams[stream.number]
        try:
            stream.go_on()
        except Exception:  # noqa: BLE001  # as above
            said = "A stream could not be given back to a thread."
            tell(logger, "unexpected_error", said, with_traceback=True)


def _expires_at(source: StreamSource, now: float) -> float:
    return min(now + source.silence_seconds, source.ends_at)
