"""The benchmark of the syncer: that all is counted in it, and that it reports."""

import json
import sys
from pathlib import Path

import pytest

# A script finds its own folder by itself; this is no script.
sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

import sync_benchmark
from sync_benchmark import Found


def test_it_measures_the_rounds_of_both_workers(capsys, monkeypatch):
    monkeypatch.setattr(sync_benchmark, "REQUESTS_PER_SECOND", 20)
    monkeypatch.setattr(sync_benchmark, "INTERVAL_SECONDS", 1.0)
    arguments = ["--instances", "4", "--busy", "2", "--seconds", "1", "--json"]
    assert sync_benchmark.main(arguments) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["instances"], found["busy"]) == (4, 2)
    assert 0 < found["median_ms"] <= found["slowest_ms"]
    assert 0 < found["share"] < 1


def test_people_get_a_table(capsys, monkeypatch):
    monkeypatch.setattr(
        sync_benchmark, "run", lambda *case: Found(*case[:2], 0.0123, 1.25, 2.5)
    )
    assert sync_benchmark.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("requests/s 2000, workers 2, interval, ms 200")
    assert lines[2:] == [
        "| instances | of them asked | of a core, % | median round, ms | slowest, ms |",
        "| ---: | ---: | ---: | ---: | ---: |",
        "| 3 | 3 | 1.23 | 1.25 | 2.50 |",
        "| 1000 | 3 | 1.23 | 1.25 | 2.50 |",
        "| 1000 | 1000 | 1.23 | 1.25 | 2.50 |",
        "",
        sync_benchmark.AIM,
    ]


@pytest.mark.parametrize("number", ["0", "-1", "many"])
def test_wrong_usage(number, capsys):
    with pytest.raises(SystemExit) as ended:
        sync_benchmark.main([f"--instances={number}"])
    assert ended.value.code == 2
    assert "a whole number of at least 1" in capsys.readouterr().err
