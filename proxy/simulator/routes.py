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
    "responses",
    "responses/compact",
    "models",
]


@dataclass(frozen=True, slots=True)
class Route:
    style: Style
    operation: Operation
    deployment: str = ""  # empty: it is the request body's `model`
    kept: str = ""  # the name of a response that is asked about, and
    what: str = ""  # what is asked


OPERATIONS: dict[str, Operation] = {
    "chat/completions": "chat/completions",
    "completions": "completions",
    "embeddings": "embeddings",
    "images/generations": "images/generations",
    "images/edits": "images/edits",
    "audio/transcriptions": "audio/transcriptions",
    "audio/translations": "audio/translations",
    "audio/speech": "audio/speech",
    "responses": "responses",
    "responses/compact": "responses/compact",
}
PREFIXES: dict[str, Style] = {"/openai/v1/": "azure_v1", "/v1/": "openai"}
RESPONSE = re.compile(r"responses/([^/]+)(/cancel|/input_items)?")
QUESTIONS = frozenset({"GET", "DELETE", "POST /cancel", "GET /input_items"})
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
    if path == "/openai/models" or path.startswith("/openai/responses"):
        return _within("azure", method, path.removeprefix("/openai/"))
    if (match := DEPLOYMENT.fullmatch(path)) is None:
        return None
    deployment, operation = match.groups()
    is_below = operation in OPERATIONS and not operation.startswith("responses")
    if method != "POST" or not is_below:
        return None
    return Route("azure", OPERATIONS[operation], unquote(deployment))


def _within(style: Style, method: str, operation: str) -> Route | None:
    if method == "GET" and operation == "models":
        return Route(style, "models")
    if method == "POST" and operation in OPERATIONS:
        return Route(style, OPERATIONS[operation])
    if (match := RESPONSE.fullmatch(operation)) is not None:
        name, part = match.groups()
        what = f"{method} {part}" if part else method
        return Route(style, "responses", "", unquote(name), what) if what in QUESTIONS else None
    return None
