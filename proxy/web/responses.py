"""What clients ask about responses that an instance keeps: to see, cancel or delete one."""

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from urllib.parse import parse_qsl, quote, urlencode

from flask import Flask, Response, g, request

from proxy.context import Parts, parts
from proxy.core import headers
from proxy.core.kept import NOT_GIVEN, Marks, marked
from proxy.core.response_events import Mark, ResponseWatcher
from proxy.core.sse import json_object
from proxy.core.types import Bytes, InstanceConfig
from proxy.errors import (
    BadRequest,
    ClientLeft,
    MethodNotAllowed,
    ProxyError,
    ResponseNotFound,
)
from proxy.runtime import no_answer
from proxy.runtime.lookup import Begun, Found, Question, look_up
from proxy.web import limits
from proxy.web.app import Relayed
from proxy.web.auth import authenticated_client
from proxy.web.kept import homes_of, marks_of
from proxy.web.openai import LAST_WORDS_SECONDS, ends_at, shown_body

ENDPOINT = "responses"
# Of OpenAI's, Azure's v1 and Azure's classic API.
BASES = ("/v1", "/openai/v1", "/openai")
# (what is asked, behind a response's id, and how)
ASKED = (("", "GET"), ("", "DELETE"), ("/cancel", "POST"), ("/input_items", "GET"))

# What an upstream's own names are made of; it is to be no way to another path of it.
_NAME = re.compile(r"[A-Za-z0-9_=-]{1,256}")
SHOWN_CHARACTERS = 100

# In a query, the names of items; and what is the gateway's to say, by instance.
_NAMES = frozenset({"after", "before"})
_OURS = frozenset({"api-version"})
STREAM = "stream"


def register(app: Flask) -> None:
    for base in BASES:
        for suffix, method in ASKED:
            app.add_url_rule(
                f"{base}/{ENDPOINT}/<name>{suffix}",
                f"{base}{suffix}-{method.lower()}",
                serve,
                methods=[method],
                defaults={"suffix": suffix},
            )


def serve(name: str, suffix: str) -> Response:
    """`name` is a response's id as its client knows it."""
    if request.method == "HEAD":  # which the framework adds to each GET
        raise MethodNotAllowed(f"{request.path} does not accept HEAD.")
    mine, client = parts(), authenticated_client()
    g.client = client
    marks, homes = marks_of(mine, client), homes_of(mine, client)
    opened = marks.opened(name, homes)
    if opened is None or not _NAME.fullmatch(opened[0]):
        raise ResponseNotFound(
            f"There is no response {name[:SHOWN_CHARACTERS]!r}: {NOT_GIVEN}."
        )
    name, home = opened
    g.home = ", ".join(homes[home])
    query, of_stream = _query(marks, home)
    if of_stream and (suffix, request.method) != ("", "GET"):
        raise BadRequest(
            "stream: only a response itself can be taken up as a stream again.", param="stream"
        )
    configs = _in_service(mine, homes[home])
    path = f"{ENDPOINT}/{quote(name, safe='')}{suffix}"
    question = partial(Question, path, request.method, query, of_stream=of_stream)
    mark, is_limited = partial(marked, marks=marks, home=home), limits.has_lines(client)
    with ExitStack() as ends:
        asked = _asked(mine, question, ends)
        found = _found(mine, configs, asked)
        if isinstance(found, Begun):
            return _relayed(mine, found, asked, mark, ends)
    lines = headers.for_client(found.lines, has_limits=is_limited)
    body: Bytes = found.body
    if found.status < 400:
        body = mark(found.body, json_object(found.body))
    else:
        body, lines = shown_body(found.status, body, lines)
    if is_limited:
        lines += mine.clients.lines(client)
    return Relayed(body, found.status, lines)


def _asked(mine: Parts, question: Callable[..., Question], ends: ExitStack) -> Question:
    """`ends` gets what is to be done when the client has its answer."""
    environ = request.environ
    until = ends_at(mine, environ)
    line = mine.open_calls.begin(environ.get("gunicorn.socket"))
    ends.callback(mine.open_calls.end, line)
    mine.open_calls.end_by(line, until + LAST_WORDS_SECONDS)
    passed = dict(headers.passed_on(environ))
    passed.pop("Content-Type", None)  # there is no content
    asked = question(headers=passed, request_id=g.request_id, line=line, ends_at=until)
    if asked.of_stream:
        ends.callback(limits.let_in_again(mine, g.client, ENDPOINT).settle)
    return asked


def _found(mine: Parts, configs: Sequence[InstanceConfig], asked: Question) -> Found | Begun:
    try:
        return look_up(mine.upstream, configs, asked)
    except ProxyError:
        if asked.line.is_cut:
            raise ClientLeft() from None
        raise


def _relayed(
    mine: Parts, begun: Begun, asked: Question, mark: Mark, ends: ExitStack
) -> Response:
    ends.callback(begun.answer.close)
    is_limited = limits.has_lines(g.client)
    lines = headers.for_client_stream(begun.answer.header_items(), has_limits=is_limited)
    if is_limited:
        lines += mine.clients.lines(g.client)
    stream = mine.kept_streams.begin(
        begun,
        asked,
        ResponseWatcher(mark, after=request.args.get("starting_after", -1, int)),
        silence_seconds=mine.settings.stream_idle_seconds,
        on_close=ends.pop_all().close,
    )
    return Relayed(stream, begun.answer.status, lines, source=stream.stream)


def _in_service(mine: Parts, names: Iterable[str]) -> Sequence[InstanceConfig]:
    """Those that are, at least one."""
    snapshot = mine.snapshots.current
    known = [snapshot.configs[n] for n in names if n in snapshot.configs]
    found = [c for c in known if c.enabled and c.name not in snapshot.problems]
    if not found:
        raise no_answer.home_out_of_service()
    return found


def _query(marks: Marks, home: str) -> tuple[str, bool]:
    """As the instance is to get it, and whether it asks for a stream. Raises BadRequest."""
    passed, of_stream = [], False
    for name, value in parse_qsl(request.query_string.decode("latin-1"), True):
        if name in _OURS:
            continue
        if name.casefold() == STREAM:
            of_stream = of_stream or value.lower() not in ("false", "0", "")
            continue
        if name.casefold() in _NAMES:
            opened = marks.opened(value, (home,))
            if opened is None:
                raise BadRequest(f"{name}: no such item was given to you.", param=name)
            value = opened[0]
        passed.append((name, value))
    return urlencode([*passed, (STREAM, "true")] if of_stream else passed), of_stream
