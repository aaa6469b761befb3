"""The real azure-identity, against an endpoint on loopback."""

import socket
import ssl
import traceback

import pytest
import trustme

from proxy.runtime.azure_token import SAID_CHARACTERS, fetch
from proxy.runtime.entra import NoToken
from tests.token_endpoint import (
    ASSERTION,
    CLIENT_ID,
    HEADER,
    SCOPE,
    SECRET,
    TENANT,
    TokenEndpoint,
)

pytestmark = pytest.mark.usefixtures("no_identity")


@pytest.fixture
def endpoint(monkeypatch):
    """This process runs in an App Service."""
    endpoint = TokenEndpoint()
    endpoint.as_app_service(monkeypatch)
    yield endpoint
    endpoint.close()


@pytest.fixture
def ca_bundle(tmp_path):
    return tmp_path / "ca.pem"


@pytest.fixture
def authority(monkeypatch, ca_bundle):
    """An authority of a private cloud: azure-identity speaks to none without TLS."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(ca_bundle)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    authority = TokenEndpoint(context)
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", authority.url)
    monkeypatch.setenv("AZURE_TENANT_ID", TENANT)
    yield authority
    authority.close()


@pytest.fixture
def with_secret(authority, monkeypatch):
    monkeypatch.setenv("AZURE_CLIENT_SECRET", SECRET)
    return authority


@pytest.fixture
def with_file(authority, monkeypatch, tmp_path):
    path = tmp_path / "service-account-token"
    path.write_text(ASSERTION)
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(path))
    return path


def token(kind="managed_identity", client_id="", ca_bundle=None):
    return fetch(kind, client_id=client_id, scope=SCOPE, ca_bundle=ca_bundle)


def refusal(*secrets, **arguments):
    """The error, in which no secret is, wherever one looks."""
    with pytest.raises(NoToken) as caught:
        token(**arguments)
    shown = "".join(traceback.format_exception(caught.value))
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    for secret in (*secrets, HEADER, SECRET, ASSERTION):
        assert secret not in shown
    assert "\n" not in caught.value.message
    return caught.value


# Managed identity.


def test_the_managed_identity_of_an_app_service(endpoint):
    endpoint.lives_seconds = 600
    value, life_seconds = token()
    assert value == "access-token-1-of-entra"
    assert 590 < life_seconds <= 600
    (asked,) = endpoint.asked
    assert asked == {
        "api-version": "2019-08-01",
        "resource": "https://cognitiveservices.azure.com",
        "header": HEADER,
    }


def test_each_time_another_token_is_asked_for_and_none_is_kept(endpoint):
    assert [token()[0] for _ in range(3)] == endpoint.given
    assert len(endpoint.asked) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 422])
def test_an_identity_that_is_refused_is_for_a_person_to_mend(endpoint, status):
    endpoint.answer = status, {"statusCode": status, "message": "No such identity."}
    error = refusal()
    assert error.is_refused
    host = endpoint.url.removeprefix("http://")
    assert error.message == f"{host} answered {status}: No such identity"
    assert len(endpoint.asked) == 1  # when to ask again is not for the library to decide


@pytest.mark.parametrize("status", [404, 408, 410, 429, 500, 502, 503])
def test_a_failure_of_the_endpoint_passes(endpoint, status):
    endpoint.answer = status, {"error": "busy", "error_description": "Too\r\nmany."}
    error = refusal()
    assert not error.is_refused
    assert error.message.endswith(f" answered {status}: Too many")
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"{}", b'"x"', b'{"access_token": ""}', b'{"expires_on": "x"}'],
)
def test_an_answer_that_is_no_token_passes(endpoint, body):
    endpoint.answer = 200, body
    error = refusal()
    assert not error.is_refused
    assert " gave an answer without a token (" in error.message


@pytest.mark.parametrize("body", [b"[]", b"<html>\xff", b'{"error": {}}', b"[" * 100_000])
def test_no_error_is_too_strange_to_be_told(endpoint, body):
    endpoint.answer = 500, body
    error = refusal()
    assert "answered 500: " in error.message
    assert len(error.message) < SAID_CHARACTERS + 50


def test_an_endpoint_that_quotes_our_secret_does_not_make_us_tell_it(endpoint):
    endpoint.answer = 400, {"message": f"{HEADER} is not the header"}
    assert refusal().message.endswith(": *** is not the header")


def test_a_token_in_an_answer_of_which_we_make_nothing_is_not_told(endpoint):
    endpoint.answer = 200, {"access_token": "planted-access-token", "expires_on": "soon"}
    refusal("planted-access-token")


def test_nobody_at_the_endpoint_passes(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{port}/msi")
    monkeypatch.setenv("IDENTITY_HEADER", HEADER)
    error = refusal()
    assert not error.is_refused
    assert error.message == f"127.0.0.1:{port} does not answer (ServiceRequestError)"


def test_the_libraries_write_no_lines_of_their_own(endpoint, caplog):
    endpoint.answer = 400, {"message": "No such identity."}
    refusal()
    assert caplog.records == []


# Client secret and workload identity.


def test_a_client_secret(with_secret, ca_bundle):
    value, life_seconds = token("client_secret", CLIENT_ID, ca_bundle)
    assert value == with_secret.given[0]
    assert 3590 < life_seconds <= 3600
    (asked,) = with_secret.asked
    assert (asked["grant_type"], asked["scope"]) == ("client_credentials", SCOPE)


def test_a_client_secret_that_is_wrong_is_for_a_person_to_mend(
    with_secret, ca_bundle, monkeypatch
):
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "another-secret-0123456789")
    error = refusal(
        "another-secret-0123456789",
        kind="client_secret",
        client_id=CLIENT_ID,
        ca_bundle=ca_bundle,
    )
    assert error.is_refused
    assert "answered 401: AADSTS7000215: Invalid client secret provided: ***." in error.message


def test_an_authority_that_fails_passes(with_secret, ca_bundle):
    with_secret.answer = 503, {"error": "temporarily_unavailable"}
    error = refusal(kind="client_secret", client_id=CLIENT_ID, ca_bundle=ca_bundle)
    assert not error.is_refused
    assert error.message.endswith(" answered 503: temporarily_unavailable")


def test_an_authority_whose_certificate_nobody_vouches_for_gets_no_secret(with_secret):
    error = refusal(kind="client_secret", client_id=CLIENT_ID)
    assert not error.is_refused
    assert "does not answer" in error.message
    assert with_secret.asked == []


def test_an_authority_without_tls_gets_no_secret(with_secret, monkeypatch):
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", "http://127.0.0.1:1")
    error = refusal(kind="client_secret", client_id=CLIENT_ID)
    assert error.is_refused
    assert "must be a TLS protected (https) URL" in error.message


def test_a_workload_identity(with_file, authority, ca_bundle):
    value, _ = token("workload_identity", CLIENT_ID, ca_bundle)
    assert value == authority.given[0]
    (asked,) = authority.asked
    assert asked["client_assertion"] == ASSERTION
    assert asked["scope"] == SCOPE


def test_a_workloads_file_is_read_each_time(with_file, authority, ca_bundle):
    token("workload_identity", CLIENT_ID, ca_bundle)
    with_file.write_text("another-token-0123456789")
    error = refusal(
        "another-token-0123456789",
        kind="workload_identity",
        client_id=CLIENT_ID,
        ca_bundle=ca_bundle,
    )
    assert error.is_refused
    assert authority.asked[-1]["client_assertion"] == "another-token-0123456789"


def test_a_workloads_file_that_is_not_there_is_named(with_file, ca_bundle):
    with_file.unlink()
    error = refusal(kind="workload_identity", client_id=CLIENT_ID, ca_bundle=ca_bundle)
    assert error.message == f"{str(with_file)!r} cannot be read: No such file or directory"
