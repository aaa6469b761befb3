"""One try at one instance, from the request's first byte to the answer's last."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from threading import Lock
from typing import Any

from proxy.core import hints
from proxy.core import verdict as verdicts
from proxy.core.attempts import Ending, Reservation
from proxy.core.endpoints import ENDPOINTS
from proxy.core.excerpt import excerpt, is_json, without_key
from proxy.core.kept import marked
from proxy.core.providers import CLASSIC, PROVIDERS, key_headers, resource
from proxy.core.record import IN_STREAM, Ended, Tried
from proxy.core.response_events import UNDER_WAY, ResponseWatcher, failure_of
from proxy.core.rewrite import asks_for_usage, body_for
from proxy.core.sound import SoundWatcher
from proxy.core.sse import (
    StreamWatcher,
    is_of_client,
    json_object,
    message_of,
    read_usage,
    usage_of_answer,
)
from proxy.core.strict import STRICT, strict_event
from proxy.core.tokens import BYTES_PER_TOKEN, SOUND_BYTES_PER_TOKEN
from proxy.core.types import NO_USAGE, Bytes, Call, Serving, Usage
from proxy.runtime.answer_stream import CUT_SHORT, EVENT_STREAM, AnswerStream, Watcher
from proxy.runtime.broken_stream import (
    ENDING,
    OVER,
    StreamBroken,
    error_event,
    forget_frames,
)
from proxy.runtime.line import Line
from proxy.runtime.state import (
    ACCEPTS_AGAIN,
    BREAKER_CLOSED,
    BREAKER_OPENED,
    EVENT_WORDS,
    LONG_REST,
    State,
)
from proxy.runtime.tell import tell
from proxy.runtime.transport import MAX_JOINED_BYTES
from proxy.runtime.upstream import Answer, NoCredential, Upstream, UpstreamError

ERROR_BODY_SECONDS = 1.0
_BEGINNING = 64  # bytes of an answer, in which its JSON begins
_TRANSCRIPTS = ("text/plain", "text/vtt", "text/srt", "application/x-subrip")
_SOUNDS = ("audio/", "application/octet-stream", "binary/octet-stream")

NO_HEADERS: Mapping[str, str] = {}
LEFT = "the client left before it had answered"
A_PAGE = "its answer is a page of HTML or XML, and no JSON"
NOT_READABLE = b'"invalid_encrypted_content"'  # the code of an error
IN_ANSWER = "it answered that it failed"
MISTAKE = "the gateway made a mistake, of which its log has the details"

logger = logging.getLogger(__name__)


class Attempt:
    """Made after State.start said yes; `settle`, which `close` calls, tells State.finish.

    `open` sends, and judges what comes. After that either `error` says why there is no
    answer, or `body` holds a whole plain answer, or the attempt is a stream: iterate it to
    relay. A class and not a generator, because a generator that was never started runs no
    `finally` when it is closed, and the reservation would stay.
    """

    def __init__(
        self,
        state: State,
        reservation: Reservation,
        call: Call,
        serving: Serving,
        *,
        line: Line,
        stream_idle_seconds: float,
        on_close: Callable[["Attempt"], None],
        is_made_up: Callable[[], bool],
        cost_nano: Callable[[str, Usage], int],
        charge: Callable[[Usage, int], None],
    ) -> None:
        self.serving = serving
        self.request_id = call.request_id
        self.verdict = verdicts.ABORTED
        self.error: UpstreamError | None = None
        self.body: Bytes | None = None
        self.usage = NO_USAGE
        self.latency_ms = self.cost_nano = 0
        self._was_given_up = False  # settled as one that the client would not get
        self._is_left = False  # by the client, before anything else ended it
        self.was_recovery = False  # it closed its instance's breaker, or ended its refusals
        self._state = state
        self._reservation = reservation
        self.call = call
        self._answer: Answer | None = None
        self.stream: AnswerStream | None = None  # where the answer is one
        self._stream_idle_seconds = stream_idle_seconds
        self._was_answered = self._complete = self._is_broken_off = False
        self._hides_usage = asks_for_usage(call, serving)
        self._started = time.monotonic()
        self._first_byte_ms = 0
        self.line = line
        self._on_close = on_close
        self._is_made_up = is_made_up  # the model, by the client
        self._cost_nano_of = cost_nano
        self._charge = charge  # the client
        # Taken by whoever settles it: a request's thread, or the one that ends the worker.
        self._once = Lock()

    def open(self, upstream: Upstream, context: Mapping[str, str] = NO_HEADERS) -> None:
        """Sends the call and reads until we know what the answer is worth. `context`: headers
        that tell the upstream of the trace it is part of.

        A plain answer is read whole, so that one that is cut short can still be asked of
        another instance; of a stream, until an event says something.
        """
        try:
            self._answer = answer = self._send(upstream, context)
            self.verdict = verdicts.of(answer.status, answer.headers, time.time())
            may_stream = self.call.stream or self.call.marks is not None
            watcher = self._watcher(answer) if may_stream else None
            if watcher is not None:
                self._read_until_content(answer, watcher)
                # Nobody else will be asked: while it is open it needs no more of its prompt.
                self.call = replace(self.call, body=b"")
            elif answer.status < 400:
                self.body = body = answer.read_all()
                self._take_plain(body)
            else:
                self.body = self._error_body(answer)
                self.verdict = self._judged(self.verdict, self.body)
                if self.call.homes and NOT_READABLE in self.body:
                    self._tell_not_its_own()
        except UpstreamError as error:
            self._fail(error)
        self._first_byte_ms = self._elapsed_ms()
        tells = not self.verdict.failure and self.verdict is not verdicts.MODEL_ERROR
        if self.error is None and tells:
            self._was_answered = True
            hint = hints.hint(
                self.answer.headers,
                time.time(),
                is_throttled=self.verdict.outcome == "throttled",
            )
            # How fast it refuses says nothing about how fast it is.
            is_good = self.verdict.outcome == "succeeded"
            self.was_recovery = self._state.answered(
                self._reservation,
                self._first_byte_ms if is_good else None,
                hint,
                streams=self.stream is not None,
            )
            if self._reservation.is_retry:
                self._note_acceptance()

    def _note_acceptance(self) -> None:
        """Its instance refused the gateway before. One that is at its limit takes it, too."""
        takes_us = self.verdict.outcome in ("succeeded", "throttled")
        if takes_us and self._state.accepted(self._reservation):
            self.was_recovery = True
            self._tell(ACCEPTS_AGAIN)

    @property
    def answer(self) -> Answer:
        """Its head. Only while `error` is None."""
        assert self._answer is not None, "an attempt without an answer has no head"
        return self._answer

    def __str__(self) -> str:
        return f"{self.serving.config.name}: {self.what()}"

    def what(self) -> str:
        """Of an attempt that failed, how; without what its answer says."""
        return self.error.message if self.error else f"HTTP {self.answer.status}"

    def __iter__(self) -> Iterator[bytes]:
        """The stream's bytes as they arrive. Raises StreamBroken if the upstream breaks it."""
        stream = self.stream
        assert stream is not None, "only a stream is iterated"
        watcher = stream.watcher
        try:
            yield from stream
            if self._is_broken_off and not watcher.has_ended:
                raise UpstreamError(CUT_SHORT)
        except UpstreamError as error:
            forget_frames(error)
            if not watcher.done and not self.line.is_cut:
                self._fail(error)
                if last_words := watcher.last_words(error_event(self.error or error)):
                    yield last_words
                raise StreamBroken from error
        last = stream.finish()
        self._complete = watcher.done or not self.line.is_cut
        # Counted before the end goes out: a client that has everything is in the totals.
        self.close()
        if last:
            yield last

    def close(self, *, answered: bool = True) -> None:
        """Idempotent: WSGI servers, Flask and we ourselves may all call it."""
        if not self.settle(answered=answered):
            return
        if self._answer is not None:
            self._answer.close()

    def claim(self) -> None:
        """The client gets this attempt's answer, or nothing better: its request counts here,
        also if the attempt was closed as one that the client would not get."""
        if self._was_given_up:
            self._was_given_up = False
            is_left = self.line.is_cut
            self._state.count_request(self._reservation, self.verdict, is_left=is_left)
            self._charge(self.usage, self.cost_nano)
        else:
            self.close()

    def break_off(self) -> None:
        """It ends now, a stream with an error event: the worker does. For any thread."""
        self._is_broken_off = True
        self.line.wake()

    def spoil(self) -> None:
        """By a mistake of ours the client gets a 500, whatever the instance answered, and its
        request counts here. Idempotent."""
        if not self._was_given_up:
            self.verdict, self.error = verdicts.SPOILED, UpstreamError(MISTAKE)
        self.claim()

    def settle(self, *, answered: bool = True, is_cut_off: bool = False) -> bool:
        """Counts it as it stands, from whatever thread; True the first time.

        Alone it is for the end of a worker, where `is_cut_off`: the connection may be in use by
        the request's own thread, and to close it would mean to wait for that.
        """
        if not self._once.acquire(blocking=False):
            return False
        self._was_given_up = not answered
        self.latency_ms = self._elapsed_ms()
        if self.stream is not None:
            self._settle_stream(self.stream.watcher)
        if is_cut_off and self.verdict is verdicts.ABORTED and not self.line.is_cut:
            self.verdict = verdicts.CUT_OFF
        self.cost_nano = self._cost_nano_of(self.call.model, self.usage)
        event = self._state.finish(
            self._reservation,
            Ending(
                verdict=self.verdict,
                usage=self.usage,
                latency_ms=self.latency_ms,
                first_byte_ms=self._first_byte_ms,
                before_ms=self._before_ms(),
                answered=answered,
                is_left=self._is_left,
                was_answered=self._was_answered,
                error=self.trouble(),
                cost_nano=self.cost_nano,
            ),
        )
        if answered:
            self._charge(self.usage, self.cost_nano)
        is_broken = self.stream is not None and self._was_answered
        if is_broken and self.verdict.outcome == "failed":
            name, why = self.serving.config.name, self.trouble() or ""
            fields = {"id": self.request_id, "instance": name, "why": why}
            said = "%s %s, in the middle of its stream: %s"
            tell(logger, "stream_broken", said, self.request_id, name, why, **fields)
        if event is not None:
            self._tell(event)
        self._on_close(self)
        return True

    def tried(self) -> Tried:
        """What the log tells of it when it was opened."""
        answer, verdict = self._answer, self.verdict
        # Azure's support asks for the id of what broke off, too.
        headers = answer.headers if answer is not None else NO_HEADERS
        status = answer.status if answer is not None and self.error is None else 0
        return Tried(
            self.serving.config.name,
            self.serving.deployment,
            self._started,
            self.latency_ms or self._first_byte_ms,
            status,
            verdict.outcome,
            self.error.message if self.error is not None else None,
            verdict.rest_seconds,
            headers.get("apim-request-id") or headers.get("x-request-id"),
            headers.get("x-ms-region"),
        )

    def ended(self) -> Ended:
        """What the log tells of it when it is over."""
        body = self.body
        return Ended(
            self._started,
            self.latency_ms,
            self._first_byte_ms,
            self.verdict.outcome,
            self.error.message if self.error is not None else None,
            self.usage,
            self.cost_nano,
            self.stream.sent_bytes if self.stream is not None else len(body or b""),
            body is None,
        )

    def _tell_not_its_own(self) -> None:
        name = self.serving.config.name
        said = "%s %s cannot read what it encrypted itself: it is another resource now"
        fields = {"id": self.request_id, "instance": name}
        tell(logger, "not_its_own", said, self.request_id, name, **fields)

    def _tell(self, event: str) -> None:
        name, why = self.serving.config.name, self.trouble() or ""
        if event in (BREAKER_CLOSED, ACCEPTS_AGAIN):
            tell(logger, event, "%s %s", name, EVENT_WORDS[event], instance=name)
            return
        fields: dict[str, Any] = {"instance": name}
        if event == LONG_REST:
            fields["seconds"] = seconds = int(self.verdict.rest_seconds)
            why = f"{seconds} s"
        else:
            fields["why"] = why
        if event != BREAKER_OPENED:
            fields["deployment"] = self.serving.deployment
            if not self.verdict.whole_instance:
                why += f" (of its deployment {self.serving.deployment})"
        tell(logger, event, "%s %s: %s", name, EVENT_WORDS[event], why, **fields)

    def trouble(self) -> str | None:
        """What went wrong, for the state's `last_error`; None if nothing did."""
        if isinstance(self.error, NoCredential):
            return self.error.detail
        if self.error is not None:
            return self.error.message
        if self.stream is not None and self.stream.watcher.error is not None:
            return self._without_key(f"{IN_STREAM}: {self.stream.watcher.error}")
        if self._answer is None or self._answer.status < 300:
            return None
        status, said = self._answer.status, excerpt(self.body or b"")
        if status < 400:
            said = said or "it redirects elsewhere"
        return f"{status}: {said}"

    def _send(self, upstream: Upstream, context: Mapping[str, str]) -> Answer:
        config = self.serving.config
        if self.call.ends_at <= time.monotonic():
            raise UpstreamError(OVER, timed_out=True)
        url = PROVIDERS[config.provider_type].url(
            config, self.call.endpoint, self.serving.deployment
        )
        if len(self.call.body) > MAX_JOINED_BYTES:
            self.line.about_to_wait()  # to rewrite it may take long, too
        return upstream.send(
            config,
            url,
            headers={**self.call.headers, **context, **key_headers(config)},
            body=body_for(self.call, self.serving, ask_usage=self._hides_usage),
            line=self.line,
            ends_at=self.call.ends_at,
        )

    def _watcher(self, answer: Answer) -> Watcher | None:
        """Who watches what is passed on as it comes; None of what is read whole."""
        says = ENDPOINTS[self.call.endpoint].answer
        if answer.status != 200 or not (self.call.stream or _streams_unasked(answer, says)):
            return None
        is_speech = says == "speech"
        kind = answer.headers.get(
            "content-type", "audio/" if is_speech else EVENT_STREAM
        ).lower()
        if kind.startswith(EVENT_STREAM) and says == "response":
            return ResponseWatcher(self._marked)
        if kind.startswith(EVENT_STREAM):
            client, choices = self.call.client, self.call.choices
            rewrite = strict_event if client.compat == STRICT else None
            return StreamWatcher(hide_usage=self._hides_usage, choices=choices, rewrite=rewrite)
        return SoundWatcher() if is_speech and kind.startswith(_SOUNDS) else None

    def _read_until_content(self, answer: Answer, watcher: Watcher) -> None:
        """What it says first may be that something went wrong."""
        self.stream = stream = AnswerStream(
            answer,
            watcher,
            ends_at=self.call.ends_at,
            silence_seconds=self._stream_idle_seconds,
        )
        stream.read_until_content(self._started + self.serving.config.timeout_seconds)
        if stream.watcher.error is None or stream.watcher.content:
            return
        if not stream.watcher.is_clients_error:
            raise UpstreamError(self.trouble() or "")
        self.verdict = verdicts.REJECTED

    def _fail(self, error: UpstreamError) -> None:
        """It is the instance's failure, unless the client left or the call's time is over."""
        is_over = error.timed_out and time.monotonic() >= self.call.ends_at
        forget_frames(error)
        self.error = error
        if self._is_broken_off:
            self.error, self.verdict = UpstreamError(ENDING), verdicts.CUT_OFF
        elif is_over or self.line.is_cut:
            self._is_left = self.line.is_cut
            self.error = UpstreamError(LEFT if self._is_left else OVER, timed_out=is_over)
            if error.was_sent or self._answer is not None:
                self.usage = self._estimate(0)  # its upstream goes on, and counts it
            gives_up = self._is_left or self._is_hasty()
            given_up = verdicts.ABORTED if gives_up else verdicts.EXPIRED
            self.verdict = verdicts.OVERDUE if self._is_overdue() else given_up
        elif isinstance(error, NoCredential) and error.is_refused:
            self.verdict = verdicts.without_token(error.retry_seconds)
        elif self._answer is None:
            self.verdict = verdicts.NOT_ASKED if error.is_ours else verdicts.UNREACHABLE
        elif self.stream is not None and self.stream.watcher.is_unclear_error:
            self.verdict = verdicts.MODEL_ERROR
        else:
            self.verdict = verdicts.FAILED

    def _is_hasty(self) -> bool:
        """Its client wants to wait for a moment only, and gives up as one that leaves, also if
        it is told so."""
        wanted_seconds = self.call.ends_at - (self.call.began_at or self._started)
        return self.call.is_hurried and wanted_seconds < verdicts.HASTY_SECONDS

    def _is_overdue(self) -> bool:
        """It should have said something long ago."""
        if self._was_answered or self._answer is not None:
            return False
        usual_ms = self._state.usual_content_ms(self._reservation)
        return verdicts.is_overdue(
            time.monotonic() - self._started,
            usual_ms if self.call.stream else None,
            is_hurried=self.call.is_hurried or self.line.is_cut,
            timeout_seconds=self.serving.config.timeout_seconds,
        )

    def _error_body(self, answer: Answer) -> bytes:
        """What an error answer says. Its status counts, also where its body breaks off, or
        does not come while others could be asked.

        An upstream may quote the key it was asked with; nobody else is to read it.
        """
        if self.verdict.try_next:
            answer.end_by(min(self.call.ends_at, time.monotonic() + ERROR_BODY_SECONDS))
        try:
            body = bytes(answer.read_all())
        except UpstreamError:
            body = b""
        return without_key(body, self.serving.config, answer.token)

    def _judged(self, verdict: verdicts.Verdict, body: bytes) -> verdicts.Verdict:
        """What an error answer means, where its status does not tell."""
        if self.answer.status == 400 and self.serving.config.provider_type == CLASSIC:
            return verdicts.of_version(json_object(body).get("error")) or verdict
        if self.answer.status == 404:
            if ENDPOINTS[self.call.endpoint].answer == "response":
                return verdicts.of_kept(json_object(body).get("error")) or verdict
            if verdicts.blames_endpoint(json_object(body).get("error")):
                return verdicts.UNSUPPORTED
            if self._is_made_up():
                return verdicts.NO_SUCH_MODEL
        if self.answer.status == 500 and b'"model_error"' in body:
            return verdicts.MODEL_ERROR
        return verdict

    def _without_key(self, text: str) -> str:
        token = self._answer.token if self._answer is not None else ""
        return without_key(text.encode(), self.serving.config, token).decode()

    def _take_plain(self, body: Bytes) -> None:
        if self.verdict.outcome != "succeeded":
            return
        says = ENDPOINTS[self.call.endpoint].answer
        if says == "transcript" and _is_text(self.answer, body):
            self.usage = self._estimate(len(body) // BYTES_PER_TOKEN)
            return
        if not body:
            raise UpstreamError("it sent an empty answer")
        if body[:_BEGINNING].lstrip()[:1] == b"<":
            raise UpstreamError(A_PAGE)
        if says == "response":
            self._take_response(body)
            return
        if not self.answer.is_delimited and not is_json(body):
            raise UpstreamError("it broke off its answer")
        usage = usage_of_answer(body)
        if usage is None or usage.estimated:
            usage = self._estimated(usage, self._completion_tokens(body))
        self.usage = usage

    def _take_response(self, body: Bytes) -> None:
        """With marks. One that failed after all is as good as an error answer."""
        payload = json_object(body)
        if not payload:
            raise UpstreamError("its answer is no JSON object")
        error = failure_of(payload)
        if error is not None and not is_of_client(error):
            raise UpstreamError(self._without_key(f"{IN_ANSWER}: {message_of(error)}"))
        if error is not None:
            self.verdict = verdicts.REJECTED
        # Its own, and no other that stands there: it repeats what its client defined.
        usage = read_usage(payload.get("usage"))
        goes_on = payload.get("status") in UNDER_WAY
        if usage is None or goes_on:
            most_tokens = self._most_tokens() if goes_on else len(body) // BYTES_PER_TOKEN
            usage = self._estimate(most_tokens)
        self.usage = usage
        self.body = self._marked(bytes(body), payload)

    def _most_tokens(self) -> int:
        """Of its answer."""
        return self.call.reserved_tokens - self.call.prompt_tokens

    def _marked(self, body: bytes, payload: Mapping[str, Any]) -> bytes:
        """With marks at the names of what its instance keeps."""
        marks, home = self.call.marks, resource(self.serving.config)
        return body if marks is None else marked(body, payload, marks, home)

    def _completion_tokens(self, body: Bytes) -> int:
        """Of a plain answer that does not say."""
        says = ENDPOINTS[self.call.endpoint].answer
        if says == "completion":
            return len(body) // BYTES_PER_TOKEN
        if says == "transcript":  # of which some forms have the time of each word
            text = json_object(body).get("text")
            said = text.encode("utf-8", "replace") if isinstance(text, str) else body
            return len(said) // BYTES_PER_TOKEN
        if says == "speech":
            return len(body) // SOUND_BYTES_PER_TOKEN
        return self._image_tokens() or 0

    def _image_tokens(self) -> int | None:
        """Of those that were asked for; None if it was not for images."""
        if ENDPOINTS[self.call.endpoint].answer != "images":
            return None
        return self._most_tokens()

    def _settle_stream(self, watcher: Watcher) -> None:
        """Whatever way it ended, what came so far is charged."""
        if watcher.usage is not None:
            self.usage = watcher.usage
            if self.usage.estimated:
                self.usage = self._estimated(self.usage, watcher.events)
        elif watcher.is_clients_error and not watcher.content:
            pass  # it said nothing else, and as a plain answer it costs nothing
        elif self.error is None or watcher.content:  # else its client got none of it
            self.usage = self._estimate(self._made_tokens(watcher))
        if watcher.is_clients_error:
            self.verdict = verdicts.REJECTED
        elif watcher.error is not None:  # it said so itself, and was passed on
            is_unclear = watcher.is_unclear_error
            self.verdict = verdicts.MODEL_ERROR if is_unclear else verdicts.FAILED
        elif not self._complete and self.error is None:
            self.verdict = verdicts.ABORTED  # the client left

    def _made_tokens(self, watcher: Watcher) -> int:
        """Upstreams send about one token an event, but for images, and for what goes on though
        nobody listens."""
        if watcher.goes_on:
            return max(self._most_tokens(), watcher.events)
        made_tokens = self._image_tokens() if watcher.content else None
        return watcher.events if made_tokens is None else made_tokens

    def _estimate(self, completion_tokens: int) -> Usage:
        return Usage(self.call.prompt_tokens, completion_tokens, estimated=True)

    def _estimated(self, usage: Usage | None, completion_tokens: int) -> Usage:
        """`usage`: what is known of the prompt, if anything is."""
        if usage is None:
            return self._estimate(completion_tokens)
        return usage._replace(completion_tokens=completion_tokens)

    def _before_ms(self) -> int:
        """For which its client had waited when it began."""
        began_at = self.call.began_at
        return int((self._started - began_at) * 1000) if began_at else 0

    def _elapsed_ms(self) -> int:
        return int((time.monotonic() - self._started) * 1000)


def _streams_unasked(answer: Answer, says: str) -> bool:
    """A response does, if its upstream found in the request that it should."""
    return says == "response" and answer.headers.get("content-type", "").lower().startswith(
        EVENT_STREAM
    )


def _is_text(answer: Answer, body: Bytes) -> bool:
    """And no JSON, because the client wants it so; of silence it is empty."""
    kind = answer.headers.get("content-type", "").lower()
    return kind.startswith(_TRANSCRIPTS) and body[:_BEGINNING].lstrip()[:1] != b"{"
