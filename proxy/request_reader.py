"""How a client's requests are read: as gunicorn does, but nothing twice.

The heads of a client's requests are made of the same lines, but for the body's length. From the
third request of a connection on, a line that came before means what gunicorn found it to mean
then, a new one is read alone, and what is unusual goes gunicorn's whole way, as the first two
do: nothing is accepted here that it would refuse.
"""

import io
from collections.abc import Mapping
from typing import Any

from gunicorn.http.body import Body, ChunkedReader, LengthReader
from gunicorn.http.errors import InvalidHeader, ParseException
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser

from proxy.core.request_head import HEAD_END

# Kept of a connection; where there are more, it is forgotten and begun anew.
MOST_LINES = 64
MOST_TARGETS = 8
LENGTH_DIGITS = 15

# What changes how the rest is read, and what does so if it does not say "keep-alive".
UNUSUAL = frozenset(
    {b"EXPECT", b"PROXY-CONNECTION", b"TE", b"TRAILER", b"TRANSFER-ENCODING", b"UPGRADE"}
)
CONNECTION = "HTTP_CONNECTION"
# PEP 3333 has names of its own for two headers.
KEYS = {"CONTENT-TYPE": "CONTENT_TYPE", "CONTENT-LENGTH": "CONTENT_LENGTH"}
# Of what WSGI tells of a request, what belongs to that one alone.
OF_ONE = frozenset({*KEYS.values(), "wsgi.input", "wsgi.early_hints"})

Environ = dict[str, Any]


class StrictRequest(Request):  # type: ignore[misc]  # gunicorn has no types
    """One that whoever stands before us reads as the same, too."""

    def set_body_reader(self) -> None:
        """gunicorn also takes lists of codings, as `gzip, chunked`, which nobody decodes."""
        super().set_body_reader()
        if isinstance(self.body.reader, ChunkedReader):
            codings = [value for name, value in self.headers if name == "TRANSFER-ENCODING"]
            if [coding.lower() for coding in codings] != ["chunked"]:
                raise InvalidHeader("TRANSFER-ENCODING", req=self)


class KnownRequest:
    """One of lines that are known, as far as gunicorn asks for it: HTTP/1.1 that stays
    connected. `environ` is what the app is told."""

    __slots__ = ("body", "environ", "method")

    version = (1, 1)
    headers = ()  # by which it would become another protocol: those are unusual

    def __init__(self, environ: Environ, body: Any) -> None:
        self.method: str = environ["REQUEST_METHOD"]
        self.environ = environ
        self.body = environ["wsgi.input"] = body

    def should_close(self) -> bool:
        return False


class _Nothing:
    """What is left to be received of a body that is there."""

    length = 0


class WholeBody(io.BytesIO):
    """One that came with its head."""

    reader = _Nothing()
    failed = False


class RequestReader(RequestParser):  # type: ignore[misc]  # gunicorn has no types
    """Of one connection."""

    mesg_class = StrictRequest

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.mesg: Any
        self._lines: dict[bytes, tuple[str, str]] = {}
        self._targets: dict[bytes, Environ] = {}
        self._target = b""  # the request line of what gunicorn read last
        self._last_read: Any = None  # by gunicorn

    def __next__(self) -> Any:
        """Raises StopIteration where there is to be no further one, and ParseException."""
        if self._targets:
            if self.mesg.should_close() or not self.finish_body():
                raise StopIteration
            known = self._known(self.unreader.buf.getvalue())
            if known is not None:
                self.req_count += 1
                self.mesg = known
                return known
        received = self.unreader.buf.getvalue()
        read = super().__next__()
        self._target, end, _ = received.partition(b"\r\n")
        self._last_read = read if end else None
        return read

    def finish_body(self, *arguments: Any, **named: Any) -> bool:
        """Mostly the app has read it."""
        body = self.mesg.body if self.mesg is not None else None
        if body is not None and not body.failed and getattr(body.reader, "length", 1) == 0:
            return True
        return bool(super().finish_body(*arguments, **named))

    def note(self, environ: Mapping[str, Any]) -> None:
        """What gunicorn made of the request that it read last. A client that has asked twice
        may ask the same again. Not by a socket in the file system: there even our own name is
        what its headers say."""
        read = self._last_read
        if self.req_count < 2 or read is None or read.version != KnownRequest.version:
            return
        if "REMOTE_PORT" not in environ or _says_more(read):
            return
        if len(self._targets) >= MOST_TARGETS:
            self._targets.clear()
        self._targets[self._target] = {
            key: value
            for key, value in environ.items()
            if key not in OF_ONE and not key.startswith("HTTP_")
        }

    def _known(self, received: bytes) -> KnownRequest | None:
        target, _, _ = received.partition(b"\r\n")
        template = self._targets.get(target)
        end = received.find(HEAD_END)
        if template is None or end <= len(target):
            return None
        environ = self._environ(template, received[len(target) + 2 : end].split(b"\r\n"))
        if environ is None:
            return None
        rest = received[end + len(HEAD_END) :]
        self.unreader.take_buffered()
        length = int(environ.get("CONTENT_LENGTH", 0))
        if length > len(rest):
            self.unreader.unread(rest)
            return KnownRequest(environ, Body(LengthReader(self.unreader, length)))
        if length < len(rest):
            self.unreader.unread(rest[length:])
            rest = rest[:length]
        return KnownRequest(environ, WholeBody(rest))

    def _environ(self, template: Environ, lines: list[bytes]) -> Environ | None:
        """None where one is unusual, or has a name that came before."""
        if len(lines) > MOST_LINES:
            return None
        environ = template.copy()
        for line in lines:
            found = self._lines.get(line) or self._read(line)
            if found is None or found[0] in environ:
                return None
            environ[found[0]] = found[1]
        return environ

    def _read(self, line: bytes) -> tuple[str, str] | None:
        """The key by which WSGI knows it, and its value."""
        name, _, value = line.partition(b":")
        if name.upper() == b"CONTENT-LENGTH":  # mostly another one
            value = value.strip(b" \t")
            is_number = value.isdigit() and len(value) <= LENGTH_DIGITS
            return ("CONTENT_LENGTH", value.decode()) if is_number else None
        if name.upper() in UNUSUAL or b"_" in name:
            return None
        try:
            [(said, text)] = self._last_read.parse_headers(line)
        except (ParseException, ValueError):
            return None
        if said in self.cfg.secure_scheme_headers:  # it says how the client reached us
            return None
        found = KEYS.get(said, "HTTP_" + said.replace("-", "_")), text
        if found[0] == CONNECTION and text.lower() != "keep-alive":
            return None
        if len(self._lines) >= MOST_LINES:
            self._lines.clear()
        self._lines[line] = found
        return found


def _says_more(read: Any) -> bool:
    """A proxy's headers, which gunicorn was told to believe, tell more than themselves."""
    return read.scheme != "http" or any("_" in name for name, _ in read.headers)
