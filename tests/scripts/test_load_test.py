"""The load client's parts that decide without I/O, and it at work on the simulated Azure."""

import asyncio
import io
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from proxy.simulator import Resource, Simulator

# A script finds its own folder by itself; this is no script.
sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

import load_test
from loadlib import bar, bench, client, stats, wire
from loadlib.gateway import children, cpu_seconds, pss_mb
from loadlib.stats import Failure, Load, Outcome, Report, Row

EVENTS = Resource("any").tokens + 4  # and the filter results, the role, the end, [DONE]
AT_ONCE_AND_IN_BYTES = (1_000_000, 7, 1)


def pieces(data, size):
    return [data[at : at + size] for at in range(0, len(data), size)]


def answered(data, size=1_000_000):
    answer = wire.Answer()
    return answer, b"".join(answer.feed(piece) for piece in pieces(data, size))


@pytest.mark.parametrize(
    "values, percent, expected",
    [
        ([7], 50, 7),
        ([7], 99, 7),
        ([3, 1, 2], 50, 2),
        ([1, 2, 3, 4], 50, 2),  # one that was measured, not the middle of two
        (range(1, 101), 90, 90),
        (range(1, 101), 99, 99),
        (range(1, 101), 100, 100),
        (range(1, 101), 0, 1),
        (range(1, 201), 99, 198),
    ],
)
def test_percentiles_are_values_that_were_measured(values, percent, expected):
    assert stats.percentile(values, percent) == expected


def test_there_is_no_percentile_of_nothing():
    with pytest.raises(ValueError, match="nothing"):
        stats.percentile([], 50)


@pytest.mark.parametrize("size", AT_ONCE_AND_IN_BYTES)
@pytest.mark.parametrize(
    "stream, expected",
    [
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data:a\n\n", [b"a"]),  # the space is optional
        (b"event: x\ndata: a\ndata: b\nid: 1\n\n", [b"a\nb"]),
        (b": a comment\n\ndata: a\n\n", [b"a"]),
        (b"data: a\n\ndata: half", [b"a"]),
    ],
)
def test_events_are_found_whatever_pieces_they_come_in(stream, expected, size):
    events = wire.Events()
    found = [event for piece in pieces(stream, size) for event in events.feed(piece)]
    assert found == expected
    assert events.is_between_events is (not stream.endswith(b"half"))


@pytest.mark.parametrize("size", AT_ONCE_AND_IN_BYTES)
@pytest.mark.parametrize(
    "head, body, expected",
    [
        (b"Content-Length: 5", b"hello", b"hello"),
        (b"content-length: 0", b"", b""),
        (b"Transfer-Encoding: chunked", b"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n", b"hello"),
        (b"Transfer-Encoding: Chunked", b"0\r\n\r\n", b""),
    ],
)
def test_a_body_is_read_to_its_end(head, body, expected, size):
    answer, found = answered(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + body, size)
    assert found == expected
    assert (answer.status, answer.complete, answer.keeps_alive) == (200, True, True)


def test_what_is_incomplete_is_waited_for():
    answer, found = answered(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel")
    assert (found, answer.complete) == (b"", False)
    with pytest.raises(wire.NotHttp, match="closed before"):
        answer.end()


def test_a_body_without_length_ends_with_the_connection():
    answer, found = answered(b"HTTP/1.1 502 Bad Gateway\r\n\r\nsorry")
    answer.end()
    assert (found, answer.status) == (b"sorry", 502)
    assert (answer.complete, answer.keeps_alive) == (True, False)


def test_a_server_may_want_to_close():
    answer, _ = answered(b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 0\r\n\r\n")
    assert not answer.keeps_alive


@pytest.mark.parametrize(
    "data, problem",
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", "no status line"),
        (b"HTTP/1.1 OK\r\n\r\n", "no status line"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "no length: 'x'"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab", "more than the content-length"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n", "no length: 'z'"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc", "without an end"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nab", "last chunk"),
        (b"x" * (wire.MAX_HEAD_BYTES + 1), "a head without an end"),
    ],
)
def test_what_is_not_an_answer_is_an_error(data, problem):
    with pytest.raises(wire.NotHttp, match=problem):
        answered(data)


@pytest.mark.parametrize(
    "url, expected",
    [
        ("http://127.0.0.1:8000", ("127.0.0.1", 8000, "")),
        ("http://127.0.0.1:8000/", ("127.0.0.1", 8000, "")),
        ("http://gateway/under/", ("gateway", 80, "/under")),
        ("http://[::1]:8000", ("::1", 8000, "")),
    ],
)
def test_a_url_is_taken_apart(url, expected):
    assert client.split_url(url) == expected


def test_a_key_is_not_shown():
    assert "s3cret" not in repr(client.gateway_target("http://a", key="s3cret", model="m"))


@pytest.mark.parametrize(
    "arguments, problem",
    [
        ("", "one of the arguments --url --self is required"),
        ("--self --url http://a", "not allowed with"),
        ("--url https://a", "TLS is not spoken here"),
        ("--url http://user@a", "not of the form"),
        ("--url http://a --streams 0", "nothing to do"),
        ("--url http://a --streams -1", "--streams"),
        ("--url http://a --seconds 0", "--seconds"),
        ("--url http://a --seconds nan", "--seconds"),
        ("--url http://a --seconds 1 --requests 1", "not allowed with"),
        ("--self --requests 5", "use --seconds"),
        ("--url http://a --key x", "unrecognized arguments"),
    ],
)
def test_a_wrong_command_line_is_explained(arguments, problem, capsys):
    with pytest.raises(SystemExit) as ended:
        load_test.parsed(arguments.split())
    assert ended.value.code == 2
    assert problem in capsys.readouterr().err


def test_a_plan_must_come_to_an_end():
    with pytest.raises(ValueError, match="never ends"):
        client.Plan(1)


@pytest.mark.parametrize(
    "stream_seconds, events_per_second, expected", [(5, 10, 51), (1, 10, 11), (0.1, 10, 6)]
)
def test_events_fill_the_time_of_a_stream(stream_seconds, events_per_second, expected):
    options = bench.Options("m", 1, stream_seconds, events_per_second, 0, 0, 0, 1, 0, 1)
    assert options.events == expected


def test_loads_add_up():
    first, second = (Outcome(Failure("no", detail)) for detail in ("first", "second"))
    both = Load((first, Outcome(events=3)), 1.0, 0.5) + Load((second,), 1.0)
    assert (both.per_second, both.events, both.client_cpu_percent) == (0.5, 3, 25.0)
    assert both.failures == Counter(no=2)
    assert both.examples == {"no": "first"}


@pytest.mark.parametrize("percent", [50, 90, 95, 99])
def test_streams_and_plain_requests_have_the_same_percentiles(percent):
    outcomes = tuple(Outcome(None, ms, ms + 1000) for ms in range(1, 101))
    loads = {"gateway": Load(outcomes, 1.0)}
    rows = {row.measure: row.values["gateway"] for row in stats.stream_rows("s", loads)}
    rows |= {row.measure: row.values["gateway"] for row in stats.plain_rows("p", loads)}
    assert rows[f"s: first byte p{percent}"] == percent
    assert rows[f"s: total p{percent}"] == rows[f"p: p{percent}"] == percent + 1000


def test_a_report_is_a_table_for_people_and_json_for_machines():
    rows = [
        Row("requests", "a second", {"direct": 2000.0, "gateway": 500.0}),
        Row("failed", "", {"direct": 0, "gateway": 1234}),
        Row("memory", "MB", {"gateway": 40.04}),
    ]
    failures = Counter({"HTTP 500": 1234, "no": 1})
    report = Report(
        {"cores": 2, "Python": "3.11"}, rows, failures, {"HTTP 500": "oh", "no": ""}
    )
    assert report.to_markdown().splitlines() == [
        "cores 2, Python 3.11",
        "",
        "|  | direct | gateway | ratio |",
        "| --- | ---: | ---: | ---: |",
        "| requests, a second | 2,000.0 | 500.0 | 0.25 |",
        "| failed | 0 | 1,234 |  |",
        "| memory, MB |  | 40.0 |  |",
        "",
        "1234 x HTTP 500; the first: oh",
        "",
        "1 x no",
    ]
    found = json.loads(json.dumps(report.to_dict()))
    assert found["failures"] == {"HTTP 500": 1234, "no": 1}
    assert found["examples"] == {"HTTP 500": "oh"}
    assert found["rows"][0] == {
        "measure": "requests",
        "unit": "a second",
        "direct": 2000.0,
        "gateway": 500.0,
        "ratio": 0.25,
    }


def test_a_report_of_one_place_has_no_ratios():
    shown = Report({}, [Row("requests", "", {"in all": 3})]).to_markdown()
    assert "| in all |\n" in shown
    assert "| requests | 3 |" in shown


def test_proc_is_read():
    assert pss_mb(["00-ff ---p 0 00:00 0 [rollup]", "Rss: 9 kB", "Pss:   2048 kB"]) == 2.0
    assert cpu_seconds(0) == 0.0  # there is no such process any more
    assert children(0) != []  # the kernel's


@pytest.fixture(scope="module")
def resource():
    with Simulator([Resource("sim-1", api_key="s3cret")]) as simulator:
        yield simulator["sim-1"]


@pytest.fixture
def command(resource, monkeypatch, capsys):
    """Runs the script with the resource as the gateway; returns exit code and output."""
    monkeypatch.setenv("LOAD_TEST_KEY", "s3cret")
    monkeypatch.setattr("signal.signal", lambda *_: None)  # those of pytest stay

    def run(*arguments):
        code = load_test.main(["--url", resource.url, *arguments])
        return code, capsys.readouterr().out

    return run


def loaded(resource, ask, plan, key="s3cret"):
    target = client.gateway_target(resource.url, key=key, model="gpt-4o")
    return asyncio.run(client.run(ask, [target], plan, lambda _text, _share: None))


def test_streams_and_plain_requests_are_made(command, tmp_path):
    file = tmp_path / "results.json"
    code, output = command(
        *"--streams 5 --requests 10 --plain 2 --abort 0 --ramp-ms 5 --json".split(), str(file)
    )
    assert code == 0
    assert "| 5 streams: complete | 10 |" in output
    assert "| plain requests on 2 connections: complete | 10 |" in output
    assert "s3cret" not in output + file.read_text()
    rows = {row["measure"]: row["gateway"] for row in json.loads(file.read_text())["rows"]}
    assert rows["5 streams: events"] == 10 * (EVENTS - 1)  # OpenAI's style has no filters


def test_a_failure_is_counted_and_ends_with_1(command, resource):
    resource.faults["gpt-4o"] = "500*1"
    code, output = command(*"--streams 0 --plain 1 --requests 2".split())
    assert code == 1
    assert "| plain requests on 1 connections: complete | 1 |" in output
    assert "1 x HTTP 500 Internal Server Error, " in output


def test_failures_of_one_kind_are_counted_as_one_whatever_their_texts_say():
    texts = (f'{{"error": {{"code": "429", "message": "retry in {n} s"}}}}' for n in (3, 4))
    found = [client.refusal(429, text.encode()) for text in texts]
    assert {failure.kind for failure in found} == {"HTTP 429 Too Many Requests, 429"}
    assert "retry in 3 s" in found[0].detail


@pytest.mark.parametrize(
    "body, kind",
    [
        (b'{"error": {"type": "t", "code": null}}', "HTTP 502 Bad Gateway, t"),
        (b'{"error": "text"}', "HTTP 502 Bad Gateway"),
        (b"<html>", "HTTP 502 Bad Gateway"),
        (b"[1]", "HTTP 502 Bad Gateway"),
        (b"", "HTTP 502 Bad Gateway"),
        (b'{"error": {"code": ["\xff"]}}', "HTTP 502 Bad Gateway"),
    ],
)
def test_an_error_without_a_code_is_of_the_kind_of_its_status(body, kind):
    assert client.refusal(502, body).kind == kind


@pytest.mark.parametrize(
    "fault, problem",
    [
        ("break-in-middle", "the connection was closed before the answer's end"),
        ("error-event", "an error in the stream"),
    ],
)
def test_a_stream_that_breaks_has_failed(resource, fault, problem):
    resource.faults["gpt-4o"] = f"{fault}*1"
    load = loaded(resource, client.streaming(), client.Plan(1, 1))
    assert list(load.failures) == [problem]


def test_missing_events_are_noticed(resource):
    load = loaded(resource, client.streaming(expected_events=EVENTS), client.Plan(1, 1))
    assert load.failures == Counter({"a wrong number of events": 1})
    assert load.examples == {"a wrong number of events": f"{EVENTS - 1} instead of {EVENTS}"}


def test_a_wrong_key_is_refused(resource):
    load = loaded(resource, client.plain, client.Plan(1, 1), key="wrong")
    assert [error[:8] for error in load.failures] == ["HTTP 401"]


def test_nobody_there_is_a_failure_like_others():
    # Port 1 is nobody's, and nobody without privileges can take it.
    target = client.gateway_target("http://127.0.0.1:1", key="", model="m")
    load = asyncio.run(client.run(client.plain, [target], client.Plan(1, 1), lambda *_: None))
    assert [error[:11] for error in load.failures] == ["[Errno 111]"]


def test_a_stream_can_be_left(resource, monkeypatch):
    monkeypatch.setattr(resource, "event_interval_ms", 20.0)
    aborted = resource.aborted
    load = loaded(resource, client.streaming(leave_after=3), client.Plan(2, 2))
    assert [o.events for o in load.good] == [3, 3]
    assert resource.wait_for(lambda r: r.aborted == aborted + 2)


def test_what_takes_too_long_is_given_up(resource, monkeypatch):
    monkeypatch.setattr(resource, "latency_ms", 5000.0)
    load = loaded(resource, client.plain, client.Plan(1, 1, timeout_seconds=0.05))
    assert load.failures == Counter({"not finished after 0.05 s": 1})


class Terminal(io.StringIO):
    """Of no known width; some are."""

    def isatty(self):
        return True


@pytest.mark.parametrize(
    "share, shown",
    [
        (0.0, "  0 % [                    ] work"),
        (0.454, " 45 % [#########           ] work"),
        (0.999, " 99 % [################### ] work"),
        (1.0, "100 % [####################] work"),
        (None, "work"),  # nobody knows how long it takes
    ],
)
def test_a_bar_shows_how_far_it_is(share, shown):
    assert bar.line("work", share, columns=80) == shown


def test_a_bar_is_never_longer_than_its_line():
    assert len(bar.line("x" * 200, 0.5, columns=40)) == 39


def test_a_bar_replaces_itself_and_leaves_nothing():
    terminal = Terminal()
    shown = bar.Bar(terminal)
    shown.show("first", 0.5)
    shown.show("second", 1.0)
    shown.clear()
    parts = terminal.getvalue().split("\r")
    assert [part.replace("\x1b[K", "")[29:] for part in parts] == ["", "first", "second", ""]
    assert parts[-1] == "\x1b[K"


def test_where_no_terminal_is_there_is_no_bar():
    file = io.StringIO()
    shown = bar.Bar(file)
    shown.show("text", 0.5)
    shown.clear()
    assert file.getvalue() == ""


@pytest.mark.parametrize(
    "plan, done, seconds, share",
    [
        (client.Plan(5, 10), 4, 100.0, 0.4),
        (client.Plan(5, None, 10.0), 1000, 2.5, 0.25),
        (client.Plan(5, None, 10.0), 0, 12.0, 1.0),  # what has begun is waited for
        (client.Plan(5, 10, 10.0), 9, 1.0, 0.9),  # whichever ends it first
        (client.Plan(5, 0), 0, 0.0, 1.0),
    ],
)
def test_a_plan_knows_how_far_it_is(plan, done, seconds, share):
    assert plan.share(done, seconds) == share


def test_a_terminal_sees_the_bar_and_a_file_gets_the_table_alone(resource):
    ours, theirs = os.openpty()
    script = Path(load_test.__file__)
    command = [sys.executable, script, "--url", resource.url, "--streams", "3"]
    environment = os.environ | {"LOAD_TEST_KEY": "s3cret"}
    try:
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=theirs, check=True
        )
        seen = os.read(ours, 65_536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert re.search(r"\r\x1b\[K  0 % \[ {20}\] \d open, 0 done, 0 failed \| 3 streams", seen)
    assert seen.endswith("\r\x1b[K")
    assert "| 3 streams: complete | 3 |" in done.stdout.decode()
    assert "[" not in done.stdout.decode()
