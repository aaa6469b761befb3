"""Short calls of the system that keep the interpreter.

Python gives it away before each call of the system, because one may take long. Where other
threads wait for it, to get it back takes longer than such a call: they run until their own
next one. These do not wait for a peer, and take some microseconds.
"""

import ctypes
import socket
from typing import Any

from proxy.core.types import Bytes

# Of more at once others would wait for the copying.
MAX_BYTES = 65_536

_FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_LIBC = ctypes.PyDLL(None)

_SEND = _LIBC.send
_SEND.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
_SEND.restype = ctypes.c_ssize_t
_RECV = _LIBC.recv
_RECV.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_RECV.restype = ctypes.c_ssize_t


def sent(sock: Any, data: Bytes | memoryview) -> int:
    """How many bytes of it a plain socket takes at once, MAX_BYTES at most; of others, as those
    of TLS, none. 0 also where it never will: who sends the rest as usual finds out why."""
    if type(sock) is not socket.socket or type(data) is not bytes:
        return 0
    size = min(len(data), MAX_BYTES)
    return max(int(_SEND(sock.fileno(), data, size, _FLAGS)), 0)


def received(sock: Any, address: int, size: int) -> int | None:
    """How many bytes have arrived, and are there now; 0 at its end. None where nothing has, or
    something is wrong, or it is no plain socket: who receives as usual finds out."""
    if type(sock) is not socket.socket:
        return None
    found: int = _RECV(sock.fileno(), address, size, _FLAGS)
    return found if found >= 0 else None
