"""What passes the wire: requests byte by byte, as no library sends them. Through gunicorn."""

import json
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from proxy.server.worker import HELD_SECONDS
from proxy.simulator import Simulator
from tests.e2e.conftest import ADMIN_KEY, Gateway, add_instance, free_port

WAIT_SECONDS = 10.0  # for what comes at once; it is reached only by a bug
THREADS = 4
PLANTED = "planted-0123456789"
# What a server that reads the request before otherwise would take for the next one.
SMUGGLED = f"GET /{PLANTED} HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, simulator: Simulator) -> Iterator[Gateway]:
    """One worker with few threads."""
    gateway = Gateway(tmp_path_factory.mktemp("wire"), free_port())
    gateway.start(PROXY_WORKERS="1", PROXY_THREADS=str(THREADS), PROXY_LOG_LEVEL="debug")
    add_instance(gateway, simulator["east"])
    yield gateway
    gateway.stop()
    assert "Traceback" not in gateway.log
    assert gateway.client_key not in gateway.log


def connected(gateway: Gateway) -> socket.socket:
    return socket.create_connection(("127.0.0.1", gateway.port), WAIT_SECONDS)


def everything(client: socket.socket) -> bytes:
    """What it receives until its connection ends."""
    received = b""
    while more := client.recv(65_536):
        received += more
    return received


def said(gateway: Gateway, text: str | bytes) -> bytes:
    """All that comes back on a connection on which that is sent."""
    with connected(gateway) as client:
        client.sendall(text.encode("latin-1") if isinstance(text, str) else text)
        return everything(client)


def answers(received: bytes) -> list[int]:
    """The statuses in it."""
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] ([0-9]{3}) ", received)]


def error_of(received: bytes) -> dict[str, object]:
    """Of the last answer, in OpenAI's shape."""
    head, _, body = received.rpartition(b"\r\n\r\n")
    assert b"content-type: application/json" in head.lower()
    assert b"x-request-id: " in head.lower()
    fields = json.loads(body)
    assert list(fields) == ["error"]
    error: dict[str, object] = fields["error"]
    assert sorted(error) == ["code", "message", "param", "type"]
    return error


def post(*lines: str, body: str = "", path: str = "/v1/chat/completions") -> str:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: x", *lines, "", ""]) + body


CHUNKED = "Transfer-Encoding: chunked"

# Each is refused, its connection closed, and nothing behind it read as a request.
REFUSED = {
    # How long is the body?
    "two lengths that differ": post("Content-Length: 5", "Content-Length: 6", body="hello"),
    "two lengths that agree": post("Content-Length: 5", "Content-Length: 5", body="hello"),
    "a list of lengths": post("Content-Length: 5, 5", body="hello"),
    "a length with a sign": post("Content-Length: +5", body="hello"),
    "a negative length": post("Content-Length: -5", body="hello"),
    "a length in hexadecimal": post("Content-Length: 0x5", body="hello"),
    "a length with an underscore": post("Content-Length: 0_5", body="hello"),
    "a length with a space": post("Content-Length: 1 5", body="hello"),
    "no length": post("Content-Length:", body="hello"),
    "a length of other digits": post("Content-Length: \xb2", body="hello"),
    "a length of five thousand digits": post(f"Content-Length: {'9' * 5000}"),
    "a length and chunks": post("Content-Length: 5", CHUNKED, body="0\r\n\r\n"),
    "chunks and a length": post(CHUNKED, "Content-Length: 5", body="0\r\n\r\n"),
    "chunks in HTTP/1.0": post(CHUNKED, body="0\r\n\r\n").replace("/1.1", "/1.0"),
    "chunks twice": post(CHUNKED, CHUNKED, body="0\r\n\r\n"),
    "chunks twice in a list": post(f"{CHUNKED}, chunked", body="0\r\n\r\n"),
    "chunks and identity": post(f"{CHUNKED}, identity", body="0\r\n\r\n"),
    "identity and chunks": post("Transfer-Encoding: identity, chunked", body="0\r\n\r\n"),
    "identity and chunks apart": post("Transfer-Encoding: identity", CHUNKED, body="0\r\n\r\n"),
    "identity alone": post("Transfer-Encoding: identity", body="hello"),
    "compressed chunks": post("Transfer-Encoding: gzip, chunked", body="0\r\n\r\n"),
    "compressed": post("Transfer-Encoding: gzip", body="hello"),
    "a coding that is none": post("Transfer-Encoding: xchunked", body="0\r\n\r\n"),
    "a coding with a parameter": post("Transfer-Encoding: chunked;x=y", body="0\r\n\r\n"),
    "a coding in quotes": post('Transfer-Encoding: "chunked"', body="0\r\n\r\n"),
    "a coding behind a comma": post("Transfer-Encoding: ,chunked", body="0\r\n\r\n"),
    "a coding behind a tab that is none": post(
        "Transfer-Encoding: \x0bchunked", body="0\r\n\r\n"
    ),
    "no coding": post("Transfer-Encoding:", body="hello"),
    # Where does a header end?
    "a space before the colon": post("Content-Length : 5", body="hello"),
    "a tab before the colon": post("Transfer-Encoding\t: chunked", body="0\r\n\r\n"),
    "a folded header": post("X: y", " Content-Length: 5", body="hello"),
    "a folded coding": post("Transfer-Encoding:", " chunked", body="0\r\n\r\n"),
    "a line feed alone": post("X: y\nContent-Length: 5", body="hello"),
    "a carriage return alone": post("X: y\rContent-Length: 5", body="hello"),
    "a zero byte in a value": post("X: y\0z"),
    "a zero byte in a name": post("X\0: y"),
    "a control character in a value": post("X: y\x01z"),
    "a name that is none": post("X(y): z"),
    "an empty name": post(": y"),
    "a line without a colon": post("X"),
    "a name beyond ASCII": post("X\xe4: y"),
    "two hosts": post("Host: y"),
    "no host": "GET /health HTTP/1.1\r\n\r\n",
    "a host that is none": "GET /health HTTP/1.1\r\nHost: a b\r\n\r\n",
    "two types": post("Content-Type: a/b", "Content-Type: c/d"),
    # What is asked for?
    "a head of line feeds": "GET / HTTP/1.1\nHost: x\n\n",
    "no version": "GET /\r\n\r\n",
    "another version": "GET / HTTP/2.0\r\n\r\n",
    "a version with more digits": "GET / HTTP/1.10\r\nHost: x\r\n\r\n",
    "HTTP/2 in clear": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a method in lower case": "get / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method that is none": "G(T / HTTP/1.1\r\nHost: x\r\n\r\n",
    "two spaces": "GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tab": "GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space in the path": "GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "a byte beyond ASCII in the path": "GET /\xe4 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a zero byte in the path": "GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a path without a slash": "GET admin HTTP/1.1\r\nHost: x\r\n\r\n",
    "an asterisk": "GET * HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space before the first header": "GET / HTTP/1.1\r\n X: y\r\n\r\n",
    "an empty line too many": "\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": "\x16\x03\x01\x00\x05hello",
}
OTHERS = {
    "an expectation nobody knows": (post("Expect: 200-ok"), 417, "expectation_failed"),
    "too long a line": (f"GET /{'x' * 5_000} HTTP/1.1\r\nHost: x\r\n\r\n", 414, "uri_too_long"),
    "too long a header": (post(f"X: {'x' * 9_000}"), 431, "headers_too_large"),
    "too many headers": (post(*["X: y"] * 101), 431, "headers_too_large"),
    "too long a head": (
        "GET / HTTP/1.1\r\n" + f"X: {'x' * 8_000}\r\n" * 20,
        431,
        "headers_too_large",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_could_be_read_as_another_request_is_refused(small: Gateway, name: str) -> None:
    received = said(small, REFUSED[name] + SMUGGLED)
    assert answers(received) == [400]
    assert error_of(received)["code"] == "malformed_request"
    assert PLANTED not in received.decode() + small.log


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_above_a_limit_is_refused_with_its_status(small: Gateway, name: str) -> None:
    sent, status, code = OTHERS[name]
    received = said(small, sent)
    assert answers(received) == [status]
    assert error_of(received)["code"] == code


BROKEN_CHUNKS = {
    "a size with a prefix": "0x5\r\nhello\r\n0\r\n\r\n",
    "a size with a sign": "+5\r\nhello\r\n0\r\n\r\n",
    "a negative size": "-5\r\nhello\r\n0\r\n\r\n",
    "a size with an underscore": "0_5\r\nhello\r\n0\r\n\r\n",
    "a space before the size": " 5\r\nhello\r\n0\r\n\r\n",
    "a space behind the size": "5 \r\nhello\r\n0\r\n\r\n",
    "no size": "\r\nhello\r\n0\r\n\r\n",
    "a size that is none": "five\r\nhello\r\n0\r\n\r\n",
    "too small a size": "4\r\nhello\r\n0\r\n\r\n",
    "too large a size": "6\r\nhello\r\n0\r\n\r\n",
    "no line end behind the data": "5\r\nhello0\r\n\r\n",
    "a line feed behind the size": "5\nhello\r\n0\r\n\r\n",
    "a line feed behind the data": "5\r\nhello\n0\r\n\r\n",
    "an extension that is none": "5;\r\nhello\r\n0\r\n\r\n",
    "an extension with a carriage return": "5;a\rb\r\nhello\r\n0\r\n\r\n",
    "an extension with a line feed": "5;a\nb\r\nhello\r\n0\r\n\r\n",
    "an extension without an end": f"5;a={'x' * 20_000}",
    "a trailer that is none": "0\r\nX\r\n\r\n",
    "a trailer that tells a length": "0\r\nContent-Length: 5\r\n\r\n",
    "a trailer that tells a coding": f"0\r\n{CHUNKED}\r\n\r\n",
    "a trailer with a line feed": "0\r\nX: y\nZ: z\r\n\r\n",
}


@pytest.mark.parametrize("name", BROKEN_CHUNKS)
@pytest.mark.parametrize("with_key", [True, False])
def test_broken_chunks_end_the_connection(small: Gateway, name: str, with_key: bool) -> None:
    """Whether the app reads them, or refuses the request without."""
    key = f"api-key: {small.client_key if with_key else 'x'}"
    received = said(small, post(key, CHUNKED, body=BROKEN_CHUNKS[name]) + SMUGGLED)
    assert answers(received) == [400 if with_key else 401]
    error_of(received)
    assert PLANTED not in received.decode() + small.log


@pytest.mark.parametrize("lines", [["api-key: x"], ["Host: y"]])
def test_who_is_refused_in_the_middle_of_a_large_body_reads_why(
    small: Gateway, lines: list[str]
) -> None:
    received = said(small, post(*lines, "Content-Length: 5000000", body="x" * 5_000_000))
    assert answers(received) == [401 if "api-key" in lines[0] else 400]
    error_of(received)


@pytest.mark.parametrize("size, is_kept", [(30_000, True), (200_000, False)])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("status", [401, 404])
def test_who_is_refused_is_told_whether_the_connection_stays(
    small: Gateway, status: int, size: int, is_kept: bool, chunked: bool
) -> None:
    key = f"api-key: {small.client_key if status == 404 else 'x'}"
    path = "/v1/files" if status == 404 else "/v1/chat/completions"
    framing = CHUNKED if chunked else f"Content-Length: {size}"
    body = f"{size:x}\r\n{'x' * size}\r\n0\r\n\r\n" if chunked else "x" * size
    received = said(
        small,
        post(key, framing, path=path, body=body) + post("Connection: close", path="/nope"),
    )
    first = received.partition(b"\r\n\r\n")[0].lower()
    stays = is_kept and not chunked
    assert (b"connection: keep-alive" in first) is stays
    assert (b"connection: close" in first) is not stays
    assert answers(received) == [status, 404] if stays else [status]


@pytest.mark.parametrize(
    "body",
    [
        "5\r\nhello\r\n0\r\n\r\n",
        "5;a=b;c\r\nhello\r\n0\r\n\r\n",
        '5 ;a="b"\r\nhello\r\n000\r\nX: y\r\n\r\n',
        "0000005\r\nhello\r\n0\r\n\r\n",
    ],
)
def test_proper_chunks_are_read_and_the_next_request_too(small: Gateway, body: str) -> None:
    last = post("Connection: close", path="/nope")
    received = said(small, post(f"api-key: {small.client_key}", CHUNKED, body=body) + last)
    assert answers(received) == [400, 404]  # hello is no JSON
    assert b"not valid JSON" in received


def test_a_name_with_an_underscore_is_not_the_one_with_a_dash(small: Gateway) -> None:
    for line in (
        f"X_Admin_API_Key: {ADMIN_KEY}",
        "SCRIPT_NAME: /admin",
        "PATH_INFO: /health",
        "REMOTE_ADDR: 10.0.0.1",
    ):
        received = said(
            small,
            f"GET /admin/instances HTTP/1.1\r\nHost: x\r\n{line}\r\nConnection: close\r\n\r\n",
        )
        assert answers(received) == [401], line


def test_a_client_cannot_contradict_the_scheme(small: Gateway) -> None:
    lines = "X-Forwarded-Proto: http\r\nX-Forwarded-SSL: on\r\nConnection: close\r\n\r\n"
    assert answers(said(small, f"GET /health HTTP/1.1\r\nHost: x\r\n{lines}")) == [200]


CROWDS = {
    "nothing": "",
    "a byte": "P",
    "half a head": post("X: y").removesuffix("\r\n"),
    "no body": post("Content-Length: 9"),
    "no body of a call": "KEY",
}


@pytest.mark.parametrize("name", CROWDS)
def test_a_crowd_that_says_half_of_what_it_wants_keeps_nobody_out(
    small: Gateway, name: str
) -> None:
    """More than there are threads, and more than may be connected."""
    sent = CROWDS[name]
    if sent == "KEY":
        sent = post(f"api-key: {small.client_key}", "Content-Length: 9")
    with ExitStack() as crowd:
        for _ in range(2 * THREADS + 150):
            client = crowd.enter_context(connected(small))
            client.sendall(sent.encode())
        for _ in range(10):
            assert small.answers()


def test_a_crowd_that_does_not_read_keeps_nobody_out_for_long(small: Gateway) -> None:
    page = "GET /admin/docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n"
    with ExitStack() as crowd:
        for _ in range(THREADS + 30):
            client = crowd.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            client.connect(("127.0.0.1", small.port))
            client.sendall(page.encode() * 20)
        for _ in range(5):
            with connected(small) as client:
                client.settimeout(HELD_SECONDS + WAIT_SECONDS)
                client.sendall(b"GET /health HTTP/1.0\r\n\r\n")
                assert answers(everything(client)) == [200]


def test_its_log_tells_what_was_refused(small: Gateway) -> None:
    said(small, f"{PLANTED}\r\n\r\n")
    line = next(x for x in small.log.splitlines() if "not an HTTP/1.1 request" in x)
    assert "client=127.0.0.1 status=400" in line


def test_the_simulated_upstream_was_never_asked(small: Gateway, simulator: Simulator) -> None:
    assert simulator["east"].requests == []
    assert Path(small.database).exists()
