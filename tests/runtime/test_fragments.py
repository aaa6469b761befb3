import threading

import pytest

from proxy.runtime.fragments import MAX_KEPT, Fragments


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def fragments(clock):
    return Fragments(clock)


def test_however_many_ask_one_is_made_a_second(fragments, clock):
    made = []

    def make():
        made.append(clock.now)
        return b"text"

    for clock.now in (0.0, 0.3, 0.99, 1.0, 1.5, 2.1):
        fragments.get("page", make)
    assert made == [0.0, 1.0, 2.1]


def test_the_etag_is_another_one_only_when_the_text_is(fragments, clock):
    tags = []
    for clock.now, text in ((0, b"a"), (2, b"a"), (4, b"b")):
        tags.append(fragments.get("page", lambda text=text: text).etag)
    assert tags[0] == tags[1] != tags[2]


def test_while_one_is_made_others_take_the_one_before(fragments, clock):
    fragments.get("page", lambda: b"before")
    clock.now = 5.0
    seen = []

    def make():
        other = threading.Thread(
            target=lambda: seen.append(fragments.get("page", lambda: b"wrong").body)
        )
        other.start()
        other.join()
        return b"after"

    assert fragments.get("page", make).body == b"after"
    assert seen == [b"before"]


def test_what_is_forgotten_is_made_anew(fragments):
    fragments.get("page", lambda: b"before")
    fragments.forget()
    assert fragments.get("page", lambda: b"after").body == b"after"


def test_what_was_begun_before_it_was_forgotten_is_not_kept(fragments):
    def make():
        fragments.forget()  # by another thread, which changed something
        return b"before"

    assert fragments.get("page", make).body == b"before"
    assert fragments.get("page", lambda: b"after").body == b"after"
    assert fragments.get("page", lambda: b"wrong").body == b"after"


def test_one_that_could_not_be_made_is_tried_again(fragments):
    def fail():
        raise ValueError("not now")

    with pytest.raises(ValueError, match="not now"):
        fragments.get("page", fail)
    assert fragments.get("page", lambda: b"text").body == b"text"


def test_one_that_could_not_be_made_does_not_throw_away_what_another_thread_made(
    fragments, clock
):
    def fail():
        clock.now += 5
        fragments.get("page", lambda: b"of the other")
        raise ValueError("not now")

    with pytest.raises(ValueError, match="not now"):
        fragments.get("page", fail)
    assert fragments.get("page", lambda: b"wrong").body == b"of the other"


def test_ever_other_keys_do_not_fill_the_memory(fragments):
    for number in range(3 * MAX_KEPT):
        fragments.get(number, lambda: b"text")
    assert len(fragments._kept) <= MAX_KEPT
    assert len(fragments._made_at) <= MAX_KEPT


def test_the_same_is_not_put_into_words_twice():
    fragments, worded = Fragments(), []

    def words(values):
        worded.append(values)
        return b"words"

    for values in ({"a": [1]}, {"a": [1]}, {"a": [2]}, {"a": [2]}):
        assert fragments.worded("key", values, words) == b"words"
    assert worded == [{"a": [1]}, {"a": [2]}]
    fragments.worded("other", {"a": [2]}, words)
    fragments.forget()
    fragments.worded("key", {"a": [2]}, words)
    assert len(worded) == 4
