"""Every error a client can get, with its status and its JSON."""

import math
from typing import Any

NOT_AGAIN = {"x-should-retry": "false"}


class ProxyError(Exception):
    """Base. The body has OpenAI's shape, so that OpenAI's client libraries read it:

    {"error": {"message": str, "type": str, "param": str | None, "code": str}}

    `retry_after_seconds` becomes `retry-after-ms` (exact) and `retry-after` (whole
    seconds, rounded up): the two headers the official clients wait by. `is_worth_retrying`
    false becomes `x-should-retry: false`: else they repeat what has a status of 409, 429 or
    500 and more, twice.
    """

    status = 500
    type = "server_error"
    code = "internal_error"
    is_worth_retrying = True

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_seconds: float | None = None,
        headers: dict[str, str] | None = None,
        is_worth_retrying: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.code
        self.retry_after_seconds = retry_after_seconds
        self._headers = headers or {}
        if is_worth_retrying is not None:
            self.is_worth_retrying = is_worth_retrying

    def to_dict(self) -> dict[str, Any]:
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }

    def headers(self) -> dict[str, str]:
        found = self._headers | retry_after_headers(self.retry_after_seconds)
        return found if self.is_worth_retrying else found | NOT_AGAIN


def retry_after_headers(seconds: float | None) -> dict[str, str]:
    """Both forms of "come back in `seconds`"; none if None. At least 1 ms, so never "0"."""
    if seconds is None:
        return {}
    return {
        "retry-after-ms": str(max(1, math.ceil(seconds * 1000))),
        "retry-after": str(max(1, math.ceil(seconds))),
    }


class BadRequest(ProxyError):
    """The client's own mistake; `param` names the field."""

    status, type, code = 400, "invalid_request_error", "invalid_request"


class Malformed(BadRequest):
    """What came is no HTTP request, or could be read as two."""

    code = "malformed_request"


class NotKept(BadRequest):
    """What the request goes on with was not given to its client, or its instance is gone. The
    code is OpenAI's: clients begin anew then."""

    code = "previous_response_not_found"


class Unauthorized(ProxyError):
    """No key, or one we do not know."""

    status, type, code = 401, "invalid_request_error", "invalid_api_key"

    def headers(self) -> dict[str, str]:
        return super().headers() | {"www-authenticate": "Bearer"}


class Forbidden(ProxyError):
    """The door is closed, whatever key is shown."""

    status, type, code = 403, "permission_error", "forbidden"


class ModelNotAllowed(Forbidden):
    """The client's key may not use the model. As OpenAI answers where a project may not: the
    code is the same as for a model that does not exist, which clients know."""

    type, code = "invalid_request_error", "model_not_found"


class NotFound(ProxyError):
    """Nothing at this path, or nothing of this name."""

    status, type, code = 404, "invalid_request_error", "not_found"


class ModelNotFound(NotFound):
    """No instance serves the model."""

    code = "model_not_found"


class ResponseNotFound(NotFound):
    """It was not given to the client that asks for it, or its instance is gone."""

    code = "response_not_found"


class MethodNotAllowed(ProxyError):
    """The path exists, the method does not."""

    status, type, code = 405, "invalid_request_error", "method_not_allowed"


class RequestTimeout(ProxyError):
    """The request's head did not come in time, or its body."""

    status, type, code = 408, "invalid_request_error", "request_timeout"


class Conflict(ProxyError):
    """The name exists already."""

    status, type, code = 409, "invalid_request_error", "conflict"
    is_worth_retrying = False  # clients take it for a lock that somebody will release


class Gone(ProxyError):
    """A path of the old program; the message names its successor."""

    status, type, code = 410, "invalid_request_error", "gone"


class PreconditionFailed(ProxyError):
    """`If-Match` named another version than the present one."""

    status, type, code = 412, "invalid_request_error", "precondition_failed"


class TooLarge(ProxyError):
    """The request's body is larger than PROXY_MAX_BODY_BYTES."""

    status, type, code = 413, "invalid_request_error", "request_too_large"


class UriTooLong(ProxyError):
    """The request line is longer than the server reads."""

    status, type, code = 414, "invalid_request_error", "uri_too_long"


class ExpectationFailed(ProxyError):
    """`Expect` names something else than 100-continue."""

    status, type, code = 417, "invalid_request_error", "expectation_failed"


class UnsupportedCoding(ProxyError):
    """The request's body is compressed."""

    status, type, code = 415, "invalid_request_error", "unsupported_content_encoding"

    def headers(self) -> dict[str, str]:
        return super().headers() | {"accept-encoding": "identity"}  # RFC 9110, 12.5.3


class Unprocessable(ProxyError):
    """A field's value cannot be used; `param` names the field."""

    status, type, code = 422, "invalid_request_error", "invalid_value"


class HeadTooLarge(ProxyError):
    """A header, their number, or all of them together are above a limit."""

    status, type, code = 431, "invalid_request_error", "headers_too_large"


class ClientLeft(ProxyError):
    """The client closed its connection before there was an answer. Nobody reads this; the
    status, which others use for it too, is for the log."""

    status, type, code = 499, "invalid_request_error", "client_closed_request"

    def __init__(self, message: str = "The client closed its connection.", **more: Any) -> None:
        super().__init__(message, **more)


class NoRoom(ProxyError):
    """Every instance that could serve the call rests or is at its limit."""

    status, type, code = 429, "rate_limit_error", "rate_limit_exceeded"


class TooManyWrongKeys(ProxyError):
    """Wrong admin keys came from the client's address, one after the other."""

    status, type, code = 429, "rate_limit_error", "too_many_wrong_keys"


class LimitReached(ProxyError):
    """The client's key is at one of its limits, or asks for more than it allows at all."""

    status, type, code = 429, "rate_limit_error", "rate_limit_exceeded"


class BudgetSpent(ProxyError):
    """The budget of the client's key is used up, until its day or month is over."""

    status, type, code = 429, "insufficient_quota", "insufficient_quota"
    is_worth_retrying = False


class UpstreamFailed(ProxyError):
    """No instance gave an answer that may be shown to the client."""

    status, type, code = 502, "server_error", "upstream_error"


class Saturated(ProxyError):
    """This worker is at as many calls as it can hold."""

    status, type, code = 503, "server_error", "saturated"

    def __init__(
        self,
        message: str = "The gateway is at as many calls as it can hold (PROXY_THREADS).",
        **more: Any,
    ) -> None:
        super().__init__(message, **{"retry_after_seconds": 1.0} | more)


class Unavailable(ProxyError):
    """Nobody can serve this now, and waiting a known time would not help."""

    status, type, code = 503, "server_error", "unavailable"


class UpstreamTimeout(ProxyError):
    """The last instance asked did not answer in time."""

    status, type, code = 504, "server_error", "upstream_timeout"
