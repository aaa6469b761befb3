import pytest

from proxy.core.report import figures
from proxy.core.usage import NOTHING
from proxy.web.ui import formats


@pytest.mark.parametrize(
    "value, text",
    [
        (None, formats.NOTHING),
        (0, "0"),
        (99_999, "99,999"),
        (123_456, "123 k"),
        (1_250_000, "1.25 M"),
        (3e9, "3 G"),
        # No thousand of a smaller unit.
        (999_499, "999 k"),
        (999_500, "1 M"),
        (999_999_999, "1 G"),
        # Money has parts, and 0 of 0.5 would be no budget.
        (0.40766, "0.41"),
        (0.5, "0.5"),
        (1.0, "1"),
        (1234.5, "1,234.5"),
        (0.996, "0.99"),
        (41.999, "41.99"),
        (0.000412, "0.00041"),
        (0.00005, "0.00005"),
    ],
)
def test_counts_are_short_enough_to_be_read(value, text):
    assert formats.count(value) == text


def test_times_have_the_unit_that_fits():
    assert [formats.milliseconds(v) for v in (None, 12.4, 1250)] == [
        formats.NOTHING,
        "12 ms",
        "1.25 s",
    ]


def test_few_percent_are_not_none():
    assert [formats.percent(v) for v in (None, 0.0004, 0.61)] == [
        formats.NOTHING,
        "0.04 %",
        "61 %",
    ]


def test_nor_are_nearly_all_all():
    shares = (0.994, 0.996, 0.99999, 1.0)
    assert [formats.percent(v) for v in shares] == ["99 %", "99.6 %", "99.9 %", "100 %"]


def test_errors_are_told_by_class_those_that_there_are():
    errors = dict.fromkeys(figures(NOTHING)["errors"], 0)
    assert formats.by_class(errors) == ""
    assert formats.by_class(errors | {"client": 2, "upstream_429": 1}) == "429: 1 · client's: 2"
    assert set(formats.CLASSES) == set(errors)


def test_moments_are_utc():
    assert formats.moment(0.0) == "never"
    assert formats.moment(1_750_154_400.9) == "2025-06-17 10:00:00"
    assert formats.clock(1_750_154_400) == "10:00:00"
