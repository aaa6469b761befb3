import pytest

from proxy.core.live_table import (
    CALM,
    FULL,
    HIGH,
    Row,
    bar,
    errors_words,
    fitting,
    ms_words,
    pressure,
    share_words,
    status_words,
    tokens_words,
    usage_words,
)
from proxy.core.report import figures
from proxy.core.standing import Standing
from proxy.core.usage import NOTHING
from tests.builders import counts

NOW = 1000.0


def row(name="a", status="healthy", rate=0.0, **changes):
    values = {"priority": 100, "current_tpm": 0, "max_tpm": 1000, "figures": figures(NOTHING)}
    return Row(
        name=name,
        standing=Standing(status),
        requests_per_second=rate,
        **(values | changes),
    )


def test_a_status_has_its_countdown():
    assert status_words(Standing("healthy"), NOW) == "healthy"
    assert status_words(Standing("error", "x", NOW + 12), NOW) == "error 12 s"


@pytest.mark.parametrize(
    "share, shown",
    [
        (0, "    "),
        (0.001, "▏   "),  # a little is not nothing
        (0.5, "██  "),
        (0.625, "██▌ "),
        (1, "████"),
        (1.7, "████"),  # a request larger than the limit was let in
    ],
)
def test_a_bar_is_as_long_as_the_share_and_always_as_wide(share, shown):
    assert bar(share, 4) == shown


@pytest.mark.parametrize(
    "share, expected", [(0.69, CALM), (0.7, HIGH), (0.89, HIGH), (0.9, FULL), (2.0, FULL)]
)
def test_a_budget_that_ends_is_seen_before_it_does(share, expected):
    assert pressure(share) == expected


def test_tokens_are_told_against_the_limit_if_there_is_one():
    assert tokens_words(row(current_tpm=250)) == "250 of 1,000 (25 %)"
    assert tokens_words(row(current_tpm=2500, max_tpm=0)) == "2,500, no limit"


def test_errors_are_told_with_their_share_of_what_was_tried():
    given = {"succeeded": 197, "failed": 2, "throttled": 1, "rejected": 9}
    assert errors_words(figures(counts(**given))) == "3 (1.5 %)"
    assert errors_words(figures(NOTHING)) == "-"


def test_the_whole_gateway_is_told_in_a_sentence():
    some = {"requests": 1200, "prompt_tokens": 9000, "completion_tokens": 1000}
    some |= {"succeeded": 997, "lost": 3, "first_byte_upto_200_ms": 997}
    assert usage_words(figures(counts(**some))) == (
        "In 15 minutes: 1,200 requests, 10,000 tokens, 0.3 % failed, first byte after 150 ms."
    )
    left = figures(counts(requests=3, attempts=3, aborted=2, abandoned=1))
    assert usage_words(left) == "In 15 minutes: 3 requests, 0 tokens, 3 given up by clients."
    assert usage_words(figures(NOTHING)) == "In 15 minutes: 0 requests, 0 tokens."


@pytest.mark.parametrize(
    "share, text", [(None, "-"), (0, "0 %"), (0.004, "0.4 %"), (0.1, "10 %"), (1, "100 %")]
)
def test_shares_have_a_digit_more_where_they_are_small(share, text):
    assert share_words(share) == text


@pytest.mark.parametrize(
    "ms, text", [(None, "-"), (0.4, "0 ms"), (9999, "9999 ms"), (10_000, "10 s")]
)
def test_times(ms, text):
    assert ms_words(ms) == text


def test_where_there_is_room_all_are_shown_in_their_order():
    rows = [row("a"), row("b", "error")]
    assert fitting(rows, 2) == (rows, 0)


def test_where_there_is_too_little_the_ill_stay_and_then_the_busiest_in_their_order():
    rows = [row("idle"), row("busy", rate=9), row("off", "disabled"), row("ill", "error")]
    kept, left_out = fitting(rows, 2)
    assert ([r.name for r in kept], left_out) == (["busy", "ill"], 2)
    assert fitting(rows, -3) == ([], 4)  # a terminal of five lines
