"""Connections to listeners on loopback."""

from proxy.runtime.connection import Origin
from proxy.runtime.line import Line

WAIT_SECONDS = 5.0  # for what comes at once; it is reached only by a bug


def to(listener, scheme="http"):
    return Origin(scheme, "127.0.0.1", listener.port)


def opened(connections, origin, seconds=WAIT_SECONDS, line=None):
    return connections.open(origin, seconds=seconds, line=line or Line())
