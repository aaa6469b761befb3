import pytest

from proxy.core.clock_jumps import BELIEVED_AFTER_SECONDS, JUMP_SECONDS, ClockJumps

NOW = 1_700_000_000.0


def test_a_clock_that_goes_is_believed():
    clock = ClockJumps(NOW, 100)
    assert clock.look(NOW + 86_400, 100 + 86_400) is None
    assert clock.is_believed(100 + 86_400)


def test_small_corrections_are_none():
    clock = ClockJumps(NOW, 100)
    assert clock.look(NOW + JUMP_SECONDS - 1, 100) is None
    assert clock.is_believed(100)


@pytest.mark.parametrize("jump", [91 * 86_400.0, -7200.0])
def test_one_that_jumped_is_believed_a_day_later(jump):
    clock = ClockJumps(NOW, 100)
    assert clock.look(NOW + jump, 100) == jump
    assert clock.look(NOW + jump + 60, 160) is None  # told once
    assert not clock.is_believed(100 + BELIEVED_AFTER_SECONDS - 1)
    assert clock.is_believed(100 + BELIEVED_AFTER_SECONDS)


def test_a_day_begins_anew_when_it_is_set_right():
    clock = ClockJumps(NOW, 100)
    clock.look(NOW + 86_400, 100)
    assert clock.look(NOW + 1000, 1100) == -86_400
    assert not clock.is_believed(100 + BELIEVED_AFTER_SECONDS)
