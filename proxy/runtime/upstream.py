"""The way to upstreams: whoever asks one, asks here. The HTTP of it is transport.py's."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import cast

import requests

from proxy.core.types import ENTRA, Bytes, InstanceConfig, Payload
from proxy.runtime.dialling import NoMeans
from proxy.runtime.entra import NO_TOKEN, NoToken, Tokens
from proxy.runtime.line import Line
from proxy.runtime.periodic import Periodic
from proxy.runtime.transport import Body, Outgoing, Transport

CLEAN_SECONDS = 15.0  # how often connections that are idle for long are looked for

# Of a plain answer, which is read whole. The largest that is usual has embeddings: 2,048 of
# 3,072 numbers are about 130 MB.
MAX_ANSWER_BYTES = 268_435_456
# A larger one stays as it was gathered: it would be there twice for a moment.
MAX_COPIED_BYTES = 1_048_576
TOO_LARGE = f"its answer is larger than {MAX_ANSWER_BYTES} bytes"


class UpstreamError(Exception):
    """No answer, or one that broke off. The message names no host, key or proxy. `was_sent`:
    there is none to a request that went out whole. `is_ours`: the gateway could not ask, for
    lack of what it needs itself."""

    def __init__(
        self,
        message: str,
        *,
        timed_out: bool = False,
        was_sent: bool = False,
        is_ours: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.timed_out = timed_out
        self.was_sent = was_sent
        self.is_ours = is_ours


class NoCredential(UpstreamError):
    """Nothing was sent: there is no token to send it with. `detail` says why, to operators;
    `is_refused`, `retry_seconds` as in NoToken."""

    def __init__(self, error: NoToken) -> None:
        super().__init__(NO_TOKEN, timed_out=error.timed_out)
        self.detail = f"{NO_TOKEN}: {error.message}"
        self.is_refused = error.is_refused
        self.retry_seconds = error.retry_seconds


class NotTrusted(UpstreamError):
    """TLS failed. The message says why, and may name the host."""


class Answer:
    """A response whose head is read. Read its body with `read_some`, then `close` it.

    `token` is that of Entra ID with which it was asked for, "" if with none.
    """

    # As `read_some` of what is `watched`, but without waiting: raises BlockingIOError where
    # nothing has arrived, and else what `failure` makes ours.
    arrived: Callable[[], bytes]

    def __init__(self, response: requests.Response, token: str = "") -> None:
        self._response = response
        self.token = token
        self._body = cast(Body, response.raw)  # the transport made it
        self.status: int = response.status_code
        self.headers = self._body.fields

    def header_items(self) -> list[tuple[str, str]]:
        """Every header line, also where a name occurs twice."""
        return self._body.header_items()

    @property
    def is_delimited(self) -> bool:
        """It says itself where it ends; else it may have been cut short."""
        return self._body.is_delimited

    def read_some(self) -> bytes:
        """What has arrived, at least one byte; b"" at the end. Raises UpstreamError."""
        with _translated():
            return self._body.read1()

    def watched(self) -> int | None:
        """The number of the file by which more is seen to arrive, to be had by `arrived`; None
        if it has to be waited for."""
        self.arrived = self._body.arrived
        return self._body.watched()

    @property
    def has_ended(self) -> bool:
        """Nothing more is to be waited for: all has arrived, or what is broken."""
        return self._body.has_ended

    def read_all(self) -> Bytes:
        """The rest of the body. Raises UpstreamError if it is cut short, or too large."""
        with _translated():
            first = self._body.read1()
            second = self._body.read1() if first else b""
            if not second:
                return first
            # Piece by piece into one: to keep thousands of them until the last has come leaves
            # the heap full of holes.
            whole = bytearray(first)
            whole += second
            for piece in self._body.stream():
                whole += piece
                if len(whole) > MAX_ANSWER_BYTES:
                    self.close()
                    raise UpstreamError(TOO_LARGE)
            return bytes(whole) if len(whole) <= MAX_COPIED_BYTES else whole

    def allow_silence(self, seconds: float) -> None:
        """The longest wait of each read from now on."""
        self._body.allow_silence(seconds)

    def end_by(self, at: float) -> None:
        """Monotonic seconds beyond which no read goes on."""
        self._body.end_by(at)

    def close(self) -> None:
        """Idempotent. A connection whose answer was not read to its end is closed."""
        self._body.close()


class Upstream:
    """Sends requests over kept connections. Thread-safe.

    `start` once a process, after the fork: a thread that closes what is idle for long. An
    instance with `auth` ENTRA is asked with the present one of `tokens`.
    """

    def __init__(
        self,
        *,
        connections: int,
        connect_timeout_seconds: float,
        ca_bundle: Path | None,
        tokens: Tokens,
        allow_private: bool = False,
    ) -> None:
        self._tokens = tokens
        self._connect_timeout_seconds = connect_timeout_seconds
        self._transport = Transport(
            connections=connections, ca_bundle=ca_bundle, allow_private=allow_private
        )
        self._cleaning = Periodic("idle-connections", CLEAN_SECONDS, self._transport.close_idle)
        self.start = self._cleaning.start

    def send(
        self,
        config: InstanceConfig,
        url: str,
        *,
        headers: Mapping[str, str],
        body: Payload | None,
        method: str = "POST",
        line: Line | None = None,
        ends_at: float = math.inf,
    ) -> Answer:
        """Sends one request, waits for the answer's head. Raises UpstreamError.

        The connection must stand within the connect timeout, then the whole head be there
        within the config's `timeout_seconds`. That is also, until it is told otherwise, the
        longest silence between reads of the body. No wait goes on beyond `ends_at` (monotonic
        seconds), and `line` can end each.
        """
        outgoing = Outgoing(method, url, headers, body, line, ends_at)
        if config.auth == ENTRA:
            return self._send_with_token(config, outgoing)
        return self._send(config, outgoing)

    def certificate_until(self, config: InstanceConfig, *, seconds: float) -> float | None:
        """When the certificate that it shows expires, in seconds since the epoch; None without
        TLS. Raises UpstreamError; NotTrusted, whose text may name the host."""
        with _translated():
            try:
                return self._transport.certificate_until(
                    config.api_base, config.proxy_url or None, seconds=seconds
                )
            except requests.exceptions.SSLError as error:
                why = getattr(error.__cause__, "verify_message", "")
                raise NotTrusted(f"{error} ({why})" if why else str(error)) from None

    def forget_failures(self) -> None:
        """A person wants to know how it is now."""
        self._tokens.forget_failure()

    def _send_with_token(self, config: InstanceConfig, outgoing: Outgoing) -> Answer:
        """Of a 401 the token may be the reason, which can be withdrawn: once, it is sent again
        with another."""
        until = min(outgoing.ends_at, time.monotonic() + config.timeout_seconds)
        try:
            token = self._tokens.get(until=until, line=outgoing.line)
        except NoToken as error:
            raise NoCredential(error) from None
        headers: Mapping[str, str] = outgoing.headers
        body = outgoing.body  # what is sent is given up
        outgoing.headers = {**headers, **token.headers}  # type: ignore[assignment]
        answer = self._send(config, outgoing, token.value)
        if answer.status != 401:
            return answer
        other = self._tokens.instead_of(token, until=until, line=outgoing.line)
        if other is None:
            return answer
        answer.close()
        outgoing.body = body
        outgoing.headers = {**headers, **other.headers}  # type: ignore[assignment]
        return self._send(config, outgoing, other.value)

    def _send(self, config: InstanceConfig, outgoing: Outgoing, token: str = "") -> Answer:
        left = max(0.0, outgoing.ends_at - time.monotonic())
        connect_seconds = min(self._connect_timeout_seconds, config.timeout_seconds, left)
        with _translated():
            response = self._transport.send(
                outgoing,
                timeout=(connect_seconds, config.timeout_seconds),
                proxies={"all": config.proxy_url} if config.proxy_url else None,
            )
            return Answer(response, token)

    def close(self) -> None:
        """Idempotent."""
        self._cleaning.stop()
        self._transport.close()


class _translated:  # noqa: N801  # reads as a statement: `with _translated():`
    """Ends the library's exceptions here. A class: cheaper than a generator."""

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, requests.RequestException):
            raise failure(error) from None


def failure(error: Exception) -> Exception:
    """An UpstreamError, where it is the library's; the transport's texts are written to be
    shown."""
    if not isinstance(error, requests.RequestException):
        return error
    return UpstreamError(
        str(error),
        timed_out=isinstance(error, requests.Timeout),
        was_sent=isinstance(error.request, Outgoing) and error.request.was_sent,
        is_ours=isinstance(error, NoMeans),
    )
