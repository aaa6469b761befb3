"""The app without a server around it: thousands of requests, each answered as it should."""

import contextlib
import io
import logging
import sys
from urllib.parse import unquote_to_bytes

import pytest
from gunicorn.http.errors import InvalidChunkSize
from hypothesis import given
from werkzeug.test import run_wsgi_app

from proxy.logs import LOGGER
from tests.builders import MODEL
from tests.fuzz import inputs as sent
from tests.fuzz.conftest import check_answer, tried
from tests.web.conftest import ADMIN_KEY, shared_world

__all__ = ["shared_world"]  # the fixture

# A body may be nested without measure; where one fails, the blob has all of it.
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")


USUAL_DEPTH = 1_000  # Python's own


class Log(logging.Handler):
    """All that is logged, as it would be written."""

    def __init__(self):
        super().__init__()
        self.errors = []
        self.planted = []

    def emit(self, record):
        line = self.format(record)
        if record.levelno >= logging.ERROR:
            self.errors.append(line)
            return
        assert line.isprintable(), line
        assert not any(secret in line for secret in self.planted), line


@pytest.fixture(scope="module")
def world(shared_world):
    """With one instance of each kind."""
    for kind in ("azure_v1", "openai"):
        shared_world.add(f"b-{kind}", provider_type=kind, model_deployments={MODEL: "east"})
    return shared_world


@pytest.fixture(scope="module")
def log(world):
    handler = Log()
    handler.planted = [world.client_key, world.simulator["a"].api_key, ADMIN_KEY]
    loggers = [LOGGER, world.app.logger]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False  # to those that pytest collects for a report
    yield handler
    for logger in loggers:
        logger.removeHandler(handler)
        logger.propagate = True


class Chunks(io.BytesIO):
    """A body of which a chunk is broken."""

    def read(self, size=-1):
        data = super().read(5)
        if not data:
            raise InvalidChunkSize(b"planted")
        return data


def environ(world, request):
    """As gunicorn makes it of the request."""
    path, _, query = request.target.partition("?")
    made = {
        "REQUEST_METHOD": request.method,
        "PATH_INFO": unquote_to_bytes(path.encode()).decode("latin-1"),
        "QUERY_STRING": query,
        "RAW_URI": request.target,
        "SCRIPT_NAME": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    for name, value in [*request.headers, *credentials(world, request)]:
        key = name.upper().replace("-", "_")
        key = key if key == "CONTENT_TYPE" else f"HTTP_{key}"
        made[key] = f"{made[key]},{value}" if key in made else value
    return made | framing(request)


def credentials(world, request):
    key = world.client_key
    return {
        "bearer": [("Authorization", f"Bearer {key}")],
        "api-key": [("api-key", key)],
        "both": [("Authorization", "Bearer x"), ("api-key", key)],
        "wrong": [("Authorization", "Bearer gw-planted")],
        "admin": [("api-key", key), ("X-Admin-API-Key", ADMIN_KEY)],
        "none": [],
    }[request.credentials]


def framing(request):
    body = request.body
    if request.framing == "chunked":
        broken = body[:1] == b"\xff"
        made = Chunks(body) if broken else io.BytesIO(body)
        return {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input": made}
    if request.framing == "none":
        return {"wsgi.input": io.BytesIO(b"")}
    wrong_by = request.framing if isinstance(request.framing, int) else 0
    length = max(0, len(body) + wrong_by)
    return {"CONTENT_LENGTH": str(length), "wsgi.input": io.BytesIO(body[:length])}


@contextlib.contextmanager
def as_deep_as_usual():
    """Hypothesis raises the limit of recursion, which hides who reaches it."""
    raised = sys.getrecursionlimit()
    sys.setrecursionlimit(USUAL_DEPTH)
    try:
        yield
    finally:
        sys.setrecursionlimit(raised)


@tried(0.7, each=5)
@given(drawn=sent.requests())
def test_every_request_is_answered_and_none_by_a_failure_of_ours(world, log, inputs, drawn):
    for request in sent.variants(drawn):
        inputs.count += 1
        with as_deep_as_usual():
            made = environ(world, request)
            chunks, status, headers = run_wsgi_app(world.app, made, buffered=True)
        body = b"".join(chunks)
        headers = {name.lower(): value for name, value in headers.items()}
        check_answer(int(status[:3]), headers, body, is_head=request.method == "HEAD")
        assert log.errors == []
        assert world.parts.open_calls.count == 0
        said = f"{headers} {body!r}"
        assert not any(secret in said for secret in log.planted)
