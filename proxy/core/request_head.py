"""What has arrived of a request, before anybody reads it."""

from collections.abc import Mapping, Sequence

from proxy.errors import HeadTooLarge, Malformed

# Of a request line and all headers. OpenAI's own API asks clients for no more.
MAX_HEAD_BYTES = 65_536

TLS_HANDSHAKE = b"\x16"  # RFC 8446, 5.1
HEAD_END = b"\r\n\r\n"

KEPT = "proxy.kept"  # of a request's environ: its KeptHead


class KeptHead:
    """What was made of a head that comes again and again, but for its body's length; by
    whoever makes it, of nothing but the head. Several threads may read and set it at a time."""

    __slots__ = ("keys", "passed")

    def __init__(self) -> None:
        self.passed: Mapping[str, str] | None = None  # the headers that go on
        # The hashes of the keys that were given, and the pepper with which they were made.
        self.keys: tuple[bytes, Sequence[str]] | None = None


def is_whole(received: bytes) -> bool:
    """A request's head is there, and as much of a body as it announces."""
    end = received.find(HEAD_END)
    if end < 0:
        return False
    head = received[:end].lower()
    if b"\r\ntransfer-encoding:" in head:
        return False
    _, _, behind = head.partition(b"\r\ncontent-length:")
    announced = behind.partition(b"\r\n")[0].strip()
    if not announced:
        return True
    # What begins with many zeros is a number, too: nobody has to wait for such a one.
    if not announced.isdigit() or len(announced) > 15:
        return False
    return len(received) - end - 4 >= int(announced)


def is_half(received: bytes) -> bool:
    """Of a request's head there is a beginning, or nothing, and more must come.

    Raises Malformed or HeadTooLarge for what can become none: nobody is to wait for the rest.
    """
    if HEAD_END in received:
        return False
    if len(received) > MAX_HEAD_BYTES:
        raise HeadTooLarge(f"The request's head is larger than {MAX_HEAD_BYTES} bytes.")
    if received.startswith(TLS_HANDSHAKE):
        raise Malformed("This port speaks HTTP, not HTTPS: TLS belongs to a server in front.")
    # RFC 9112, 2.2: lines end with both.
    if received.count(b"\n") != received.count(b"\r\n"):
        raise Malformed("A line of the request's head ends without a carriage return.")
    return True


def says_something(received: bytes) -> bool:
    """More than the empty lines that some clients send behind a request (RFC 9112, 2.2)."""
    return bool(received.strip(b"\r\n"))
