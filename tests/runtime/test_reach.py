import datetime
import ssl
import time
from email.utils import formatdate

import pytest
import trustme

from proxy.runtime.reach import reach
from proxy.simulator import Resource
from tests.builders import config

NOW = 1_700_000_000.25


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def trusting(make_upstream, authority, tmp_path):
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return make_upstream(ca_bundle=path)


def server(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def look(upstream, url, **changes):
    found = reach(upstream, config(api_base=url, **changes), seconds=5, clock=lambda: NOW)
    return found


def test_without_tls_there_is_no_certificate(upstream, simulate):
    resource = simulate(Resource("a"))["a"]
    found = look(upstream, resource.url)
    assert (found.area, found.problem, found.certificate_until) == ("connection", None, None)
    assert found.host == resource.url.removeprefix("http://")


@pytest.mark.parametrize("auth", ["key", "entra"])
def test_the_root_is_asked_without_key_or_token(upstream, simulate, auth):
    """There is no source of tokens here: asked for one, it would fail."""
    resource = simulate(Resource("a", api_key="planted-key-of-a-0123456789"))["a"]
    assert look(upstream, resource.url, auth=auth).problem is None
    (received,) = resource.requests
    assert (received.method, received.path) == ("GET", "/")
    assert not {"api-key", "authorization"} & {name.lower() for name in received.headers}


def test_a_certificate_tells_when_it_expires(trusting, authority, simulate):
    ends = datetime.datetime(2040, 1, 2, tzinfo=datetime.UTC)
    certificate = authority.issue_cert("localhost", not_after=ends)
    resource = simulate(Resource("a", ssl_context=server(certificate)))["a"]
    found = look(trusting, resource.url.replace("127.0.0.1", "localhost"))
    assert (found.area, found.problem) == ("tls", None)
    assert found.certificate_until == ends.timestamp()


@pytest.mark.parametrize(
    "names, more, why",
    [
        (["127.0.0.1"], {"not_after": datetime.datetime(2020, 1, 1)}, "has expired"),
        (["elsewhere.example"], {}, "not valid for '127.0.0.1'"),
    ],
)
def test_one_that_is_not_accepted_says_why(trusting, authority, simulate, names, more, why):
    if more:
        more["not_before"] = datetime.datetime(2019, 1, 1)
    context = server(authority.issue_cert(*names, **more))
    resource = simulate(Resource("a", ssl_context=context))["a"]
    found = look(trusting, resource.url)
    assert found.area == "tls"
    assert found.problem.startswith("TLS failed")
    assert why in found.problem


def test_an_authority_that_nobody_knows(upstream, authority, simulate):
    context = server(authority.issue_cert("127.0.0.1"))
    resource = simulate(Resource("a", ssl_context=context))["a"]
    assert "local issuer certificate" in look(upstream, resource.url).problem


def test_a_name_that_does_not_exist_and_a_port_where_nobody_listens(upstream):
    unknown = look(upstream, "https://no-such-host.invalid")
    assert (unknown.area, unknown.problem) == ("dns", "its host name could not be resolved")
    silent = look(upstream, "http://127.0.0.1:9")
    assert (silent.area, silent.problem) == ("connection", "the connection was refused")


@pytest.mark.parametrize(
    "header, expected",
    [
        (b"date: " + formatdate(NOW - 0.25 + 60, usegmt=True).encode(), 60.25),
        (b"date: yesterday", None),
        (b"x: y", None),
    ],
)
def test_the_time_it_tells_is_compared_with_ours(upstream, listen, header, expected):
    def talk(peer):
        if peer.request()[0]:  # the first connection asks nothing
            peer.answer(b"no", header)

    found = look(upstream, f"http://127.0.0.1:{listen(talk).port}")
    assert found.ahead_seconds == expected


def test_who_does_not_answer_is_waited_for_only_so_long(upstream, listen):
    began = time.monotonic()
    listener = listen(lambda peer: peer.request() and peer.request())
    found = reach(upstream, config(api_base=f"http://127.0.0.1:{listener.port}"), seconds=0.1)
    assert found.area == "connection"
    assert "timed out" in found.problem
    assert time.monotonic() - began < 4
