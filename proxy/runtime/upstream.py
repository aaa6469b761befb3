"""The one module that talks HTTP out."""

from collections.abc import Iterator, Mapping
from http.client import IncompleteRead
from pathlib import Path
from types import TracebackType

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict

from proxy.core.types import InstanceConfig

# As much as has arrived is read at once, up to this.
READ_BYTES = 65_536

# Hosts whose connections are kept; more instances than this reconnect now and then.
KEPT_HOSTS = 1000


class UpstreamError(Exception):
    """No answer, or one that broke off. The message names no host, key or proxy."""

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.timed_out = timed_out


class Answer:
    """A response whose head is read. Read its body with `read_some`, then `close` it."""

    def __init__(self, response: requests.Response) -> None:
        self._response = response
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers

    def header_items(self) -> list[tuple[str, str]]:
        """Every header line, also where a name occurs twice."""
        return list(self._response.raw.headers.iteritems())

    def read_some(self) -> bytes:
        """What has arrived, at least one byte; b"" at the end. Raises UpstreamError.

        read1, because `iter_content` waits for a whole buffer where the upstream does not
        send chunks: a stream would arrive all at once at its end.
        """
        with _translated():
            data: bytes | None = self._response.raw.read1(READ_BYTES, decode_content=True)
        return data or b""

    def read_all(self) -> bytes:
        """The rest of the body. Raises UpstreamError if it is cut short."""
        with _translated():
            data: bytes = self._response.raw.read(decode_content=True)
        return data

    def abort(self) -> None:
        """Ends a read that waits in another thread, and those to come. Raises nothing."""
        try:
            self._response.raw.shutdown()
        except (OSError, ValueError, RuntimeError, TypeError):
            # It is read to its end, or closed, already; TypeError: closed by its own thread
            # just between the library's look and its call.
            pass

    def close(self) -> None:
        """Idempotent. A connection whose answer was not read to its end is closed."""
        self._response.close()


class Upstream:
    """Sends requests over kept connections. Thread-safe.

    requests' sessions do work that browsers need on every call (cookies, redirects, the
    environment's proxies); the adapter beneath them does only what a gateway needs.
    """

    def __init__(
        self, *, connections: int, connect_timeout_seconds: float, ca_bundle: Path | None
    ) -> None:
        self._connect_timeout_seconds = connect_timeout_seconds
        self._verify: bool | str = str(ca_bundle) if ca_bundle else True
        # max_retries=0: there is one loop that tries again, and it is not down here.
        self._adapter = HTTPAdapter(
            pool_connections=KEPT_HOSTS, pool_maxsize=connections, max_retries=0
        )

    def send(
        self,
        config: InstanceConfig,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        method: str = "POST",
    ) -> Answer:
        """Sends one request, waits for the answer's head. Raises UpstreamError.

        The connection must stand within the connect timeout; then `timeout_seconds` is the
        longest silence allowed, before the head and between reads of the body.
        """
        by_proxy = config.proxy_url
        proxies = {"http": by_proxy, "https": by_proxy} if by_proxy else {}
        connect_seconds = min(self._connect_timeout_seconds, config.timeout_seconds)
        with _translated():
            return Answer(
                self._adapter.send(
                    _prepared(method, url, headers, body),
                    stream=True,
                    timeout=(connect_seconds, config.timeout_seconds),
                    verify=self._verify,
                    proxies=proxies,
                )
            )

    def close(self) -> None:
        self._adapter.close()


def _prepared(
    method: str, url: str, headers: Mapping[str, str], body: bytes | None
) -> requests.PreparedRequest:
    request = requests.PreparedRequest()
    request.method = method
    request.url = url
    request.headers = CaseInsensitiveDict(headers)
    request.headers["Accept-Encoding"] = "identity"
    request.body = body
    if body is not None:
        request.headers["Content-Length"] = str(len(body))
    return request


class _translated:  # noqa: N801  # reads as a statement: `with _translated():`
    """Ends the libraries' exceptions here. A class: cheaper than a generator."""

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, _FOREIGN):
            raise _upstream_error(error) from None


# ValueError: an address that is none, or a key that no header can hold; its message has it.
_FOREIGN = (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError)

# The first kind that is found among an error's causes says what happened. The order
# matters: urllib3's NewConnectionError is a ConnectTimeoutError to it.
_KINDS: tuple[tuple[type[BaseException], str], ...] = (
    (urllib3.exceptions.ProxyError, "its proxy_url refused or could not be reached"),
    (urllib3.exceptions.NameResolutionError, "its host name could not be resolved"),
    (urllib3.exceptions.SSLError, "TLS failed: its certificate or protocol was not accepted"),
    (urllib3.exceptions.ReadTimeoutError, "it timed out while we waited for its answer"),
    (urllib3.exceptions.NewConnectionError, "the connection was refused"),
    (urllib3.exceptions.ConnectTimeoutError, "it timed out while we connected"),
    (IncompleteRead, "it broke off its answer"),  # http.client's, and urllib3's own
)


def _upstream_error(error: BaseException) -> UpstreamError:
    """A sentence without what the libraries put in theirs: hosts, URLs, proxies' passwords."""
    causes = list(_causes(error))
    for kind, message in _KINDS:
        if any(isinstance(cause, kind) for cause in causes):
            return UpstreamError(message, timed_out="timed out" in message)
    names = (c.strerror for c in causes if isinstance(c, OSError) and c.strerror)
    why = next(names, type(causes[-1]).__name__)
    return UpstreamError(f"the connection failed ({why})")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it wraps: as an attribute, an argument or a context."""
    seen: set[int] = set()
    todo = [error]
    while todo:
        each = todo.pop()
        if isinstance(each, BaseException) and id(each) not in seen:
            seen.add(id(each))
            yield each
            todo += [
                getattr(each, "reason", None),
                each.__cause__,
                each.__context__,
                *each.args,
            ]
