from datetime import UTC, datetime

import pytest

from proxy.core.moments import NotAMoment, as_text, exact_text, moment


@pytest.mark.parametrize(
    "text, seconds",
    [
        ("1970-01-01", 0.0),
        ("2030-01-31", 1_896_048_000.0),
        ("2030-01-31T12:00", 1_896_091_200.0),
        ("2030-01-31 12:00:00", 1_896_091_200.0),
        ("2030-01-31T12:00:00Z", 1_896_091_200.0),
        ("2030-01-31T12:00:00.25Z", 1_896_091_200.25),
        ("2030-01-31T12:00+02:00", 1_896_084_000.0),
    ],
)
def test_dates_are_utc_unless_they_say_otherwise(text, seconds):
    assert moment(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("", "soon", "90d", "1900000000", "20300131", "2030-1-31", "31.01.2030"),
        *("2030-02-30", "2030-01-31T", "2030-01-31T25:00", "2030-01-31T12:00 CET"),
        *("2030-W05-1", "2030-01-31Z", " 2030-01-31", "2030-01-31\n", "٢٠٣٠-01-31"),
        *("2029-02-29", "2030-13-01", "2030-00-01", "2030-01-00", "2030-01-31T12:60"),
    ],
)
def test_what_is_no_date_is_told_what_is_one(text):
    with pytest.raises(NotAMoment, match="write 2030-01-31, or"):
        moment(text)


@pytest.mark.parametrize("text", ["2030-01-31T00:00:00Z", "2028-02-29T23:59:59Z"])
def test_what_is_written_is_read_as_the_same(text):
    assert as_text(moment(text)) == exact_text(moment(text)) == text


def test_dates_are_the_librarys():
    """Each day of four centuries at another time of it."""
    for day in range(-50_000, 96_000, 7):
        seconds = day * 86_400 + day % 86_400
        text = datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
        assert (as_text(seconds), moment(text)) == (text, seconds)


@pytest.mark.parametrize("seconds", [1_700_000_000.123_456_7, 1e15, float("inf"), float("nan")])
def test_what_cannot_be_written_exactly_is_not(seconds):
    assert exact_text(seconds) is None
