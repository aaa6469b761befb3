"""One request answered: first decided, then sent, with whatever fault it is to have."""

import re
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from proxy.simulator import asks, errors, faults, headers, media, responses, routes, shapes
from proxy.simulator.asks import Ask
from proxy.simulator.errors import Answer, Refused
from proxy.simulator.faults import Fault
from proxy.simulator.limits import Admission
from proxy.simulator.resource import Resource
from proxy.simulator.routes import Route
from proxy.simulator.wire import LAST_CHUNK, Connection, Received, chunk, head

NO_FAULT = Fault("none")
EVENTS = "text/event-stream"

MEDIA = {
    "images/generations": media.images,
    "images/edits": media.images,
    "audio/transcriptions": media.transcript,
    "audio/translations": media.transcript,
}
STREAMS = {
    "images/generations": media.image_events,
    "images/edits": media.image_events,
    "audio/transcriptions": media.transcript_events,
    "audio/speech": media.sound_events,
}


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer that is sent event by event, or, if it is a sound, piece by piece."""

    events: Iterator[bytes]
    headers: dict[str, str]
    content_type: str = EVENTS
    error: bytes = shapes.ERROR_EVENT  # that tells what goes wrong in it


def serve(resource: Resource, connection: Connection, received: Received) -> bool:
    """Answer a request. False if the connection is to be closed now.

    Raises PeerLeft if nobody is there to take the answer.
    """
    route = routes.find(received.method, received.path, received.query)
    deployment = _named_deployment(route, received)
    fault = resource.faults.take(deployment) or NO_FAULT
    try:
        reply = fault.answer or _decide(resource, route, received)
    except Refused as refused:
        reply = refused.answer
    except RecursionError:  # its body is nested too deeply for one of the steps
        reply = asks.NOT_PARSED
    marks: dict[str, str] = {}
    if route is None or route.style != "openai":
        marks = headers.marks(resource.region, deployment, received.headers)
    connection.wait(resource.latency_ms / 1000 + fault.delay_seconds)
    if isinstance(reply, Stream) and reply.content_type != EVENTS and fault.then == "error":
        reply = Answer(500, b"")  # what goes wrong cannot be told within a sound
    if isinstance(reply, Stream):
        with resource.streaming():
            return _send_stream(reply, fault, marks, connection, resource)
    return _send_whole(reply, fault, marks, connection)


def _named_deployment(route: Route | None, received: Received) -> str:
    """The deployment a request names, checked or not: faults go by it."""
    if route is None or route.deployment or route.operation == "models":
        return route.deployment if route else ""
    try:
        named = asks.read(route.operation, received.body, received.headers).get("model")
    except Refused:
        return ""
    return named if isinstance(named, str) else ""


def _decide(resource: Resource, route: Route | None, received: Received) -> Answer | Stream:
    """What a healthy resource answers. Raises Refused with what it refuses with."""
    if not resource.accepts(received.headers):
        raise Refused(errors.ACCESS_DENIED)
    if route is None:
        raise Refused(errors.RESOURCE_NOT_FOUND)
    if route.operation == "models":
        return errors.json_answer(
            shapes.models(route.style, sorted(resource.deployments or ()))
        )
    if route.kept:
        return _about_kept(resource, route, received.query)
    ask = asks.checked(route, asks.read(route.operation, received.body, received.headers))
    if not resource.serves(ask.deployment):
        raise Refused(errors.deployment_not_found(ask.style))
    if resource.refuses_stream_options and "stream_options" in ask.body:
        raise Refused(errors.NO_STREAM_OPTIONS)
    admission = resource.admit(ask.deployment, _estimated_tokens(resource, ask))
    if admission.limited_by is not None:
        raise Refused(_too_many(ask, admission, received))
    return _generate(resource, ask, admission)


def _estimated_tokens(resource: Resource, ask: Ask) -> int:
    """What it counts against the limits. Raises Refused if it refers to what is not here."""
    if not ask.is_of_responses:
        return asks.estimated_tokens(ask.body)
    responses.check(ask, resource.name, resource.shelf)
    return responses.estimated_tokens(ask)


def _about_kept(resource: Resource, route: Route, query: Mapping[str, str]) -> Answer | Stream:
    """Raises Refused."""
    shelf = resource.shelf
    if route.what == "GET" and query.get("stream") == "true":
        after = query.get("starting_after", "-1")
        if not re.fullmatch("-?[0-9]+", after):
            raise Refused(errors.invalid("starting_after must be a number."))
        told = responses.written(shelf.events(route.kept, int(after)))
        return Stream(told, {}, error=responses.ERROR_EVENT)
    answers = {
        "GET": shelf.retrieved,
        "DELETE": shelf.deleted,
        "POST /cancel": shelf.cancelled,
        "GET /input_items": shelf.items,
    }
    return answers[route.what](route.kept)


def _too_many(ask: Ask, admission: Admission, received: Received) -> Answer:
    names = headers.rejection(admission)
    seconds = names["retry-after"]
    if ask.style == "openai":
        names = {"retry-after": seconds}
    version = received.query.get("api-version", "")
    return errors.too_many(
        admission.limited_by or "call", int(seconds), names, ask.operation, version
    )


def _generate(resource: Resource, ask: Ask, admission: Admission) -> Answer | Stream:
    voice = shapes.Voice(resource.name, resource.tokens, uuid.uuid4().hex, int(time.time()))
    room = {} if ask.style == "openai" else headers.room(admission)
    if ask.operation == "responses/compact":
        return replace(responses.compacted(ask, voice, resource.shelf), headers=room)
    if ask.operation == "responses":
        if ask.streamed:
            told = responses.events(ask, voice, resource.shelf)
            return Stream(told, room, error=responses.ERROR_EVENT)
        return replace(responses.whole(ask, voice, resource.shelf), headers=room)
    if ask.streamed:
        return Stream(STREAMS.get(ask.operation, shapes.events)(ask, voice), room)
    if ask.operation == "audio/speech":
        kind, pieces = media.sound(ask, voice)
        return Stream(pieces, room, kind)
    if ask.operation in MEDIA:
        return replace(MEDIA[ask.operation](ask, voice), headers=room)
    body = shapes.embeddings if ask.operation == "embeddings" else shapes.whole
    return errors.json_answer(body(ask, voice), headers=room)


def _send_whole(
    answer: Answer, fault: Fault, marks: dict[str, str], connection: Connection
) -> bool:
    if fault.then == "error":
        answer = faults.FAULTS["500"].answer or answer
        fault = NO_FAULT
    start = head(
        answer.status,
        {
            "content-type": answer.content_type,
            "content-length": str(len(answer.body)),
            **marks,
            **answer.headers,
        },
    )
    match fault.stops:
        case None:
            connection.send(start + answer.body)
            return True
        case "before head" | "before content":
            pass
        case "after head":
            connection.send(start)
        case "in middle":
            connection.send(start + answer.body[: len(answer.body) // 2])
    return _end(fault, connection)


def _send_stream(
    stream: Stream,
    fault: Fault,
    marks: dict[str, str],
    connection: Connection,
    resource: Resource,
) -> bool:
    if fault.stops == "before head":
        return _end(fault, connection, stream.error)
    kind = {"content-type": stream.content_type, "transfer-encoding": "chunked"}
    connection.send(head(200, {**kind, **marks, **stream.headers}))
    if fault.stops == "after head":
        return _end(fault, connection, stream.error)
    has_said = False
    for number, event in enumerate(stream.events):
        is_middle = has_said and number >= faults.EVENTS_BEFORE_END
        if fault.stops == "in middle" and is_middle:
            return _end(fault, connection, stream.error)
        says = stream.content_type != EVENTS or shapes.says_something(event)
        if fault.stops == "before content" and says:
            return _end(fault, connection, stream.error)
        # What says nothing yet comes with the first token: Azure has nothing to wait for.
        if has_said and resource.event_interval_ms:
            connection.wait(resource.event_interval_ms / 1000)
        has_said = has_said or says
        connection.send(chunk(event))
    connection.send(LAST_CHUNK)
    return True


def _end(fault: Fault, connection: Connection, error: bytes = shapes.ERROR_EVENT) -> bool:
    """What comes where a fault stops an answer. Whether the connection is still good."""
    if fault.then == "silence":
        connection.wait(None)  # until PeerLeft
    elif fault.then == "error":
        connection.send(chunk(error) + LAST_CHUNK)
    return fault.then == "error"
