import pytest
from flask import g, session

from proxy.web.app import PIECE_BYTES, Gateway, Relayed

LINES = [("content-type", "application/json"), ("x-ms-region", "East"), ("x-ms-region", "West")]


class Stream:
    """A body in pieces, which must be closed."""

    def __init__(self):
        self.closed = 0

    def __iter__(self):
        yield b"one"
        yield b"two"

    def close(self):
        self.closed += 1


def served(response):
    """(status, headers, body) as a server gets them."""
    told = []
    body = response({"REQUEST_METHOD": "POST"}, lambda *arguments: told.append(arguments))
    data = b"".join(body)
    body.close()
    ((status, lines),) = told
    return status, lines, data


def test_a_whole_answer_tells_its_length_behind_the_lines_it_was_given():
    assert served(Relayed(b'{"a": 1}', 201, list(LINES))) == (
        "201 CREATED",
        [*LINES, ("content-length", "8")],
        b'{"a": 1}',
    )


def test_a_large_one_goes_out_piece_by_piece():
    whole = bytearray(b"x" * (2 * PIECE_BYTES + 1))
    response = Relayed(whole, 200, list(LINES))
    told = []
    body = response({"REQUEST_METHOD": "POST"}, lambda *arguments: told.append(arguments))
    pieces = list(body)
    body.close()
    assert told[0][1] == [*LINES, ("content-length", str(len(whole)))]
    assert [type(piece) for piece in pieces] == [bytes] * 3
    assert b"".join(pieces) == whole


def test_one_that_was_given_in_pieces_tells_none_and_is_closed_once():
    stream = Stream()
    assert served(Relayed(stream, 200, list(LINES))) == ("200 OK", LINES, b"onetwo")
    assert stream.closed == 1


@pytest.mark.parametrize("has_mistakes", [True, False])
def test_one_that_nobody_is_given_is_closed_as_our_mistake_if_it_knows_those(has_mistakes):
    done = []
    stream = Stream()
    if has_mistakes:
        stream.spoil = lambda: done.append("spoiled")
    response = Relayed(stream, 200, list(LINES))
    response.call_on_close(lambda: done.append("closed"))

    def refuse(*_arguments):
        raise ValueError("no head")

    with pytest.raises(ValueError, match="no head"):
        response({"REQUEST_METHOD": "POST"}, refuse)
    assert done == (["spoiled", "closed"] if has_mistakes else ["closed"])
    assert stream.closed == 1


def test_one_that_is_closed_before_it_was_read_is_closed_all_the_same():
    stream = Stream()
    response = Relayed(stream, 200, list(LINES))
    body = response({"REQUEST_METHOD": "POST"}, lambda *_arguments: None)
    body.close()
    assert stream.closed == 1


@pytest.mark.parametrize("status", [204, 304])
def test_where_there_is_no_body_there_is_no_length(status):
    _, lines, data = served(Relayed(b"", status, list(LINES)))
    assert (lines, data) == (LINES, b"")


def test_what_is_to_be_done_at_the_end_is_done_in_order():
    done = []
    response = Relayed(Stream(), 200, list(LINES))
    response.call_on_close(lambda: done.append(1))
    response.call_on_close(lambda: done.append(2))
    served(response)
    assert done == [1, 2]


def test_a_line_may_be_added():
    response = Relayed(b"", 200, list(LINES))
    response.headers.add("x-request-id", "1")
    assert served(response)[1] == [*LINES, ("content-length", "0"), ("x-request-id", "1")]


def test_nobody_has_a_session():
    app = Gateway(__name__)
    app.secret_key = "secret"

    @app.get("/")
    def view():
        g.seen = dict(session)
        return {"session": g.seen}

    answer = app.test_client().get("/", headers={"Cookie": "session=made-up"})
    assert answer.get_json() == {"session": {}}
    assert "Set-Cookie" not in answer.headers


def test_a_server_finds_what_a_stream_comes_from():
    stream = Stream()
    source = object()
    relayed = Relayed(stream, 200, list(LINES), source=source)
    body = relayed({"REQUEST_METHOD": "POST"}, lambda *_: None)
    assert body.source is source
    body.close()
