import contextlib
import inspect
import json

import pytest
from gunicorn.http import errors as gunicorn

from proxy.errors import BadRequest, ProxyError, RequestTimeout
from proxy.runtime.wire_errors import HOST, answer, refusal_of

NOT_THE_CLIENTS = {
    "NoMoreData",  # it has left
    "ParseException",  # the base
    "ConfigurationProblem",  # ours
    "InvalidResponseHeader",  # the app's
    "InvalidResponseHeaderName",
    "InvalidProxyLine",  # a protocol that is off
    "InvalidProxyHeader",
    "ForbiddenProxyRequest",
}
KINDS = [
    k
    for _, k in inspect.getmembers(gunicorn, inspect.isclass)
    if k.__module__ == gunicorn.__name__
]


def made(kind):
    """With as many words as it takes."""
    for number in range(3):
        with contextlib.suppress(TypeError):
            return kind(*["planted"] * number)
    raise AssertionError(kind)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_of_the_server_is_the_clients_or_ours(kind):
    """A new one must be looked at: what is not the client's is a 500 with a traceback."""
    found = refusal_of(made(kind))
    assert (found is None) == (kind.__name__ in NOT_THE_CLIENTS)
    if found is not None:
        assert 400 <= found.status < 500
        assert "planted" not in found.message


def test_a_host_that_is_wrong_is_told_as_that():
    error = refusal_of(gunicorn.InvalidHeader("HOST"))
    assert (error.status, error.message) == (400, HOST)
    assert refusal_of(gunicorn.InvalidHeader("CONTENT-LENGTH")).message != HOST


def test_our_own_errors_are_said_as_they_are():
    error = RequestTimeout("Late.")
    assert refusal_of(error) is error
    assert refusal_of(LookupError("planted")) is None


def test_an_answer_is_whole_and_the_last_of_its_connection():
    head, _, body = answer(BadRequest("No.", param="x"), "id-1", 0.0).partition(b"\r\n\r\n")
    assert head.decode().split("\r\n") == [
        "HTTP/1.1 400 Bad Request",
        "Date: Thu, 01 Jan 1970 00:00:00 GMT",
        "Connection: close",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "x-request-id: id-1",
    ]
    assert json.loads(body) == BadRequest("No.", param="x").to_dict()


def test_an_answer_has_the_errors_own_headers():
    said = answer(ProxyError("No.", retry_after_seconds=2.0), "id-1", 0.0)
    assert b"\r\nretry-after-ms: 2000\r\nretry-after: 2\r\n" in said
