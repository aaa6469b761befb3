import pytest

from proxy.core.client_deltas import ClientDeltas


def some():
    deltas = ClientDeltas()
    deltas.used_at["app"] = 100.5
    deltas.add_window((100, "app"), 30, 1)
    deltas.add_spending((0, "app"), 30, 7)
    return deltas


def test_nothing_measured_is_false():
    assert not ClientDeltas()


@pytest.mark.parametrize(
    "measure",
    [
        lambda d: d.used_at.update(app=1.0),
        lambda d: d.add_window((1, "app"), 0, 1),
        lambda d: d.add_spending((0, "app"), 1, 0),
    ],
)
def test_anything_measured_is_true(measure):
    deltas = ClientDeltas()
    measure(deltas)
    assert deltas


def test_what_came_later_is_added():
    deltas, later = some(), some()
    later.used_at["app"] = 101.0
    later.add_window((101, "app"), -5, 0)
    deltas.add(later)
    assert deltas.used_at == {"app": 101.0}
    assert deltas.windows == {(100, "app"): (60, 2), (101, "app"): (-5, 0)}
    assert deltas.spending == {(0, "app"): (60, 14)}


def test_seconds_that_are_over_are_dropped_and_told():
    deltas = some()
    deltas.add_window((101, "app"), 5, 1)
    assert deltas.forget_windows(before=101) == [("app", 30, 1)]
    assert deltas.windows == {(101, "app"): (5, 1)}
    assert deltas.spending
