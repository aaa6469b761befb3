"""Streams of responses that began before, in the background, and are taken up again. They are
no calls: what they use was counted when they began."""

import logging
import time
from collections.abc import Callable, Iterator

from proxy.core.response_events import ResponseWatcher
from proxy.runtime.answer_stream import CUT_SHORT, AnswerStream
from proxy.runtime.broken_stream import ENDING, OVER, StreamBroken, error_event, forget_frames
from proxy.runtime.lookup import Begun, Question
from proxy.runtime.tell import tell
from proxy.runtime.upstream import UpstreamError

logger = logging.getLogger(__name__)


class KeptStream:
    """Iterate it to relay it; `close` it at the end. `stream` may be passed on by another
    thread meanwhile."""

    def __init__(
        self,
        begun: Begun,
        asked: Question,
        watcher: ResponseWatcher,
        *,
        silence_seconds: float,
        on_close: Callable[["KeptStream"], None],
    ) -> None:
        answer = begun.answer
        answer.end_by(asked.ends_at)
        answer.allow_silence(silence_seconds)
        self.stream = AnswerStream(
            answer, watcher, ends_at=asked.ends_at, silence_seconds=silence_seconds
        )
        self._begun = begun
        self._asked = asked
        self._watcher = watcher
        self._on_close = on_close
        self._is_broken_off = False

    def __iter__(self) -> Iterator[bytes]:
        """Its bytes as they arrive. Raises StreamBroken if it breaks off. It may end before
        the response does: whoever wants the rest asks again."""
        try:
            yield from self.stream
        except UpstreamError as error:
            forget_frames(error)
            is_end = error.message == CUT_SHORT and not self._is_broken_off
            if not (is_end or self._watcher.done or self._asked.line.is_cut):
                yield self._watcher.last_words(error_event(self._told(error)))
                raise StreamBroken from error
        # Half an event is told by whoever has it whole.
        last = self.stream.finish() if self._watcher.is_whole() else b""
        self.close()
        if last:
            yield last

    def close(self) -> None:
        """Idempotent."""
        self._begun.answer.close()
        self._on_close(self)

    def break_off(self) -> None:
        """It ends now, with an error event: the worker does. For any thread."""
        self._is_broken_off = True
        self._asked.line.wake()
        name, request_id = self._begun.name, self._asked.request_id
        said = "%s %s was still answering when the worker ended"
        tell(logger, "answer_cut_off", said, request_id, name, id=request_id, instance=name)

    def _told(self, error: UpstreamError) -> UpstreamError:
        """What its client is to hear of why it broke off; the log hears it if it was the
        instance."""
        if self._is_broken_off:
            return UpstreamError(ENDING)
        if error.timed_out and time.monotonic() >= self._asked.ends_at:
            return UpstreamError(OVER, timed_out=True)
        name, request_id = self._begun.name, self._asked.request_id
        said = "%s %s, in the middle of its stream: %s"
        fields = {"id": request_id, "instance": name, "why": error.message}
        tell(logger, "stream_broken", said, request_id, name, error.message, **fields)
        return error


class KeptStreams:
    """Those of a worker that are open. Thread-safe: adding and discarding are atomic."""

    def __init__(self) -> None:
        self._open: set[KeptStream] = set()
        self._is_ending = False

    def begin(
        self,
        begun: Begun,
        asked: Question,
        watcher: ResponseWatcher,
        *,
        silence_seconds: float,
        on_close: Callable[[], None],
    ) -> KeptStream:
        def closed(stream: KeptStream) -> None:
            self._open.discard(stream)
            on_close()

        found = KeptStream(
            begun, asked, watcher, silence_seconds=silence_seconds, on_close=closed
        )
        self._open.add(found)
        if self._is_ending:
            found.break_off()
        return found

    def break_off(self) -> int:
        """All that are open, or begin after this; how many are."""
        self._is_ending = True
        still = self._open.copy()
        for stream in still:
            stream.break_off()
        return len(still)
