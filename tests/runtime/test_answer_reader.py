import contextlib
import gzip
import http.client
import io
import itertools
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.runtime.answer_reader import (
    BROKE_OFF,
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    NO_ANSWER,
    NOT_HTTP,
    NOT_READABLE,
    TOO_LARGE,
    AnswerReader,
    BrokenAnswer,
)

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
PLAIN = OK + b"content-length: 5\r\n\r\nhello"


def reader(*pieces):
    """Of a connection that gives these pieces, and then its end."""
    left = list(pieces)
    return AnswerReader(lambda _size: left.pop(0) if left else b"")


def read(*pieces):
    """(status, headers, body) of an answer that comes in these pieces."""
    answer = reader(*pieces)
    answer.read_head()
    body = []
    while data := answer.read1():
        body.append(data)
    return answer.status, answer.headers, b"".join(body)


def why(*pieces):
    with pytest.raises(BrokenAnswer) as caught:
        read(*pieces)
    return str(caught.value)


def cut(data, places):
    places = sorted({0, *(p % (len(data) + 1) for p in places), len(data)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


# Heads.


def test_a_head_is_status_and_headers_in_order_by_names_in_lower_case():
    head = OK + b"Content-Length: 0\r\nX-One:  a b \r\nx-one: c\r\n\r\n"
    assert read(head) == (
        200,
        [("content-length", "0"), ("x-one", "a b"), ("x-one", "c")],
        b"",
    )


def test_interim_answers_are_passed_over():
    early = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    assert read(b"HTTP/1.1 100 Continue\r\n\r\n", early + early + PLAIN) == (
        200,
        [("content-length", "5")],
        b"hello",
    )


@pytest.mark.parametrize(
    "sent, message",
    [
        (b"", NO_ANSWER),
        (b"HTTP/1.1 20", BROKE_OFF),
        (OK + b"content-length: 5\r\n", BROKE_OFF),
        (b"HTTP/1.1 100 Continue\r\n\r\n", BROKE_OFF),
        (b"HTTP/1.1 two\r\n\r\n", NOT_HTTP),
        (b"HTTP/2 200 OK\r\n\r\n", NOT_HTTP),
        (b"GET / HTTP/1.1\r\n\r\n", NOT_HTTP),
        (b"\x16\x03\x01\x02\x00\x01", NOT_HTTP),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
            NOT_HTTP,
        ),
        (OK + b"name : spaced\r\n\r\n", NOT_HTTP),
        (OK + b"a: b\r\n folded\r\n\r\n", NOT_HTTP),
        (OK + b"a: b\x00\r\n\r\n", NOT_HTTP),
    ],
)
def test_what_is_no_head_is_said(sent, message):
    assert why(sent) == message


@pytest.mark.parametrize(
    "lengths",
    [
        b"content-length: 5\r\ncontent-length: 5\r\n",
        b"content-length: 5\r\ncontent-length: 6\r\n",
        b"content-length: 5\r\ntransfer-encoding: chunked\r\n",
        b"content-length: -5\r\n",
        b"content-length: 5, 5\r\n",
        b"content-length: 0x5\r\n",
        b"content-length: 99999999999999999999\r\n",
    ],
)
def test_lengths_on_which_two_readers_could_disagree_are_refused(lengths):
    assert why(OK + lengths + b"\r\nhello") == NOT_HTTP


def test_a_head_has_a_largest_size():
    field = b"x: " + b"y" * 1000 + b"\r\n"
    assert why(OK, *[field] * (MAX_HEAD_BYTES // len(field) + 2)) == TOO_LARGE
    assert why(OK + b"x: ", *[b"y" * 1000] * (MAX_HEAD_BYTES // 1000 + 1)) == TOO_LARGE


def test_a_head_has_a_largest_number_of_headers():
    most = b"a: b\r\n" * (MAX_HEADERS - 1) + b"content-length: 0\r\n\r\n"
    assert len(read(OK + most)[1]) == MAX_HEADERS
    assert why(OK + b"a: b\r\n" + most) == TOO_LARGE


# Bodies.


@pytest.mark.parametrize(
    "sent, body",
    [
        (PLAIN, b"hello"),
        (OK + b"content-length: 0\r\n\r\n", b""),
        (CHUNKED + b"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nt: trailer\r\n\r\n", b"hello"),
        (CHUNKED + b"0\r\n\r\n", b""),
        (OK + b"\r\nhello", b"hello"),
        (b"HTTP/1.0 200 OK\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", b""),
        (OK + b"content-encoding: identity\r\ncontent-length: 2\r\n\r\nhi", b"hi"),
    ],
)
def test_a_body_ends_where_its_head_says(sent, body):
    assert read(sent)[2] == body
    assert read(*(bytes([b]) for b in sent))[2] == body


def test_trailers_are_no_headers():
    assert read(CHUNKED + b"0\r\nretry-after: 1\r\n\r\n")[1] == [
        ("transfer-encoding", "chunked")
    ]


def test_what_has_arrived_is_given_at_once():
    answer = reader(CHUNKED + b"2\r\nhe\r\n2\r\nll\r\n", b"1\r\no\r\n", b"0\r\n\r\n")
    answer.read_head()
    assert [answer.read1() for _ in range(4)] == [b"hell", b"o", b"", b""]


@pytest.mark.parametrize(
    "sent",
    [
        OK + b"content-length: 5\r\n\r\nhell",
        CHUNKED + b"5\r\nhello\r\n",
        CHUNKED + b"5\r\nhel",
        CHUNKED + b"5\r\nhello\r\n0\r\n",
    ],
)
def test_a_body_that_is_cut_short_is_said(sent):
    assert why(sent) == BROKE_OFF


@pytest.mark.parametrize("bad", [b"-1\r\n", b"x\r\n", b"5 \r\nhello\r\n", b"5\r\nhello!\r\n"])
def test_chunks_that_are_none_are_said(bad):
    assert why(CHUNKED + bad) == NOT_HTTP


@pytest.mark.parametrize("places", [(), (-12,)])  # in one piece, and the bad part by itself
def test_what_came_before_a_bad_part_is_read_first_however_it_came(places):
    answer = reader(*cut(CHUNKED + b"5\r\nhello\r\n" + b"zz garbage\n", places))
    answer.read_head()
    assert answer.read1() == b"hello"
    assert answer.has_ended == (places == ())
    with pytest.raises(BrokenAnswer, match=NOT_HTTP):
        answer.read1()
    assert not answer.reusable


def test_what_stands_between_the_bodys_parts_has_a_largest_size():
    endless = [b"x" * 1000] * (MAX_HEAD_BYTES // 1000 + 1)
    assert why(CHUNKED + b"5;", *endless) == TOO_LARGE
    assert why(CHUNKED + b"0\r\nt: ", *endless) == TOO_LARGE
    assert why(CHUNKED, *[b"0\r\n"], *[b"t: u\r\n"] * 20_000) == TOO_LARGE


@pytest.mark.parametrize("where", [len(b"1;xx"), len(b"1;" + b"x" * 1000 + b"\r\na")])
def test_many_small_parts_are_no_large_one(where):
    """Also where they come in two pieces, of which one has nothing of the body."""
    chunk = b"1;" + b"x" * 1000 + b"\r\na\r\n"
    pieces = [chunk[:where], chunk[where:]] * 200
    assert read(CHUNKED, *pieces, b"0\r\n\r\n")[2] == b"a" * 200


@pytest.mark.parametrize(
    "coding", [b"gzip", b"gzip, chunked", b"identity", b"chunked, chunked"]
)
def test_a_transfer_coding_we_did_not_ask_for_is_refused(coding):
    assert why(OK + b"transfer-encoding: " + coding + b"\r\n\r\n") in (NOT_READABLE, NOT_HTTP)


# Compression, which we did not ask for either, but some send always.


@pytest.mark.parametrize(
    "name, compress",
    [(b"gzip", gzip.compress), (b"X-GZip", gzip.compress), (b"deflate", zlib.compress)],
)
def test_a_compressed_body_is_read(name, compress):
    data = compress(b"hello " * 1000)
    head = OK + b"content-encoding: %s\r\ncontent-length: %d\r\n\r\n" % (name, len(data))
    assert read(head + data)[2] == b"hello " * 1000
    assert read(head, *(bytes([b]) for b in data))[2] == b"hello " * 1000


def test_a_compressed_body_may_be_made_of_several():
    members = [gzip.compress(b"hello "), gzip.compress(b""), gzip.compress(b"world")]
    data = b"".join(members)
    head = OK + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(data)
    assert read(head + data)[2] == b"hello world"
    assert read(head, *members)[2] == b"hello world"
    assert read(head, *(bytes([b]) for b in data))[2] == b"hello world"
    assert why(OK + b"content-encoding: gzip\r\n\r\n" + data[:-9]) == BROKE_OFF


@pytest.mark.parametrize("padding", [b"\0" * 8, b"\n", b"world", b"\x1fx"])
def test_what_stands_behind_a_compressed_body_is_no_part_of_it(padding):
    data = gzip.compress(b"hello") + padding
    head = OK + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(data)
    assert read(head + data)[2] == b"hello"
    assert read(head, *(bytes([b]) for b in data))[2] == b"hello"


def test_a_second_member_that_has_only_begun_is_cut_short():
    data = gzip.compress(b'{"a":') + gzip.compress(b"1}")[:1]
    head = OK + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(data)
    assert why(head + data) == BROKE_OFF


def test_padding_has_a_limit():
    data = gzip.compress(b"{}") + b"\0" * 200_000
    head = OK + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(data)
    assert why(head + data) == TOO_LARGE


def test_a_compressed_body_that_is_cut_short_inside_its_length_is_said():
    data = gzip.compress(b"hello " * 1000)[:-9]
    head = OK + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(data)
    assert why(head + data) == BROKE_OFF


@pytest.mark.parametrize("name", [b"br", b"zstd", b"gzip, gzip"])
def test_a_compression_nobody_can_read_is_refused_at_the_head(name):
    assert (
        why(OK + b"content-encoding: %s\r\ncontent-length: 2\r\n\r\nhi" % name) == NOT_READABLE
    )


def test_a_body_that_is_not_compressed_as_it_says_is_refused():
    assert why(OK + b"content-encoding: gzip\r\ncontent-length: 5\r\n\r\nhello") == NOT_READABLE


# Whether the connection can be used again.


@pytest.mark.parametrize(
    "sent, reusable",
    [
        (PLAIN, True),
        (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello", False),
        (OK + b"\r\nhello", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello", False),
        (PLAIN + b"surplus", False),
        (PLAIN + PLAIN, False),
        (b"HTTP/1.1 204 No Content\r\n\r\nsurplus", False),
    ],
)
def test_a_connection_is_reusable_if_the_answer_ended_where_it_should(sent, reusable):
    answer = reader(sent)
    answer.read_head()
    body = b""
    while data := answer.read1():
        body += data
    assert body in (b"hello", b"")
    assert answer.status < 300
    assert answer.reusable is reusable


def test_a_connection_is_not_reusable_before_the_answers_end():
    answer = reader(PLAIN[:-1], b"o")
    answer.read_head()
    assert not answer.reusable
    assert (answer.read1(), answer.reusable) == (b"hell", False)
    assert (answer.read1(), answer.reusable) == (b"o", True)


# Against the standard library's reader.

TOKENS = st.text("abcdefgh-", min_size=1, max_size=9)
VALUES = st.text("abc, ;=\t\"'", max_size=20).map(str.strip)


@st.composite
def answers(draw):
    body = draw(st.binary(max_size=300))
    names = draw(st.lists(st.tuples(TOKENS, VALUES), max_size=5))
    lines = [f"x-{n}: {v}" for n, v in names]
    how = draw(st.sampled_from(["length", "chunked", "close"]))
    if how == "length":
        lines.append(f"Content-Length: {len(body)}")
    elif how == "chunked":
        lines.append("Transfer-Encoding: chunked")
        cuts = draw(st.lists(st.integers(1, 300), max_size=5))
        parts = [p for p in cut(body, cuts) if p] if body else []
        body = b"".join(b"%X\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"
    status = draw(st.sampled_from([200, 201, 400, 404, 429, 500, 503]))
    return (
        f"HTTP/1.1 {status} Some words\r\n".encode()
        + "".join(f"{line}\r\n" for line in lines).encode()
        + b"\r\n"
        + body
    )


class FakeSocket:
    def __init__(self, data):
        self.data = data

    def makefile(self, _mode):
        return io.BytesIO(self.data)


@given(answers(), st.lists(st.integers(0, 2000), max_size=20))
def test_it_reads_what_the_standard_library_reads_however_it_is_cut(data, places):
    expected = http.client.HTTPResponse(FakeSocket(data))
    expected.begin()
    status, headers, body = read(*cut(data, places))
    assert status == expected.status
    assert headers == [(name.lower(), value) for name, value in expected.getheaders()]
    assert body == expected.read()


@given(st.binary(max_size=200), st.lists(st.integers(0, 300), max_size=8))
def test_nothing_that_comes_raises_anything_else(junk, places):
    for head in (b"", OK, CHUNKED):
        with contextlib.suppress(BrokenAnswer):
            read(*cut(head + junk, places))


# Without waiting.


def test_one_that_has_nothing_yet_is_as_it_was_before_it_was_asked():
    answer = reader(CHUNKED + b"2\r\nhe\r\n", b"\n1\r\no\r\n0\r\n\r\n")
    answer.read_head()
    given = [b"2\r\nll\r", None]

    def receive(_size):
        piece = given.pop(0)
        if piece is None:
            raise BlockingIOError
        return piece

    assert answer.read1(receive) == b"he"
    assert answer.read1(receive) == b"ll"
    with pytest.raises(BlockingIOError):
        answer.read1(receive)
    assert [answer.read1() for _ in range(2)] == [b"o", b""]
    assert answer.reusable
