import inspect
import json

import pytest

from proxy import errors
from proxy.errors import NoRoom, ProxyError, Unauthorized, retry_after_headers

CLASSES = [
    c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, ProxyError)
]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_has_openais_shape(kind):
    error = kind("No.", param="model")
    assert json.loads(json.dumps(error.to_dict())) == {
        "error": {"message": "No.", "type": kind.type, "param": "model", "code": kind.code}
    }
    assert str(error) == "No."


@pytest.mark.parametrize(
    "name, status, type_, code",
    [
        ("ProxyError", 500, "server_error", "internal_error"),
        ("BadRequest", 400, "invalid_request_error", "invalid_request"),
        ("Malformed", 400, "invalid_request_error", "malformed_request"),
        ("NotKept", 400, "invalid_request_error", "previous_response_not_found"),
        ("ResponseNotFound", 404, "invalid_request_error", "response_not_found"),
        ("Unauthorized", 401, "invalid_request_error", "invalid_api_key"),
        ("Forbidden", 403, "permission_error", "forbidden"),
        ("ModelNotAllowed", 403, "invalid_request_error", "model_not_found"),
        ("NotFound", 404, "invalid_request_error", "not_found"),
        ("ModelNotFound", 404, "invalid_request_error", "model_not_found"),
        ("MethodNotAllowed", 405, "invalid_request_error", "method_not_allowed"),
        ("RequestTimeout", 408, "invalid_request_error", "request_timeout"),
        ("Conflict", 409, "invalid_request_error", "conflict"),
        ("Gone", 410, "invalid_request_error", "gone"),
        ("PreconditionFailed", 412, "invalid_request_error", "precondition_failed"),
        ("TooLarge", 413, "invalid_request_error", "request_too_large"),
        ("UriTooLong", 414, "invalid_request_error", "uri_too_long"),
        ("ExpectationFailed", 417, "invalid_request_error", "expectation_failed"),
        ("UnsupportedCoding", 415, "invalid_request_error", "unsupported_content_encoding"),
        ("Unprocessable", 422, "invalid_request_error", "invalid_value"),
        ("HeadTooLarge", 431, "invalid_request_error", "headers_too_large"),
        ("ClientLeft", 499, "invalid_request_error", "client_closed_request"),
        ("NoRoom", 429, "rate_limit_error", "rate_limit_exceeded"),
        ("TooManyWrongKeys", 429, "rate_limit_error", "too_many_wrong_keys"),
        ("LimitReached", 429, "rate_limit_error", "rate_limit_exceeded"),
        ("BudgetSpent", 429, "insufficient_quota", "insufficient_quota"),
        ("UpstreamFailed", 502, "server_error", "upstream_error"),
        ("Saturated", 503, "server_error", "saturated"),
        ("Unavailable", 503, "server_error", "unavailable"),
        ("UpstreamTimeout", 504, "server_error", "upstream_timeout"),
    ],
)
def test_an_error_carries_its_own_status_and_words(name, status, type_, code):
    kind = getattr(errors, name)
    assert (kind.status, kind.type, kind.code) == (status, type_, code)


def test_every_class_has_a_row_above():
    rows = test_an_error_carries_its_own_status_and_words.pytestmark[0].args[1]
    assert {row[0] for row in rows} == {c.__name__ for c in CLASSES}


@pytest.mark.parametrize(
    "error, said",
    [
        (errors.UpstreamFailed("No."), None),
        (errors.UpstreamFailed("No.", is_worth_retrying=False), "false"),
        (errors.BudgetSpent("No."), "false"),
        (errors.Conflict("No."), "false"),
    ],
)
def test_what_is_in_vain_says_so(error, said):
    assert error.headers().get("x-should-retry") == said


def test_one_error_may_have_a_code_of_its_own():
    assert NoRoom("No.", code="mine").to_dict()["error"]["code"] == "mine"
    assert NoRoom("No.").to_dict()["error"]["code"] == "rate_limit_exceeded"


def test_an_error_without_a_field_says_null():
    assert ProxyError("No.").to_dict()["error"]["param"] is None


@pytest.mark.parametrize(
    "seconds, ms, whole",
    [
        (7.0, "7000", "7"),
        (1.5, "1500", "2"),  # rounded up: who comes earlier is refused again
        (0.25, "250", "1"),
        (0.0001, "1", "1"),
        (0.0, "1", "1"),  # "0" means to some that nothing was said
        (-3.0, "1", "1"),
        (60, "60000", "60"),
    ],
)
def test_a_wait_is_said_in_both_ways_the_official_clients_read(seconds, ms, whole):
    expected = {"retry-after-ms": ms, "retry-after": whole}
    assert retry_after_headers(seconds) == expected
    assert NoRoom("No.", retry_after_seconds=seconds).headers() == expected


def test_without_a_wait_nothing_is_said_about_it():
    assert retry_after_headers(None) == {}
    assert NoRoom("No.").headers() == {}


def test_an_errors_own_headers_stand_beside_the_wait():
    error = ProxyError("No.", headers={"link": "<x>"}, retry_after_seconds=1)
    assert error.headers() == {"link": "<x>", "retry-after-ms": "1000", "retry-after": "1"}


def test_who_is_not_known_is_told_how_to_say_who_he_is():
    assert Unauthorized("No.").headers() == {"www-authenticate": "Bearer"}
