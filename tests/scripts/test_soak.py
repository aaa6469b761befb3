"""The soak's parts that decide without I/O, and its exit codes. Checks run some of it."""

import sys
from itertools import islice
from pathlib import Path

import pytest

from proxy.simulator.faults import FAULTS

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

import soak
from loadlib import soaking
from loadlib.client import ERROR_IN_STREAM
from loadlib.soaking import JUDGED_SECONDS, LEFT, PLAIN, STREAMED, Sample, Seen
from loadlib.stats import Failure, Outcome, Report

RESOURCES = ["a", "b", "c", "d"]
BROKEN_OFF = Outcome(Failure(ERROR_IN_STREAM, "it broke"))
REFUSED = Outcome(Failure("HTTP 503", "sorry"))
GOOD = Outcome(total_ms=5.0)


def phases(count):
    """For each phase, who is sick with what."""
    sick, seen = {}, []
    for changes in islice(soaking.sick_phases(RESOURCES), count):
        sick.update({each.resource: each.fault for each in changes})
        seen.append({name: fault for name, fault in sick.items() if fault})
    return seen


def test_two_are_sick_at_any_time_and_two_are_well():
    assert {len(sick) for sick in phases(200)} == {2}


def test_everybody_falls_sick_with_everything():
    seen = {(name, fault) for sick in phases(400) for name, fault in sick.items()}
    assert seen == {(name, fault) for name in RESOURCES for fault in soaking.FAULTS}


def test_the_simulated_azure_knows_every_fault():
    assert set(soaking.FAULTS) <= set(FAULTS)


@pytest.mark.parametrize(
    "kind, outcome, counts, failures",
    [
        (PLAIN, GOOD, {PLAIN: 1}, {}),
        (STREAMED, GOOD, {STREAMED: 1}, {}),
        (STREAMED, BROKEN_OFF, {"told": 1}, {}),
        (LEFT, BROKEN_OFF, {"told": 1}, {}),
        (PLAIN, BROKEN_OFF, {}, {f"plain: {ERROR_IN_STREAM}": 1}),  # it is no stream
        (STREAMED, REFUSED, {}, {"streamed: HTTP 503": 1}),
        (LEFT, REFUSED, {}, {"left: HTTP 503": 1}),
    ],
)
def test_only_a_stream_may_break_off_and_only_if_it_says_so(kind, outcome, counts, failures):
    seen = Seen()
    seen.add(kind, outcome)
    assert (dict(seen.counts), dict(seen.failures)) == (counts, failures)
    assert seen.failed_share == len(failures)


def test_a_soak_in_which_nothing_was_asked_is_no_success():
    assert Seen().failed_share == 1.0


def samples(early, late):
    """A hundred, of which the first fifth are warm-up and mean nothing."""
    warm_up = Sample(1.0, 1, 1)
    return [warm_up] * 20 + [Sample(*early)] * 40 + [Sample(*late)] * 40


def test_the_warm_up_is_not_compared():
    found = soaking.compared(samples((100.0, 50, 60), (104.0, 51, 61)), lambda s: s.pss_mb)
    assert found == (100.0, 104.0)


@pytest.mark.parametrize(
    "late, found", [(105.0, []), (106.0, ["100.0 MB of memory grew to 106.0"])]
)
def test_memory_that_grows_in_a_long_run_is_a_loss(late, found):
    run = samples((100.0, 50, 60), (late, 90, 90))
    assert soaking.losses(run, JUDGED_SECONDS, workers=2) == found
    assert soaking.losses(run, JUDGED_SECONDS - 1, workers=2) == []


def test_more_threads_than_connections_explain_are_a_loss_in_any_run():
    most = 2 * (max(soaking.CONNECTIONS, soaking.READY_THREADS) + 24)
    assert soaking.losses([Sample(1.0, most, 1)], 1.0, workers=2) == []
    assert soaking.losses([Sample(1.0, most + 1, 1)], 1.0, workers=2) == [
        f"{most + 1} threads were open; the load explains {most}"
    ]


@pytest.mark.parametrize("is_good, code", [(True, 0), (False, 1)])
def test_the_exit_code_tells_how_it_went(is_good, code, monkeypatch, capsys):
    asked = []

    def run(options, _progress):
        asked.append(options)
        return soaking.Soaked(Report({"seconds": 5}, []), is_good)

    monkeypatch.setattr(soaking, "run", run)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert soak.main(["--seconds", "5", "--allowed", "0.25"]) == code
    assert asked == [soaking.Options(5.0, 0.8, 0.25)]
    assert "seconds" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argument", ["--allowed=1.5", "--allowed=-1", "--seconds=0", "--load=x"]
)
def test_a_wrong_command_line_is_explained(argument, capsys):
    with pytest.raises(SystemExit, match="2"):
        soak.main([argument])
    assert f"argument {argument.split('=')[0]}: invalid" in capsys.readouterr().err
