"""Which headers pass, and what an upstream's headers say about waiting."""

import re
from collections.abc import Iterable, Mapping

# RFC 9110, 7.6.1: they speak about one connection, not about the message.
HOP_BY_HOP = frozenset(
    "connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer"
    " transfer-encoding upgrade".split()
)

# Never to an upstream: the client's credentials, its address, what we set ourselves.
NOT_UPSTREAM = HOP_BY_HOP | frozenset(
    "accept-encoding api-key authorization content-length cookie expect forwarded host"
    " ocp-apim-subscription-key via x-admin-api-key x-real-ip x-request-id".split()
)

# Never to a client: what we set ourselves, and what would bind it to the upstream.
NOT_TO_CLIENT = HOP_BY_HOP | frozenset(
    "alt-svc content-encoding content-length date server set-cookie"
    " strict-transport-security www-authenticate x-request-id".split()
)

# An hour-long Retry-After does occur; trying once in two minutes costs nothing.
MAX_WAIT_SECONDS = 120.0

# RFC 9110, 5.1 and 5.5. What is not so, our own server refuses to send.
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def for_upstream(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The client's headers that may go on. Names keep their spelling."""
    headers = list(headers)
    named = _named_by_connection(headers)
    return {
        name: value
        for name, value in headers
        if not (lower := name.lower()).startswith("x-forwarded-")
        and lower not in NOT_UPSTREAM
        and lower not in named
    }


def for_client(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The upstream's headers that may go on."""
    headers = list(headers)
    dropped = NOT_TO_CLIENT | _named_by_connection(headers)
    return [
        (name, value)
        for name, value in headers
        if name.lower() not in dropped and _NAME.fullmatch(name) and _VALUE.fullmatch(value)
    ]


def for_client_stream(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """As `for_client`, and telling a proxy in front (nginx) not to collect the stream."""
    passed = [h for h in for_client(headers) if h[0].lower() != "x-accel-buffering"]
    return [*passed, ("x-accel-buffering", "no")]


def request_id(given: str | None, fresh: str) -> str:
    """The client's own `x-request-id` if it is sane (it is logged and sent back)."""
    return given if given and _SANE_ID.fullmatch(given) else fresh


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """How long an upstream asks us to stay away, in seconds; None if it does not say.

    `headers` must ignore case in names, as those of requests do. The first of
    these that is a number counts, cut to 0 .. MAX_WAIT_SECONDS:

        retry-after-ms       milliseconds  Azure, with a 429; often far below a second
        x-ms-retry-after-ms  milliseconds  Azure, older
        Retry-After          seconds       RFC 9110, 10.2.3; its form as a date is ignored

    Raises nothing: a header nobody can read must not turn a 429 into a 500.
    """
    for name, seconds in (
        ("retry-after-ms", 0.001),
        ("x-ms-retry-after-ms", 0.001),
        ("Retry-After", 1.0),
    ):
        try:
            wait = float(headers.get(name, "")) * seconds
        except ValueError:
            continue
        if wait == wait:  # float() reads "nan" too, and nan is never over
            return min(max(wait, 0.0), MAX_WAIT_SECONDS)
    return None


def _named_by_connection(headers: Iterable[tuple[str, str]]) -> set[str]:
    """A header that `Connection` names is hop-by-hop too (RFC 9110, 7.6.1)."""
    return {
        token.strip().lower()
        for name, value in headers
        if name.lower() == "connection"
        for token in value.split(",")
    }
