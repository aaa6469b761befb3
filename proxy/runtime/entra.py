"""The token of Entra ID that instances with `auth: entra` are asked with: one for all of them,
in memory, renewed in the background before it expires."""

import logging
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Event, Lock, Thread, current_thread
from typing import Protocol

from proxy.core import renewal
from proxy.runtime.line import Line
from proxy.runtime.tell import tell

# Of tokens that upstreams refuse no more are replaced than one in so long.
REPLACE_SECONDS = 30.0

# Of an instance.
NO_TOKEN = "there is no token of Entra ID for it"

logger = logging.getLogger(__name__)


class NoToken(Exception):
    """`message` is for operators, and holds no secret. `is_refused`: the identity, or what says
    which, is wrong, and a person has to mend it. `retry_seconds` until the next try."""

    def __init__(
        self,
        message: str,
        *,
        is_refused: bool = False,
        retry_seconds: float = 0.0,
        timed_out: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.is_refused = is_refused
        self.retry_seconds = retry_seconds
        self.timed_out = timed_out


@dataclass(frozen=True, slots=True)
class Token:
    """`expires_at` in monotonic seconds; `headers` carry it."""

    value: str = field(repr=False)
    expires_at: float
    headers: Mapping[str, str] = field(repr=False)


class TokenSource(Protocol):
    """Where tokens come from."""

    def problem(self) -> str | None:
        """Why it gives none as long as this process lives; None: it may."""

    def fetch(self) -> tuple[str, float]:
        """A new token, and for how many seconds it is good. Raises NoToken."""


class Tokens:
    """Thread-safe. `start` once a process, after the fork. One thread asks the source, from the
    first time that somebody wants a token until `stop`; everybody else waits for it at most.
    """

    def __init__(
        self, source: TokenSource, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.problem = source.problem
        self._source = source
        self._clock = clock
        self._token: Token | None = None  # replaced whole, read without the lock
        self._lock = Lock()  # of all below
        self._failure: NoToken | None = None  # of the last try
        self._failures = 0  # in a row
        self._why: str | None = None  # they fail, until it gives one again
        self._is_wanted = False
        self._is_due = False  # somebody waits: now, and not when it is time
        self._due_at = 0.0
        self._replaced_at = -math.inf
        self._waiting: list[Callable[[], None]] = []
        self._is_started = False
        self._thread: Thread | None = None
        self._news = Event()

    def start(self) -> None:
        """It can be started again after `stop`."""
        with self._lock:
            self._is_started = True
            self._have_thread()

    def stop(self) -> None:
        """Idempotent. Waits for a question that is under way: it has its time limits."""
        with self._lock:
            self._is_started = False
            thread, self._thread = self._thread, None
            waiting = self._wakers()
        _wake(waiting)
        if thread is not None:
            self.nudge()
            thread.join()

    def want(self, is_wanted: bool) -> None:
        """Whether some instance needs tokens: then there is one before the first request asks,
        else nobody is asked for any."""
        with self._lock:
            if is_wanted == self._is_wanted:
                return
            self._is_wanted = is_wanted
            if is_wanted:
                self._have_thread()
            else:
                self._token = self._failure = self._why = None
                self._failures, self._due_at = 0, 0.0
        self.nudge()

    def get(self, *, until: float = math.inf, line: Line | None = None) -> Token:
        """One that is good now. From memory; only the first is waited for, until `until`
        (monotonic seconds) or until the line is cut. Raises NoToken, without waiting while the
        source fails."""
        token = self._token
        if token is not None and self._clock() < token.expires_at:
            return token
        return self._awaited(None, until, line)

    def instead_of(
        self, refused: Token, *, until: float = math.inf, line: Line | None = None
    ) -> Token | None:
        """Another than one that an upstream refused; None if there is none. However many
        threads come with the same one, the source is asked once."""
        try:
            token = self._awaited(refused, until, line)
        except NoToken:
            return None
        return None if token.value == refused.value else token

    def lack(self) -> str | None:
        """Why there is none that is good now; None: there is one, or nobody knows yet."""
        token, why = self._token, self._why
        if why is None or (token is not None and self._clock() < token.expires_at):
            return None
        return why

    def forget_failure(self) -> None:
        """A person wants to know: who asks for a token next waits for a new try."""
        with self._lock:
            self._failure = None

    def nudge(self) -> None:
        """Something changed, the time perhaps: the thread looks whether it is to ask."""
        self._news.set()

    def _awaited(self, refused: Token | None, until: float, line: Line | None) -> Token:
        woken = Event()
        with self._lock:
            found = self._known(refused)
            if found is not None:
                return found
            self._is_wanted = self._is_due = True
            self._waiting.append(woken.set)
            self._have_thread()
        self.nudge()
        self._wait(woken, until, line)
        with self._lock:
            token, failure = self._token, self._failure
            if token is not None and self._clock() < token.expires_at:
                return token
            raise self._again(failure) if failure else NoToken("the gateway stops")

    def _wait(self, woken: Event, until: float, line: Line | None) -> None:
        try:
            if line is not None:
                line.hold(woken.set)
            left = until - self._clock()
            is_in_time = woken.wait(None if left == math.inf else max(0.0, left))
        except ConnectionAbortedError:
            raise NoToken("the client left") from None
        finally:
            if line is not None:
                line.release()
        if line is not None and line.is_cut:
            raise NoToken("the client left")
        if not is_in_time:
            raise NoToken("the token endpoint did not answer in time", timed_out=True)

    # Below: only with the lock held.

    def _known(self, refused: Token | None) -> Token | None:
        """What needs no waiting; None: wait. Raises NoToken if that would be in vain."""
        now = self._clock()
        token = self._token
        if token is not None and now < token.expires_at and token is not refused:
            return token
        if not self._is_started:
            raise NoToken("the gateway was not started")
        if refused is not None and not self._is_due:
            if now - self._replaced_at < REPLACE_SECONDS:
                return refused
            self._replaced_at = now
        if refused is None and self._failure is not None:
            raise self._again(self._failure)
        return None

    def _again(self, failure: NoToken) -> NoToken:
        """For another thread: an exception that is raised twice grows."""
        return NoToken(
            failure.message,
            is_refused=failure.is_refused,
            retry_seconds=max(0.0, self._due_at - self._clock()),
        )

    def _have_thread(self) -> None:
        if self._thread is None and self._is_started and self._is_wanted:
            self._thread = Thread(target=self._run, name="entra-token", daemon=True)
            self._thread.start()

    def _wakers(self) -> list[Callable[[], None]]:
        waiting, self._waiting = self._waiting, []
        return waiting

    # The thread's.

    def _run(self) -> None:
        while self._is_due_in_the_end():
            asked_at = self._clock()
            try:
                value, life_seconds = self._source.fetch()
                _check(value, life_seconds)
            except NoToken as error:
                self._failed(error)
            else:
                self._got(value, asked_at + life_seconds)

    def _is_due_in_the_end(self) -> bool:
        """Waits until it is time to ask. False: it is time to end."""
        while True:
            self._news.clear()
            with self._lock:
                if self._thread is not current_thread():
                    return False
                left = self._due_at - self._clock() if self._is_wanted else math.inf
                if self._is_due:
                    left = 0.0
            if left <= 0:
                return True
            self._news.wait(None if left == math.inf else left)

    def _got(self, value: str, expires_at: float) -> None:
        token = Token(value, expires_at, {"Authorization": f"Bearer {value}"})
        with self._lock:
            failed = self._failure is not None or self._failures > 0
            self._token, self._failure, self._failures = token, None, 0
            self._why = None
            now = self._clock()
            self._due_at = now + renewal.next_after_seconds(expires_at - now)
            self._is_due = False
            waiting = self._wakers()
        _wake(waiting)
        if failed:
            tell(logger, "token_recovered", "Entra ID gives tokens again.")

    def _failed(self, error: NoToken) -> None:
        with self._lock:
            now = self._clock()
            is_first = self._failures == 0
            self._failure, self._why = error, error.message
            self._failures += 1
            self._due_at = now + renewal.retry_after_seconds(self._failures)
            self._is_due = False
            left = max(0.0, self._token.expires_at - now) if self._token else 0.0
            waiting = self._wakers()
        _wake(waiting)
        if is_first:
            tell(
                logger,
                "token_failed",
                "Entra ID gives no token: %s. It is asked again until it does; the present"
                " token is good for %d s.",
                error.message,
                left,
                why=error.message,
                seconds=int(left),
            )


def _check(value: str, life_seconds: float) -> None:
    """Raises NoToken for what could not be sent, or would be refused."""
    if not re.fullmatch(r"[\x21-\x7e]+", value):
        raise NoToken("what the token endpoint gives is no token")
    if life_seconds <= 0:
        raise NoToken(
            "the token it gives has expired already: is the clock of this host right?"
        )


def _wake(waiting: list[Callable[[], None]]) -> None:
    for wake in waiting:
        wake()
