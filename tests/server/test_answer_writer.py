"""An answer's head is what gunicorn would write."""

import io
import time
from types import SimpleNamespace

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import InvalidResponseHeader, InvalidResponseHeaderName
from gunicorn.http.wsgi import Response

from proxy.server import answer_writer
from proxy.server.answer_writer import Answer

USUAL = [("content-type", "application/json"), ("x-request-id", "0123"), ("x-empty", "")]


class Spelled(str):
    """What is looked at is what is written."""

    def __str__(self):
        return "b\r\nset-cookie: c"


class Sent(list):
    def sendall(self, data):
        self.append(bytes(data))


def request(method="POST", version=(1, 1), *, closes=False):
    return SimpleNamespace(
        method=method, version=version, should_close=lambda: closes, body=io.BytesIO()
    )


def written(kind, status, headers, *pieces, method="POST", version=(1, 1), closes=False):
    asked = request(method, version, closes=closes)
    sent = Sent()
    answer = kind(asked, sent, Config())
    answer.start_response(status, headers)
    for piece in pieces:
        answer.write(piece)
    answer.close()
    return b"".join(sent)


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    now = SimpleNamespace(at=1_800_000_000.75)
    monkeypatch.setattr(time, "time", lambda: now.at)
    return now


@pytest.mark.parametrize(
    "headers",
    [
        [],
        USUAL,
        [*USUAL, ("content-length", "2")],
        [*USUAL, ("Content-Length", "2")],
        [*USUAL, ("x-request-id", "again")],
        [("content-length", "1"), *USUAL, ("Content-Length", "2")],
        [*USUAL, ("connection", "upgrade"), ("upgrade", "websocket")],
        [*USUAL, ("connection", "close"), ("keep-alive", "x"), ("date", "never")],
        [*USUAL, ("transfer-encoding", "chunked"), ("server", "ours"), ("content-length", "2")],
        [*USUAL, ("x-a", "K\xf6ln")],
        [*USUAL, ("x-a", "one\ttwo")],
        [*USUAL, ("x-a", "  b \t"), ("content-length", " 2 ")],
        [*USUAL, ("x-a", Spelled("b"))],
    ],
)
@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "304 Not Modified", "599 "])
@pytest.mark.parametrize(
    "request_of",
    [{}, {"method": "HEAD"}, {"version": (1, 0)}, {"closes": True}],
    ids=["post", "head", "http10", "closing"],
)
def test_it_is_what_gunicorn_writes(headers, status, request_of):
    ours = written(Answer, status, headers, b"o", b"k", **request_of)
    assert ours == written(Response, status, headers, b"o", b"k", **request_of)


@pytest.mark.parametrize(
    "name, value, error",
    [
        ("x-a", "b\r\nset-cookie: c", InvalidResponseHeader),
        ("x-a", "b\nc", InvalidResponseHeader),
        ("x-a", "b\n", InvalidResponseHeader),
        ("x-a", "\x1fb", InvalidResponseHeader),
        ("x-a", "b\rc", InvalidResponseHeader),
        ("x-a", "b\x00c", InvalidResponseHeader),
        ("x-a", "b\x7fc", InvalidResponseHeader),
        ("x-a", "\u20ac", InvalidResponseHeader),
        ("x-a\r\nb", "c", InvalidResponseHeaderName),
        ("x a", "c", InvalidResponseHeaderName),
        ("", "c", InvalidResponseHeaderName),
        ("content-length", "two", ValueError),
        ("x-a", b"bytes", TypeError),
        (b"x-a", "bytes", TypeError),
    ],
)
def test_what_would_be_another_header_is_refused(name, value, error):
    for kind in (Answer, Response):
        with pytest.raises(error):
            written(kind, "200 OK", [*USUAL, (name, value)])


def test_of_a_body_that_failed_the_connection_ends_and_its_client_is_told():
    asked, sent = request(), Sent()
    asked.body = SimpleNamespace(reader=SimpleNamespace(length=9), failed=True)
    answer = Answer(asked, sent, Config())
    answer.start_response("408 Request Timeout", USUAL)
    answer.close()
    assert b"\r\nConnection: close\r\n" in b"".join(sent)
    assert answer.should_close()


def test_names_are_looked_at_once(monkeypatch):
    answer_writer._kind.cache_clear()
    written(Answer, "200 OK", USUAL)
    written(Answer, "200 OK", USUAL)
    assert answer_writer._kind.cache_info().misses == len(USUAL)


def test_the_date_is_that_of_its_second(clock):
    heads = []
    for clock.at in (1_800_000_000.0, 1_800_000_000.99, 1_800_000_001.0):
        heads.append(written(Answer, "200 OK", []).split(b"\r\n")[2])
    assert heads == [
        b"Date: Fri, 15 Jan 2027 08:00:00 GMT",
        b"Date: Fri, 15 Jan 2027 08:00:00 GMT",
        b"Date: Fri, 15 Jan 2027 08:00:01 GMT",
    ]


def test_what_is_sent_otherwise_looks_the_same():
    asked = request(version=(1, 1))
    sent = Sent()
    answer = Answer(asked, sent, Config())
    answer.start_response("200 OK", USUAL)
    assert not answer.is_open_ended
    answer.write(b"a" * 20)
    assert answer.is_open_ended
    assert answer.framed(b"b" * 20) == sent[-1].replace(b"a", b"b")
    assert answer.sent == 40


@pytest.mark.parametrize(
    "headers, version", [([("content-length", "9")], (1, 1)), ([], (1, 0))]
)
def test_one_with_a_length_and_one_for_an_old_client_are_not_framed(headers, version):
    asked = request(version=version)
    answer = Answer(asked, Sent(), Config())
    answer.start_response("200 OK", headers)
    answer.write(b"a")
    assert not answer.is_open_ended


def test_what_is_begun_anew_has_no_length_of_what_was_begun_before():
    """As of an error that comes before anything was sent (PEP 3333)."""
    asked = request(version=(1, 1))
    answer = Answer(asked, Sent(), Config())
    answer.process_headers([*USUAL, ("content-length", "5")])
    answer.process_headers(USUAL)
    assert (answer.headers, answer.response_length) == (USUAL, None)
