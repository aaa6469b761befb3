"""The one place that turns errors into JSON."""

import re
from collections.abc import Iterator
from typing import Any

import orjson
from flask import Flask, Response, current_app, g, jsonify, request
from werkzeug.exceptions import ClientDisconnected, HTTPException
from werkzeug.routing import WebsocketMismatch

from proxy.context import parts
from proxy.core.endpoints import ENDPOINTS
from proxy.errors import (
    BadRequest,
    ClientLeft,
    MethodNotAllowed,
    NotFound,
    ProxyError,
    TooLarge,
)
from proxy.web.body import SHORT

# Errors of which the request's record has the message, too: it says which limit was reached, or
# who could not be asked. Those about what a client sent may quote it.
NO_ROOM = (429, 503)
SAID_CHARACTERS = 500
_ASKED = tuple(f"/{each}" for each in (*ENDPOINTS, "models"))
BASE_URL = (
    "A client's base_url is to end with /v1; of Azure's clients, azure_endpoint is to have no"
    " path."
)
ONLY_THESE = f" Of OpenAI's API the gateway passes on POST to {', '.join(ENDPOINTS)} only."
# OpenAI's, which is not passed on; it looks like a response's name.
_COUNTING = re.compile(r"/(v1|openai/v1|openai)/responses/input_tokens/?")
_AZURE_BELOW_V1 = re.compile(r"/(openai/)?v1/deployments/")
AZURE_BELOW_V1 = (
    " Of Azure's clients base_url is to end with /openai, or take azure_endpoint, without a"
    " path, instead; with /v1 use OpenAI's own."
)
_NO_DEPLOYMENT = re.compile(r"/openai/deployments//")
# What clients ask for by OpenAI's paths or Azure's, and is not passed on.
_OTHER_OPERATION = re.compile(
    r"/(v1|openai/v1|openai/deployments/.+|openai)/(assistants|audio|batches|containers"
    r"|conversations|evals|files|fine_tuning|images|messages|moderations|realtime|rerank"
    r"|responses|threads|uploads|vector_stores|videos)(/|\Z)"
)


def register(app: Flask) -> None:
    app.register_error_handler(ProxyError, known)
    app.register_error_handler(HTTPException, of_framework)


def known(error: ProxyError) -> Response:
    g.error = error.code  # for the request's record
    if error.status in NO_ROOM:
        g.said = error.message[:SAID_CHARACTERS]
    response = jsonify(error.to_dict())
    response.status_code = error.status
    response.headers.update(error.headers())
    return response


def of_framework(error: HTTPException) -> Response:
    """The framework's own; also the 500 for what nobody foresaw, whose traceback it logged."""
    response = known(_translated(error))
    for name, value in error.get_headers():
        if name.lower() == "allow" and response.status_code == 405:
            response.headers[name] = value
    return response


def _translated(error: HTTPException) -> ProxyError:
    is_counting = error.code == 405 and _COUNTING.fullmatch(request.path)
    if error.code == 404 or is_counting:
        said = f"There is nothing at {request.path}.{_hint(request.path)}"
        return NotFound(said, code="unknown_path")
    if error.code == 405:
        is_other = request.method == "POST" and _OTHER_OPERATION.match(request.path)
        more = ONLY_THESE if is_other else ""
        return MethodNotAllowed(f"{request.path} does not accept {request.method}.{more}")
    if error.code == 413:
        limit = parts().settings.max_body_bytes
        return TooLarge(
            f"The request's body is larger than {limit} bytes (PROXY_MAX_BODY_BYTES)."
        )
    if isinstance(error, WebsocketMismatch):
        return BadRequest("The gateway speaks no WebSocket; ask without Upgrade.")
    if isinstance(error, ClientDisconnected):
        return ClientLeft(SHORT)
    if error.code is not None and 400 <= error.code < 500:
        return BadRequest(error.description or error.name)
    return ProxyError("The gateway failed; its log has the details.")


def _hint(path: str) -> str:
    """Where what was looked for mostly is, or that it is nowhere."""
    if path in ("/", "/admin", "/admin/"):
        return " The console is at /admin/ui."
    if _NO_DEPLOYMENT.match(path):
        return " The deployment's name, which is the model, is empty."
    if _AZURE_BELOW_V1.match(path):
        return AZURE_BELOW_V1
    routes, bare = current_app.url_map.bind(""), path.rstrip("/")
    for meant in (bare, f"/v1{bare}"):
        if meant != path and routes.test(meant, request.method):
            return f" Did you mean {meant}?"
    if _OTHER_OPERATION.match(path):
        return ONLY_THESE
    if path.startswith("/admin/") or not bare.endswith(_ASKED):
        return ""
    is_asked_so = request.method == "POST" or bare.endswith("/models")
    return f" {BASE_URL}" if is_asked_so else ONLY_THESE


def shown(value: Any) -> str:
    """A value from outside, for a message: as JSON, and not all of it."""
    try:
        return orjson.dumps(value).decode()[:100]
    except orjson.JSONEncodeError:
        return "what is nested too deep to show"


def message_and_path(messages: Any) -> tuple[str, list[str]]:
    """The first of marshmallow's messages, and where it is about (empty for the whole)."""
    path: list[str] = []
    while isinstance(messages, dict) and messages:
        key, messages = next(iter(messages.items()))
        if key != "_schema":
            path.append(str(key))
    if isinstance(messages, list) and messages:
        messages = messages[0]
    return str(messages), path


def messages_and_paths(messages: Any) -> Iterator[tuple[str, list[str]]]:
    """All of them, as `message_and_path` gives the first."""
    if isinstance(messages, dict):
        for key, below in messages.items():
            for message, path in messages_and_paths(below):
                yield message, path if key == "_schema" else [str(key), *path]
    else:
        for message in messages if isinstance(messages, list) else [messages]:
            yield str(message), []
