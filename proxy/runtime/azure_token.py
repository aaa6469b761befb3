"""One token by azure-identity. The only module that knows that library: load it when needed."""

import json
import logging
import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.identity import (
    ClientSecretCredential,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)

from proxy.core.references import OUR_IDENTITY
from proxy.runtime.entra import NoToken

CONNECT_SECONDS = 5.0
READ_SECONDS = 10.0
SAID_CHARACTERS = 300
# 404 and 410: what a virtual machine's endpoint says while it is being updated.
PASSING = frozenset({404, 408, 410, 429})
LIBRARIES = ("azure", "msal")

# Where the environment has what must not be told.
TOKEN_FILE = "AZURE_FEDERATED_TOKEN_FILE"

Credential = ClientSecretCredential | ManagedIdentityCredential | WorkloadIdentityCredential


def fetch(
    kind: str, *, client_id: str, scope: str, ca_bundle: Path | None
) -> tuple[str, float]:
    """A new token, and for how many seconds it is good. Raises NoToken.

    Each time a new credential: those keep their tokens, and would give one again that an
    upstream refused, and keep errors too. When to ask again is for our caller to decide.
    """
    for name in LIBRARIES:
        # They would write a line each time; we write one when it begins to fail.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    heard = _Heard()
    try:
        with _credential(kind, client_id, ca_bundle, heard) as credential:
            info = credential.get_token_info(scope)
            return info.token, info.expires_on - time.time()
    # Three libraries, each with exceptions of its own for answers nobody expected.
    except Exception as error:  # noqa: BLE001
        found = heard.failure(error)
    # Outside of the handler: what the libraries raise may quote what they were asked with.
    raise found


def _credential(
    kind: str, client_id: str, ca_bundle: Path | None, heard: "_Heard"
) -> Credential:
    options: dict[str, Any] = {
        "connection_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
        "retry_total": 0,
        "raw_request_hook": heard.ask,
        "raw_response_hook": heard.answer,
    }
    if ca_bundle is not None:
        options["connection_verify"] = str(ca_bundle)
    if kind == "managed_identity":
        return ManagedIdentityCredential(client_id=client_id or None, **options)
    # Whoever names an authority says whom to trust. Microsoft's list of them knows no private
    # cloud, and is not to be reached from there.
    options["disable_instance_discovery"] = bool(os.environ.get("AZURE_AUTHORITY_HOST"))
    tenant_id = os.environ.get("AZURE_TENANT_ID", "")
    if kind == "workload_identity":
        return WorkloadIdentityCredential(tenant_id=tenant_id, client_id=client_id, **options)
    secret = os.environ.get("AZURE_CLIENT_SECRET", "")
    return ClientSecretCredential(tenant_id, client_id, secret, **options)


class _Heard:
    """What was asked last, and how it was answered: the libraries' exceptions do not tell."""

    def __init__(self) -> None:
        self._host = ""
        self._status: int | None = None
        self._body = b""

    def ask(self, request: PipelineRequest[Any]) -> None:
        self._host = urlsplit(request.http_request.url).netloc.rpartition("@")[2]
        self._status = None

    def answer(self, response: PipelineResponse[Any, Any]) -> None:
        self._status = response.http_response.status_code
        self._body = response.http_response.body()

    def failure(self, error: Exception) -> NoToken:
        """In words for an operator, without secrets."""
        status = self._status
        if not self._host:  # nobody was asked: it is what we were told that is wrong
            return NoToken(_tidy(_reason(error)), is_refused=True)
        if status is None:
            return NoToken(f"{self._host} does not answer ({_kind(error)})")
        if status < 400:
            return NoToken(f"{self._host} gave an answer without a token ({_kind(error)})")
        said = _tidy(_said(self._body))
        is_refused = status < 500 and status not in PASSING
        return NoToken(f"{self._host} answered {status}: {said}", is_refused=is_refused)


def _said(body: bytes) -> str:
    text = body.decode("utf-8", "replace")
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(fields, dict):
        return text
    found = (fields.get(name) for name in ("error_description", "message", "error"))
    return next((each for each in found if isinstance(each, str) and each), text)


def _reason(error: BaseException) -> str:
    """The first cause, which says what it is about; a file's with its name."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename!r} cannot be read: {error.strerror}"
    return str(error)


def _kind(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return type(error).__name__


def _tidy(text: str) -> str:
    """One line, not too long; an endpoint may quote what it was asked with."""
    for secret in _secrets():
        text = text.replace(secret, "***")
    return " ".join(text.split())[:SAID_CHARACTERS].rstrip(".")


def _secrets() -> list[str]:
    secrets = [os.environ.get(name, "") for name in OUR_IDENTITY]
    try:
        secrets.append(Path(os.environ.get(TOKEN_FILE, "")).read_text().strip())
    except (OSError, UnicodeDecodeError):
        pass  # what cannot be read was not sent
    return [secret for secret in secrets if secret]
