import pytest

from proxy.core.request_head import MAX_HEAD_BYTES, is_half, is_whole, says_something
from proxy.errors import HeadTooLarge, Malformed

GET = b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "received, expected",
    [
        (b"", False),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", False),
        (GET, True),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab", False),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", True),
        (b"POST / HTTP/1.1\r\ncontent-length:3\r\nX: 1\r\n\r\nabcd", True),
        (b"POST / HTTP/1.1\r\nX-Content-Length: 9\r\n\r\n", True),
        # A number that is none nobody is to wait for: 100, and no body.
        (b"POST / HTTP/1.1\r\nContent-Length: 0000000000000000100\r\n\r\n", False),
        (b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\nabc", False),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\nabc", False),
        (b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 10_000 + b"\r\n\r\nabc", False),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", False),
    ],
)
def test_whether_a_request_is_there_as_a_whole(received, expected):
    assert is_whole(received) is expected


@pytest.mark.parametrize(
    "received, expected",
    [
        (b"", True),
        (b"G", True),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: x\r", True),  # its line end was cut
        (GET[:-1], True),
        (GET, False),
        (GET + b"GET", False),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\na\n", False),  # half a body is none
        (b"G" * MAX_HEAD_BYTES, True),
    ],
)
def test_whether_there_is_half_of_a_head(received, expected):
    assert is_half(received) is expected


def test_every_beginning_of_a_head_is_half_of_one():
    assert all(is_half(GET[:size]) for size in range(len(GET)))


@pytest.mark.parametrize(
    "received, kind, said",
    [
        (b"G" * (MAX_HEAD_BYTES + 1), HeadTooLarge, "larger than 65536 bytes"),
        (b"GET / HTTP/1.1\n", Malformed, "carriage return"),
        (b"GET / HTTP/1.1\r\nX: y\nZ", Malformed, "carriage return"),
        (b"\x16\x03\x01", Malformed, "HTTPS"),
    ],
)
def test_what_can_become_no_head_is_not_waited_for(received, kind, said):
    with pytest.raises(kind, match=said):
        is_half(received)


@pytest.mark.parametrize(
    "received, expected",
    [(b"", False), (b"\r\n", False), (b"\r\n\r\n", False), (b"\r\nG", True)],
)
def test_empty_lines_say_nothing(received, expected):
    assert says_something(received) is expected
