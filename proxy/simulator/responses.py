"""What a simulated Azure answers where the Responses API is asked for a response.

Its name, and those of its items, are known to the resource that made them and to no other; so
is what it encrypted. Who asks for JSON or for a call of a function gets it, as in a chat.
"""

import base64
import json
from collections.abc import Iterable, Iterator

from proxy.simulator.asks import ADMISSION_TOKENS, Ask, maximum_tokens, prompt_tokens
from proxy.simulator.errors import Answer, Refused, invalid, json_answer
from proxy.simulator.forms import Json
from proxy.simulator.shapes import Voice, dated_model, pieces
from proxy.simulator.shelf import Kept, Shelf

ERROR_EVENT = (
    b'event: error\ndata: {"type":"error","code":"server_error","message":"The server had an '
    b'error while processing your request.","param":null,"sequence_number":99}\n\n'
)

ENCRYPTED = "reasoning.encrypted_content"  # as `include` has it
REASONING_TOKENS = 8
_BARE = {"id", "type"}
# Of an item that begins, what it does not have yet.
_BEGUN: dict[str, Json] = {
    "reasoning": {},
    "message": {"content": []},
    "function_call": {"arguments": ""},
}


def check(ask: Ask, resource: str, shelf: Shelf) -> None:
    """Raises Refused for what refers to something that is not here, or asks for what it cannot
    be."""
    _ = ask.form  # which is looked at once
    if not ask.body.get("input") and not ask.body.get("previous_response_id"):
        raise Refused(invalid("Missing required parameter: 'input'.", param="input"))
    previous = ask.body.get("previous_response_id")
    if previous is not None and shelf.get(str(previous)) is None:
        said = f"Previous response with id '{previous}' not found."
        code = "previous_response_not_found"
        raise Refused(invalid(said, code, "previous_response_id"))
    for item in _items(ask):
        if item.keys() <= _BARE and not shelf.has_item(str(item.get("id"))):
            raise Refused(invalid(f"Item with id '{item.get('id')}' not found.", param="input"))
        sealed = item.get("encrypted_content")
        if sealed is not None and sealed != _sealed(resource):
            said = f"The encrypted content for item {item.get('id')} could not be verified."
            raise Refused(invalid(said, "invalid_encrypted_content"))


def estimated_tokens(ask: Ask) -> int:
    """What it counts against the limits."""
    return prompt_tokens(ask.body) + (maximum_tokens(ask.body) or ADMISSION_TOKENS)


def whole(ask: Ask, voice: Voice, shelf: Shelf) -> Answer:
    response = _response(ask, voice, shelf)
    _keep(ask, voice, response, shelf)
    if ask.body.get("background"):
        return json_answer({**response, "status": "queued", "output": [], "usage": None})
    return json_answer(response)


def compacted(ask: Ask, voice: Voice, shelf: Shelf) -> Answer:
    """What was said so far, as nobody else can read it."""
    item = {"id": _name("cmp", voice), "type": "compaction"}
    return json_answer(
        {
            "id": _name("resp", voice),
            "object": "response.compaction",
            "created_at": voice.created,
            "output": [{**item, "encrypted_content": _sealed(voice.resource)}],
            "usage": _usage(ask, voice, shelf),
        }
    )


def events(ask: Ask, voice: Voice, shelf: Shelf) -> Iterator[bytes]:
    """From the first that says that there is a response to the whole of it."""
    response = _response(ask, voice, shelf)
    numbered = enumerate(_told(ask, voice, response))
    told = [{**event, "sequence_number": number} for number, event in numbered]
    _keep(ask, voice, response, shelf, told)
    yield from written(told)


def written(told: Iterable[Json]) -> Iterator[bytes]:
    """As a stream has them."""
    for event in told:
        data = json.dumps(event, separators=(",", ":"))
        yield f"event: {event['type']}\ndata: {data}\n\n".encode()


def _told(ask: Ask, voice: Voice, response: Json) -> Iterator[Json]:
    begun = {**response, "status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for number, item in enumerate(response["output"]):
        place: Json = {"output_index": number}
        opening = {**item, "status": "in_progress", **_BEGUN[item["type"]]}
        yield {"type": "response.output_item.added", **place, "item": opening}
        if item["type"] == "message":
            yield from _said(ask, voice, item, place)
        elif item["type"] == "function_call":
            called: Json = {"item_id": item["id"], **place}
            kind = "response.function_call_arguments"
            for piece in filter(None, pieces(ask, voice)):
                yield {"type": f"{kind}.delta", **called, "delta": piece}
            yield {"type": f"{kind}.done", **called, "arguments": item["arguments"]}
        yield {"type": "response.output_item.done", **place, "item": item}
    yield {"type": f"response.{response['status']}", "response": response}


def _said(ask: Ask, voice: Voice, item: Json, place: Json) -> Iterator[Json]:
    part = item["content"][0]
    place = {"item_id": item["id"], **place, "content_index": 0}
    yield {"type": "response.content_part.added", **place, "part": {**part, "text": ""}}
    for word in pieces(ask, voice):
        yield {"type": "response.output_text.delta", **place, "delta": word, "logprobs": []}
    yield {"type": "response.output_text.done", **place, "text": part["text"], "logprobs": []}
    yield {"type": "response.content_part.done", **place, "part": part}


def _response(ask: Ask, voice: Voice, shelf: Shelf) -> Json:
    body, limit = ask.body, maximum_tokens(ask.body)
    whole = voice.tokens if ask.form is None else len(ask.form.pieces)
    is_cut = limit is not None and limit < whole
    return {
        "id": _name("resp", voice),
        "object": "response",
        "created_at": voice.created,
        "status": "incomplete" if is_cut else "completed",
        "background": body.get("background") is True,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
        "instructions": body.get("instructions"),
        "max_output_tokens": limit,
        "model": dated_model(ask),
        "output": list(_output(ask, voice)),
        "parallel_tool_calls": True,
        "previous_response_id": body.get("previous_response_id"),
        "reasoning": {"effort": None, "summary": None},
        "store": body.get("store") is not False,
        "temperature": 1.0,
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": _usage(ask, voice, shelf),
        "user": None,
        "metadata": body.get("metadata") or {},
    }


def _output(ask: Ask, voice: Voice) -> Iterator[Json]:
    include = ask.body.get("include")
    if isinstance(include, list) and ENCRYPTED in include:
        sealed = {"summary": [], "encrypted_content": _sealed(voice.resource)}
        yield {"id": _name("rs", voice), "type": "reasoning", **sealed}
    text = "".join(pieces(ask, voice))
    if ask.form is not None and ask.form.function is not None:
        call: Json = {"id": _name("fc", voice), "type": "function_call", "status": "completed"}
        named = {"call_id": f"call_{voice.id}", "name": ask.form.function}
        yield {**call, **named, "arguments": text}
        return
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": text}
    message = {"id": _name("msg", voice), "type": "message", "status": "completed"}
    yield {**message, "role": "assistant", "content": [part]}


def _keep(
    ask: Ask, voice: Voice, response: Json, shelf: Shelf, told: Iterable[Json] = ()
) -> None:
    if not response["store"]:
        return
    asked = [
        {**item, "id": item.get("id") or f"{_name('msg', voice)}{number}"}
        for number, item in enumerate(_items(ask))
    ]
    is_waiting = response["background"] and not ask.streamed
    begun = {**response, "status": "queued"} if is_waiting else response
    shelf.put(Kept(begun, asked, tuple(told) if response["background"] else ()))


def _items(ask: Ask) -> list[Json]:
    given = ask.body.get("input")
    if isinstance(given, str):
        text = {"type": "input_text", "text": given}
        return [{"type": "message", "role": "user", "content": [text]}]
    return [item for item in given or () if isinstance(item, dict)]


def _usage(ask: Ask, voice: Voice, shelf: Shelf) -> Json:
    """All of the conversation so far goes in."""
    kept = shelf.get(str(ask.body.get("previous_response_id")))
    before = kept.response["usage"]["total_tokens"] if kept is not None else 0
    said = len(pieces(ask, voice))
    tokens_in = prompt_tokens(ask.body) + before
    return {
        "input_tokens": tokens_in,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": said + REASONING_TOKENS,
        "output_tokens_details": {"reasoning_tokens": REASONING_TOKENS},
        "total_tokens": tokens_in + said + REASONING_TOKENS,
    }


def _name(kind: str, voice: Voice) -> str:
    """Azure's have 48 digits, too."""
    return f"{kind}_{voice.id}{voice.id[:16]}"


def _sealed(resource: str) -> str:
    """What nobody else can read."""
    return "gAAAA" + base64.urlsafe_b64encode(f"reasoning of {resource}".encode()).decode()
