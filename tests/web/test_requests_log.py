import json
import logging
import re

import pytest

from tests.builders import MODEL
from tests.web.conftest import ADMIN, ADMIN_KEY, CHAT, STREAM

FORGED = "x\n2026-01-01 00:00:00,000 INFO [1] request id=forged status=200"
FIELD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|[^" =]*)(?: |$)')


@pytest.fixture
def world(make_world, tmp_path):
    return make_world(log_dir=tmp_path, log_level="debug")


def fields(line):
    """The fields of one line, as a reader of the log would take them apart."""
    text = line.split("] request ", 1)[1]
    found = FIELD.findall(text)
    assert " ".join(f"{name}={value}" for name, value in found) == text
    return {n: json.loads(v) if v.startswith('"') else v for n, v in found}


def requests(world):
    """The fields of each request's line, but for those that set up the test."""
    lines = [each for each in world.log().splitlines() if "] request " in each]
    return [f for f in map(fields, lines) if (f["method"], f["status"]) != ("POST", "201")]


def test_a_call_has_one_line_with_all_that_is_known_of_it(world):
    world.add("a")
    world.ask(headers={"x-request-id": "mine"})
    (line,) = requests(world)
    for name in ("ms", "first_byte_ms", "waited_ms"):
        assert re.fullmatch(r"\d+", line.pop(name))
    assert re.fullmatch(r"[0-9a-f-]{36}", line.pop("upstream_id"))
    assert line == {
        "id": "mine",
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": "200",
        "client": "app",
        "model": MODEL,
        "instance": "a",
        "attempts": "1",
        "tried": "a:200",
        "outcome": "succeeded",
        "prompt_tokens": "3",
        "completion_tokens": "20",
    }


def test_a_streams_line_is_written_at_its_end_with_its_tokens(world):
    world.add("a")
    answer = world.ask(STREAM, buffered=False)
    assert answer.iter_encoded()
    answer.close()
    world.ask(STREAM)
    left, complete = requests(world)
    assert (left["outcome"], complete["outcome"]) == ("aborted", "succeeded")
    assert (complete["prompt_tokens"], complete["completion_tokens"]) == ("3", "20")


def test_the_line_names_who_was_tried(world):
    world.add("a", priority=1)
    world.add("b", priority=2)
    world.simulator["a"].faults["*"] = "500"
    world.ask()
    (line,) = requests(world)
    assert (line["attempts"], line["instance"]) == ("2", "b")
    assert line["tried"] == "a:500,b:200"


def test_what_else_is_logged_of_a_call_has_its_id(world):
    world.add("a", priority=1)
    world.add("b", priority=2)
    world.simulator["a"].faults["*"] = "500"
    world.ask(headers={"x-request-id": "mine"})
    (line,) = [each for each in world.log().splitlines() if "trying another" in each]
    assert line.endswith("] mine a: HTTP 500, trying another")


def test_who_had_no_answer_is_named_by_what_happened(world):
    world.add("a")
    world.simulator["a"].faults["*"] = "break-before-head"
    world.ask()
    (line,) = requests(world)
    assert (line["status"], line["tried"], line["instance"]) == (
        "502",
        "a:unreachable,a:unreachable",
        "",
    )


@pytest.mark.parametrize(
    "path, status, more",
    [("/v1/chat/completions", "401", {"outcome"}), ("/nothing", "404", set())],
)
def test_what_is_not_known_is_left_out(world, path, status, more):
    world.client.post(path, json=CHAT)
    (line,) = requests(world)
    assert line["status"] == status
    assert set(line) == {"id", "method", "path", "status", "ms", "error"} | more


def test_the_line_says_how_long_it_took_in_ms(world):
    world.add("a")
    world.simulator["a"].latency_ms = 30
    world.ask()
    (line,) = requests(world)
    assert 30 <= int(line["ms"]) < 30_000


def test_a_call_that_found_nobody_was_tried_nowhere(world):
    world.add("a", supported_models=["other"])
    world.ask()
    (line,) = requests(world)
    assert (line["model"], line["instance"], line["attempts"]) == (MODEL, "", "0")


def test_those_who_watch_the_gateway_do_not_fill_its_log(make_world, tmp_path):
    world = make_world(log_dir=tmp_path)
    for path in ("/health", "/ready", "/v1/models"):
        world.client.get(path)
    assert [line["path"] for line in requests(world)] == ["/v1/models"]


def test_at_debug_level_they_are_logged_too(world):
    world.client.get("/health")
    assert [line["path"] for line in requests(world)] == ["/health"]


@pytest.mark.parametrize(
    "odd",
    [
        FORGED,
        FORGED.replace("\n", "\r\n"),
        FORGED.replace("\n", "\u2028"),
        FORGED.replace("\n", "\x85"),
        "with space",
        'with "quotes" and \\',
        '"quoted"',
        "status=200",
        "ü",
        "\x1b[31mred",
        "\x00",
    ],
)
def test_no_name_can_break_its_line_or_look_like_a_field(world, odd):
    world.client_key = world.add_client(odd)
    world.add("a")
    assert world.ask(CHAT | {"model": odd}).status_code == 200
    (line,) = requests(world)
    assert (line["model"], line["client"], line["status"]) == (odd, odd, "200")
    assert len(world.log().splitlines()) == len(world.log().split("\n")) - 1
    assert world.log().isascii()


def test_no_path_can_break_its_line(world):
    world.client.get("/nothing/%0A2026-01-01%20INFO%20[1]%20request%20id=forged%0D%C2%85")
    (line,) = requests(world)
    assert line["path"] == "/nothing/\n2026-01-01 INFO [1] request id=forged\r\x85"


def test_an_odd_name_breaks_no_other_line_either(world):
    world.add("a b", priority=1)
    world.add("b", priority=2)
    world.simulator["a"].faults["*"] = "401"
    world.ask(CHAT | {"model": FORGED})
    world.simulator["b"].faults["*"] = "401"
    world.ask(CHAT | {"model": FORGED})
    world.ask(CHAT | {"model": FORGED})
    log = world.log()
    assert all(re.match(r"\d{4}-\d\d-\d\d .* \[\d+\] ", line) for line in log.splitlines())
    assert "id=forged status=200\n" not in log


@pytest.mark.parametrize("fault", [None, "401", "500", "break-in-middle", "content-filter"])
@pytest.mark.parametrize("level", ["debug", "info"])
def test_no_secret_and_no_prompt_is_ever_logged(make_world, tmp_path, capfd, fault, level):
    world = make_world(log_dir=tmp_path, log_level=level)
    root = logging.getLogger()
    root_level = root.level
    root.setLevel(logging.DEBUG)  # the libraries' lines too
    try:
        _use_everything(world, fault)
    finally:
        root.setLevel(root_level)
    written = world.log() + "".join(capfd.readouterr())
    assert "planted" not in written
    for key in (ADMIN_KEY, world.client_key, world.simulator["a"].api_key):
        assert key not in written


def _use_everything(world, fault):
    """With "planted" wherever a secret could be."""
    proxy_url = "http://user:planted-password@127.0.0.1:1"
    world.add("a")
    world.add("b", api_key="planted-upstream-key", proxy_url=proxy_url)
    if fault:
        world.simulator["a"].faults["*"] = fault
    planted = {"Cookie": "planted", "x-secret": "planted", "x-request-id": "planted secret!"}
    message = {"role": "user", "content": "planted prompt"}
    for body in (CHAT, STREAM):
        answer = world.ask(
            body | {"messages": [message], "user": "planted"},
            path="/v1/chat/completions?key=planted",
            headers=planted,
            buffered=False,
        )
        try:
            assert answer.data
        except ConnectionResetError:
            pass  # the stream that breaks
        answer.close()
    world.ask(b'{"model": planted}')
    world.client.get("/v1/models", headers={"Authorization": "Bearer gw-planted"})
    world.client.get("/admin/instances", headers={"X-Admin-API-Key": "planted"})
    world.admin("PUT", "/a", json={"api_key": "planted-rotated", "nope": "planted"})
    world.admin("PUT", "/a", json={"api_key": "planted-rotated"})
    world.admin("POST", "/b/verify", json={"model": MODEL})
    world.client.get("/ready", headers=ADMIN)
