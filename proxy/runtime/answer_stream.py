"""The stream of an answer: held back until it says something, then passed on as it comes."""

from collections.abc import Iterator

from proxy.core.response_events import ResponseWatcher
from proxy.core.sound import SoundWatcher
from proxy.core.sse import StreamWatcher
from proxy.runtime.transport import SILENT
from proxy.runtime.upstream import Answer, UpstreamError, failure

Watcher = StreamWatcher | SoundWatcher | ResponseWatcher

EVENT_STREAM = "text/event-stream"

# Events that say nothing yet are held back until one does; of a stream that goes on and on
# without saying anything, no more than this.
MAX_HELD_BYTES = 1_048_576

ENDLESS = "it sent an event of its stream that did not end"
CUT_SHORT = "it ended its stream before the answer's end"
SAID_NOTHING = "it ended its stream before it said anything"


class AnswerStream:
    """Of an answer whose head is read. Call `read_until_content`, iterate then, and `finish`
    at the end.

    While it is iterated another thread may go on with it as a `StreamSource`, and whoever
    iterates go on after that. `watcher` sees all that goes by. Times are monotonic seconds:
    `ends_at` is when its call's time is over, `silence_seconds` how long it may be silent once
    it has said something.
    """

    __slots__ = (
        "_answer",
        "_broken",
        "_held",
        "ends_at",
        "is_over",
        "sent_bytes",
        "silence_seconds",
        "watcher",
    )

    def __init__(
        self, answer: Answer, watcher: Watcher, *, ends_at: float, silence_seconds: float
    ) -> None:
        self.watcher = watcher
        self.ends_at = ends_at
        self.silence_seconds = silence_seconds
        self.sent_bytes = 0  # to the client
        self.is_over = False  # what comes next is for who iterates: an end, an error
        self._answer = answer
        self._held = b""
        self._broken: Exception | None = None  # as whom it raises to who iterates

    def read_until_content(self, silent_until: float) -> None:
        """Holds back what says nothing yet: what fails before anything was said can still be
        asked of another instance. Comments that keep alive say nothing.

        An event that tells of an error says something, too. Raises UpstreamError if the stream
        breaks before, or says nothing until then.
        """
        watcher, answer, held, held_bytes = self.watcher, self._answer, [], 0
        answer.end_by(min(silent_until, self.ends_at))
        while not (watcher.content or watcher.done or watcher.error):
            chunk = answer.read_some()
            held.append(watcher.feed(chunk))
            held_bytes += len(chunk)
            if not chunk:
                if not watcher.is_whole():
                    raise UpstreamError(SAID_NOTHING)
                break
            if held_bytes > MAX_HELD_BYTES:
                break
        self._held = b"".join(held)
        answer.end_by(self.ends_at)
        answer.allow_silence(self.silence_seconds)

    def __iter__(self) -> Iterator[bytes]:
        """What is to be sent as it arrives. Raises UpstreamError if it breaks off."""
        watcher = self.watcher
        if self._held:
            self.sent_bytes += len(self._held)
            yield self._held
        while not watcher.endless and (chunk := self._read_some()):
            passed_on = watcher.feed(chunk)
            if passed_on:
                self.sent_bytes += len(passed_on)
                yield passed_on
        if not watcher.is_whole():
            raise UpstreamError(ENDLESS if watcher.endless else CUT_SHORT)

    def finish(self) -> bytes:
        """What is to be sent last: where it ended in the middle of an event, that."""
        last = self.watcher.finish()
        self.sent_bytes += len(last)
        return last

    def _read_some(self) -> bytes:
        if self._broken is not None:
            raise self._broken
        return self._answer.read_some()

    # As a StreamSource.

    def watched(self) -> int | None:
        is_broken = self._broken is not None or self.watcher.endless
        self.is_over = is_broken or self._answer.has_ended
        return None if self.is_over else self._answer.watched()

    def pass_on(self) -> bytes:
        answer, watcher = self._answer, self.watcher
        passed_on = watcher.feed(answer.arrived())
        self.sent_bytes += len(passed_on)
        self.is_over = watcher.endless or self._broken is not None or answer.has_ended
        return passed_on

    def fail(self, error: Exception) -> None:
        self._broken = failure(error)
        self.is_over = True

    def time_out(self) -> None:
        self.fail(UpstreamError(SILENT, timed_out=True))
