"""Azure's error answers: status, headers and body as its front door and models send them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proxy.simulator.routes import Operation, Style


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, not streamed. Headers that every answer has are added when it is sent."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


class Refused(Exception):
    """The request gets this answer and nothing else."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"refused with {answer.status}")
        self.answer = answer


def json_answer(
    body: dict[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Answer:
    return Answer(status, json.dumps(body).encode(), headers=headers or {})


def error(
    status: int, code: str | None, message: str, headers: Mapping[str, str] | None = None
) -> Answer:
    """The short shape of Azure's management layer: {"error": {"code", "message"}}."""
    return json_answer({"error": {"code": code, "message": message}}, status, headers)


def invalid(message: str, code: str | None = None, param: str | None = None) -> Answer:
    """The long shape, which comes from the model behind it; always a 400."""
    kind = "invalid_request_error"
    body = {"message": message, "type": kind, "param": param, "code": code}
    return json_answer({"error": body}, 400)


ACCESS_DENIED = error(
    401,
    "401",
    "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide "
    "a valid key for an active subscription and use a correct regional API endpoint for your "
    "resource.",
)
RESOURCE_NOT_FOUND = error(404, "404", "Resource not found")
NO_STREAM_OPTIONS = invalid("Unrecognized request argument supplied: stream_options")

_NO_DEPLOYMENT = {
    "code": "DeploymentNotFound",
    "message": "The API deployment for this resource does not exist. If you created the "
    "deployment within the last 5 minutes, please wait a moment and try again.",
}
_NO_DEPLOYMENT_V1 = {**_NO_DEPLOYMENT, "type": "invalid_request_error", "param": None}


def deployment_not_found(style: Style) -> Answer:
    """The v1 paths say a little more than the classic ones."""
    body = _NO_DEPLOYMENT if style == "azure" else _NO_DEPLOYMENT_V1
    return json_answer({"error": body}, 404)


def not_supported(operation: Operation, model: str) -> Answer:
    """The 400 of a model that is there, and is for something else."""
    what = {"chat/completions": "chatCompletion", "completions": "completion"}.get(operation)
    message = (
        f"The {what or operation} operation does not work with the specified model, {model}. "
        "Please choose different model and try again."
    )
    return error(400, "OperationNotSupported", message)


OPERATION_NAMES: dict[Operation, str] = {
    "chat/completions": "ChatCompletions_Create",
    "completions": "Completions_Create",
    "embeddings": "Embeddings_Create",
    "images/generations": "ImageGenerations_Create",
    "images/edits": "ImageEdits_Create",
    "audio/transcriptions": "Transcriptions_Create",
    "audio/translations": "Translations_Create",
    "audio/speech": "Speech_Create",
    "responses": "Responses_Create",
    "responses/compact": "Responses_Compact",
    "models": "Models_List",
}


def too_many(
    limited_by: str,
    retry_after_seconds: int,
    headers: Mapping[str, str],
    operation: Operation = "chat/completions",
    api_version: str = "",
) -> Answer:
    """The 429 of a deployment that is over a limit; `limited_by` is "token" or "call"."""
    version = f" under Azure OpenAI API version {api_version}" if api_version else ""
    message = (
        f"Requests to the {OPERATION_NAMES[operation]} Operation{version} have exceeded "
        f"{limited_by} rate limit of your current OpenAI S0 pricing tier. "
        f"Please retry after {retry_after_seconds} seconds."
    )
    return error(429, "429", message, headers)
