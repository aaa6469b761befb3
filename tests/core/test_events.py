import re

from proxy.core.events import ALERTS, EVENTS
from proxy.settings import ROOT


def rows(heading):
    """The rows of a table of docs/logs.md, as cells."""
    part = (ROOT / "docs/logs.md").read_text().partition(f"\n## {heading}\n")[2]
    table = part.partition("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_documentation_has_exactly_these_events():
    documented = [
        (name.strip(" `"), level, re.findall(r"`(\w+)`", fields), alert == "yes", means)
        for name, level, fields, alert, means in rows("Events")
    ]
    assert documented == [
        (name, e.level, list(e.fields), e.is_alert, e.means) for name, e in EVENTS.items()
    ]


def test_alerts_are_events():
    assert set(EVENTS) > ALERTS
    assert "breaker_opened" in ALERTS
    assert "request" not in ALERTS
