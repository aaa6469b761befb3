"""Who the gateway is for Entra ID: which credential the environment holds, and tokens by it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

REMEDY = "pip install -r requirements-entra.txt"
NOT_INSTALLED = f"azure-identity is not installed: {REMEDY}, then start the gateway again"

CLIENT_ID = "AZURE_CLIENT_ID"
# Credential -> the variables it needs. A managed identity is the machine's own.
NEEDED: Mapping[str, tuple[str, ...]] = {
    "client_secret": ("AZURE_TENANT_ID", CLIENT_ID, "AZURE_CLIENT_SECRET"),
    "workload_identity": ("AZURE_TENANT_ID", CLIENT_ID, "AZURE_FEDERATED_TOKEN_FILE"),
    "managed_identity": (),
}


def credential(setting: str, environ: Mapping[str, str]) -> str:
    """A key of NEEDED. `auto`: by the variable that only one of them has. Never what a
    developer is signed in with: a server must not be somebody."""
    if setting != "auto":
        return setting
    if environ.get("AZURE_CLIENT_SECRET"):
        return "client_secret"
    if environ.get("AZURE_FEDERATED_TOKEN_FILE"):
        return "workload_identity"
    return "managed_identity"


@dataclass(frozen=True, slots=True)
class Identity:
    """As the settings PROXY_ENTRA_* say. `client_id` "": AZURE_CLIENT_ID, or else the identity
    that the system has. Where that and the secrets are is the process's environment."""

    setting: str
    client_id: str
    scope: str
    ca_bundle: Path | None = None

    def problem(self) -> str | None:
        """Why it gives no token as long as this process lives; None: it may."""
        try:
            is_installed = find_spec("azure.identity") is not None
        except ModuleNotFoundError:  # not even `azure`
            is_installed = False
        if not is_installed:
            return NOT_INSTALLED
        kind = credential(self.setting, os.environ)
        given = os.environ | ({CLIENT_ID: self.client_id} if self.client_id else {})
        missing = [name for name in NEEDED[kind] if not given.get(name)]
        if missing:
            return f"the credential {kind} needs {' and '.join(missing)} in the environment"
        return None

    def fetch(self) -> tuple[str, float]:
        """A new token, and for how many seconds it is good. Raises NoToken."""
        # Loaded when the first is asked for: most gateways have keys, and it takes 5 MB.
        azure_token = import_module("proxy.runtime.azure_token")
        token: tuple[str, float] = azure_token.fetch(
            credential(self.setting, os.environ),
            client_id=self.client_id or os.environ.get(CLIENT_ID, ""),
            scope=self.scope,
            ca_bundle=self.ca_bundle,
        )
        return token
