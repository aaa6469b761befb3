import pytest
from marshmallow import ValidationError

from proxy.core.report import figures
from proxy.core.usage import NOTHING, PERIODS
from proxy.web.schemas_usage import FiguresSchema, moment, stats_question, usage_question

DAY = 1_893_456_000  # 2030-01-01
ALL_KEPT = dict.fromkeys(PERIODS, 0)


def test_figures_are_what_their_schema_says():
    """They are not made by it: a long report would take ten times as long."""
    declared = FiguresSchema()
    assert keys(figures(NOTHING)) == {
        name: keys(field.schema.fields) if hasattr(field, "nested") else None
        for name, field in declared.fields.items()
    }
    assert declared.dump(declared.load(figures(NOTHING))) == figures(NOTHING)


def keys(shown):
    return {n: keys(v) if isinstance(v, dict) and v else None for n, v in shown.items()}


@pytest.mark.parametrize(
    "text, expected",
    [
        (str(DAY), DAY),
        (f"{DAY}.9", DAY),
        ("2030-01-01", DAY),
        ("2030-01-01T01:00Z", DAY + 3600),
        ("2030-01-01T01:00+01:00", DAY),
        ("2030-01-01T01:00 01:00", DAY),  # a + that was not encoded
        ("1930-01-01", 0),
    ],
)
def test_a_moment_is_seconds_or_a_time(text, expected):
    assert moment(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "2030-13-01", "-5", "9" * 13])
def test_other_text_is_no_moment(text):
    with pytest.raises(ValidationError, match="Must be seconds"):
        moment(text)


def test_a_window_is_so_many_minutes_until_now():
    asked = stats_question({"window": "30"}, ALL_KEPT)
    assert asked.until - asked.since == 1800


def test_a_series_is_as_fine_as_its_time_is_short():
    asked = stats_question(
        {"from": "2030-01-01", "to": "2030-01-05", "series": "auto"}, ALL_KEPT
    )
    assert asked.bucket_seconds == 3600


def test_a_report_may_be_by_several():
    asked, form = usage_question(
        {"group_by": "client,model,client", "model": "o1", "format": "csv"}
    )
    assert (asked.by, asked.where, form) == (["client", "model"], {"model": "o1"}, "csv")
    assert (asked.bucket_seconds, asked.until - asked.since) == (3600, 86_400)
