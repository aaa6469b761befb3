import json

import pytest

from proxy.runtime.running import health, in_flight

WELL = {"status": "ok", "problem": None, "calls": {"open": 1, "waiting": 0, "ceiling": 512}}


def answering(listen, body):
    def talk(peer):
        peer.request()
        peer.answer(body)

    return f"http://127.0.0.1:{listen(talk).port}"


def test_a_worker_says_how_it_is(listen):
    assert health(answering(listen, json.dumps(WELL).encode()), seconds=5) == WELL


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"status": "UP"}', b"\xff"])
def test_another_program_on_the_port_is_no_gateway(listen, body):
    assert health(answering(listen, body), seconds=5) is None


def test_where_nobody_listens_there_is_none():
    assert health("http://127.0.0.1:9", seconds=5) is None


def test_who_does_not_answer_in_time_is_none(listen):
    listener = listen(lambda peer: peer.request() and peer.request())
    assert health(f"http://127.0.0.1:{listener.port}", seconds=0.05) is None


def test_what_is_in_flight_is_read_from_the_metrics_whatever_the_name(listen):
    asked = []

    def talk(peer):
        asked.append(peer.request())
        peer.answer(
            b"# TYPE gateway_attempts_in_flight gauge\n"
            b'gateway_attempts_in_flight{instance_name="a \\"b\\"\\\\c {d} \xc3\xa9"} 3.0\n'
            b'gateway_attempts_in_flight{instance_name="e"} 0.0\n'
        )

    address = f"http://127.0.0.1:{listen(talk).port}"
    found = in_flight(address, "planted-token-of-metrics", seconds=5)
    assert found == {'a "b"\\c {d} \xe9': 3, "e": 0}
    assert b"/metrics?name[]=gateway_attempts_in_flight " in asked[0][0]
    assert b"Bearer planted-token-of-metrics" in asked[0][0]


def test_who_may_not_read_the_metrics_knows_nothing(listen):
    def talk(peer):
        peer.request()
        peer.answer(b"{}", status=b"403 Forbidden")

    address = f"http://127.0.0.1:{listen(talk).port}"
    assert in_flight(address, "", seconds=5) is None
