"""A client's connection, as a request's thread reads and writes it."""

import math
import select
import socket
import time
from collections.abc import Callable
from typing import Any

from proxy.runtime import short_calls
from proxy.runtime.buffers import thread_address, thread_buffer, timeval

READ_BYTES = 16_384
# A larger body is not copied to go out with its head.
MAX_JOINED_BYTES = 65_536


class ClientSocket:
    """A client's socket that gives the interpreter away less often: that happens at each system
    call, and where many threads wait for it, to get it back takes longer than the call.

    An answer's head, which is sent first, goes out with what comes next. How long to wait is
    told to the system only when there is something to wait for, and only when that is another
    time than before: gunicorn changes it several times a request, and we for a moment behind
    each. So it is to be received from by these methods alone: the socket's own would end where
    the last wait did. `before_send` is called before anything is sent: its client may not read.

    What the worker knows of the connection, in monotonic seconds: its request was begun at
    `begun_at`, the head of which half is there must be whole at `head_until`; infinity where
    there is none. And of what comes from a client that is to go until `leave_until`:
    `left_bytes`, of which `looked_at_bytes` had come before. Of what `recv` waits for, the last
    must have come at `receive_until`.

    Of a client that asks the same over and over: `again` gives the whole answer to a head,
    or None where the usual way has to be gone; the head it was last asked about is `repeated`,
    and what the system did not take of an answer yet is `unsent`.

    `exchange` is what the worker knows of an answer that waits for its next event.
    """

    __slots__ = (
        "_before_send",
        "_head",
        "_is_answering",
        "_receive_ms",
        "_set",
        "_sock",
        "_wanted",
        "again",
        "begun_at",
        "exchange",
        "head_until",
        "leave_until",
        "left_bytes",
        "looked_at_bytes",
        "receive_until",
        "repeated",
        "unsent",
    )

    def __init__(self, sock: socket.socket, before_send: Callable[[], None]) -> None:
        self._sock = sock
        self._before_send = before_send
        self._wanted = self._set = sock.gettimeout()
        self._receive_ms = math.inf  # the system's own limit for each receiving
        self._head = b""
        self._is_answering = True
        self.begun_at = math.inf
        self.head_until = math.inf
        self.receive_until = math.inf
        self.leave_until = math.inf
        self.left_bytes = self.looked_at_bytes = 0
        self.again: Callable[[bytes], bytes | None] | None = None
        self.repeated = self.unsent = b""
        self.exchange: Any = None

    def begin_answer(self) -> None:
        """What is sent next is a head."""
        self._is_answering = False

    def end_answer(self) -> None:
        """What is sent from now on goes out at once, and what waits does now."""
        self._is_answering = True
        head, self._head = self._head, b""
        if head:
            self._waiting().sendall(head)

    def send(self, data: bytes) -> int:
        self._before_send()
        return self._waiting().send(data)

    def sendall(self, data: bytes) -> None:
        self._before_send()
        if not self._is_answering:
            self._is_answering = True
            self._head = data
            return
        if self._head:
            if len(data) <= MAX_JOINED_BYTES:
                data = self._head + data
                self._head = b""
            else:
                self.end_answer()
        if len(data) <= MAX_JOINED_BYTES:
            sent = short_calls.sent(self._sock, data)
            if sent == len(data):
                return
            data = data[sent:]
        self._waiting().sendall(data)

    def send_now(self, data: bytes) -> int:
        """How much of it the system takes without waiting. Whether the client has gone, is for
        who sends the rest to find out. Who sends to many in a row gives the interpreter away
        with each: others would wait for all of them."""
        try:
            return self._sock.send(data, socket.MSG_DONTWAIT)
        except OSError:
            return 0

    def sendfile(self, *args: Any, **options: Any) -> int:
        self._before_send()
        self.end_answer()
        return self._waiting().sendfile(*args, **options)

    def recv(self, size: int) -> bytes:
        """Raises TimeoutError where `receive_until` is over, however it dribbles."""
        if self.receive_until == math.inf:
            return self._receiving().recv(size)
        left = self.receive_until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        try:
            return self._receiving(left * 1000).recv(size)
        except BlockingIOError:
            raise TimeoutError from None

    def peeked(self) -> bytes:
        """What has arrived, and can still be received."""
        return self._receiving().recv(READ_BYTES, socket.MSG_PEEK)

    def setblocking(self, is_blocking: bool) -> None:
        self._wanted = None if is_blocking else 0.0

    def settimeout(self, seconds: float | None) -> None:
        self._wanted = seconds

    def gettimeout(self) -> float | None:
        return self._wanted

    def received(self) -> bytes:
        """What has arrived, or else what arrives first: b"" is the end."""
        buffer = thread_buffer(READ_BYTES)
        size = short_calls.received(self._sock, thread_address(), READ_BYTES)
        if size is None:
            size = self._receiving().recv_into(buffer)
        return bytes(buffer[:size])

    def received_within(self, milliseconds: int) -> bytes | None:
        """What arrives within that time: b"" is the end, None is nothing."""
        self.setblocking(True)
        sock = self._receiving(milliseconds)
        try:
            buffer = thread_buffer(READ_BYTES)
            return bytes(buffer[: sock.recv_into(buffer)])
        except BlockingIOError:
            return None

    def is_readable(self, milliseconds: int) -> bool:
        """Within that time; also where its end can be read."""
        return self._is_ready(select.POLLIN, milliseconds)

    def is_writable(self) -> bool:
        """The system takes more to be sent: the client reads, or was not sent much yet."""
        return self._is_ready(select.POLLOUT, 0)

    def _is_ready(self, what: int, milliseconds: int) -> bool:
        number = self._sock.fileno()
        if number < 0:
            return False
        poll = select.poll()
        poll.register(number, what)
        return bool(poll.poll(milliseconds))

    def shut_down(self) -> None:
        """Whoever waits on it is woken, as by its end. For any thread."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has gone

    def _receiving(self, milliseconds: float = math.inf) -> socket.socket:
        """As `_waiting`, and each receiving ends after that time with BlockingIOError."""
        sock = self._waiting()
        if self._receive_ms != milliseconds:
            limit = timeval(milliseconds / 1000)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            self._receive_ms = milliseconds
        return sock

    def _waiting(self) -> socket.socket:
        """The socket, as long as it is wanted to wait."""
        if self._set != self._wanted:
            self._sock.settimeout(self._wanted)
            self._set = self._wanted
        return self._sock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)
