import time

import pytest
from requests.structures import CaseInsensitiveDict
from werkzeug.datastructures import EnvironHeaders

from proxy.core.headers import (
    HOP_BY_HOP,
    MAX_WAIT_SECONDS,
    NOT_UPSTREAM,
    NOT_UPSTREAM_FAMILIES,
    TO_CLIENT,
    TO_CLIENT_FAMILIES,
    as_json,
    for_client,
    for_client_stream,
    for_upstream,
    http_date,
    of_environ,
    passed_on,
    request_id,
    retry_after_seconds,
    without_trace,
)
from proxy.core.request_head import KEPT, KeptHead

# RFC 9110, 7.6.1, RFC 2616, 13.5.1 and RFC 7540, 3.2.1; written out, so that a name taken off
# the list is missed here.
CONNECTION_ONLY = (
    "Connection",
    "HTTP2-Settings",
    "Keep-Alive",
    "Proxy-Authenticate",
    "Proxy-Authentication-Info",
    "Proxy-Authorization",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
)


@pytest.mark.parametrize(
    "name",
    [
        *CONNECTION_ONLY,
        "Authorization",  # the client's key is for us
        "api-key",
        "X-API-Key",
        "apikey",
        "Ocp-Apim-Subscription-Key",
        "X-Admin-API-Key",
        "X-Goog-Api-Key",
        "x-portkey-api-key",
        "Helicone-Auth",
        "X-Auth-Token",
        "X-Amz-Security-Token",
        "x-ms-authorization-auxiliary",
        "x-functions-key",
        "X-Client-Secret",
        "X-CSRF-Token",
        "Cookie",
        "Cookie2",
        "X-Forwarded-Access-Token",
        "X-MS-TOKEN-AAD-ACCESS-TOKEN",  # App Service's sign-in
        "X-MS-CLIENT-PRINCIPAL",
        "X-MS-CLIENT-PRINCIPAL-NAME",
        "X-Goog-IAP-JWT-Assertion",
        "x-amzn-oidc-data",
        "Cf-Access-Jwt-Assertion",
        "X-Auth-Request-Email",  # oauth2-proxy
        "Remote-User",
        "From",
        "Origin",
        "Referer",
        "Sec-Fetch-Site",
        "Forwarded",  # the client's address, and its way here
        "Via",
        "X-Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Client-Cert",
        "x-forwarded-anything",
        "Forwarded-For",
        "X-Real-IP",
        "X-Client-IP",
        "Client-IP",
        "X-Cluster-Client-IP",
        "True-Client-IP",
        "CF-Connecting-IP",
        "CF-Ray",
        "Fastly-Client-IP",
        "Fly-Client-IP",
        "CDN-Loop",
        "X-Azure-ClientIP",
        "X-Azure-FDID",
        "X-FD-HealthProbe",
        "X-Appgw-Trace-Id",
        "X-ARR-ClientCert",
        "X-Envoy-External-Address",
        "X-Original-Forwarded-For",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-Host",
        "X-HTTP-Method-Override",
        "X-SSL-Client-Cert",
        "SSL-Client-Verify",
        "X-Amzn-Trace-Id",
        "X-Accel-Mapping",
        "X-Sendfile-Type",
        "Max-Forwards",
        "Host",  # of the request as it came, or what we set ourselves
        "Content-Length",
        "Content-Encoding",
        "Accept-Encoding",
        "Expect",
        "Early-Data",
        "If-Match",
        "Range",
        "X-Request-ID",
        "X-Request-Timeout-MS",
        "X-Change-Reason",  # for the admin API
        "OpenAI-Organization",  # of whoever has the key, and that is us
        "OpenAI-Project",
    ],
)
@pytest.mark.parametrize("spelled", [str, str.lower, str.upper])
def test_what_is_not_for_the_upstream_stays_here(name, spelled):
    assert for_upstream([(spelled(name), "1"), ("X-Kept", "2")]) == {"X-Kept": "2"}


@pytest.mark.parametrize(
    "given",
    [
        ("Authorization", "Bearer planted-key-0123456789"),
        ("api-key", "planted-key-0123456789"),
        ("API-Key", " planted-key-0123456789 "),
    ],
)
def test_the_clients_key_does_not_go_on_under_another_name(given):
    again = ("X-Other-Gateway", "key=planted-key-0123456789; v=1")
    assert for_upstream([again, given, ("X-Kept", "2")]) == {"X-Kept": "2"}


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer x", "Bearer none"])
def test_what_is_no_key_of_ours_may_stand_anywhere(value):
    kept = {"X-Mode": "none", "X-Kept": "Bearer x"}
    assert for_upstream([("Authorization", value), *kept.items()]) == kept


@pytest.mark.parametrize(
    "name",
    [
        "Content-Type",
        "Accept",
        "User-Agent",
        "OpenAI-Beta",
        "Idempotency-Key",  # a key, and no secret
        "X-Stainless-Lang",
        "x-ms-client-request-id",
        "x-ms-useragent",
        "x-ms-oai-image-generation-deployment",
        "x-ms-spillover-deployment",
        "aoai-evals",
        "traceparent",
        "X-Correlation-ID",
        "x-custom",
    ],
)
def test_what_the_client_says_to_the_upstream_goes_on_as_it_is_spelled(name):
    assert for_upstream([(name, "1")]) == {name: "1"}


def test_a_requests_headers_are_those_that_the_framework_knows():
    environ = {
        "REQUEST_METHOD": "POST",
        "wsgi.url_scheme": "http",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": "2",
        "HTTP_X_STAINLESS_OS": "Linux",
        "HTTP_ACCEPT": "",
        "HTTP_CONTENT_TYPE": "text/planted",
    }
    assert of_environ(environ) == list(EnvironHeaders(environ))
    assert of_environ({"CONTENT_TYPE": ""}) == []


def test_what_passes_of_a_head_that_comes_again_is_found_once():
    environ = {"HTTP_X_A": "1", "HTTP_AUTHORIZATION": "secret", "CONTENT_LENGTH": "2"}
    assert passed_on(environ) == {"X-A": "1"}
    kept = KeptHead()
    passed = passed_on(environ | {KEPT: kept})
    assert passed == {"X-A": "1"}
    # As the reader has it: only the body's length may be another.
    assert passed_on({"CONTENT_LENGTH": "3", KEPT: kept}) is passed


def test_who_takes_part_in_a_trace_passes_on_nothing_that_the_client_says_of_it():
    lines = {"Traceparent": "1", "TRACESTATE": "2", "Tracing": "3", "baggage": "4"}
    assert without_trace(lines) == {"Tracing": "3", "baggage": "4"}


@pytest.mark.parametrize(
    "connection",
    ["x-private", "X-PRIVATE", "close, x-private", "keep-alive ,  X-Private , ", ",,x-private"],
)
def test_a_header_that_connection_names_goes_no_further_in_either_direction(connection):
    lines = [("X-Private", "1"), ("CONNECTION", connection), ("X-Kept", "2")]
    assert for_upstream(lines) == {"X-Kept": "2"}
    lines = [("x-ms-named", "1"), ("Connection", f"{connection},X-MS-Named"), ("x-ms-a", "2")]
    assert for_client(lines) == [("x-ms-a", "2")]


def test_every_connection_header_counts():
    lines = [("connection", "x-a"), ("connection", "x-b"), ("x-a", "1"), ("x-b", "2")]
    assert for_upstream(lines) == {}
    lines = [("connection", "etag"), ("connection", "vary"), ("etag", "1"), ("vary", "2")]
    assert for_client(iter(lines)) == []


def test_headers_may_come_from_an_iterator():
    assert for_upstream(iter([("connection", "x-a"), ("x-a", "1"), ("b", "2")])) == {"b": "2"}


@pytest.mark.parametrize(
    "name",
    [
        *CONNECTION_ONLY,
        "Content-Length",  # what we set ourselves
        "Content-Encoding",  # it was decoded here
        "Date",
        "Server",
        "X-Request-ID",
        "Set-Cookie",  # what would bind the client to the upstream
        "Alt-Svc",
        "Strict-Transport-Security",
        "WWW-Authenticate",
        "Location",  # what would send it elsewhere
        "Refresh",
        "Link",
        "Access-Control-Allow-Origin",  # what a browser may do with our answers
        "Content-Security-Policy",
        "Clear-Site-Data",
        "X-Accel-Redirect",  # what a proxy in front of us would obey
        "X-Accel-Buffering",
        "X-Sendfile",
        "X-Powered-By",
        "x-custom",
    ],
)
@pytest.mark.parametrize("spelled", [str, str.lower, str.upper])
def test_what_is_not_for_the_client_stays_here(name, spelled):
    assert for_client([(spelled(name), "1"), ("X-MS-Kept", "2")]) == [("X-MS-Kept", "2")]


@pytest.mark.parametrize(
    "name",
    [
        "content-type",
        "cache-control",
        "apim-request-id",
        "x-ms-region",
        "x-ms-client-request-id",
        "x-ms-retry-after-ms",
        "x-ratelimit-remaining-tokens",
        "x-rate-limit-reset-tokens",
        "retry-after",
        "retry-after-ms",
        "x-should-retry",
        "policy-id",
        "azureml-model-session",
        "ms-azureml-model-error-reason",
        "azure-openai-deployment-utilization",
        "openai-processing-ms",
        "openai-version",
        "x-envoy-upstream-service-time",
    ],
)
@pytest.mark.parametrize("spelled", [str, str.title])
def test_what_the_upstream_says_to_the_client_goes_on(name, spelled):
    assert for_client([(spelled(name), "1")]) == [(spelled(name), "1")]


@pytest.mark.parametrize("passed", [for_client, for_client_stream])
def test_who_has_limits_hears_of_no_upstreams(passed):
    lines = [
        ("X-RateLimit-Limit-Tokens", "1"),
        ("x-ratelimit-reset-requests", "2"),
        ("x-rate-limit-reset-tokens", "3"),
        ("x-ms-region", "4"),
    ]
    assert passed(lines)[:4] == lines
    assert passed(lines, has_limits=True) == [lines[3], *passed([])]


def test_a_name_may_come_to_the_client_twice():
    lines = [("x-ms-a", "1"), ("x-ms-b", "2"), ("x-ms-a", "3")]
    assert for_client(lines) == lines


def test_lists_are_written_in_lower_case_as_they_are_compared():
    for names in (
        *(HOP_BY_HOP, NOT_UPSTREAM, TO_CLIENT),
        *(NOT_UPSTREAM_FAMILIES, TO_CLIENT_FAMILIES),
    ):
        assert set(names) == {n.lower() for n in names}
    assert not TO_CLIENT & HOP_BY_HOP


def test_a_stream_tells_nginx_not_to_collect_it_once():
    lines = [("X-Accel-Buffering", "yes"), ("content-type", "text/event-stream"), ("te", "x")]
    assert for_client_stream(lines) == [
        ("content-type", "text/event-stream"),
        ("x-accel-buffering", "no"),
    ]


@pytest.mark.parametrize(
    "given", ["a", "req_1-2.3:4", "x" * 128, "0f8fad5b-d9cb-469f-a165-70867728950e"]
)
def test_a_sane_request_id_is_kept(given):
    assert request_id(given, "fresh") == given


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "x" * 129,
        "a b",
        "a\n",  # a second line in the log
        "a\r\nset-cookie: x",
        "\x1b[31m",
        "ü",
        "١٢",  # digits, but not ASCII
        "a/b",
    ],
)
def test_another_request_id_is_replaced(given):
    assert request_id(given, "fresh") == "fresh"


# Wed, 21 Oct 2026 07:28:00 GMT.
NOW = 1_792_567_680.0


@pytest.mark.parametrize(
    "headers, seconds",
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": "7"}, 7.0),
        ({"RETRY-AFTER-MS": "1500"}, 1.5),
        ({"x-ms-retry-after-ms": "250"}, 0.25),
        ({"Retry-After": "0.5"}, 0.5),
        ({"Retry-After": " 7 "}, 7.0),
        ({"Retry-After": "0"}, 0.05),
        # The first that is a number counts.
        ({"retry-after-ms": "100", "x-ms-retry-after-ms": "200", "Retry-After": "7"}, 0.1),
        ({"x-ms-retry-after-ms": "200", "Retry-After": "7"}, 0.2),
        ({"retry-after-ms": "soon", "Retry-After": "7"}, 7.0),
        ({"retry-after-ms": "nan", "Retry-After": "7"}, 7.0),
        ({"retry-after-ms": "", "x-ms-retry-after-ms": "", "Retry-After": "7"}, 7.0),
        # A date.
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:10 GMT"}, 10.0),
        # The other two forms of a date, which are UTC, too (RFC 9110, 5.6.7).
        ({"Retry-After": "Wednesday, 21-Oct-26 07:28:10 GMT"}, 10.0),
        ({"Retry-After": "Wed Oct 21 07:28:10 2026"}, 10.0),
        ({"Retry-After": "Wed, 21 Oct 2026 09:28:10 +0200"}, 10.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:27:00 GMT"}, 0.05),  # it is over
        ({"Retry-After": "Wed, 21 Oct 2027 07:28:10 GMT"}, 120.0),
        ({"retry-after-ms": "100", "Retry-After": "Wed, 21 Oct 2026 07:28:10 GMT"}, 0.1),
        # Only when a limit is reset.
        ({"x-ratelimit-reset-tokens": "6"}, 6.0),
        ({"x-ratelimit-reset-requests": "1s"}, 1.0),
        ({"x-rate-limit-reset-tokens": "9"}, 9.0),
        ({"x-ratelimit-reset-tokens": "20ms"}, 0.05),
        ({"x-ratelimit-reset-tokens": "200ms"}, 0.2),
        ({"x-ratelimit-reset-tokens": "1m2.5s"}, 62.5),
        ({"x-ratelimit-reset-tokens": "6m0s"}, 120.0),
        ({"x-ratelimit-reset-tokens": "1h"}, 120.0),
        ({"x-ratelimit-reset-tokens": "1m"}, 60.0),
        ({"x-ratelimit-reset-tokens": "3", "x-ratelimit-reset-requests": "8s"}, 8.0),
        (
            {
                "x-ratelimit-reset-tokens": "3",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-requests": "8",
                "x-ratelimit-remaining-requests": "12",
            },
            3.0,
        ),
        ({"x-ratelimit-reset-tokens": "6", "Retry-After": "2"}, 2.0),
        ({"x-ratelimit-reset-tokens": "soon", "x-ratelimit-reset-requests": "4"}, 4.0),
        # Unreadable: as if it were not there.
        ({"x-ratelimit-reset-tokens": ""}, None),
        ({"x-ratelimit-reset-tokens": "s"}, None),
        ({"x-ratelimit-reset-tokens": "1.2.3s"}, None),
        ({"x-ratelimit-reset-tokens": "nan"}, None),
        ({"Retry-After": "Wed, 99 Oct 2026 07:28:00 GMT"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "7, 8"}, None),
        ({"Retry-After": "0x10"}, None),
        # Cut at both ends.
        ({"Retry-After": "-5"}, 0.05),
        ({"Retry-After": "-inf"}, 0.05),
        ({"retry-after-ms": "-1"}, 0.05),
        ({"Retry-After": "119.5"}, 119.5),
        ({"Retry-After": "120"}, 120.0),
        ({"Retry-After": "86400"}, 120.0),  # Azure does write this
        ({"Retry-After": "inf"}, 120.0),
        ({"Retry-After": "1e999"}, 120.0),
        ({"retry-after-ms": "120001"}, 120.0),
    ],
)
def test_how_long_an_upstream_asks_us_to_stay_away(headers, seconds):
    wait = retry_after_seconds(CaseInsensitiveDict(headers), NOW)
    assert wait == (seconds if seconds is None else pytest.approx(seconds))


def test_the_longest_wait_is_what_the_official_clients_still_obey():
    assert MAX_WAIT_SECONDS == 120.0


@pytest.mark.parametrize(
    "line",
    [
        ("x-ms-c", "a\x01b"),
        ("x-ms-c", "a\r\nb: c"),
        ("x-ms-c", "\u20ac"),
        ("x-ms-(y)", "1"),
        ("", "1"),
    ],
)
def test_what_no_server_may_send_is_not_passed_on_to_the_client(line):
    """Our own server would refuse the whole answer."""
    good = [("x-ms-b", "a\tb \xe9"), ("x-ms-d", "")]
    assert for_client([good[0], line, good[1]]) == good


@pytest.mark.parametrize(
    "text, at",
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 784_111_777.0),
        ("Sun Nov  6 08:49:37 1994", 784_111_777.0),
        ("Thu, 01 Jan 1970 00:00:00 -0000", 0.0),
        ("", None),
        ("tomorrow", None),
        ("Sun, 99 Nov 1994 08:49:37 GMT", None),
        ("9" * 5000, None),
    ],
)
def test_a_date_is_utc_wherever_the_gateway_is(text, at, monkeypatch):
    for zone in ("America/New_York", "Asia/Tokyo"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        assert http_date(text) == at
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("given", [{}, {"content-type": "text/plain"}, {"Content-Type": "x"}])
def test_what_was_read_as_json_goes_on_as_json(given):
    assert as_json(given | {"X-Own": "1"}) == {"X-Own": "1", "Content-Type": "application/json"}
