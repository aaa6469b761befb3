import json

from scripts import usage_benchmark


def test_it_tells_the_size_and_the_time_of_each_report(capsys, monkeypatch):
    monkeypatch.setattr(usage_benchmark, "KEPT_MINUTES_DAYS", 0)
    monkeypatch.setattr(usage_benchmark, "TIMES", 1)
    assert usage_benchmark.main(["--days", "1", "--busy", "5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["megabytes"] > 0
    assert "1 days by instance" in found["reports_ms"]
