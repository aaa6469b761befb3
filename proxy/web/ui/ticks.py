"""What open pages ask each second, answered before the framework is asked.

Fifty of them would cost more than they may, if each tick were routed, let in and answered as
any request is. Here one is known again by its cookie and path: what it was let in by the last
time still holds as long as the config is the same object and nobody signed out, and what it
shows is the same for a second. Whatever is not so goes the usual way, which also tells what to
know it by.

A page that says the very same on the same connection is not even read as a request: its head
is known by its bytes, and the worker's loop sends the answer.
"""

import mmap
import os
import random
import time
from collections.abc import Callable, Hashable, Iterable
from email.utils import formatdate
from typing import Any, NamedTuple

from flask import Flask

from proxy.context import EXTENSION, Parts
from proxy.core.headers import request_id
from proxy.runtime.client_socket import ClientSocket
from proxy.runtime.fragments import Fragment
from proxy.runtime.snapshot import Snapshot

LIVE = "/admin/ui/live/"
# Pages that are open; when there are more, all are asked once more who they are.
MAX_KNOWN = 1000
MARK_BYTES = 16
OK, NOT_MODIFIED = "200 OK", "304 NOT MODIFIED"

END_OF_HEAD = b"\r\n\r\n"
# As our pages write it (static/console.js, charts.js).
HAS = b"\r\nIf-None-Match: "

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


class _Head(NamedTuple):
    """Of a request that was read once: who asks what, and the id it has of its client."""

    of: tuple[str, ...]
    given_id: str | None


class Ticks:
    """Around the app. Thread-safe: what is known is only put in, looked up, and thrown away."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._below: Wsgi = app.wsgi_app
        self._known: dict[tuple[str, ...], _Known] = {}
        self._heads: dict[bytes, _Head] = {}
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

    def again(self, head: bytes) -> bytes | None:
        """The whole answer to a request of that head; None: the usual way."""
        etag, rest = _split(head)
        heard = self._heads.get(rest)
        if heard is None:
            return None
        known = self._known.get(heard.of)
        found = known and self._shown(known)
        if known is None or found is None:
            return None
        status, headers, body = _told(known, found, etag, heard.given_id)
        lines = [
            f"HTTP/1.1 {status}",
            f"Date: {formatdate(usegmt=True)}",
            "Connection: keep-alive",
            *(f"{name}: {value}" for name, value in headers),
        ]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body

    @property
    def _parts(self) -> Parts:
        parts: Parts = self._app.extensions[EXTENSION]
        return parts

    def _answer(self, environ: Environ, start_response: Any) -> list[bytes] | None:
        """None: the usual way."""
        known = self._known.get(_of(environ))
        found = known and self._shown(known)
        if known is None or found is None or environ["REQUEST_METHOD"] != "GET":
            return None
        self._note(environ)
        etag, given_id = environ.get("HTTP_IF_NONE_MATCH"), environ.get("HTTP_X_REQUEST_ID")
        status, headers, body = _told(known, found, etag, given_id)
        start_response(status, headers)
        return [body] if body else []

    def _shown(self, known: _Known) -> Fragment | None:
        """None if it has to be made anew, or whoever asks is to be asked who that is."""
        if not known.basis.is_same(self.basis()) or time.time() >= known.ends_at:
            return None
        return self._parts.fragments.fresh(known.fragment)

    def _note(self, environ: Environ) -> None:
        """From now on its connection may ask by `again`."""
        client = environ.get("gunicorn.socket")
        if not isinstance(client, ClientSocket) or not _is_plain(environ):
            return
        client.again = self.again
        head = client.repeated
        if head.find(END_OF_HEAD) != max(len(head) - len(END_OF_HEAD), 0):
            return  # not seen, or not all of it, or not it alone
        if _split(head)[0] != environ.get("HTTP_IF_NONE_MATCH"):
            return  # said in another way than ours
        if len(self._heads) >= MAX_KNOWN:
            self._heads.clear()
        self._heads[_split(head)[1]] = _Head(_of(environ), environ.get("HTTP_X_REQUEST_ID"))


def _of(environ: Environ) -> tuple[str, ...]:
    return (
        environ.get("HTTP_COOKIE", ""),
        environ["PATH_INFO"],
        environ.get("QUERY_STRING", ""),
    )


def _told(
    known: _Known, found: Fragment, etag: str | None, given_id: str | None
) -> tuple[str, Headers, bytes]:
    """Status, headers and body, for one who has what `etag` stands for."""
    own_id = f"{random.getrandbits(64):016x}"
    headers = [
        *known.headers,
        ("ETag", found.etag),
        ("x-request-id", request_id(given_id, own_id)),
    ]
    if etag == found.etag:
        return NOT_MODIFIED, headers, b""
    return OK, [*headers, ("Content-Length", str(len(found.body)))], found.body


def _is_plain(environ: Environ) -> bool:
    """It has no body, and its connection stays."""
    return (
        environ["SERVER_PROTOCOL"] == "HTTP/1.1"
        and environ.get("HTTP_CONNECTION", "keep-alive").lower() == "keep-alive"
        and "CONTENT_LENGTH" not in environ
        and "HTTP_TRANSFER_ENCODING" not in environ
    )


def _split(head: bytes) -> tuple[str | None, bytes]:
    """What its client has, and all else it says."""
    before, has, after = head.partition(HAS)
    if not has:
        return None, head
    etag, end, rest = after.partition(b"\r\n")
    return etag.decode("latin-1"), before + end + rest
