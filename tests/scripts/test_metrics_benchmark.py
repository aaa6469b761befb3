"""The benchmark of /metrics: that all is told in it, and that it reports."""

import json
import sys
from pathlib import Path

import pytest

# A script finds its own folder by itself; this is no script.
sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

import metrics_benchmark
from metrics_benchmark import Found

from tests.web.conftest import log_kept


def test_it_measures_a_scrape_of_all_there_is(capsys):
    arguments = ["--instances=2", "--models=3", "--clients=2", "--scrapes=1", "--json"]
    with log_kept():
        assert metrics_benchmark.main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["instances"], found["models"], found["clients"]) == (2, 3, 2)
    assert found["lines"] > 2 * 3 * 40
    assert found["cpu_ms"] > 0
    assert found["scrape_ms"] > 0


def test_people_get_a_table(capsys, monkeypatch):
    found = Found(40, 10, 50, 210.4, 180.4, 25_000, 2_500_000, 4.4)
    monkeypatch.setattr(metrics_benchmark, "run", lambda *_: found)
    assert metrics_benchmark.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "| 40 | 10 | 50 | 25000 | 2.50 | 210 | 180 | 4 |"


@pytest.mark.parametrize("number", ["0", "-1", "many"])
def test_wrong_usage(number, capsys):
    with pytest.raises(SystemExit) as ended:
        metrics_benchmark.main([f"--instances={number}"])
    assert ended.value.code == 2
    assert "a whole number of at least 1" in capsys.readouterr().err
