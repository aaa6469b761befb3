"""The real gunicorn, byte by byte: what no library sends, whole, changed and cut."""

import re
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.simulator import Resource, Simulator
from tests.e2e.conftest import Gateway, add_instance, free_port
from tests.fuzz import inputs as sent
from tests.fuzz.conftest import check_answer, tried

WAIT_SECONDS = 20.0  # for what comes at once; it is reached only by a bug
STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([0-9]{3}) [^\r\n]*\r\n")

# A body may be nested without measure; where one fails, the blob has all of it.
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """One worker in front of an instance that is well; its log has no word of a failure."""
    gateway = Gateway(tmp_path_factory.mktemp("fuzz"), free_port())
    try:
        with Simulator(
            [Resource(name="east", api_key="upstream-key-0123", tokens=3)]
        ) as simulator:
            gateway.start(PROXY_WORKERS="1")
            add_instance(gateway, simulator["east"], supported_models=[])
            yield gateway
            assert gateway.answers()
            gateway.stop()
    finally:
        gateway.stop(9)
    log = gateway.log
    assert log.count("Booting worker") == 1
    for word in (
        "Traceback",
        " ERROR ",
        "[ERROR]",
        '"ERROR"',
        gateway.client_key,
        "upstream-key-0123",
    ):
        assert word not in log, log[max(0, log.index(word) - 500) :][:3_000]


def raw(gateway, request, *, closes=True):
    """The request as bytes, with line ends and lengths as they should be."""
    key = gateway.client_key
    lines = [f"{request.method} {request.target} HTTP/1.1"]
    lines += ["Connection: close"] * closes
    lines += [f"{name}: {value}" for name, value in request.headers]
    if not any(name == "Host" for name, _ in request.headers):
        lines.append("Host: x")
    lines += {
        "bearer": [f"Authorization: Bearer {key}"],
        "wrong": ["Authorization: Bearer gw-planted"],
        "none": [],
    }.get(request.credentials, [f"api-key: {key}"])
    body = request.body
    if request.framing == "chunked":
        lines.append("Transfer-Encoding: chunked")
        half = len(body) // 2
        parts = [part for part in (body[:half], body[half:]) if part]
        body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    elif request.framing != "none":
        wrong_by = request.framing if isinstance(request.framing, int) else 0
        lines.append(f"Content-Length: {max(0, len(body) + wrong_by)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + body


def said(gateway, pieces, *, is_whole=False):
    """All that comes back. Where it may lack its rest it is ended, which may be taken for
    leaving."""
    with socket.create_connection(("127.0.0.1", gateway.port), WAIT_SECONDS) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        received = b""
        try:
            for piece in pieces:
                client.sendall(piece)
            if not is_whole:
                client.shutdown(socket.SHUT_WR)
            while more := client.recv(65_536):
                received += more
        except TimeoutError:
            raise
        except OSError:
            pass  # it was closed, with bytes of ours unread
        return received


def check_answers(received, data):
    """Each of the answers in it, as far as they are whole."""
    if b"HEAD " in data:
        return  # whose answers tell lengths of bodies that do not come
    while received:
        match = STATUS_LINE.match(received)
        assert match, received[:300]
        head, found, rest = received.partition(b"\r\n\r\n")
        if not found:
            return
        status = int(match[1])
        if status == 100:
            received = rest
            continue
        headers = {}
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.decode("latin-1").partition(": ")
            headers[name.lower()] = value
        if "content-length" not in headers:  # a stream, which is the last
            assert status < 500, received[:500]
            return
        length = int(headers["content-length"])
        if len(rest) >= length:
            check_answer(status, headers, rest[:length])
        received = rest[length:]


def is_proper(request):
    """It says truly how long it is."""
    return isinstance(request.framing, str)


@tried(0.3, each=4)
@given(sent.requests(), sent.requests(), sent.EDITS, st.floats(0, 1))
def test_whatever_is_sent_no_answer_is_a_failure_of_ours(
    gateway, inputs, drawn, other, edits, at
):
    one, whole = raw(gateway, drawn), raw(gateway, drawn, closes=False)
    second = raw(gateway, other)
    cut = int(len(one) * at)
    for pieces, proper in (
        ([one[:cut], one[cut:]], is_proper(drawn)),
        ([whole + second], is_proper(drawn) and is_proper(other)),
        ([sent.edited(whole, edits), second], False),
        ([whole[:cut]], False),
    ):
        inputs.count += 1
        received = said(gateway, pieces, is_whole=proper)
        assert received or not proper
        check_answers(received, b"".join(pieces))
