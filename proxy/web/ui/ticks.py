"""What open pages ask each second, answered before the framework is asked.

Fifty of them would cost more than they may, if each tick were routed, let in and answered as
any request is. Here one is known again by its cookie and path: what it was let in by the last
time still holds as long as the config is the same object and nobody signed out, and what it
shows is the same for a second. Whatever is not so goes the usual way, which also tells what to
know it by.
"""

import mmap
import os
import random
import time
from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple

from flask import Flask

from proxy.context import EXTENSION, Parts
from proxy.core.headers import request_id
from proxy.runtime.fragments import Fragment
from proxy.runtime.snapshot import Snapshot

LIVE = "/admin/ui/live/"
# Pages that are open; when there are more, all are asked once more who they are.
MAX_KNOWN = 1000
MARK_BYTES = 16

Environ = dict[str, Any]
Wsgi = Callable[[Environ, Any], Iterable[bytes]]
Headers = list[tuple[str, str]]


class Basis(NamedTuple):
    """What somebody was let in by: the config, and who had signed out by then."""

    snapshot: Snapshot
    mark: bytes

    def is_same(self, other: "Basis") -> bool:
        return self.snapshot is other.snapshot and self.mark == other.mark


class _Known(NamedTuple):
    """By what somebody was let in, until when, and what is shown; `headers` are those of its
    answers."""

    basis: Basis
    ends_at: float
    fragment: Hashable
    headers: Headers


class Ticks:
    """Around the app. Thread-safe: what is known is only put in, looked up, and thrown away."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._below: Wsgi = app.wsgi_app
        self._known: dict[tuple[str, ...], _Known] = {}
        # Made before the fork: another one after each sign-out, in whichever worker.
        self._mark = mmap.mmap(-1, MARK_BYTES)

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"].startswith(LIVE):
            answer = self._answer(environ, start_response)
            if answer is not None:
                return answer
        return self._below(environ, start_response)

    def basis(self) -> Basis:
        """Of whoever is let in from now on."""
        return Basis(self._parts.snapshots.current, self._mark[:])

    def forget_all(self) -> None:
        """In all workers: somebody signed out."""
        self._mark[:] = os.urandom(MARK_BYTES)

    def remember(
        self,
        environ: Environ,
        basis: Basis,
        ends_at: float,
        fragment: Hashable,
        headers: Headers,
    ) -> None:
        """Whoever asks so again, was let in by that, and is shown that."""
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[_of(environ)] = _Known(basis, ends_at, fragment, headers)

    @property
    def _parts(self) -> Parts:
        parts: Parts = self._app.extensions[EXTENSION]
        return parts

    def _answer(self, environ: Environ, start_response: Any) -> list[bytes] | None:
        """None: the usual way."""
        known = self._known.get(_of(environ))
        mine = self._parts
        if known is None or not known.basis.is_same(self.basis()):
            return None
        if time.time() >= known.ends_at or environ["REQUEST_METHOD"] != "GET":
            return None
        found = mine.fragments.fresh(known.fragment)
        if found is None:
            return None
        is_same = environ.get("HTTP_IF_NONE_MATCH") == found.etag
        status, body = ("304 NOT MODIFIED", []) if is_same else ("200 OK", [found.body])
        start_response(status, [*known.headers, *_of_this(environ, found, body)])
        return body


def _of(environ: Environ) -> tuple[str, ...]:
    return (
        environ.get("HTTP_COOKIE", ""),
        environ["PATH_INFO"],
        environ.get("QUERY_STRING", ""),
    )


def _of_this(environ: Environ, found: Fragment, body: list[bytes]) -> Headers:
    headers = [
        ("ETag", found.etag),
        (
            "x-request-id",
            request_id(environ.get("HTTP_X_REQUEST_ID"), f"{random.getrandbits(64):016x}"),
        ),
    ]
    return [*headers, ("Content-Length", str(len(body[0])))] if body else headers
