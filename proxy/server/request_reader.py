"""How a client's requests are read: as gunicorn does, but nothing twice.

The heads of a client's requests are the same but for the body's length, also where each has a
connection of its own. One that came before means what gunicorn found it to mean then. Of
others, from the third request of a connection on, each line that came before does, and all of
them together what they meant together; a new one is read alone. What is unusual goes gunicorn's
whole way: nothing is accepted here that it would refuse.
"""

import io
import re
from collections.abc import Mapping
from typing import Any

from gunicorn.http import wsgi
from gunicorn.http.body import Body, ChunkedReader, LengthReader
from gunicorn.http.errors import InvalidHeader, ParseException
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser

from proxy.core.request_head import HEAD_END, KEPT, KeptHead
from proxy.server.known_heads import OF_CONNECTION, Environ, KnownHeads

# Kept of a connection; where there are more, it is forgotten and begun anew. Of bytes, too:
# who has no key can connect a thousand times, and stay.
MOST_LINES = 64
MOST_LINES_BYTES = 16_384
MOST_TARGETS = 8
TARGET_BYTES = 512
# Of a line about the body's length, which is hardly ever the same.
LENGTH_BYTES = 64
LENGTH_LINE = b"\r\ncontent-length:"
MOST_HEAD_BYTES = 4_096

# What changes how the rest is read, and what does so if it does not say "keep-alive".
UNUSUAL = frozenset(
    "CONTENT-LENGTH EXPECT PROXY-CONNECTION TE TRAILER TRANSFER-ENCODING UPGRADE".split()
)
# PEP 3333 has names of its own for two headers.
KEYS = {"CONTENT-TYPE": "CONTENT_TYPE", "CONTENT-LENGTH": "CONTENT_LENGTH"}
# A host and perhaps its port, or nothing (RFC 9112, 3.2; RFC 3986, 3.2.2).
HOST = re.compile(
    r"(?:(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*|\[[A-Za-z0-9.:_~!$&'()*+,;=%-]+\])"
    r"(?::[0-9]*)?"
)
# Of what WSGI tells of a request, what belongs to that one alone; and also what its other
# headers say of it.
OF_REQUEST = frozenset({"CONTENT_LENGTH", "wsgi.input", "wsgi.early_hints"})
OF_ONE = OF_REQUEST | frozenset(KEYS.values())


class StrictRequest(Request):  # type: ignore[misc]  # gunicorn has no types
    """One that whoever stands before us reads as the same, too."""

    def set_body_reader(self) -> None:
        """gunicorn also takes lists of codings, as `gzip, chunked`, which nobody decodes; and
        any host, or none."""
        # What is newer is read and answered as this (RFC 9110, 2.5).
        self.version: tuple[int, int] = min(self.version, KnownRequest.version)
        hosts = [value for name, value in self.headers if name == "HOST"]
        is_lacking = not hosts and self.version == KnownRequest.version
        if is_lacking or not all(map(HOST.fullmatch, hosts)):
            raise InvalidHeader("HOST", req=self)
        super().set_body_reader()
        if isinstance(self.body.reader, ChunkedReader):
            codings = [value for name, value in self.headers if name == "TRANSFER-ENCODING"]
            if [coding.lower() for coding in codings] != ["chunked"]:
                raise InvalidHeader("TRANSFER-ENCODING", req=self)

    def should_close(self) -> bool:
        """gunicorn looks at one Connection line only, which may be a list (RFC 9112, 9.6)."""
        lines = [value.lower() for name, value in self.headers if name == "CONNECTION"]
        options = {option.strip(" \t") for option in ",".join(lines).split(",")}
        if "close" in options or self.must_close or self.method == "CONNECT":
            return True
        return self.version < KnownRequest.version and "keep-alive" not in options


class KnownRequest:
    """One of lines that are known, as far as gunicorn asks for it: HTTP/1.1 that stays
    connected. `taken` is what the app is told, to be had once: while its client is silent,
    nothing of a request is kept."""

    __slots__ = ("_environ", "body", "method")

    version = (1, 1)
    headers = ()  # by which it would become another protocol: those are unusual

    def __init__(self, environ: Environ, body: Any) -> None:
        self.method: str = environ["REQUEST_METHOD"]
        self._environ = environ
        self.body = environ["wsgi.input"] = body

    def taken(self) -> Environ:
        environ, self._environ = self._environ, {}
        return environ

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
    """Of one connection. `heads` are those that came on all connections to the same address."""

    mesg_class = StrictRequest

    def __init__(self, cfg: Any, source: Any, client: Any, heads: KnownHeads) -> None:
        super().__init__(cfg, source, client)
        self._source = source
        self._heads = heads
        self.mesg: Any
        self._lines: dict[bytes, tuple[str, str]] = {}
        self._lines_bytes = 0
        self._targets: dict[bytes, Environ] = {}
        # Without their bodies' lengths: the head that is to be read now, if it may be kept, and
        # the last one that is known as a whole.
        self._asked = self._head = b""
        self._of_head: Environ = {}
        self._target = b""  # the request line of what gunicorn read last
        self._last_read: Any = None  # by gunicorn
        self.goes_on = False  # the answer to the last one does: that one is the next

    def __next__(self) -> Any:
        """Raises StopIteration where there is to be no further one, and ParseException."""
        if self.goes_on:
            self.goes_on = False
            return self.mesg
        if self.mesg is not None and (self.mesg.should_close() or not self.finish_body()):
            raise StopIteration
        received = self.unreader.buf.getvalue()
        known = self._known(received)
        if known is not None:
            self.req_count += 1
            self.mesg = known
            return known
        self._last_read = read = super().__next__()
        target, end, _ = received.partition(b"\r\n")
        self._target = target if end else b""
        return read

    def finish_body(self, *arguments: Any, **named: Any) -> bool:
        """Mostly the app has read it."""
        body = self.mesg.body if self.mesg is not None else None
        if isinstance(body, WholeBody):
            body.close()
            return True
        if body is not None and not body.failed and getattr(body.reader, "length", 1) == 0:
            return True
        return bool(super().finish_body(*arguments, **named))

    def note(self, environ: Environ) -> None:
        """What gunicorn made of the request that it read last. A client that has asked twice
        may ask the same again. Not by a socket in the file system: there even our own name is
        what its headers say."""
        read, asked = self._last_read, self._asked
        self._asked = b""  # its client may be silent from now on
        # Empty: a line without anything came before it (RFC 9112, 2.2).
        if read.version != KnownRequest.version or not 0 < len(self._target) <= TARGET_BYTES:
            return
        if "REMOTE_PORT" not in environ or _says_more(read):
            return
        if asked and self._heads.note(asked) and self._is_usual(read, asked):
            told = {key: value for key, value in environ.items() if key not in OF_REQUEST}
            self._heads.keep(asked, told | {KEPT: KeptHead()})
        if self.req_count < 2:
            return
        if len(self._targets) >= MOST_TARGETS:
            self._targets.clear()
        self._targets[self._target] = {
            key: value
            for key, value in environ.items()
            if key not in OF_ONE and not key.startswith("HTTP_")
        }

    def _is_usual(self, read: Any, head: bytes) -> bool:
        """Another one of the same head would mean the same, whoever sends it."""
        names = [name for name, _ in read.headers]
        lines = head.count(b"\r\n") + 1  # with the one about the body's length
        return (
            not read.should_close()
            and lines == len(names) == len(set(names))
            and not any(
                _is_unusual(name, value, self.cfg.secure_scheme_headers)
                for name, value in read.headers
                if name != "CONTENT-LENGTH"
            )
        )

    def _known(self, received: bytes) -> KnownRequest | None:
        self._asked = b""
        end = received.find(HEAD_END)
        environ = self._told(received[:end]) if end > 0 else None
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

    def _told(self, head: bytes) -> Environ | None:
        """What WSGI tells of this head, None if it has to be read. Where it differs from the
        last one, or from another connection's, in nothing but its body's length, no other line
        is looked at."""
        asked, length = _without_length(head)
        if len(asked) > MOST_HEAD_BYTES:
            asked = b""
        if not (asked and (asked == self._head or self._take_anothers(asked))):
            self._asked = asked
            return self._of_lines(head)
        known = self._read(length)
        if known is None:
            return None
        environ = self._of_head.copy()
        environ[known[0]] = known[1]
        return environ

    def _take_anothers(self, head: bytes) -> bool:
        """If it came on other connections, it is this one's last from now on."""
        told = self._heads.get(head)
        if told is None or self.cfg.proxy_protocol != "off":  # that tells who the client is
            return False
        host, port, *_ = self.source_addr
        own = self._source, wsgi.WSGIErrorsWrapper(self.cfg), host, str(port)
        self._head, self._of_head = head, told | dict(zip(OF_CONNECTION, own, strict=True))
        return True

    def _of_lines(self, head: bytes) -> Environ | None:
        target, _, lines = head.partition(b"\r\n")
        template = self._targets.get(target)
        if template is None or not lines:
            return None
        found = self._environ(template, lines.split(b"\r\n"))
        if found is not None and self._asked:
            found[KEPT] = KeptHead()
            self._head, self._asked, self._of_head = self._asked, b"", found.copy()
            del self._of_head["CONTENT_LENGTH"]
            if self._heads.note(self._head):
                self._heads.keep(self._head, self._of_head)
        return found

    def _environ(self, template: Environ, lines: list[bytes]) -> Environ | None:
        """What these lines mean to WSGI together. None where one is unusual, or has a name that
        came before, and where there is no host."""
        if len(lines) > min(MOST_LINES, self._last_read.limit_request_fields):
            return None
        environ = template.copy()
        for line in lines:
            found = self._lines.get(line) or self._read(line)
            if found is None or found[0] in environ:
                return None
            environ[found[0]] = found[1]
        return environ if "HTTP_HOST" in environ else None

    def _read(self, line: bytes) -> tuple[str, str] | None:
        """The key by which WSGI knows it, and its value."""
        name, _, value = line.partition(b":")
        if name.upper() == b"CONTENT-LENGTH":  # mostly another one
            value = value.strip(b" \t")
            is_usual = value.isdigit() and len(line) <= LENGTH_BYTES
            return ("CONTENT_LENGTH", value.decode()) if is_usual else None
        try:
            found = self._last_read.parse_headers(line)
        except ParseException:
            return None
        if not found:
            return None
        said, text = found[0]
        if _is_unusual(said, text, self.cfg.secure_scheme_headers):
            return None
        if said == "HOST" and not HOST.fullmatch(text):
            return None
        kept = KEYS.get(said, "HTTP_" + said.replace("-", "_")), text
        self._keep(line, kept)
        return kept

    def _keep(self, line: bytes, read: tuple[str, str]) -> None:
        self._lines_bytes += len(line)
        if len(self._lines) >= MOST_LINES or self._lines_bytes > MOST_LINES_BYTES:
            self._lines.clear()
            self._lines_bytes = len(line)
        if self._lines_bytes <= MOST_LINES_BYTES:
            self._lines[line] = read


def _without_length(head: bytes) -> tuple[bytes, bytes]:
    """The head without the line about its body's length, and that line. Empty where there is
    none, or more than one."""
    lower = head.lower()
    begin = lower.find(LENGTH_LINE)
    if begin < 0 or lower.count(LENGTH_LINE) > 1:
        return b"", b""
    end = head.find(b"\r\n", begin + 2)
    end = len(head) if end < 0 else end
    return head[:begin] + head[end:], head[begin + 2 : end]


def _is_unusual(name: str, value: str, of_scheme: Mapping[str, str]) -> bool:
    """It changes how the rest is read, or says how the client reached us."""
    if name == "CONNECTION":
        return value.lower() != "keep-alive"
    return name in UNUSUAL or "_" in name or name in of_scheme


def _says_more(read: Any) -> bool:
    """A proxy's headers, which gunicorn was told to believe, tell more than themselves."""
    return read.scheme != "http" or any("_" in name for name, _ in read.headers)
