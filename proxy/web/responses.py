"""What clients ask about responses that an instance keeps: to see, cancel or delete one."""

import re
from collections.abc import Iterable, Sequence
from functools import partial
from urllib.parse import parse_qsl, quote, urlencode

from flask import Flask, Response, g, request

from proxy.context import Parts, parts
from proxy.core import headers
from proxy.core.kept import NOT_GIVEN, Marks, marked
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
from proxy.runtime.line import Line
from proxy.runtime.lookup import Found, look_up
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
    query, configs = _query(marks, home), _in_service(mine, homes[home])
    found = _looked_up(mine, configs, f"{ENDPOINT}/{quote(name, safe='')}{suffix}", query)
    lines = headers.for_client(found.lines, has_limits=limits.has_lines(client))
    body: Bytes = found.body
    if found.status < 400:
        body = marked(found.body, json_object(found.body), marks, home)
    else:
        body, lines = shown_body(found.status, body, lines)
    if limits.has_lines(client):
        lines += mine.clients.lines(client)
    return Relayed(body, found.status, lines)


def _looked_up(mine: Parts, configs: Sequence[InstanceConfig], path: str, query: str) -> Found:
    until, environ = ends_at(mine, request.environ), request.environ
    line: Line = mine.open_calls.begin(environ.get("gunicorn.socket"))
    try:
        mine.open_calls.end_by(line, until + LAST_WORDS_SECONDS)
        ask = partial(look_up, mine.upstream, configs, path, query=query, line=line)
        passed = dict(headers.passed_on(environ))
        passed.pop("Content-Type", None)  # there is no content
        found = ask(
            method=request.method, headers=passed, request_id=g.request_id, ends_at=until
        )
    except ProxyError:
        if line.is_cut:
            raise ClientLeft() from None
        raise
    finally:
        mine.open_calls.end(line)
    return found


def _in_service(mine: Parts, names: Iterable[str]) -> Sequence[InstanceConfig]:
    """Those that are, at least one."""
    snapshot = mine.snapshots.current
    known = [snapshot.configs[n] for n in names if n in snapshot.configs]
    found = [c for c in known if c.enabled and c.name not in snapshot.problems]
    if not found:
        raise no_answer.home_out_of_service()
    return found


def _query(marks: Marks, home: str) -> str:
    """As the instance is to get it. Raises BadRequest."""
    passed = []
    for name, value in parse_qsl(request.query_string.decode("latin-1"), True):
        if name in _OURS:
            continue
        if name.casefold() == "stream" and value.lower() not in ("false", "0", ""):
            raise BadRequest(
                "stream: a response that was begun before is not passed on as a stream. Leave"
                " it out, and ask again until its status is completed.",
                param="stream",
            )
        if name.casefold() in _NAMES:
            opened = marks.opened(value, (home,))
            if opened is None:
                raise BadRequest(f"{name}: no such item was given to you.", param=name)
            value = opened[0]
        passed.append((name, value))
    return urlencode(passed)
