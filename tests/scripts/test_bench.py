"""The benchmark: its two programs, the arithmetic of its table, its charts, one tiny run."""

import json
import re
import shutil
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest

# A script finds its own folder by itself; this is no script.
sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

import bench
from benchlib import charts, machine, places, running, tools
from benchlib.charts import Chart
from benchlib.loads import Ask, Target, load, upstream
from benchlib.peers import NGINX_PATH, PEERS, NotInstalled, Peer, installed
from benchlib.table import Measure, Results, number
from loadlib.gateway import free_port

PATH = "/openai/deployments/gpt-4o/chat/completions"

needs_compiler = pytest.mark.skipif(
    tools.compiler() is None, reason="there is no C compiler to build the client with"
)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return tools.built(tmp_path_factory.mktemp("tools"))


@pytest.fixture(scope="module")
def body(tmp_path_factory):
    """A file with a request's body."""

    def made(**fields):
        path = tmp_path_factory.mktemp("bodies") / "body.json"
        path.write_text(json.dumps({"model": "gpt-4o", **fields}))
        return path

    return made


@needs_compiler
def test_upstream_and_client_understand_each_other(built, body):
    with upstream(built.upstream) as fake:
        ask = Ask((body(),), connections=3, requests=50)
        done = load(built.client, Target(fake.port, PATH), ask)
    assert (done.finished, done.failed, done.total_us["count"]) == (50, {}, 50)
    assert done.total_us["p50"] <= done.total_us["p99"] <= done.total_us["p100"]


@needs_compiler
@pytest.mark.parametrize("interval_ms", [0, 1])
def test_every_event_is_seen_once(built, body, interval_ms):
    with upstream(built.upstream) as fake:
        fake.behave(events=20, interval_ms=interval_ms)
        ask = Ask((body(stream=True),), connections=4, requests=8, events=20)
        done = load(built.client, Target(fake.port, PATH), ask)
    assert (done.finished, done.events, done.failed) == (8, 160, {})
    assert done.delay_us["count"] == 160


@needs_compiler
def test_a_large_body_goes_both_ways(built, body):
    with upstream(built.upstream) as fake:
        fake.behave(answer_bytes=3_000_000)
        ask = Ask((body(text="x" * 2_000_000),), requests=2)
        done = load(built.client, Target(fake.port, PATH), ask)
    assert (done.finished, done.failed) == (2, {})


@needs_compiler
def test_a_stream_that_lacks_an_event_is_a_failure(built, body):
    with upstream(built.upstream) as fake:
        fake.behave(events=5, interval_ms=0)
        ask = Ask((body(stream=True),), requests=1, events=6)
        done = load(built.client, Target(fake.port, PATH), ask)
    assert (done.finished, done.failed) == (0, {"content": 1})
    assert done.example.startswith("5 events, then")


@needs_compiler
def test_nobody_who_listens_is_a_failure(built, body):
    done = load(built.client, Target(free_port(), PATH), Ask((body(),), requests=2))
    assert (done.finished, done.failed) == (0, {"connect": 2})


@needs_compiler
def test_requests_begin_at_the_rate_that_was_asked_for(built, body):
    with upstream(built.upstream) as fake:
        ask = Ask((body(),), connections=4, seconds=0.2, rate=100)
        done = load(built.client, Target(fake.port, PATH), ask)
    assert done.finished == 20


def test_without_a_compiler_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(tools.shutil, "which", lambda _name: None)
    with pytest.raises(tools.NotBuilt, match="apt-get install gcc"):
        tools.built(tmp_path)


# The table

COST = Measure("cost", "µs", "empty")
ADDED = Measure("added", "ms", "direct", has_ratio=False)


def test_a_ratio_is_the_median_of_the_rounds_ratios():
    results = Results()
    for base, gateway in ((100, 200), (200, 600), (1000, 1500)):  # a machine that slows down
        results.note(COST, "empty", base)
        results.note(COST, "gateway", gateway)
    assert results.median(COST, "gateway") == 600
    assert results.ratio(COST, "gateway") == 2.0
    assert results.ratio(COST, "empty") is None


def test_the_table_has_a_column_for_each_place_that_was_measured():
    results = Results(notes=["b was left out."])
    results.note(COST, "empty", 1234)
    results.note(COST, "gateway", 2468)
    results.note(ADDED, "direct", 0.25)
    results.note(ADDED, "gateway", 12.34)
    assert results.to_markdown({"cores": 2}, ["gateway", "a", "b"]).splitlines() == [
        "cores 2",
        "",
        "|  | base | gateway |",
        "| --- | ---: | ---: |",
        "| cost, µs | 1,234 (empty) | 2,468 (2.00) |",
        "| added, ms | 0.25 (direct) | 12.3 |",
        "",
        "- b was left out.",
    ]


def test_a_run_with_failures_says_so_loudly():
    results = Results()
    results.failures["plain, gateway: status"] += 2
    results.examples["plain, gateway: status"] = "429 no room"
    text = results.to_markdown({}, [])
    assert "REQUESTS FAILED" in text
    assert "2 x plain, gateway: status; the first: 429 no room" in text


@pytest.mark.parametrize(
    "value, shown",
    [(0, "0"), (0.126, "0.13"), (12.34, "12.3"), (2000, "2,000"), (1234.5, "1,234")],
)
def test_numbers_have_the_digits_that_say_something(value, shown):
    assert number(value) == shown


# The charts


def test_a_chart_is_valid_svg_with_a_line_for_each_place():
    lines = {"gateway": [1.0, 10.0, 250.0], "portkey": [0.0, 3.0]}
    drawn = charts.svg(Chart("x.svg", "Time & more", "percentile", ("p1", "p50", "p99"), lines))
    root = xml.etree.ElementTree.fromstring(drawn)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    drawn_lines = root.findall("{http://www.w3.org/2000/svg}polyline")
    assert [len(line.get("points").split()) for line in drawn_lines] == [3, 2]
    assert "prefers-color-scheme: dark" in drawn
    assert not re.search("nan|inf", drawn)


@pytest.mark.parametrize(
    "values, bounds", [([], (0, 1)), ([5.0], (0, 1)), ([0.0, 0.02, 300.0], (-2, 3))]
)
def test_a_scale_spans_whole_powers_of_ten(values, bounds):
    assert charts.scale(values) == bounds


# Peers


def test_a_peer_is_installed_once(tmp_path):
    asked = []
    peer = Peer("a", "1.0", asked.append, start=None)
    assert installed(peer, tmp_path) == installed(peer, tmp_path) == tmp_path / "a-1.0"
    assert len(asked) == 1


def test_one_installation_may_be_started_in_two_ways(tmp_path):
    asked = []
    one, other = (Peer(n, "1.0", asked.append, start=None, program="b") for n in "ab")
    assert installed(one, tmp_path) == installed(other, tmp_path) == tmp_path / "b-1.0"
    assert len(asked) == 1


def test_an_installation_that_failed_is_begun_anew(tmp_path):
    def broken(place):
        (place / "half").touch()
        raise NotInstalled("no network")

    with pytest.raises(NotInstalled):
        installed(Peer("a", "1.0", broken, start=None), tmp_path)
    place = installed(Peer("a", "1.0", lambda _place: None, start=None), tmp_path)
    assert not (place / "half").exists()


def test_nginx_is_the_systems_and_not_installed(monkeypatch, tmp_path):
    monkeypatch.setattr("benchlib.peers.NGINX_PATH", str(tmp_path))
    with pytest.raises(NotInstalled, match="apt-get install nginx"):
        installed(PEERS["nginx"], tmp_path)
    assert not list(tmp_path.rglob(".installed"))  # so that it is looked for again


@needs_compiler
@pytest.mark.skipif(not shutil.which("nginx", path=NGINX_PATH), reason="needs nginx")
def test_nginx_passes_on_what_comes(built, body, tmp_path):
    with upstream(built.upstream) as fake:
        fake.behave(events=20, interval_ms=0)
        ask = Ask((body(stream=True),), connections=2, requests=4, events=20)
        with PEERS["nginx"].start(tmp_path, tmp_path, fake.port) as place:
            done = load(built.client, place.target, ask)
    assert (done.finished, done.failed, done.events) == (4, {}, 80)


# The command


@pytest.mark.parametrize("argument", ["--rounds=x", "--seconds=0", "--only=a", "--with=b"])
def test_a_wrong_command_line_is_explained(argument, capsys):
    with pytest.raises(SystemExit, match="2"):
        bench.main([argument])
    assert argument.split("=")[0] in capsys.readouterr().err


def test_quick_is_one_short_round_unless_it_is_said_otherwise():
    quick = bench.parsed(["--quick", "--seconds", "7"])
    assert (quick.rounds, quick.seconds) == (1, 7.0)
    assert set(running.ROWS) - set(quick.only) == set(running.SLOW_ROWS)
    assert bench.parsed(["--quick", "--only=memory"]).only == ["memory"]
    assert bench.parsed([]).only == list(running.ROWS)


def test_the_cpu_is_named_where_the_system_knows_it():
    assert machine.cpu_model("processor : 0\nmodel name\t: A  B\n") == "A B"
    assert machine.cpu_model("processor : 0\n")


@needs_compiler
def test_a_tiny_run_prints_the_table(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("signal.signal", lambda *_: None)
    file = tmp_path / "found.json"
    only = "--only=plain,latency,flat"
    code = bench.main([only, "--rounds=1", "--seconds=0.2", f"--json={file}"])
    out = capsys.readouterr().out
    assert (code, "FAILED" in out) == (0, False)
    assert "| plain, 16 connections: requests, a second |" in out
    assert "litellm was not measured" in out
    found = json.loads(file.read_text())
    # What is added to so few requests may be less than nothing: those asked directly waited.
    whole = [row for row in found["rows"] if "added" not in row["measure"]]
    assert len(whole) == 3
    assert all(row["medians"][places.GATEWAY] > 0 for row in whole)
