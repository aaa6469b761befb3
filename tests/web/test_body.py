import gzip
import io
import math
import socket
import time
import zlib

import pytest
from gunicorn.http.body import Body, LengthReader
from gunicorn.http.errors import ChunkMissingTerminator, InvalidChunkSize, NoMoreData
from gunicorn.http.unreader import SocketUnreader
from werkzeug.test import create_environ

from proxy.errors import BadRequest, ClientLeft, RequestTimeout, TooLarge, UnsupportedCoding
from proxy.runtime.client_socket import ClientSocket
from proxy.web.body import parsed_form, parsed_json, read_body


class Settings:
    max_body_bytes = 10


class Parts:
    settings = Settings()


def read(stream, *, ends_at=math.inf, **environ):
    given = create_environ("/", "http://localhost", method="POST")
    given.pop("CONTENT_LENGTH", None)
    return read_body(Parts(), given | {"wsgi.input": stream} | environ, ends_at)


def chunked(data):
    return read(io.BytesIO(data), **{"wsgi.input_terminated": True})


def announced(data, length):
    return read(io.BytesIO(data), CONTENT_LENGTH=str(length))


class Broken:
    def __init__(self, error):
        self.error = error

    def read(self, _size):
        raise self.error


def test_a_body_is_read_whole_whichever_way_it_comes():
    assert chunked(b"0123456789") == announced(b"0123456789", 10) == b"0123456789"
    assert chunked(b"") == announced(b"", 0) == b""


def test_no_more_is_read_than_was_announced():
    assert announced(b"0123next request", 4) == b"0123"


def test_a_chunked_body_above_the_limit_is_refused_and_not_cut():
    with pytest.raises(TooLarge, match="larger than 10 bytes"):
        chunked(b"0123456789a")


def test_a_body_announced_above_the_limit_is_not_even_read():
    with pytest.raises(TooLarge):
        read(Broken(AssertionError("it was read")), CONTENT_LENGTH="11")


def test_of_a_body_that_ends_early_the_client_has_left():
    with pytest.raises(ClientLeft, match="before its Content-Length"):
        announced(b"012", 4)


@pytest.mark.parametrize(
    "error, kind, said",
    [
        (InvalidChunkSize(b"secret"), BadRequest, "could not be read"),
        (ChunkMissingTerminator(b"se"), BadRequest, "could not be read"),
        (ChunkMissingTerminator(b"\r"), ClientLeft, "in the middle"),
        (ChunkMissingTerminator(b""), ClientLeft, "in the middle"),
        (NoMoreData(b"secret"), ClientLeft, "in the middle"),
        (ConnectionResetError("secret"), ClientLeft, "in the middle"),
        (TimeoutError("secret"), RequestTimeout, "in time"),
    ],
)
def test_a_body_that_cannot_be_read_is_not_quoted(error, kind, said):
    with pytest.raises(kind, match=said) as caught:
        read(Broken(error), **{"wsgi.input_terminated": True})
    assert "secret" not in caught.value.message


@pytest.fixture
def ends():
    """A client's end, and what is read of the other."""
    client, served = socket.socketpair()
    with client, served:
        ours = ClientSocket(served, lambda: None)
        ours.setblocking(True)
        yield client, ours


def received(ours, ends_at=math.inf):
    """Of ten bytes, as gunicorn reads them."""
    body = Body(LengthReader(SocketUnreader(ours), 10))
    return read(body, ends_at=ends_at, **{"gunicorn.socket": ours}, CONTENT_LENGTH="10")


def test_a_body_has_its_calls_time_and_no_more(ends):
    client, ours = ends
    client.sendall(b"half ")
    with pytest.raises(RequestTimeout):
        received(ours, time.monotonic() + 0.02)
    client.sendall(b"0123456789")
    assert received(ours, time.monotonic() + 60) == b"0123456789"
    assert ours.receive_until == math.inf  # what is received next is another request


def test_without_a_time_of_its_own_it_has_that_of_every_body(ends, monkeypatch):
    monkeypatch.setattr("proxy.web.body.BODY_SECONDS", 0.02)
    with pytest.raises(RequestTimeout):
        received(ends[1])
    assert ends[1].receive_until == math.inf


def test_one_that_comes_bit_by_bit_in_time_is_read(ends):
    client, ours = ends
    sent = iter([b"01", b"2345", b"6789"])

    class Dribbling:
        """Each piece comes when the one before it was read."""

        def recv(self, size):
            client.sendall(next(sent))
            return ours.recv(size)

    body = Body(LengthReader(SocketUnreader(Dribbling()), 10))
    found = read(body, ends_at=time.monotonic() + 60, CONTENT_LENGTH="10")
    assert found == b"0123456789"


def test_a_server_that_cannot_tell_where_a_body_ends_has_none():
    assert read(Broken(AssertionError("it would wait for ever"))) == b""


@pytest.mark.parametrize("opens, closes", [(b"[", b"]"), (b'{"a":', b"}")])
def test_json_is_read_1024_levels_deep_and_no_deeper(opens, closes):
    deepest = opens * 1_024 + (b"" if closes == b"]" else b"1") + closes * 1_024
    assert parsed_json(deepest)
    for beyond in (b"[" + deepest + b"]", opens * 1_000_000):
        with pytest.raises(BadRequest, match=r"^The body is nested too deeply\.$"):
            parsed_json(beyond)


@pytest.mark.parametrize("content", [b"text", b"\xff"])
def test_a_form_where_none_is_taken_is_told(content):
    with pytest.raises(
        BadRequest, match=r"^The body is a form; a JSON object is needed here\.$"
    ):
        parsed_json(b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n" + content)


def test_what_is_no_json_is_told_with_its_place():
    with pytest.raises(BadRequest, match=r"not valid JSON: .* column 2"):
        parsed_json(b"[nope]")


@pytest.mark.parametrize(
    "body", [gzip.compress(b"x", mtime=0)[:9], zlib.compress(b"x"), b"\x0b\x03\x80x"]
)
def test_a_compressed_body_is_refused_by_that_name(body):
    size = str(len(body))
    with pytest.raises(UnsupportedCoding, match="is compressed") as caught:
        read(io.BytesIO(body), CONTENT_LENGTH=size, HTTP_CONTENT_ENCODING="x")
    assert caught.value.status == 415
    assert caught.value.headers()["accept-encoding"] == "identity"


@pytest.mark.parametrize("coding", ["identity", "utf-8", "gzip"])
def test_one_that_is_not_compressed_is_taken_whatever_it_says(coding):
    for given in (b"[12]", b' {"', b"--xyz\r\n", b""):
        body = read(
            io.BytesIO(given), CONTENT_LENGTH=str(len(given)), HTTP_CONTENT_ENCODING=coding
        )
        assert body == given


FORM = b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\nb\r\n'


def test_a_form_is_read_by_its_content_type():
    told = {"CONTENT_TYPE": "multipart/form-data; boundary=x"}
    assert parsed_form(told, FORM % b"a" + b"--x--").fields == {"a": "b"}


@pytest.mark.parametrize(
    "told, body, message, param",
    [
        (
            {},
            b"",
            "Content-Type: must be multipart/form-data with one boundary.",
            "Content-Type",
        ),
        ({"CONTENT_TYPE": "multipart/form-data; boundary=x"}, b"{}", "The form does not", None),
        (
            {"CONTENT_TYPE": "multipart/form-data; boundary=x"},
            FORM % b"model" * 2 + b"--x--",
            "model: stands in the form more than once.",
            "model",
        ),
    ],
)
def test_a_form_that_is_none_is_told_with_the_field_to_blame(told, body, message, param):
    with pytest.raises(BadRequest) as caught:
        parsed_form(told, body)
    assert caught.value.message.startswith(message)
    assert caught.value.param == param


def test_a_byte_order_mark_is_told():
    with pytest.raises(BadRequest, match="byte order mark"):
        parsed_json(b'\xef\xbb\xbf{"a":1}')


@pytest.mark.parametrize("body", ['{"a":1}'.encode("utf-16"), b'{"a":"\xff"}', b"\x1f\x8b\x08"])
def test_what_is_no_utf_8_is_told_so(body):
    with pytest.raises(BadRequest, match=r"^The body is not valid JSON: it is not UTF-8\.$"):
        parsed_json(body)
