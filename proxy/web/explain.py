"""`POST /admin/explain`: where a call would go and why, without asking anybody."""

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from flask import request
from flask.views import MethodView
from flask_smorest import Blueprint

from proxy.context import parts
from proxy.core.door import KnownKey, hindrance, is_allowed
from proxy.core.endpoints import ENDPOINTS
from proxy.core.refusal import (
    FAILING,
    LEFT_TO_OTHERS,
    NO_ROOM,
    SHARED_OUT,
    TOO_LONG,
    UPSTREAM_SAYS,
    Refusal,
)
from proxy.core.roles import OPERATE
from proxy.core.types import ANONYMOUS, Bytes, Call, Client, Limit, Serving
from proxy.core.verdict import MISCONFIGURED
from proxy.errors import BadRequest, NotFound, ProxyError, Unprocessable
from proxy.web import limits
from proxy.web import schemas_explain as schemas
from proxy.web.auth import require_admin
from proxy.web.body import parsed_json, read_body
from proxy.web.documented import documented_in
from proxy.web.kept import TakenUp, taken_up
from proxy.web.openai import call_of, model_of
from proxy.web.schemas import checked, query_values

# Fields that no other operation has.
_OF_RESPONSES = frozenset(
    {"previous_response_id", "max_output_tokens", "background", "include", "reasoning", "text"}
)

blueprint = Blueprint(
    "explain",
    __name__,
    url_prefix="/admin/explain",
    description="Where a call would go, and why.",
)
blueprint.before_request(require_admin)
documented = partial(documented_in, blueprint)


@blueprint.route("")
class Explain(MethodView):
    @documented(
        200,
        schemas.ExplanationSchema,
        body=schemas.AnyBodySchema(),
        query=schemas.ExplainQuerySchema,
        errors=(404, 422),
        right=OPERATE,
    )
    def post(self) -> dict[str, Any]:
        """Where the call with this body would go now, and whether the client that `client`
        names may make it. Of a form its fields are given as JSON; what its files cost is left
        out. Nobody is asked, nothing is counted."""
        query = checked(schemas.ExplainQuerySchema(), query_values())
        known = _known(query["client"]) if query["client"] else None
        body = read_body(parts(), request.environ)
        fields = parsed_json(body)
        if not isinstance(fields, dict):
            raise Unprocessable("A JSON object is needed: the body of a client's request.")
        more: dict[str, Any] = {"client": known.client} if known else {}
        endpoint = query.get("endpoint") or _endpoint(fields)
        if ENDPOINTS[endpoint].answer == "response":
            client = known.client if known else ANONYMOUS
            body, fields, more["homes"] = _taken_up(client, body, fields)
        call = call_of(parts(), endpoint, model_of(fields), body, fields, **more)
        rows = _rows(call)
        return {
            "model": call.model,
            "endpoint": call.endpoint,
            "policy": parts().settings.policy,
            "home": list(call.homes),
            "prompt_tokens": call.prompt_tokens,
            "reserved_tokens": call.reserved_tokens,
            "order": [s.config.name for s, refusal in rows if refusal is None],
            "instances": [_row(serving, refusal, call) for serving, refusal in rows],
            "clients": _clients(call.model),
            "client": _client(known, call) if known else None,
        }


# Why one is asked.
MAY_BE_ASKED = "it may be asked"
ON_TRIAL = "it failed; one request tries now whether it is well again"


def _taken_up(client: Client, body: Bytes, fields: Mapping[str, Any]) -> TakenUp:
    """Raises BadRequest also where only the client that `client` names could be told more."""
    try:
        return taken_up(parts(), client, body, fields)
    except BadRequest as error:
        error.message += (
            f" Looked for as the client {client.name!r}; ?client=NAME is for another."
        )
        raise


def _rows(call: Call) -> list[tuple[Serving, Refusal | None]]:
    try:
        return list(parts().forward.explain(call))
    except ProxyError as error:
        if call.homes:
            error.message += f" It is {' or '.join(call.homes)}."
        raise


def _known(name: str) -> KnownKey:
    """The client's key that opens for longest. Raises NotFound."""
    keys = (k for k in parts().snapshots.current.keys.values() if k.client.name == name)
    found = max(keys, key=lambda key: key.valid_until, default=None)
    if found is None:
        raise NotFound(f"There is no client {name!r} with a key.", param="client")
    return found


def _client(known: KnownKey, call: Call) -> dict[str, Any]:
    """Whether it may make the call now. Where it comes from, nobody knows here."""
    reason, why, wait_seconds = _hindrance(known, call)
    return {
        "name": known.client.name,
        "let_in": reason is None,
        "reason": reason,
        "wait_seconds": wait_seconds,
        "why": why,
    }


def _hindrance(known: KnownKey, call: Call) -> tuple[str | None, str, float | None]:
    """Reason, in words, and seconds until it passes, if it does."""
    now = time.time()
    closed = hindrance(known, now)
    if closed is not None:
        return closed, f"its key is {closed}", None
    if not is_allowed(known.client.allowed_models, call.model):
        return "allowed_models", f"it may not use the model {call.model!r}", None
    denied = limits.denial(parts(), call)
    if denied is None:
        return None, "it may make this call", None
    wait_seconds = None if denied.until is None else max(denied.until - now, 0.0)
    rounded = None if wait_seconds is None else round(wait_seconds, 3)
    return denied.limit, limits.why(denied, wait_seconds, call.endpoint), rounded


def _endpoint(fields: Mapping[str, Any]) -> str:
    """By what the body has: each operation has a field of its own for the prompt. Without any
    it is taken for a chat that says nothing: where the model goes is asked for often enough."""
    if not _OF_RESPONSES.isdisjoint(fields) or _are_items(fields.get("input")):
        return "responses"
    found = (path for path, e in ENDPOINTS.items() if e.prompt_fields[0] in fields)
    return next(found, next(iter(ENDPOINTS)))


def _are_items(given: object) -> bool:
    return isinstance(given, list) and any(isinstance(item, dict) for item in given)


def _row(serving: Serving, refusal: Refusal | None, call: Call) -> dict[str, Any]:
    (candidate,) = parts().state.look([serving])
    used = candidate.load if refusal is None else refusal.used_share
    is_on_trial = parts().state.view(serving.config.name).breaker == "half_open"
    free = ON_TRIAL if is_on_trial else MAY_BE_ASKED
    return {
        "name": serving.config.name,
        "deployment": serving.deployment,
        "priority": serving.config.priority,
        "weight": serving.config.weight,
        "in_flight": candidate.in_flight,
        "first_byte_ms": candidate.first_byte_ms,
        "used_percentage": None if used is None else round(100 * used, 1),
        "asked": refusal is None,
        "reason": refusal.reason if refusal else None,
        "wait_seconds": round(refusal.wait_seconds, 3) if refusal else None,
        "why": _why(refusal, call) if refusal else free,
    }


def _clients(model: str) -> list[dict[str, Any]]:
    """Who competes for it, who had most first; empty where nobody wants more than it gets."""
    contention = parts().forward.contention(model)
    if contention is None:
        return []
    return [
        {
            "name": name,
            "share_percentage": round(100 * contention.share(name), 1),
            "wants_more": name in contention.wanting,
            "held_back": contention.left_to(name) is not None,
        }
        for name in sorted(contention.had, key=lambda name: (-contention.had[name], name))
    ]


def _why(refusal: Refusal, call: Call) -> str:
    config = refusal.serving.config
    if refusal.reason == TOO_LONG:
        return f"the prompt is longer than max_input_tokens {config.max_input_tokens}"
    if refusal.reason == NO_ROOM and refusal.limit is not None:
        share = 100 * (refusal.used_share or 0.0)
        is_oversize = 0 < refusal.limit.max_tpm < call.reserved_tokens
        asks = " is used; the call may need more than all of it" if is_oversize else " is used"
        return (
            f"{share:.0f} % of {_named(refusal.limit)}{asks}; room in"
            f" {refusal.wait_seconds:.1f} s"
        )
    if refusal.reason == SHARED_OUT and refusal.limit is not None:
        return (
            f"other clients want more, so that {_named(refusal.limit)} is handed out evenly;"
            f" room in {refusal.wait_seconds:.1f} s"
        )
    if refusal.reason == LEFT_TO_OTHERS and refusal.limit is not None:
        return (
            f"what is left of {_named(refusal.limit)} may have been taken by other workers;"
            f" they are heard of in {refusal.wait_seconds:.1f} s"
        )
    if refusal.reason == UPSTREAM_SAYS:
        return (
            "its last answer said that less is left than the call needs; asked again in"
            f" {refusal.wait_seconds:.1f} s"
        )
    if refusal.reason == FAILING:
        return (
            f"it failed; the next attempt at it is in {refusal.wait_seconds:.1f} s, or in"
            f" {refusal.soonest_seconds:.1f} s if nobody else can be asked"
        )
    rests = f"it rests ({refusal.reason}), {refusal.wait_seconds:.1f} s left"
    if refusal.reason in MISCONFIGURED:
        rests += f"; tried in {refusal.alone_seconds:.1f} s if nobody else can be asked"
    return rests


def _named(limit: Limit) -> str:
    kind, name, part = limit.meter
    of = {
        "instance": "",
        "deployment": f" of deployment {part!r}",
        "group": f"{f' of {part!r}' if part else ''} in quota group {name!r}",
    }[kind]
    bounds = [f"max_tpm {limit.max_tpm}"] if limit.max_tpm else []
    bounds += [f"max_rpm {limit.max_rpm}"] if limit.max_rpm else []
    return " or ".join(bounds) + of
