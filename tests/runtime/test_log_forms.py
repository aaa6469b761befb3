import json
import logging
import sys

import pytest

from proxy.runtime.log_forms import JSON, TEXT, json_bytes

MOMENT = 1_700_000_000.25


def line(message, **more):
    made = logging.makeLogRecord({"msg": message, "levelname": "INFO", "process": 7} | more)
    made.created = MOMENT
    return made


def test_json_tells_the_moment_in_utc():
    assert json.loads(JSON.format(line("said")))["time"] == "2023-11-14T22:13:20.250Z"


def test_text_is_the_moment_the_level_the_process_and_the_message():
    assert TEXT.format(line("said")).endswith(",250 INFO [7] said")


def test_a_traceback_is_a_field():
    try:
        raise LookupError("the cause")
    except LookupError:
        found = json.loads(JSON.format(line("failed", exc_info=sys.exc_info())))
    assert found["message"] == "failed"
    assert found["traceback"].endswith("LookupError: the cause")


@pytest.mark.parametrize("odd", ["line\nbreak", "\u2028", "\x85", "\x1b[31m", "\x00", "\ud800"])
def test_nothing_in_a_line_can_end_it(odd):
    written = json_bytes({"message": odd})
    assert written.isascii()
    assert len(written.decode().splitlines()) == 1
    assert json.loads(written) == {"message": odd}


RECORD = {"id": "mine", "ended_at": MOMENT, "method": "GET", "path": "/a b", "status": 200}


def test_a_requests_line_is_its_record():
    as_json = json_bytes(RECORD)
    found = json.loads(JSON.of_request(logging.INFO, RECORD, as_json))
    assert found.items() >= RECORD.items()
    assert (found["event"], found["message"]) == ("request", "GET /a b 200")
    assert TEXT.of_request(logging.INFO, RECORD, as_json).endswith(
        ' request id=mine method=GET path="/a b" status=200'
    )
