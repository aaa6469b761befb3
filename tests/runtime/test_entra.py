import contextlib
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from proxy.runtime.entra import REPLACE_SECONDS, NoToken, Tokens
from proxy.runtime.line import Line

WAIT_SECONDS = 10  # for what comes at once; it is reached only by a bug
HOUR = 3600.0
NEVER = math.inf


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


class Source:
    """Gives "token-1", "token-2" and so on, or raises its `error`. `gate`: cleared, it keeps
    its thread waiting. `lives`: what the next token is good for, in seconds."""

    def __init__(self):
        self.error = None
        self.lives = HOUR
        self.asked = 0
        self.value = None
        self.threads = set()
        self.gate = threading.Event()
        self.gate.set()
        self._changed = threading.Condition()

    def problem(self):
        return None

    def fetch(self):
        with self._changed:
            self.asked += 1
            number = self.asked
            self.threads.add(threading.current_thread())
            self._changed.notify_all()
        assert self.gate.wait(WAIT_SECONDS)
        if self.error is not None:
            raise self.error
        return self.value or f"token-{number}", self.lives

    def wait_for(self, count):
        with self._changed:
            assert self._changed.wait_for(lambda: self.asked >= count, WAIT_SECONDS)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def source():
    source = Source()
    yield source
    source.gate.set()


@pytest.fixture
def tokens(source, clock):
    tokens = Tokens(source, clock)
    tokens.start()
    yield tokens
    source.gate.set()
    tokens.stop()


def until(is_so):
    ends_at = time.monotonic() + WAIT_SECONDS
    while not is_so():
        assert time.monotonic() < ends_at
        threading.Event().wait(0.001)


def pass_time(tokens, clock, seconds):
    clock.now += seconds
    tokens.nudge()


def refusal(tokens, **arguments):
    with pytest.raises(NoToken) as caught:
        tokens.get(**arguments)
    return caught.value


def refused(message="no such identity"):
    return NoToken(message, is_refused=True)


# The first.


def test_a_token_comes_with_the_header_that_carries_it(tokens):
    token = tokens.get()
    assert token.headers == {"Authorization": "Bearer token-1"}
    assert "token-1" not in repr(token)


def test_who_needs_it_again_finds_it_in_memory(tokens, source):
    assert tokens.get() is tokens.get()
    assert source.asked == 1


def test_many_who_need_the_first_ask_once(tokens, source):
    source.gate.clear()
    with ThreadPoolExecutor(20) as pool:
        got = [pool.submit(tokens.get) for _ in range(20)]
        until(lambda: len(tokens._waiting) == 20)
        source.gate.set()
        assert {each.result(WAIT_SECONDS).value for each in got} == {"token-1"}
    assert source.asked == 1


def test_who_waits_for_the_first_waits_no_longer_than_the_call_may_take(source):
    with contextlib.closing(Stopped(source)) as stopped:
        source.gate.clear()
        error = refusal(stopped.tokens, until=time.monotonic() + 0.01)
    assert (error.timed_out, error.is_refused) == (True, False)
    assert error.message == "the token endpoint did not answer in time"


def test_who_leaves_waits_no_longer(tokens, source):
    source.gate.clear()
    line = Line()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(refusal, tokens, line=line)
        source.wait_for(1)
        line.cut()
        assert waiting.result(WAIT_SECONDS).message == "the client left"
    assert refusal(tokens, line=line).message == "the client left"  # before it waits, too


class Stopped:
    """Tokens by the real clock, stopped at the end."""

    def __init__(self, source):
        self._source = source
        self.tokens = Tokens(source)
        self.tokens.start()

    def close(self):
        self._source.gate.set()
        self.tokens.stop()


# Renewal.


def test_five_minutes_before_it_expires_the_next_is_asked_for_and_nobody_waits(
    tokens, source, clock
):
    first = tokens.get()
    source.gate.clear()
    pass_time(tokens, clock, HOUR - 300)
    source.wait_for(2)
    assert tokens.get() is first  # while the next is being asked for
    source.gate.set()
    until(lambda: tokens.get() is not first)
    assert tokens.get().value == "token-2"
    pass_time(tokens, clock, HOUR - 300)
    source.wait_for(3)


def test_before_that_nobody_is_asked(tokens, source, clock):
    tokens.get()
    pass_time(tokens, clock, HOUR - 301)
    until(lambda: not tokens._news.is_set())
    assert source.asked == 1


def test_while_the_source_fails_the_old_one_is_used_until_it_expires(tokens, source, clock):
    first = tokens.get()
    source.error = NoToken("the endpoint is away")
    pass_time(tokens, clock, HOUR - 300)
    until(lambda: tokens._failure is not None)
    clock.now += 299
    assert tokens.get() is first
    clock.now += 1
    error = refusal(tokens)
    assert (error.message, error.is_refused) == ("the endpoint is away", False)


def test_it_is_asked_again_after_a_while_that_doubles(tokens, source, clock):
    source.error = NoToken("the endpoint is away")
    assert refusal(tokens).retry_seconds == 1.0
    for number, seconds in enumerate((1, 2, 4, 8, 16, 32, 60, 60), 2):
        clock.now += seconds / 2
        assert refusal(tokens).retry_seconds == seconds / 2
        assert source.asked == number - 1  # and nobody waits meanwhile
        pass_time(tokens, clock, seconds / 2)
        source.wait_for(number)
        until(lambda number=number: tokens._failures == number)
    source.error = None
    pass_time(tokens, clock, 60)
    until(lambda: tokens._token is not None)
    assert tokens.get().value == "token-10"


def test_while_a_source_that_failed_is_asked_again_nobody_waits(tokens, source, clock):
    source.error = refused()
    refusal(tokens)
    source.gate.clear()
    pass_time(tokens, clock, 1)
    source.wait_for(2)
    assert refusal(tokens).is_refused


def test_a_person_need_not_wait_for_the_next_try(tokens, source):
    source.error = refused()
    refusal(tokens)
    source.error = None
    tokens.forget_failure()
    assert tokens.get().value == "token-2"


def test_why_there_is_none_is_known_until_one_comes_whoever_asks_meanwhile(tokens, source):
    assert tokens.lack() is None  # nobody knows yet
    for message in ("no such identity", "still not"):
        source.error = refused(message)
        refusal(tokens)
        assert tokens.lack() == message
        tokens.forget_failure()
        assert tokens.lack() == message
    source.error = None
    tokens.get()
    assert tokens.lack() is None


def test_nothing_is_lacking_until_the_present_one_expires(tokens, source, clock):
    tokens.get()
    source.error = refused()
    pass_time(tokens, clock, HOUR - 300)
    until(lambda: tokens._failures)
    assert tokens.lack() is None
    clock.now += 300
    assert tokens.lack() == "no such identity"


def test_it_is_told_once_that_it_fails_and_once_that_it_works_again(
    tokens, source, clock, logged
):
    source.error = refused()
    refusal(tokens)
    pass_time(tokens, clock, 1)
    until(lambda: tokens._failures == 2)
    source.error = None
    pass_time(tokens, clock, 2)
    until(lambda: len(logged) == 2)
    assert logged == [
        (
            "WARNING",
            "Entra ID gives no token: no such identity. It is asked again until it does; the"
            " present token is good for 0 s.",
        ),
        ("WARNING", "Entra ID gives tokens again."),
    ]


# One that an upstream refuses.


def test_a_refused_token_is_replaced_once_for_all_who_come_with_it(tokens, source):
    first = tokens.get()
    source.gate.clear()
    with ThreadPoolExecutor(10) as pool:
        got = [pool.submit(tokens.instead_of, first) for _ in range(10)]
        until(lambda: len(tokens._waiting) == 10)
        source.gate.set()
        assert {each.result(WAIT_SECONDS).value for each in got} == {"token-2"}
    assert tokens.get().value == "token-2"
    assert tokens.instead_of(first).value == "token-2"  # who comes late
    assert source.asked == 2


def test_there_is_none_instead_if_the_source_gives_the_same_again(tokens, source):
    source.value = "the-same"
    assert tokens.instead_of(tokens.get()) is None
    assert source.asked == 2


def test_there_is_none_instead_if_the_source_fails_and_the_old_one_stays(tokens, source):
    first = tokens.get()
    source.error = NoToken("the endpoint is away")
    assert tokens.instead_of(first) is None
    assert tokens.get() is first


def test_upstreams_that_refuse_all_tokens_do_not_make_us_ask_all_the_time(
    tokens, source, clock
):
    second = tokens.instead_of(tokens.get())
    assert tokens.instead_of(second) is None
    clock.now += REPLACE_SECONDS - 1
    assert tokens.instead_of(second) is None
    assert source.asked == 2
    clock.now += 1
    assert tokens.instead_of(second).value == "token-3"


# What is no token.


@pytest.mark.parametrize("value", ["", "a b", "a\r\nX-Injected: 1", "\u00e9"])
def test_what_cannot_be_sent_in_a_header_is_no_token(tokens, source, value):
    source.fetch = lambda: (value, HOUR)
    assert refusal(tokens).message == "what the token endpoint gives is no token"


def test_one_that_has_expired_is_no_token(tokens, source):
    source.lives = 0.0
    assert "is the clock of this host right?" in refusal(tokens).message


# Its life.


def test_without_anybody_who_wants_one_there_is_no_thread(tokens, source):
    assert tokens._thread is None
    assert source.asked == 0


def test_one_that_is_wanted_is_there_before_the_first_request(tokens, source):
    tokens.want(True)
    source.wait_for(1)
    tokens.want(True)
    tokens.get()
    assert source.asked == 1


def test_one_that_is_wanted_before_the_start_is_asked_for_after_it(source, clock):
    tokens = Tokens(source, clock)
    tokens.want(True)
    assert source.asked == 0
    assert refusal(tokens).message == "the gateway was not started"
    tokens.start()
    source.wait_for(1)
    tokens.stop()


def test_when_nobody_wants_one_any_more_nobody_is_asked(tokens, source, clock):
    tokens.want(True)
    tokens.get()
    tokens.want(False)
    pass_time(tokens, clock, 10 * HOUR)
    until(lambda: not tokens._news.is_set())
    assert source.asked == 1
    assert tokens.get().value == "token-2"  # but who asks all the same


def test_all_is_asked_by_one_thread_that_ends_with_it(tokens, source, clock):
    tokens.get()
    pass_time(tokens, clock, HOUR - 300)
    source.wait_for(2)
    (thread,) = source.threads
    assert thread.is_alive()
    tokens.stop()
    tokens.stop()
    assert not thread.is_alive()


def test_who_waits_when_it_stops_is_told(tokens, source):
    source.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(refusal, tokens)
        until(lambda: len(tokens._waiting) == 1)
        stopping = pool.submit(tokens.stop)
        assert waiting.result(WAIT_SECONDS).message == "the gateway stops"
        source.gate.set()
        stopping.result(WAIT_SECONDS)


def test_it_can_be_started_again(tokens, source):
    tokens.get()
    tokens.stop()
    tokens.start()
    source.wait_for(1)
    assert tokens.instead_of(tokens.get()).value == "token-2"
