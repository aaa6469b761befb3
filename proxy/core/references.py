"""Where a secret is to be found, written in its place: `env:NAME` or `file:/path`."""

import re

ENV, FILE = "env:", "file:"
KINDS = (ENV, FILE)

MAX_CHARACTERS = 2000

# `${NAME}` and `$NAME`: what a shell or a program was to replace, and did not.
_VARIABLE = re.compile(r"\$(\{[^{}]*\}|[A-Z_][A-Z0-9_]*)\Z")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# What an instance's key could be read from, and sent to whoever the instance is.
OUR_IDENTITY = ("AZURE_CLIENT_SECRET", "IDENTITY_HEADER", "MSI_SECRET")
_OUR_OWN = re.compile(rf"PROXY_|OTEL_EXPORTER_OTLP_|(ADMIN_API_KEY|{'|'.join(OUR_IDENTITY)})\Z")


def is_reference(value: str) -> bool:
    """It says where the secret is, and holds none."""
    return value.startswith(KINDS)


def mistake(reference: str) -> str | None:
    """What is wrong with the way it is written; None if nothing is."""
    if len(reference) > MAX_CHARACTERS:
        return f"Is longer than {MAX_CHARACTERS} characters."
    if reference.startswith(ENV):
        name = reference.removeprefix(ENV)
        if not _NAME.match(name):
            return "After env: must be the name of a variable: letters, digits and _."
        if _OUR_OWN.match(name):
            return "Names a setting of the gateway itself, which no upstream may be sent."
        return None
    path = reference.removeprefix(FILE)
    if not path.startswith("/") or path.startswith("//"):
        return "After file: must be an absolute path, such as file:/run/secrets/azure-key."
    if not path.isprintable() or path != path.strip():
        return "The path must have no space at its end and no control characters."
    return None


def key_mistake(key: str) -> str | None:
    """Why this cannot be sent as a key; None if it can."""
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        return "Must be printable ASCII without spaces: it is sent as a header."
    return None


def is_variable(value: str) -> bool:
    """It is written as shells and env files name a variable whose value should stand there:
    as a whole, and as keys are not."""
    return _VARIABLE.match(value) is not None
