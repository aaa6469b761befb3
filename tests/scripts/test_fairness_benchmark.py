"""The benchmark of fairness: what decides without I/O, and that it counts by client."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

import fairness_benchmark
from loadlib import fairness
from loadlib.stats import Report


@pytest.mark.parametrize(
    "demands, capacity, shares",
    [
        ([90, 90, 90], 90, [30, 30, 30]),
        ([900, 20, 10], 90, [60, 20, 10]),  # what a small one leaves is the others'
        ([900, 50, 10], 90, [40, 40, 10]),
        ([10, 20, 900], 1000, [10, 20, 900]),  # there is enough
        ([], 90, []),
    ],
)
def test_a_fair_share_is_an_equal_part_or_all_that_is_wanted(demands, capacity, shares):
    assert fairness.due(demands, capacity) == pytest.approx(shares)


def test_the_table_has_a_column_for_each_client_and_a_row_for_each_minute():
    heavy, light = fairness.Crowd(40), fairness.Crowd(1)
    heavy.answers = [
        fairness.Answered(100.0, 100.0, 10.0),
        fairness.Answered(100.0, 100.1, 30.0),
        fairness.Answered(161.0, 162.0, 20.0),
    ]
    light.answers = [fairness.Answered(161.5, 161.6, 5.0)]
    heavy.refused = 244
    options = fairness.Options(seconds=122.0, workers=2, max_tpm=300, latency_ms=1000.0)
    found = fairness.rows([heavy, light], options, each=10, began=100.0)
    table = {(row.measure, row.unit): list(row.values.values()) for row in found}
    assert table["could use", "tokens a minute"] == [24_000, 600]
    assert table["fair share", "% of all"] == [50, 50]
    assert table["got", "% of all"] == pytest.approx([75, 25])
    assert table["got in minute 1", "% of all"] == [100, 0]
    assert table["got in minute 2", "% of all"] == [50, 50]
    assert table["waited after minute 1, p99", "ms"] == [20, 5]
    assert table["refused", "a minute"] == [120, 0]
    assert ("got in minute 3", "% of all") not in table


@pytest.mark.parametrize("argument", ["--seconds=0", "--workers=x", "--latency-ms=-1"])
def test_a_wrong_command_line_is_explained(argument, capsys):
    with pytest.raises(SystemExit, match="2"):
        fairness_benchmark.main([argument])
    assert f"argument {argument.split('=')[0]}: invalid" in capsys.readouterr().err


def test_it_prints_what_was_found_and_writes_it_to_a_file(monkeypatch, capsys, tmp_path):
    asked = []

    async def run(options, _progress):
        asked.append(options)
        return Report({"seconds": 1}, [])

    monkeypatch.setattr(fairness, "run", run)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    file = tmp_path / "found.json"
    command = ["--seconds", "1", "--max-tpm", "500", "--json", str(file)]
    assert fairness_benchmark.main(command) == 0
    assert asked == [fairness.Options(1.0, 2, 500, 300.0)]
    assert "seconds 1" in capsys.readouterr().out
    assert file.read_text().startswith("{")


def test_each_client_has_a_key_of_its_own_and_gets_answers(monkeypatch, capsys):
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(fairness, "CONNECTIONS", (2, 1))
    command = ["--seconds", "1", "--max-tpm", "1000000", "--latency-ms", "20"]
    assert fairness_benchmark.main(command) == 0
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if "|" in line]
    found = {line[0].strip("| "): line[1:3] for line in lines}
    got = [float(value.replace(",", "")) for value in found["got, tokens a minute"]]
    assert got[0] > got[1] > 0
