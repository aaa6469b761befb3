"""docs/metrics.md, the alert rules and the dashboard: they name what is told, and all of it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from proxy.core.histogram import BOUNDS_MS
from proxy.core.metrics import FAMILIES, HISTOGRAM
from proxy.core.usage import REFUSALS
from proxy.core.verdict import OUTCOMES
from proxy.settings import ROOT

GUIDE = (ROOT / "docs" / "metrics.md").read_text()
ALERTS = yaml.safe_load((ROOT / "docs" / "alerts.yml").read_text())
DASHBOARD = json.loads((ROOT / "docs" / "grafana" / "dashboard.json").read_text())

RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TARGETS = [(panel, target) for panel in PANELS for target in panel["targets"]]
QUESTIONS = re.findall(r"^\| [^|]+\? \| `([^`]+)` \|$", GUIDE, re.MULTILINE)
EXPRESSIONS = [
    *((rule["alert"], rule["expr"]) for rule in RULES),
    *((panel["title"], target["expr"]) for panel, target in TARGETS),
    *((expression, expression) for expression in QUESTIONS),
]
SERIES = {
    f"{family.name}{ending}": family
    for family in FAMILIES
    for ending in (("_bucket", "_count", "_sum") if family.kind == HISTOGRAM else ("",))
}
# Prometheus' own checker; .ci/run puts it beside the interpreter.
PROMTOOL = shutil.which(
    "promtool", path=os.pathsep.join([os.environ["PATH"], str(Path(sys.executable).parent)])
)
# Those of Prometheus, and `le`.
THEIR_LABELS = {"instance", "job", "le"}


def test_the_guide_has_each_family_as_it_is_told():
    rows = re.findall(r"^\| `(gateway_\w+)` \| (\w+) \| (.*?) \| (.*) \|$", GUIDE, re.MULTILINE)
    told = {f.name: (f.kind, ", ".join(f"`{n}`" for n in f.labels), f.help) for f in FAMILIES}
    assert {name: tuple(rest) for name, *rest in rows} == told
    assert len(rows) == len(FAMILIES)


def test_the_guide_says_what_labels_may_say():
    assert QUESTIONS
    for word in (*OUTCOMES, *REFUSALS):
        assert f"`{word}`" in GUIDE, word
    assert f"{BOUNDS_MS[0]} ms to {BOUNDS_MS[-1] // 60_000} minutes" in GUIDE


@pytest.mark.parametrize("where, expression", EXPRESSIONS, ids=[e[0] for e in EXPRESSIONS])
def test_expressions_name_what_there_is(where, expression):
    names = set(re.findall(r"\bgateway_\w+", expression))
    assert names or expression.startswith("up{")
    assert names <= set(SERIES), names - set(SERIES)
    labels = {label for name in names for label in SERIES[name].labels} | THEIR_LABELS
    asked = re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', expression)
    for listed in re.findall(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)", expression):
        asked += re.findall(r"\w+", listed)
    assert set(asked) <= labels, set(asked) - labels


@pytest.mark.skipif(PROMTOOL is None, reason="there is no promtool here")
def test_prometheus_itself_reads_the_rules_and_every_expression(tmp_path):
    # What Grafana puts in their place.
    plain = [
        re.sub(r"\$__\w+", "5m", expression).replace("$", "") for _, expression in EXPRESSIONS
    ]
    rules = [{"record": f"x{number}", "expr": each} for number, each in enumerate(plain)]
    (tmp_path / "all.yml").write_text(json.dumps({"groups": [{"name": "g", "rules": rules}]}))
    files = (ROOT / "docs" / "alerts.yml", tmp_path / "all.yml")
    told = subprocess.run(
        [PROMTOOL, "check", "rules", *files], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    assert f"SUCCESS: {len(RULES)} rules found" in told.stdout


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_each_alert_says_what_is_wrong_and_what_to_do(rule):
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"]["summary"].endswith(".")
    assert len(rule["annotations"]["description"]) > 60
    names = set(re.findall(r"\bgateway_\w+", rule["annotations"]["description"]))
    assert names <= {family.name for family in FAMILIES}
    labels = {name for f in FAMILIES for name in f.labels} | THEIR_LABELS
    assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) <= labels


def test_the_dashboard_takes_its_data_from_one_source_that_is_asked_for():
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    sources = [each for each in variables.values() if each["type"] == "datasource"]
    assert [each["name"] for each in sources] == ["datasource"]
    used = {json.dumps(each["datasource"]) for each in (*PANELS, *(t for _, t in TARGETS))}
    used |= {json.dumps(v["datasource"]) for v in variables.values() if v["type"] == "query"}
    assert used == {json.dumps({"type": "prometheus", "uid": "${datasource}"})}
    for each in variables.values():
        if each["type"] == "query":
            assert set(re.findall(r"gateway_\w+", each["definition"])) <= set(SERIES)


def test_the_dashboards_panels_are_told_apart_and_do_not_overlap():
    every = DASHBOARD["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    assert len({panel["title"] for panel in every}) == len(every)
    taken = set()
    for panel in every:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    for panel, target in TARGETS:
        assert panel["description"]
        variables = set(re.findall(r"\$(\w+)", target["expr"]))
        assert variables <= {"host", "model", "__rate_interval"}
