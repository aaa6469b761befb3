import json

import pytest

from proxy.runtime.running import health

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
