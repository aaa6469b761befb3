"""A resource that is listening, and sockets to talk to it without a client's manners."""

import contextlib
import socket
from urllib.parse import urlsplit

import pytest

from proxy.simulator import Resource, Simulator


@pytest.fixture
def started():
    """A function that starts resources and returns the simulator; all stop at the end."""
    with contextlib.ExitStack() as stack:
        yield lambda *resources: stack.enter_context(Simulator(list(resources)))


@pytest.fixture
def resource(started):
    return started(Resource("east-us"))["east-us"]


@pytest.fixture
def raw():
    """A function that sends bytes to a resource and returns the socket."""
    with contextlib.ExitStack() as stack:

        def send(resource, data):
            parts = urlsplit(resource.url)
            peer = socket.create_connection((parts.hostname, parts.port), timeout=5)
            stack.enter_context(peer)
            peer.sendall(data)
            return peer

        yield send
