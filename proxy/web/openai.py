"""What clients speak: OpenAI's API and Azure's, on three path styles."""

import re
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import orjson
from flask import Flask, Response, g, jsonify

from proxy.context import Parts, parts
from proxy.core import headers, images, tokens
from proxy.core.door import is_allowed
from proxy.core.endpoints import ENDPOINTS, Endpoint
from proxy.core.excerpt import excerpt
from proxy.core.form import Form, typed
from proxy.core.images import LOOKED_AT_BYTES
from proxy.core.kept import may_refer
from proxy.core.outline import KEPT_BYTES, LARGE_BYTES, outline
from proxy.core.prompt import Prompt
from proxy.core.record import Trail
from proxy.core.strict import STRICT, strict_answer
from proxy.core.tokens import NOTHING_OMITTED
from proxy.core.types import Bytes, Call, Client
from proxy.errors import BadRequest, ModelNotAllowed, ModelNotFound, RequestTimeout
from proxy.runtime.answer_stream import EVENT_STREAM
from proxy.runtime.attempt import Attempt
from proxy.runtime.line import Line
from proxy.web import limits
from proxy.web.app import Relayed
from proxy.web.auth import authenticated_client, client_of
from proxy.web.body import BODY_SECONDS, parsed_form, parsed_json, read_body
from proxy.web.counting import count_refusal
from proxy.web.errors import shown
from proxy.web.kept import marks_of, taken_up

# OpenAI's, Azure's v1, Azure's classic, whose deployment is the model we route by; and what
# Azure's clients make of the last where they find no model (that for Node.js of images' forms).
PATH_STYLES = (
    "/v1/{path}",
    "/openai/v1/{path}",
    "/openai/deployments/<path:model>/{path}",
    "/openai/{path}",
)
MODELS = ("/v1/models", "/openai/v1/models", "/openai/models")

MAX_MODEL_CHARACTERS = 200

TIMEOUT_HEADER = "x-request-timeout-ms"
TIMEOUT_KEY = "HTTP_X_REQUEST_TIMEOUT_MS"  # as PEP 3333 calls it
# Beyond the call's time, for what tells the client that it is over.
LAST_WORDS_SECONDS = 1.0
SAID_CHARACTERS = 500  # of an upstream's error that is not in OpenAI's shape
AFFINITY_BYTES = 1024  # Azure's prompt cache begins at 1,024 tokens and is found by the first


def _call_name(endpoint: str, number: int) -> str:
    return f"{endpoint}-{number}"


# Flask's names of what is a call.
CALLS = frozenset(_call_name(e, n) for e in ENDPOINTS for n in range(len(PATH_STYLES)))


def register(app: Flask) -> None:
    for endpoint in ENDPOINTS:
        for number, style in enumerate(PATH_STYLES):
            name = _call_name(endpoint, number)
            app.add_url_rule(
                style.format(path=endpoint),
                name,
                serve,
                methods=["POST"],
                defaults={"endpoint": endpoint},
            )
    for number, path in enumerate(MODELS):
        app.add_url_rule(path, f"models-{number}", list_models)
        app.add_url_rule(f"{path}/<path:model>", f"model-{number}", show_model)
    # Without a path for a single one: it would take a GET of what only accepts POST.
    app.add_url_rule("/openai/deployments", "deployments", list_models)


def serve(endpoint: str, model: str | None = None) -> Response:
    """One call, whichever endpoint and path style."""
    # `g` and `request` find their object anew at each attribute: that is done once here.
    mine, seen = parts(), g._get_current_object()
    environ, seen.endpoint = seen.asked.environ, endpoint
    if mine.traces is not None:
        seen.trace = mine.traces.begin(environ)
    try:
        return _served(mine, environ, seen, model)
    except BaseException as error:
        count_refusal(mine, error)
        raise


def _served(mine: Parts, environ: Mapping[str, Any], seen: Any, model: str | None) -> Response:
    """`seen` is what is remembered of the request: flask.g."""
    seen.client = client_of(mine, environ)
    calls, until = mine.open_calls, ends_at(mine, environ)
    line = calls.begin(environ.get("gunicorn.socket"))
    try:
        body = _body(mine, environ, line, until)
        call = _call(mine, environ, seen, model, body, until)
        attempt = seen.attempt = _forwarded(mine, call, seen.trail, line)
        response = _answered(mine, attempt)
    except BaseException:
        calls.end(line)
        raise
    # Not before its last byte is out: until then it has a thread.
    response.call_on_close(partial(calls.end, line))
    return response


def _body(mine: Parts, environ: Mapping[str, Any], line: Line, until: float) -> Bytes:
    received_by = min(until, time.monotonic() + BODY_SECONDS)
    mine.open_calls.end_by(line, received_by + LAST_WORDS_SECONDS)
    try:
        body = read_body(mine, environ, until)
    except RequestTimeout as error:
        # Clients repeat it twice: they would take their own time twice more.
        is_worth_it = TIMEOUT_KEY not in environ
        raise RequestTimeout(error.message, is_worth_retrying=is_worth_it) from None
    mine.open_calls.end_by(line, until + LAST_WORDS_SECONDS)
    return body


def call_of(
    mine: Parts,
    endpoint: str,
    model: str,
    body: Bytes,
    fields: Mapping[str, Any],
    omitted: Mapping[str, int] = NOTHING_OMITTED,
    form: Form | None = None,
    **more: Any,
) -> Call:
    """`body` in our words; `fields` is what its JSON or its form says, but for what is
    `omitted`; `more` what it does not."""
    row = ENDPOINTS[endpoint]
    prompt = tokens.prompt(fields, row.prompt_fields, omitted)
    if form is not None:
        prompt = prompt._replace(media_tokens=_file_tokens(row, body, form))
    prompt_tokens = mine.estimates.tokens(model, prompt)
    in_body = fields.get("model")
    return Call(
        endpoint=endpoint,
        model=model,
        body=body,
        stream=row.streams and (fields.get("stream") is True or row.answer == "speech"),
        body_model=in_body if isinstance(in_body, str) else None,
        form=form,
        stream_options=fields.get("stream_options"),
        lacks_stream_options="stream_options" not in fields,
        prompt=prompt,
        prompt_tokens=prompt_tokens,
        reserved_tokens=prompt_tokens + _answer_tokens(row, fields, prompt, prompt_tokens),
        choices=tokens.choices(fields),
        affinity=_affinity(mine.settings.policy, row, fields, body),
        **more,
    )


def _forwarded(mine: Parts, call: Call, trail: Trail, line: Line) -> Attempt:
    """The attempt to answer with; whatever it waits for ends when the line is cut."""
    ticket = limits.let_in(mine, call)
    try:
        return mine.forward.forward(call, trail, line, ticket.settle)
    except BaseException:
        ticket.settle()  # no attempt will
        raise


def _call(
    mine: Parts,
    environ: Mapping[str, Any],
    seen: Any,
    model: str | None,
    body: Bytes,
    until: float,
) -> Call:
    """What its JSON holds is given up before anybody waits."""
    endpoint, client = seen.endpoint, seen.client
    row = ENDPOINTS[endpoint]
    form = _form(row, environ, body) if row.is_form else None
    fields, omitted = (
        _parsed(row, body) if form is None else (typed(form.fields), NOTHING_OMITTED)
    )
    asked = seen.model = model_of(fields) if model is None else _routable(model)
    if client.allowed_models:
        _check_allowed(client, asked)
    if client.allowed_models or client.max_cost_per_day or client.max_cost_per_month:
        _check_spelling(fields)
    more: dict[str, Any] = {}
    if row.answer == "response":
        body, fields, more = _resumed(mine, seen, body, fields)
    seen.trail = Trail()
    passed = headers.passed_on(environ)
    if form is None and environ.get("CONTENT_TYPE") != headers.JSON:
        passed = headers.as_json(passed)
    trace = seen.__dict__.get("trace")
    if trace is not None:
        passed = headers.without_trace(passed)
        seen.trail.begin_attempt = trace.begin_attempt
    seen.request_bytes = len(body)
    return call_of(
        mine,
        endpoint,
        asked,
        body,
        fields,
        omitted,
        form=form,
        client=client,
        headers=passed,
        request_id=seen.request_id,
        began_at=seen.started,
        ends_at=until,
        is_hurried=TIMEOUT_KEY in environ,
        **more,
    )


def _resumed(
    mine: Parts, seen: Any, body: Bytes, fields: Mapping[str, Any]
) -> tuple[Bytes, Mapping[str, Any], dict[str, Any]]:
    """Of a request for a response: body and fields as they go up, and what its call has
    besides."""
    client = seen.client
    body, fields, homes = taken_up(mine, client, body, fields)
    _check_background(client, fields, refers=bool(homes))
    seen.home = ", ".join(homes) or None
    return body, fields, {"homes": homes, "marks": marks_of(mine, client)}


def list_models() -> Response:
    """Models of the enabled instances, as far as the client may use them. What an instance
    without a list serves, nobody knows."""
    client = g.client = authenticated_client()
    models = parts().snapshots.current.catalog.models(client.allowed_instances)
    allowed = (m for m in models if is_allowed(client.allowed_models, m))
    return jsonify(object="list", data=[_model_json(m) for m in allowed])


def show_model(model: str) -> Response:
    client = g.client = authenticated_client()
    catalog = parts().snapshots.current.catalog
    pool = catalog.pool(model, client.allowed_instances)
    if not (pool.servings and is_allowed(client.allowed_models, model)):
        raise ModelNotFound(
            f"The model {model!r} does not exist here, or this API key may not use it.",
            param="model",
        )
    return jsonify(_model_json(catalog.spelling(model) or model))  # as in the list


def _form(row: Endpoint, environ: Mapping[str, Any], body: Bytes) -> Form | None:
    """None: it is JSON, as who sends no file, but the address of an image, may have it."""
    kind = str(environ.get("CONTENT_TYPE")).split(";", 1)[0].strip().lower()
    if kind == "application/json" and row.answer == "images":
        return None
    if not body:
        raise BadRequest("The request has no body; a form (multipart/form-data) is needed.")
    return parsed_form(environ, body)


def _parsed(row: Endpoint, body: Bytes) -> tuple[Mapping[str, Any], Mapping[str, int]]:
    """Its fields, and what is left out of their texts."""
    if not body:
        raise BadRequest("The request has no body; a JSON object is needed.")
    if len(body) <= LARGE_BYTES:
        return _object(body), NOTHING_OMITTED
    if row.answer == "response" and may_refer(body):
        return _object(body), NOTHING_OMITTED  # it may have to be written anew
    text, omitted, _ = outline(body)
    fields = _object(text)
    prompts = row.prompt_fields
    others = {name: value for name, value in fields.items() if name not in prompts}
    if omitted and not _is_short(others):
        return _object(body), NOTHING_OMITTED  # what is understood is understood as it is
    return fields, omitted


def _is_short(fields: Mapping[str, Any]) -> bool:
    """Too short for one of its strings to have been cut."""
    try:
        return len(orjson.dumps(fields)) <= KEPT_BYTES
    except orjson.JSONEncodeError:  # it writes nothing that is as deep as it reads
        return False


def _object(text: Bytes) -> Mapping[str, Any]:
    fields = parsed_json(text)
    if not isinstance(fields, dict):
        raise BadRequest("The body is valid JSON, but not an object.")
    return fields


def model_of(fields: Mapping[str, Any]) -> str:
    """The body's `model`. Raises BadRequest that names it."""
    model = fields.get("model")
    if model is None:
        raise BadRequest("model: the field is missing.", param="model")
    if not isinstance(model, str):
        raise BadRequest(f"model: must be a string, not {shown(model)}.", param="model")
    return _routable(model)


def _routable(model: str) -> str:
    if not model or len(model) > MAX_MODEL_CHARACTERS:
        raise BadRequest(
            f"model: must have 1 to {MAX_MODEL_CHARACTERS} characters, not {len(model)}.",
            param="model",
        )
    if model in (".", ".."):
        # Of an upstream's path it would be no part, but a way out of it (RFC 3986, 5.2.4).
        raise BadRequest("model: must not be a single or double dot.", param="model")
    return model


def _check_allowed(client: Client, model: str) -> None:
    if not is_allowed(client.allowed_models, model):
        raise ModelNotAllowed(
            f"This API key may not use the model {model!r}. Ask for /v1/models to see which.",
            param="model",
        )


def _check_background(client: Client, fields: Mapping[str, Any], *, refers: bool) -> None:
    """What goes on in the background tells nobody what it used in the end. `refers`: nor does
    anybody here know how long its prompt is."""
    has_budget = (
        client.max_tokens_per_day
        or client.max_tokens_per_month
        or client.max_cost_per_day
        or client.max_cost_per_month
    )
    if not (fields.get("background") and has_budget):
        return
    if refers:
        raise BadRequest(
            "background: this API key has a budget, and nobody tells what a response takes of"
            " it that goes on with another in the background. Leave one of both out.",
            param="background",
        )
    if tokens.positive(fields.get("max_output_tokens")) is None:
        raise BadRequest(
            "max_output_tokens: this API key has a budget, and a response in the background"
            " takes of it the most that it may use; so say how much that is.",
            param="max_output_tokens",
        )


def _check_spelling(fields: Mapping[str, Any]) -> None:
    """Some upstreams take Model for model (Go's encoding/json does), and the last of both."""
    for name in fields:
        if name.lower() == "model" and name != "model":
            raise BadRequest(
                f"{name}: write it as model; an upstream could take it for that.", param=name
            )


def ends_at(mine: Parts, environ: Mapping[str, Any]) -> float:
    """Monotonic seconds: the setting's, or earlier if the client wants no later answer."""
    seconds: float = mine.settings.deadline_seconds
    given = environ.get(TIMEOUT_KEY)
    if given is not None:
        digits = given.lstrip("0")
        if not re.fullmatch("[0-9]+", digits):
            raise BadRequest(
                f"{TIMEOUT_HEADER}: must be a whole number of milliseconds, at least 1, not"
                f" {shown(given)}.",
                param=TIMEOUT_HEADER,
            )
        seconds = min(seconds, int(digits[:18]) / 1000)
    return time.monotonic() + seconds


def _affinity(policy: str, row: Endpoint, fields: Mapping[str, Any], body: Bytes) -> bytes:
    """What calls have in common whose prompts begin alike: the client's own word for it, else
    the first of the prompt as it was sent."""
    if policy != "sticky":
        return b""
    key = fields.get("prompt_cache_key")
    if isinstance(key, str) and key:
        return key.encode("utf-8", "replace")
    start = 0  # of a form, which begins with its boundary, as no other does: it has no prompt
    if not row.is_form:
        start = max(body.find(f'"{row.prompt_fields[0]}"'.encode()), 0)
    return bytes(body[start : start + AFFINITY_BYTES])


def _answer_tokens(
    row: Endpoint, fields: Mapping[str, Any], prompt: Prompt, prompt_tokens: int
) -> int:
    """The most that the answer may cost; of speech and transcripts, about what it will."""
    if row.answer == "completion":
        return tokens.completion_limit_tokens(fields)
    if row.answer == "response":
        return tokens.completion_limit_tokens(fields, tokens.LIMIT_FIELDS_OF_RESPONSES)
    if row.answer == "images":
        return tokens.image_answer_tokens(fields)
    if row.answer == "transcript":
        return prompt.media_tokens // tokens.SOUND_TOKENS_PER_TEXT_TOKEN
    if row.answer == "speech":
        return min(prompt_tokens * tokens.SOUND_TOKENS_PER_TEXT_TOKEN, tokens.MAX_TOKENS)
    return 0


def _file_tokens(row: Endpoint, body: Bytes, form: Form) -> int:
    if row.answer != "images":
        return sum(
            tokens.sound_tokens(
                bytes(body[f.start : f.start + tokens.SOUND_HEAD_BYTES]), f.end - f.start
            )
            for f in form.files
        )
    heads = (body[f.start : min(f.end, f.start + LOOKED_AT_BYTES)] for f in form.files)
    return sum(images.file_tokens(bytes(head)) for head in heads)


def _answered(mine: Parts, attempt: Attempt) -> Response:
    try:
        return _response(mine, attempt)
    except BaseException:
        attempt.spoil()  # nobody else will close it
        raise


def _response(mine: Parts, attempt: Attempt) -> Response:
    """Closing the response closes the attempt, whether or not it was sent to its end."""
    answer, client = attempt.answer, attempt.call.client
    is_limited = limits.has_lines(client)
    if attempt.body is None:
        lines = headers.for_client_stream(answer.header_items(), has_limits=is_limited)
        _add_missing_type(lines, EVENT_STREAM)
        if is_limited:
            lines += mine.clients.lines(client)
        return Relayed(attempt, answer.status, lines, source=attempt.stream)
    lines = headers.for_client(answer.header_items(), has_limits=is_limited)
    body = attempt.body
    if answer.status >= 400:
        body, lines = shown_body(answer.status, body, lines)
    else:
        if client.compat == STRICT:
            body = strict_answer(body)
        _add_missing_type(lines, "application/json")
    attempt.close()
    if is_limited:  # with what it used
        lines += mine.clients.lines(client)
    return Relayed(body, answer.status, lines)


def _add_missing_type(lines: list[tuple[str, str]], content_type: str) -> None:
    """Or Flask would say that it is HTML."""
    if not any(name == "content-type" for name, _ in lines):
        lines.append(("content-type", content_type))


def shown_body(
    status: int, body: Bytes, lines: list[tuple[str, str]]
) -> tuple[Bytes, list[tuple[str, str]]]:
    """An error answer's, and its headers, so that clients can read it."""
    if _has_openai_shape(body):
        _add_missing_type(lines, "application/json")
        return body, lines
    lines = [(n, v) for n, v in lines if n != "content-type"]
    return _wrapped(status, body), [*lines, ("content-type", "application/json")]


def _has_openai_shape(body: Bytes) -> bool:
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(fields, dict) and isinstance(fields.get("error"), dict)


def _wrapped(status: int, body: Bytes) -> bytes:
    """An upstream's error that is text, HTML, empty or flat JSON, in OpenAI's shape."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    message = excerpt(body)[:SAID_CHARACTERS] or "no message"
    return orjson.dumps(
        {
            "error": {
                "message": f"The upstream answered {status}: {message}",
                "type": kind,
                "param": None,
                "code": "upstream_error",
            }
        }
    )


def _model_json(model: str) -> dict[str, Any]:
    created = parts().snapshots.current.created_at(model) or time.time()
    return {"id": model, "object": "model", "created": int(created), "owned_by": "gateway"}
