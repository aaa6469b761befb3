import pytest

from proxy.core import wrong_keys
from proxy.core.wrong_keys import Refused, WrongKeys, source_group

ANN, BOB = "192.0.2.1", "192.0.2.2"


def waits(seen, moments, source=ANN):
    return [seen.came(source, now).wait_seconds for now in moments]


def test_five_mistakes_are_told_and_the_next_is_turned_away_for_a_second():
    seen = WrongKeys()
    assert waits(seen, [10.0] * 5) == [0.0] * 5
    assert waits(seen, [10.0, 10.75]) == [1.0, 0.25]
    assert waits(seen, [11.0]) == [0.0]


def test_each_that_is_told_doubles_the_time_until_the_next_up_to_a_minute():
    seen, now, found = WrongKeys(), 0.0, []
    waits(seen, [now] * 4)
    for _ in range(9):
        assert seen.came(ANN, now).wait_seconds == 0.0
        found.append(seen.came(ANN, now).wait_seconds)
        now += found[-1]
    assert found == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_what_comes_to_a_closed_door_does_not_keep_it_closed():
    seen = WrongKeys()
    waits(seen, [0.0] * 5)
    waits(seen, [0.1 * n for n in range(1, 10)])
    assert waits(seen, [1.0, 1.0]) == [0.0, 2.0]


def test_guessing_for_a_day_gets_one_answer_a_minute():
    seen = WrongKeys()
    answers = sum(not seen.came(ANN, second).wait_seconds for second in range(0, 86_400, 5))
    assert answers <= 24 * 60 + 10


def test_one_source_says_nothing_of_another():
    seen = WrongKeys()
    waits(seen, [0.0] * 9)
    assert waits(seen, [0.0], BOB) == [0.0]


def test_a_right_key_makes_all_before_it_mistakes():
    seen = WrongKeys()
    waits(seen, [0.0] * 6)
    seen.forget(ANN)
    seen.forget(BOB)  # of whom nothing is known
    assert waits(seen, [0.0] * 6) == [0.0] * 5 + [1.0]


def test_after_ten_quiet_minutes_all_is_forgotten():
    seen = WrongKeys()
    waits(seen, [0.0] * 5)
    assert waits(seen, [599.0, 599.0]) == [0.0, 2.0]
    assert waits(seen, [1199.0] * 6) == [0.0] * 5 + [1.0]


def test_it_knows_so_many_sources_and_the_one_that_was_quiet_longest_goes_first(monkeypatch):
    monkeypatch.setattr(wrong_keys, "MOST_SOURCES", 3)
    seen = WrongKeys()
    waits(seen, [0.0] * 6, ANN)
    waits(seen, [0.0] * 6, BOB)
    waits(seen, [0.5], "c")
    waits(seen, [0.5], ANN)  # not quiet
    waits(seen, [0.5], "d")
    assert len(seen) == 3
    assert waits(seen, [0.5], ANN) == [0.5]
    assert waits(seen, [0.5], BOB) == [0.0]


def test_each_that_is_told_has_a_line_and_the_others_are_in_the_next():
    seen = WrongKeys()
    assert [seen.came(ANN, 0.0).told for _ in range(8)] == [1, 1, 1, 1, 1, 0, 0, 0]
    assert seen.came(ANN, 1.0) == Refused(told=4)
    assert seen.came(ANN, 3.0) == Refused(told=1)


def test_many_sources_share_the_lines_of_a_minute_and_the_rest_is_a_number():
    seen = WrongKeys()
    told = [seen.came(f"source {n}", 100.0).told for n in range(70)]
    assert told == [1] * 60 + [0] * 10
    assert seen.came(ANN, 159.9) == Refused()
    assert seen.came(BOB, 160.0) == Refused(told=1, dropped=11)
    assert seen.came(ANN, 160.0) == Refused(told=1)


def test_where_nobody_is_turned_away_there_is_a_line_a_minute():
    seen = WrongKeys(free=1, first_wait_seconds=60.0)
    assert [seen.came(ANN, now).told for now in (0.0, 1.0, 59.9, 60.0, 61.0)] == [1, 0, 0, 3, 0]


@pytest.mark.parametrize(
    "address, source",
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", "unknown"),
        ("unix:", "unknown"),
        ("192.0.2.1, 192.0.2.2", "unknown"),
        ("x" * 100_000, "unknown"),
    ],
)
def test_a_source_is_an_address_or_the_network_that_one_household_has(address, source):
    assert source_group(address) == source
