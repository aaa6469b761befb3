"""A real call with a tiny prompt to each deployment of an instance, and what it found."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from proxy.core import catalog, verdict
from proxy.core.excerpt import excerpt, without_key
from proxy.core.providers import PROVIDERS, key_headers
from proxy.core.sse import json_object
from proxy.core.types import ENTRA, InstanceConfig
from proxy.runtime.upstream import NoCredential, Upstream, UpstreamError

MAX_MODELS = 20  # each is a call that costs money
DETAIL_CHARACTERS = 300
FOR_ELSE = "Is there, but not for chats and embeddings; nothing else is tried."
ROLE = "The identity needs a role there, such as Cognitive Services OpenAI User"


@dataclass(frozen=True, slots=True)
class Check:
    """`check` says what was looked at; `status` is the upstream's, None without an answer."""

    check: str
    ok: bool
    detail: str
    ms: int = 0
    model: str | None = None
    deployment: str | None = None
    status: int | None = None


Look = Callable[[], Check]

# Tried one after the other until one tells: newer models refuse `max_tokens`, embedding
# models refuse chat.
PROBES: tuple[tuple[str, dict[str, object]], ...] = (
    ("chat/completions", {"messages": [{"role": "user", "content": "ping"}], "max_tokens": 1}),
    (
        "chat/completions",
        {"messages": [{"role": "user", "content": "ping"}], "max_completion_tokens": 16},
    ),
    ("embeddings", {"input": "ping"}),
)


def verify(upstream: Upstream, config: InstanceConfig, model: str | None) -> list[Check]:
    """One check a model. Counts nowhere: it is the operator's call, not a client's."""
    return [look() for look in looks(upstream, config, model).values()]


def looks(upstream: Upstream, config: InstanceConfig, model: str | None) -> dict[str, Look]:
    """The checks that `verify` makes, still to be made, each by the model that it looks at."""
    models = [model] if model else list(dict.fromkeys(_known_models(config)))
    if not models:
        nothing = "The instance names no model; say which to try (`model`, or --model of the"
        return {"": _failed(f"{nothing} command).")}
    if config.auth == ENTRA:
        upstream.forget_failures()
    found: dict[str, Look] = {}
    for each in models[:MAX_MODELS]:
        found[each] = partial(_check, upstream, config, each)
    if len(models) > MAX_MODELS:
        rest = ", ".join(models[MAX_MODELS:])
        found[rest] = _failed(f"Not tried: {rest}.")
    return found


def _failed(detail: str) -> Look:
    return lambda: Check("deployment", ok=False, detail=detail)


def _known_models(config: InstanceConfig) -> list[str]:
    return [*config.supported_models] or [*config.model_deployments]


def _check(upstream: Upstream, config: InstanceConfig, model: str) -> Check:
    deployment = catalog.deployment(config, model)
    started = time.monotonic()
    status: int | None = None
    what, ok, detail = "", False, ""
    for path, body in PROBES:
        try:
            status, answer = _ask(upstream, config, path, deployment, body)
        except NoCredential as error:
            what, ok, detail = (
                "identity",
                False,
                f"{error.detail[0].upper()}{error.detail[1:]}.",
            )
            break
        except UpstreamError as error:
            status = None
            what, ok, detail = "connection", False, f"No answer: {error.message}."
            break
        what, ok, detail = _judged(config, path, status, answer)
        if status != 400 and detail != FOR_ELSE:
            break
    ms = int((time.monotonic() - started) * 1000)
    return Check(what, ok, detail[:DETAIL_CHARACTERS], ms, model, deployment, status)


def _ask(
    upstream: Upstream,
    config: InstanceConfig,
    path: str,
    deployment: str,
    body: dict[str, object],
) -> tuple[int, bytes]:
    answer = upstream.send(
        config,
        PROVIDERS[config.provider_type].url(config, path, deployment),
        headers={"Content-Type": "application/json", **key_headers(config)},
        body=json.dumps({"model": deployment, **body}).encode(),
    )
    try:
        return answer.status, without_key(bytes(answer.read_all()), config, answer.token)
    finally:
        answer.close()


def _judged(
    config: InstanceConfig, path: str, status: int, answer: bytes
) -> tuple[str, bool, str]:
    """(what the answer tells about, whether that is well, in words)."""
    if status < 300:
        return (
            "deployment",
            bool(answer),
            f"Answered {path}{'' if answer else ' with nothing'}.",
        )
    if _is_for_something_else(status, answer):
        return "deployment", True, FOR_ELSE
    said = excerpt(answer)
    if status < 400:
        return "connection", False, f"It redirects elsewhere ({status}), and is not followed."
    if status in (401, 403) and config.auth == ENTRA:
        return "identity", False, f"The token was refused ({status}). {ROLE}: {said}"
    if status in (401, 403):
        return "key", False, f"The key was refused ({status}): {said}"
    if status == 404:
        return "deployment", False, f"There is no such deployment or path (404): {said}"
    if status == 429:
        what = "Token" if config.auth == ENTRA else "Key"
        return (
            "deployment",
            True,
            f"{what} and deployment are right, but it is at its limit: {said}",
        )
    return "deployment", False, f"HTTP {status}: {said}"


def _is_for_something_else(status: int, answer: bytes) -> bool:
    """The model is there, and makes images or hears speech, say. Azure has a code for it,
    OpenAI a 404 that blames the model."""
    if status not in (400, 404):
        return False
    error = json_object(answer).get("error")
    if status == 404:
        return verdict.blames_endpoint(error)
    return isinstance(error, dict) and error.get("code") == "OperationNotSupported"
