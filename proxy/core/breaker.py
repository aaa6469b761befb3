"""May we try an instance that failed: a circuit breaker, with time and chance as arguments.

Closed: everybody may ask it. It opens when the instance gives no answer three times in a
row, fails five times in a row, or fails half of at least ten attempts in 30 seconds. Open:
nobody asks it. When that time is over it is half open: one attempt at a time is a trial. A
trial that is answered closes it, one that fails opens it again for twice as long.

A stream that has begun may still break. Until an answer came to its end a closed breaker is on
probation: what breaks off then opens it again, for twice as long, as a trial that fails.

Where nobody else can be asked there is nothing to protect by waiting: then the next trial
comes a moment after the last, also while it is open, and an outage of everything is over for
clients when it is over. Such a trial that fails makes nothing longer.
"""

from dataclasses import dataclass, replace

from proxy.core.window import SET_BACK_SECONDS, Window

NO_ANSWERS_IN_A_ROW = 3
FAILURES_IN_A_ROW = 5
WATCHED_SECONDS = 30
LEAST_ATTEMPTS = 10
FAILING_SHARE = 0.5

FIRST_OPEN_SECONDS = 1.0
LONGEST_OPEN_SECONDS = 60.0
# Taken off by chance, so that many gateways do not come back to an instance in one moment.
JITTER_SHARE = 0.25

# A half open one that nobody tried for so long is closed, on probation: where others are asked
# first, nobody would ever find out, and it would be told to fail for days after it was mended.
UNTRIED_SECONDS = 60.0

# A worker that hears of an open breaker from another leaves it the first trial, and has heard
# of that by then.
HEARSAY_SECONDS = 0.5

# While another attempt is the trial, nobody knows how long it takes.
TRIAL_WAIT_SECONDS = 0.25

# Where nobody else can be asked: after the last trial's end, or its beginning if it does not
# end, until the next.
ALONE_SECONDS = 0.25
ALONE_TRIAL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class BreakerNews:
    """What workers tell each other of a breaker. The later `changed_at` is right.

    `open_until` 0: it is closed. `trial_until`: an attempt that began is its trial until then.
    `open_seconds` is for how long it opened last, as long as no answer came to its end since.
    """

    open_until: float = 0.0
    open_seconds: float = 0.0
    trial_until: float = 0.0
    changed_at: float = 0.0


CLOSED = BreakerNews()


class Breaker:
    """Of one instance. `now` is seconds since the epoch. Not thread-safe: its owner locks."""

    __slots__ = (
        "_attempts",
        "_failures",
        "_failures_in_a_row",
        "_hearsay_seconds",
        "_no_answers_in_a_row",
        "_open_until",
        "news",
    )

    def __init__(self, hearsay_seconds: float = HEARSAY_SECONDS) -> None:
        self.news = CLOSED
        self._hearsay_seconds = hearsay_seconds
        self._open_until = 0.0  # as it concerns this worker
        self._forget()

    @property
    def is_closed(self) -> bool:
        return self._open_until == 0.0

    def state(self, now: float) -> str:
        if self.is_closed:
            return "closed"
        return "open" if now < self._open_until else "half_open"

    def wait_seconds(self, now: float) -> float:
        """Until it may be asked; 0 if it may be now."""
        if self.is_closed:
            return 0.0
        if now < self._open_until:
            return self._open_until - now
        if now < self.news.trial_until:
            return min(TRIAL_WAIT_SECONDS, self.news.trial_until - now)
        return 0.0

    def alone_seconds(self, now: float) -> float:
        """Until it may be asked where nobody else can be; never more than `wait_seconds`."""
        pause = ALONE_TRIAL_SECONDS if now < self.news.trial_until else ALONE_SECONDS
        if self._open_until != self.news.open_until:
            pause += self._hearsay_seconds
        return min(self.wait_seconds(now), max(self.news.changed_at + pause - now, 0.0))

    def start(self, now: float, longest_seconds: float) -> bool:
        """An attempt begins, which `wait_seconds` or `alone_seconds` allowed; true if it is a
        trial.

        Should nobody hear of the trial's end (the worker was killed), the next may begin
        after `longest_seconds`.
        """
        if self.is_closed:
            return False
        self._change(now, trial_until=now + longest_seconds)
        return True

    def succeed(self, now: float, *, is_trial: bool) -> bool:
        """The instance answers, whatever it says; true if that closed the breaker.

        An attempt that began before it opened proves nothing about now.
        """
        if not self.is_closed and not is_trial:
            return False
        was_closed = self.is_closed
        self._failures_in_a_row = self._no_answers_in_a_row = 0
        self._attempts.add(1, int(now))
        if not was_closed:
            self._forget()
            self._open_until = 0.0
            self._change(now, open_until=0.0, trial_until=0.0)
        return not was_closed

    def confirm(self, now: float) -> bool:
        """An answer came to its end; true if that ended its probation."""
        if not (self.news.open_seconds and self.is_closed):
            return False
        self._change(now, open_until=0.0, open_seconds=0.0, trial_until=0.0)
        return True

    def fail(
        self,
        now: float,
        chance: float,
        *,
        is_trial: bool,
        no_answer: bool,
        was_answered: bool = False,
    ) -> bool:
        """The instance failed; true if that opened the breaker, and not anew after a trial or
        on probation. `chance` is from 0 to 1.

        `was_answered`: the attempt was counted when it was answered, and failed after that.
        When it is open already, what began before says nothing new.
        """
        if not self.is_closed and not is_trial:
            return False
        if now < self._open_until:  # its time was not yet, but there was nobody else
            self._change(now, trial_until=0.0)
            return False
        if not was_answered:
            self._attempts.add(1, int(now))
        self._failures.add(1, int(now))
        self._failures_in_a_row += 1
        self._no_answers_in_a_row = self._no_answers_in_a_row + 1 if no_answer else 0
        before_seconds = self.news.open_seconds
        breaks_probation = was_answered and before_seconds > 0
        # Of one that was closed because nobody tried it, it has been forgotten since.
        is_untried = self.is_closed and self.news.open_until > 0
        if self.is_closed and not (breaks_probation or self._is_enough(int(now))):
            return False
        seconds = min(max(before_seconds * 2, FIRST_OPEN_SECONDS), LONGEST_OPEN_SECONDS)
        self._open_until = now + seconds * (1 - JITTER_SHARE * chance)
        self._change(now, open_until=self._open_until, open_seconds=seconds, trial_until=0.0)
        return is_untried or before_seconds == 0.0

    def give_back(self, now: float, *, is_trial: bool) -> None:
        """An attempt ended that says nothing about the instance: its client left."""
        if is_trial and not self.is_closed:
            self._change(now, trial_until=0.0)

    def hear(self, news: BreakerNews, now: float) -> None:
        """What another worker, or this one a while ago, wrote."""
        self.doubt(now)
        if news.changed_at <= self.news.changed_at or _is_ahead(news, now):
            return
        self.news = news
        if news.open_until == 0.0:
            self._open_until = 0.0
            self._forget()
        else:
            self._open_until = news.open_until + self._hearsay_seconds

    def doubt(self, now: float) -> None:
        """Of a clock that was ahead and was set back nothing stands: it would until that moment
        comes. Nor is one open for ever that nobody tries."""
        if _is_ahead(self.news, now):
            self._forget()
            self._open_until = 0.0
            self.news = CLOSED
            return
        if self.is_closed:
            return
        if now >= max(self._open_until + UNTRIED_SECONDS, self.news.trial_until):
            self._forget()
            self._open_until = 0.0

    def reset(self, now: float) -> None:
        """An operator says all is well, or it is another upstream."""
        self._forget()
        self._open_until = 0.0
        if self.news is not CLOSED:
            self._change(now, open_until=0.0, open_seconds=0.0, trial_until=0.0)

    def _is_enough(self, second: int) -> bool:
        if self._no_answers_in_a_row >= NO_ANSWERS_IN_A_ROW:
            return True
        if self._failures_in_a_row >= FAILURES_IN_A_ROW:
            return True
        attempts = self._attempts.total(second)
        return (
            attempts >= LEAST_ATTEMPTS
            and self._failures.total(second) >= attempts * FAILING_SHARE
        )

    def _forget(self) -> None:
        self._failures_in_a_row = 0
        self._no_answers_in_a_row = 0
        self._attempts = Window(WATCHED_SECONDS)
        self._failures = Window(WATCHED_SECONDS)

    def _change(self, now: float, **values: float) -> None:
        self.news = replace(self.news, **values, changed_at=now)


def _is_ahead(news: BreakerNews, now: float) -> bool:
    return news.changed_at > now + SET_BACK_SECONDS
