"""How a stream ends that has begun, and cannot end well: its client is told, in an event and by
a connection that ends too soon."""

import errno
import json
import re

from proxy.errors import UpstreamFailed
from proxy.runtime.upstream import UpstreamError

ENDING = "the gateway is being stopped or restarted"
OVER = "the time for the call is over"

# Whose name stands before what it did, but for a client.
_UPSTREAM = {"it": "the upstream", "its": "the upstream's"}
_IT = re.compile(r"\A(it|its)\b")


class StreamBroken(ConnectionResetError):
    """Ends a response that has begun without ending it properly.

    A WSGI server takes a connection reset for the end of the connection: it writes no
    closing chunk, so no client can take what came so far for the whole answer.
    """

    def __init__(self) -> None:
        super().__init__(errno.ECONNRESET, "the upstream broke off its stream")


def error_event(error: UpstreamError) -> bytes:
    """As chats have it; a watcher's `last_words` says it in the words of its API."""
    said = _IT.sub(lambda found: _UPSTREAM[found[0]], error.message)
    shape = UpstreamFailed(f"The answer broke off: {said}.", code="stream_interrupted")
    return b"data: " + json.dumps(shape.to_dict()).encode() + b"\n\n"


def forget_frames(error: UpstreamError) -> None:
    """What it came through holds what holds it: in a circle all of the call would stay until
    the garbage collector looks, which is rare."""
    error.__context__ = None
    error.with_traceback(None)
