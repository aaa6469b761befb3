"""The benchmark of limits: what decides without I/O, and that it counts what arrives."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

import limits_benchmark
from loadlib import limiting
from loadlib.stats import Report


@pytest.mark.parametrize(
    "moments, most",
    [
        ([], 0),
        ([3.0], 1),
        ([0.0, 9.9, 10.0], 2),  # the end of the span is outside it
        ([0.0, 0.1, 5.0, 10.05, 10.2, 30.0], 3),
        ([0.0, 20.0, 40.0], 1),
    ],
)
def test_the_fullest_span_is_found_wherever_it_begins(moments, most):
    assert limiting.most_within(moments, 10) == most


@pytest.mark.parametrize("argument", ["--seconds=0", "--workers=x"])
def test_a_wrong_command_line_is_explained(argument, capsys):
    with pytest.raises(SystemExit, match="2"):
        limits_benchmark.main([argument])
    assert f"argument {argument.split('=')[0]}: invalid" in capsys.readouterr().err


def test_it_reports_the_limit_and_what_was_found(monkeypatch, capsys, tmp_path):
    asked = []

    async def run(options, _progress):
        asked.append(options)
        return Report({"seconds": 1}, [])

    monkeypatch.setattr(limiting, "run", run)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    file = tmp_path / "found.json"
    assert limits_benchmark.main(["--seconds", "1", "--workers", "3", "--json", str(file)]) == 0
    assert asked == [limiting.Options(1.0, 3)]
    assert "seconds 1" in capsys.readouterr().out
    assert file.read_text().startswith("{")


def test_a_gateway_keeps_its_limit_and_the_table_says_so(monkeypatch, capsys):
    monkeypatch.setattr(limiting, "CONNECTIONS", 4)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(limiting, "CASES", limiting.CASES[:1])
    assert limits_benchmark.main(["--seconds", "1"]) == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if "|" in line]
    found = {row[0].strip("| "): row[1:3] for row in rows}
    limit, most = (int(v.strip()) for v in found["requests in any 10 s"])
    assert limit == 100
    assert 1 < most <= 101
