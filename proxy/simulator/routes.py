"""Which path means which operation of which deployment."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

Style = Literal["azure", "azure_v1", "openai"]
Operation = Literal[
    "chat/completions",
    "completions",
    "embeddings",
    "images/generations",
    "images/edits",
    "audio/transcriptions",
    "audio/translations",
    "audio/speech",
    "models",
]


@dataclass(frozen=True, slots=True)
class Route:
    style: Style
    operation: Operation
    deployment: str = ""  # empty: it is the request body's `model`


OPERATIONS: dict[str, Operation] = {
    "chat/completions": "chat/completions",
    "completions": "completions",
    "embeddings": "embeddings",
    "images/generations": "images/generations",
    "images/edits": "images/edits",
    "audio/transcriptions": "audio/transcriptions",
    "audio/translations": "audio/translations",
    "audio/speech": "audio/speech",
}
PREFIXES: dict[str, Style] = {"/openai/v1/": "azure_v1", "/v1/": "openai"}
DEPLOYMENT = re.compile(r"/openai/deployments/([^/]+)/(.+)")


def find(method: str, path: str, query: Mapping[str, str]) -> Route | None:
    """What a request is for; None if nothing is served there.

    `path` is as it came, still percent-encoded, so that a deployment may have a slash
    in its name. The classic paths exist only with an `api-version`, as on Azure.
    """
    for prefix, style in PREFIXES.items():
        if path.startswith(prefix):
            return _within(style, method, path.removeprefix(prefix))
    if "api-version" not in query:
        return None
    if path == "/openai/models":
        return _within("azure", method, "models")
    if (match := DEPLOYMENT.fullmatch(path)) is None:
        return None
    deployment, operation = match.groups()
    if method != "POST" or operation not in OPERATIONS:
        return None
    return Route("azure", OPERATIONS[operation], unquote(deployment))


def _within(style: Style, method: str, operation: str) -> Route | None:
    if method == "GET" and operation == "models":
        return Route(style, "models")
    if method == "POST" and operation in OPERATIONS:
        return Route(style, OPERATIONS[operation])
    return None
