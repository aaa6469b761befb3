import subprocess
import sys

import pytest

from proxy.runtime import identity
from proxy.runtime.identity import NEEDED, NOT_INSTALLED, Identity, credential
from proxy.settings import ROOT
from tests.token_endpoint import CLIENT_ID, SCOPE, SECRET, TENANT, TokenEndpoint

pytestmark = pytest.mark.usefixtures("no_identity")


def an_identity(setting="auto", client_id=""):
    return Identity(setting, client_id, SCOPE)


SECRETS = {"AZURE_CLIENT_SECRET": "s"}
WORKLOAD = {"AZURE_FEDERATED_TOKEN_FILE": "/f"}


@pytest.mark.parametrize(
    "setting, environ, kind",
    [
        ("auto", {}, "managed_identity"),
        ("auto", {"IDENTITY_ENDPOINT": "http://h"}, "managed_identity"),
        ("auto", {"AZURE_CLIENT_ID": "user-assigned"}, "managed_identity"),
        ("auto", WORKLOAD, "workload_identity"),
        ("auto", SECRETS, "client_secret"),
        ("auto", SECRETS | WORKLOAD, "client_secret"),  # as Azure's own libraries have it
        ("auto", {"AZURE_CLIENT_SECRET": ""}, "managed_identity"),
        ("managed_identity", SECRETS | WORKLOAD, "managed_identity"),
        ("workload_identity", SECRETS, "workload_identity"),
        ("client_secret", {}, "client_secret"),
    ],
)
def test_which_credential_it_is_is_set_or_seen_by_the_environment(setting, environ, kind):
    assert credential(setting, environ) == kind
    assert kind in NEEDED


def test_a_managed_identity_needs_no_variable():
    assert an_identity().problem() is None


@pytest.mark.parametrize(
    "setting, environ, missing",
    [
        ("auto", SECRETS, "client_secret needs AZURE_TENANT_ID and AZURE_CLIENT_ID"),
        (
            "client_secret",
            {"AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_ID": "c", "AZURE_CLIENT_SECRET": ""},
            "client_secret needs AZURE_CLIENT_SECRET",
        ),
        (
            "workload_identity",
            {"AZURE_TENANT_ID": TENANT},
            "workload_identity needs AZURE_CLIENT_ID and AZURE_FEDERATED_TOKEN_FILE",
        ),
    ],
)
def test_the_variables_that_are_missing_are_named(setting, environ, missing, monkeypatch):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    problem = an_identity(setting).problem()
    assert problem == f"the credential {missing} in the environment"


def test_a_client_id_that_is_set_needs_no_variable(monkeypatch):
    monkeypatch.setenv("AZURE_TENANT_ID", TENANT)
    monkeypatch.setenv("AZURE_CLIENT_SECRET", SECRET)
    assert an_identity(client_id=CLIENT_ID).problem() is None


@pytest.mark.parametrize("missing", [None, ModuleNotFoundError("No module named 'azure'")])
def test_without_the_library_its_installation_is_the_remedy(missing, monkeypatch):
    def find_spec(name):
        assert name == "azure.identity"
        if missing is not None:
            raise missing

    monkeypatch.setattr(identity, "find_spec", find_spec)
    assert an_identity().problem() == NOT_INSTALLED
    assert "pip install -r requirements-entra.txt" in NOT_INSTALLED


@pytest.mark.parametrize(
    "setting, variable, asked_for",
    [("", "", None), (CLIENT_ID, "other", CLIENT_ID), ("", CLIENT_ID, CLIENT_ID)],
)
def test_a_user_assigned_identity_is_asked_for_by_its_client_id(
    setting, variable, asked_for, monkeypatch
):
    monkeypatch.setenv("AZURE_CLIENT_ID", variable)
    endpoint = TokenEndpoint()
    try:
        endpoint.as_app_service(monkeypatch)
        value, life_seconds = an_identity(client_id=setting).fetch()
    finally:
        endpoint.close()
    assert value == endpoint.given[0]
    assert 3590 < life_seconds <= 3600
    assert endpoint.asked[0].get("client_id") == asked_for


def test_the_library_is_loaded_only_when_a_token_is_asked_for():
    # In a process of its own: here others have loaded it.
    program = (
        "import sys, proxy; from proxy.runtime.identity import Identity;"
        " Identity('auto', '', 's').problem();"
        " print([m for m in sys.modules if m.partition('.')[0] in ('msal', 'jwt')"
        " or m.startswith('azure.')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
