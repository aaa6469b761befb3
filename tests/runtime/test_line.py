import threading

import pytest

from proxy.runtime.line import Line


def test_cutting_a_line_wakes_who_waits():
    line, woken = Line(), threading.Event()
    line.hold(woken.set)
    assert not line.is_cut
    line.cut()
    assert (woken.is_set(), line.is_cut) == (True, True)


def test_the_last_to_hold_it_is_woken():
    line, first, second = Line(), threading.Event(), threading.Event()
    line.hold(first.set)
    line.hold(second.set)
    line.cut()
    assert (first.is_set(), second.is_set()) == (False, True)


def test_nobody_is_woken_after_the_release():
    line, woken = Line(), threading.Event()
    line.hold(woken.set)
    line.release()
    line.cut()
    assert not woken.is_set()


def test_who_would_wait_on_a_cut_line_does_not():
    line = Line()
    line.cut()
    with pytest.raises(ConnectionAbortedError):
        line.hold(lambda: None)


def test_a_line_may_be_cut_twice():
    line, calls = Line(), []
    line.hold(lambda: calls.append(1))
    line.cut()
    line.cut()
    assert line.is_cut
