import pytest

from proxy.core.request_head import is_whole

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
