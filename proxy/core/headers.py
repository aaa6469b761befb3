"""Which headers pass, and what an upstream's headers say about waiting."""

import re
from collections.abc import Collection, Iterable, Mapping
from email.utils import parsedate_to_datetime
from functools import lru_cache
from itertools import compress
from operator import itemgetter
from typing import Any

from proxy.core.days import DAY_SECONDS, days
from proxy.core.request_head import KEPT, KeptHead

# They speak about one connection, not about the message (RFC 9110, 7.6.1; RFC 9113, 8.2.2; and
# HTTP/2's own).
HOP_BY_HOP = frozenset(
    "connection http2-settings keep-alive proxy-authenticate proxy-authentication-info"
    " proxy-authorization proxy-connection te trailer transfer-encoding upgrade".split()
)

# Of the client's headers all go on but these. A list of what may would be safer, and would
# break what the gateway is for: upstreams select features by headers that are made up every
# month (OpenAI-Beta, aoai-evals, x-ms-oai-...), and compatible servers have their own. What
# must not go on is known: credentials, addresses, and what we set ourselves.
NOT_UPSTREAM = HOP_BY_HOP | frozenset(
    # Who asks, from where and through what (RFC 9110, 7.6.2 and 7.6.3; RFC 7239; RFC 8586).
    "alt-used cdn-loop client-ip disguised-host fly-client-ip forwarded from max-forwards"
    " origin referer remote-addr remote-user true-client-ip via was-default-hostname"
    " wl-proxy-client-ip x-client-cert x-client-ip x-cluster-client-ip x-coming-from x-host"
    " x-forwarded"
    " x-http-method-override x-nginx-proxy x-proxyuser-ip x-real-ip x-remote-addr x-remote-ip"
    " x-remote-user x-rewrite-url x-scheme x-trusted-ip x-url-scheme"
    # For whom our key is to count: who says so is billed there, and a wrong one is refused.
    " openai-organization openai-project"
    # About the request as it came, which is not the one that goes out; what we set; and what is
    # said to us.
    " accept-encoding content-encoding content-length content-md5 digest early-data expect host"
    " if-match if-modified-since if-none-match if-range if-unmodified-since range"
    " upgrade-insecure-requests x-change-reason x-request-id x-request-timeout-ms".split()
)
# Of these families none: what proxies, content networks and sign-in services in front of us say
# of the client (nginx, Envoy, Cloudflare, Fastly, Azure's Front Door, Application Gateway and
# App Service, AWS, Google), browsers' notes, and what only a proxy may be told.
NOT_UPSTREAM_FAMILIES = (
    *("cf-", "fastly-", "forwarded-", "proxy-", "sec-", "ssl-client-", "x-amz-cf-", "x-amzn-"),
    *("x-accel-", "x-appengine-", "x-appgw-", "x-arr-", "x-auth-request-", "x-azure-"),
    *("x-envoy-", "x-fd-", "x-forwarded-", "x-goog-authenticated-", "x-goog-iap-"),
    *(
        "x-ms-client-principal",
        "x-ms-token-",
        "x-original-",
        "x-proxy-",
        "x-sendfile",
        "x-ssl-",
    ),
    *("x-vercel-", "x-waws-"),
)

# The client's credentials, under whatever name: `api-key`, `X-Goog-Api-Key`, `Helicone-Auth`,
# `Ocp-Apim-Subscription-Key`, `x-ms-authorization-auxiliary`, `x-amz-security-token`. Not all
# that is called a key: `Idempotency-Key` is none.
_CREDENTIAL = re.compile(
    "(api|access|account|functions|subscription)-?key|^auth|authorization|-auth$|-token$|cookie"
    "|credential|password|secret"
)

# In which clients send us their key. A shorter word may stand anywhere.
KEY_HEADERS = frozenset({"authorization", "api-key"})
LEAST_KEY_CHARACTERS = 16

# Of an upstream's headers these go on and no others: what the official clients read, what
# Azure's support asks for, and what says how to read the body. Any other would speak in our
# name: cookies, redirects, what a browser may do (CORS, CSP, HSTS), commands to a proxy in
# front of us (X-Accel-Redirect). `x-request-id` is ours.
TO_CLIENT = frozenset(
    "apim-request-id cache-control content-disposition content-language content-type"
    " deprecation etag expires last-modified policy-id retry-after retry-after-ms sunset vary"
    " x-azure-ref x-content-type-options x-envoy-upstream-service-time x-should-retry".split()
)
# Of limits: a client with its own hears of no upstream's.
LIMITS_FAMILIES = ("x-ratelimit-", "x-rate-limit-")
TO_CLIENT_FAMILIES = (
    *("azure-openai-", "azureml-", "ms-azureml-", "openai-"),
    *("x-ms-", *LIMITS_FAMILIES),
)

# An hour-long Retry-After does occur; trying once in two minutes costs nothing. And who says
# 0 is asked again soon, but not by all threads in the same moment.
MIN_WAIT_SECONDS, MAX_WAIT_SECONDS = 0.05, 120.0

JSON = "application/json"

# W3C's Trace Context.
TRACE_CONTEXT = frozenset(("traceparent", "tracestate"))

RESETS = (
    "x-ratelimit-reset-tokens",
    "x-ratelimit-reset-requests",
    "x-rate-limit-reset-tokens",  # seen in the field
)
_PART = r"(?:([0-9]+(?:\.[0-9]+)?){unit})?"
_DURATION = re.compile("".join(_PART.format(unit=u) for u in ("h", "m(?!s)", "s", "ms")))

# RFC 9110, 5.1 and 5.5. What is not so, our own server refuses to send.
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

KNOWN_NAMES = 256
NAME, VALUE = itemgetter(0), itemgetter(1)  # of a header
NO_NAMES: frozenset[str] = frozenset()

_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def passed_on(environ: Mapping[str, Any]) -> Mapping[str, str]:
    """The client's headers that may go on."""
    kept: KeptHead | None = environ.get(KEPT)
    if kept is None:
        return for_upstream(of_environ(environ))
    if kept.passed is None:
        kept.passed = for_upstream(of_environ(environ))
    return kept.passed


def of_environ(environ: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The client's headers, as PEP 3333 has them."""
    return [
        (name, value)
        for key, value in environ.items()
        if (name := _name_of(key)) is not None and (value or key != "CONTENT_TYPE")
    ]


def for_upstream(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The client's headers that may go on. Names keep their spelling."""
    headers = list(headers)
    named, keys = _named_by_connection(headers), _keys_in(headers)
    return {
        name: value
        for name, value in headers
        if _may_go_upstream(name)
        and not (named and name.lower() in named)
        and not any(key in value for key in keys)
    }


def _keys_in(headers: Iterable[tuple[str, str]]) -> list[str]:
    """With which the client comes to us. Under no other name they go on, either: clients that
    used another gateway before have headers of that one, too."""
    words = (value.split()[-1:] for name, value in headers if name.lower() in KEY_HEADERS)
    return [key for last in words for key in last if len(key) >= LEAST_KEY_CHARACTERS]


def as_json(headers: Mapping[str, str]) -> dict[str, str]:
    """Of a body that was read as JSON, which is UTF-8 (RFC 8259, 8.1). A client that says
    otherwise could have an upstream read something else in it."""
    others = {n: v for n, v in headers.items() if n.lower() != "content-type"}
    return {**others, "Content-Type": JSON}


def without_trace(headers: Mapping[str, str]) -> dict[str, str]:
    """Who takes part in the client's trace tells upstreams of it itself, or does not."""
    return {n: v for n, v in headers.items() if n.lower() not in TRACE_CONTEXT}


def for_client(
    headers: Iterable[tuple[str, str]], *, has_limits: bool = False
) -> list[tuple[str, str]]:
    """The upstream's headers that may go on. A client that has limits hears of these, and of no
    upstream's."""
    headers = list(headers)
    may_go = _may_go_to_limited if has_limits else _may_go_to_client
    passed = list(compress(headers, map(may_go, map(NAME, headers))))
    named = _named_by_connection(headers)
    if named:
        passed = [(name, value) for name, value in passed if name.lower() not in named]
    values = "".join(map(VALUE, passed))
    if values.isascii() and values.isprintable():  # as nearly all are, and told together
        return passed
    return [(name, value) for name, value in passed if _VALUE.fullmatch(value)]


def for_client_stream(
    headers: Iterable[tuple[str, str]], *, has_limits: bool = False
) -> list[tuple[str, str]]:
    """As `for_client`, and telling a proxy in front (nginx) not to collect the stream."""
    passed = for_client(headers, has_limits=has_limits)
    passed.append(("x-accel-buffering", "no"))
    return passed


# The same few names come with every message.
@lru_cache(KNOWN_NAMES)
def _name_of(key: str) -> str | None:
    """As whoever reads the upstream's log is used to it: the client's spelling is lost."""
    name = key.removeprefix("HTTP_")
    # Two have no such prefix, and nobody else's of these names is the client's.
    is_header = (name != key) != (name in ("CONTENT_TYPE", "CONTENT_LENGTH"))
    return name.replace("_", "-").title() if is_header else None


@lru_cache(KNOWN_NAMES)
def _may_go_upstream(name: str) -> bool:
    lower = name.lower()
    return not (
        lower in NOT_UPSTREAM
        or lower.startswith(NOT_UPSTREAM_FAMILIES)
        or _CREDENTIAL.search(lower)
    )


@lru_cache(KNOWN_NAMES)
def _may_go_to_client(name: str) -> bool:
    lower = name.lower()
    is_known = lower in TO_CLIENT or lower.startswith(TO_CLIENT_FAMILIES)
    return is_known and _NAME.fullmatch(name) is not None


@lru_cache(KNOWN_NAMES)
def _may_go_to_limited(name: str) -> bool:
    return _may_go_to_client(name) and not name.lower().startswith(LIMITS_FAMILIES)


def request_id(given: str | None, fresh: str) -> str:
    """The client's own `x-request-id` if it is sane (it is logged and sent back)."""
    return given if given and _SANE_ID.fullmatch(given) else fresh


def retry_after_seconds(headers: Mapping[str, str], now: float) -> float | None:
    """How long an upstream asks us to stay away, in seconds; None if it does not say.

    `headers` must know names in lower case; `now` is seconds since the epoch. The first of
    these that can be read counts, cut to MIN_WAIT_SECONDS .. MAX_WAIT_SECONDS:

        retry-after-ms       milliseconds     Azure, with a 429; often far below a second
        x-ms-retry-after-ms  milliseconds     Azure, older
        retry-after          seconds or date  RFC 9110, 10.2.3
        x-ratelimit-reset-*  seconds, or as   of the limit that has nothing left; if none says
                             OpenAI: "6m0s"   so, the longest

    Raises nothing: a header nobody can read must not turn a 429 into a 500.
    """
    wait = _milliseconds(headers, "retry-after-ms")
    if wait is None:
        wait = _milliseconds(headers, "x-ms-retry-after-ms")
    if wait is None:
        wait = _retry_after(headers.get("retry-after", ""), now)
    if wait is None:
        wait = _reset(headers)
    return None if wait is None else min(max(wait, MIN_WAIT_SECONDS), MAX_WAIT_SECONDS)


def _milliseconds(headers: Mapping[str, str], name: str) -> float | None:
    wait = _number(headers.get(name, ""))
    return None if wait is None else wait / 1000


def _retry_after(text: str, now: float) -> float | None:
    wait = _number(text)
    if wait is not None:
        return wait
    at = http_date(text)
    return None if at is None else at - now


def http_date(text: str) -> float | None:
    """Seconds since the epoch, in each of the three forms, all of which are UTC (RFC 9110,
    5.6.7); None of what is no date."""
    try:
        found = parsedate_to_datetime(text).utctimetuple()
    except (ValueError, OverflowError):
        return None
    day = days(found.tm_year, found.tm_mon) + found.tm_mday - 1
    seconds = found.tm_hour * 3600 + found.tm_min * 60 + found.tm_sec
    return float(day * DAY_SECONDS + seconds)


def _reset(headers: Mapping[str, str]) -> float | None:
    exhausted: list[float] = []
    others: list[float] = []
    for name in RESETS:
        wait = _duration(headers.get(name, ""))
        if wait is not None:
            left = headers.get(name.replace("reset", "remaining"), "")
            (exhausted if left == "0" else others).append(wait)
    return max(exhausted or others, default=None)


def _duration(text: str) -> float | None:
    """Seconds: "6", "0.5", and as OpenAI writes them "20ms", "1s", "6m0s", "1h2m3s"."""
    wait = _number(text)
    if wait is not None:
        return wait
    match = _DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        return None
    parts = (float(p) if p else 0.0 for p in match.groups())
    return sum(part * unit for part, unit in zip(parts, (3600, 60, 1, 0.001), strict=True))


def _number(text: str) -> float | None:
    """None also for "nan": it is never over."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value == value else None


def _named_by_connection(headers: Collection[tuple[str, str]]) -> Collection[str]:
    """A header that `Connection` names is hop-by-hop too (RFC 9110, 7.6.1)."""
    if "connection" not in map(str.lower, map(NAME, headers)):
        return NO_NAMES
    return {
        token.strip().lower()
        for name, value in headers
        if name.lower() == "connection"
        for token in value.split(",")
    }
