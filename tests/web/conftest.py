"""The whole app with two simulated instances to send to, and hands to use both."""

import contextlib
import http.client
import json
import shutil
from collections import defaultdict
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from flask.testing import FlaskClient

from proxy import create_app, make_parts
from proxy.context import EXTENSION
from proxy.logs import LOGGER
from proxy.settings import load_settings
from proxy.simulator import Resource, Simulator
from proxy.store import instances, keys, revisions
from tests.builders import AUTHOR, MODEL, SECRET_KEY

ADMIN_KEY = "planted-admin-key-0123456789"
ADMIN = {"X-Admin-API-Key": ADMIN_KEY}
# Text: most tests of the log read its sentences.
USUAL = {"admin_api_key": ADMIN_KEY, "sync_interval_ms": 60_000, "log_format": "text"}
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}]}
STREAM = CHAT | {"stream": True}


class Client(FlaskClient):
    """Closes each answer, as a server does, unless it is to be read bit by bit."""

    def open(self, *arguments, buffered=True, **named):
        return super().open(*arguments, buffered=buffered, **named)


class World:
    """A running app. Its syncer works when it is told to: `parts.syncer.sync()`."""

    def __init__(self, app, simulator):
        self.app = app
        self.simulator = simulator
        self.parts = app.extensions[EXTENSION]
        app.test_client_class = Client
        self.client = app.test_client()
        self.client_key = ""

    def add_client(self, name="app", **fields):
        with self.parts.database.session() as session:
            key = keys.add(session, name, fields, author=AUTHOR)
        self.parts.snapshots.reload()
        return key

    def config(self, name="a", **fields):
        """The JSON of an instance that is the resource of this name, or else resource a."""
        resource = self.simulator.resources.get(name, self.simulator["a"])
        values = {"name": name, "api_base": resource.url, "api_key": resource.api_key}
        return values | fields

    def add(self, name="a", **fields):
        answer = self.admin("POST", "", json=self.config(name, **fields))
        assert answer.status_code == 201, answer.text
        return answer

    def admin(self, method, path="", headers=None, **arguments):
        """A request of the operator; `path` is below /admin/instances."""
        return self.client.open(
            "/admin/instances" + path,
            method=method,
            headers=ADMIN | (headers or {}),
            **arguments,
        )

    def state(self, name="a"):
        return self.admin("GET", f"/{name}/state").get_json()

    def ask(self, body=CHAT, path="/v1/chat/completions", headers=None, **arguments):
        """A request of the client; `body` is JSON, or bytes as they are."""
        return self.client.post(
            path,
            data=body if isinstance(body, bytes) else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.client_key}"}
            | {"Content-Type": "application/json"}
            | (headers or {}),
            **arguments,
        )

    def received(self, name="a"):
        """The last request that reached this resource."""
        return self.simulator[name].requests[-1]

    def asked(self):
        """How many requests reached a and b."""
        return tuple(len(self.simulator[name].requests) for name in "ab")

    def directly(self, path, body):
        """The bytes that resource a answers to `body` when no gateway is in between."""
        resource = self.simulator["a"]
        connection = http.client.HTTPConnection(urlsplit(resource.url).netloc)
        connection.request("POST", path, json.dumps(body), {"api-key": resource.api_key})
        answer = connection.getresponse().read()
        connection.close()
        return answer

    def log(self):
        """All that was logged, if `log_dir` is set; nothing is logged after this."""
        self.parts.log_writer.stop()
        return (self.parts.settings.log_dir / "proxy.log").read_text()

    def everything(self):
        """The revision and all configs: what a refused change must leave alone."""
        with self.parts.database.read() as connection:
            return revisions.newest(connection), instances.load_all(connection)


@contextlib.contextmanager
def simulated():
    a = Resource("a", api_key="planted-key-of-resource-a-0123")
    b = Resource("b", api_key="planted-key-of-resource-b-4567")
    with Simulator([a, b]) as simulator:
        yield simulator


@contextlib.contextmanager
def log_kept():
    """Each app replaces the handlers of the logger `proxy`; others' tests need theirs."""
    handlers, propagate, level = LOGGER.handlers[:], LOGGER.propagate, LOGGER.level
    yield
    LOGGER.handlers[:], LOGGER.propagate = handlers, propagate
    LOGGER.setLevel(level)


def in_turn(parts):
    """Of equal instances the first is asked first, and not by luck."""
    parts.forward._turns = defaultdict(type(parts.forward._turns[""]))


@contextlib.contextmanager
def running(app, simulator):
    world = World(app, simulator)
    world.parts.forward._pause_seconds = (0.0, 0.0)  # before the only instance is asked again
    try:
        world.parts.start()
        in_turn(world.parts)
        world.client_key = world.add_client()
        yield world
    finally:
        world.parts.stop()


@pytest.fixture
def simulator():
    with simulated() as simulator:
        yield simulator


@pytest.fixture
def make_world(make_settings, simulator):
    """A function from changed settings to a world; it is stopped at the end."""
    with log_kept(), contextlib.ExitStack() as stack:

        def make(**changes):
            settings = make_settings(**USUAL | changes)
            return stack.enter_context(running(create_app(settings), simulator))

        yield make


@pytest.fixture(scope="session")
def routes():
    """An app whose parts each test replaces: registering its routes is most of its making."""
    with log_kept():
        return create_app(load_settings(environ={}, env_file=None))


@pytest.fixture
def world(make_settings, simulator, routes):
    """Empty, but for the client "app"."""
    with log_kept():
        routes.extensions[EXTENSION] = make_parts(make_settings(**USUAL))
        with running(routes, simulator) as world:
            yield world


@pytest.fixture
def other_worker(world, simulator):
    """Another worker of the same gateway."""
    with log_kept():
        other = World(create_app(world.parts.settings), simulator)
        other.parts.start()
        in_turn(other.parts)
        yield other
        other.parts.stop()


@pytest.fixture(scope="module")
def shared_world(migrated_file, tmp_path_factory):
    """With instance a. For tests that change nothing: starting another takes 30 ms."""
    file = shutil.copy(migrated_file, tmp_path_factory.mktemp("shared") / "proxy.db")
    settings = load_settings(environ={"PROXY_SECRET_KEY": SECRET_KEY}, env_file=None)
    settings = replace(settings, database_url=f"sqlite:///{file}", **USUAL)
    with (
        log_kept(),
        simulated() as simulator,
        running(create_app(settings), simulator) as world,
    ):
        world.add("a")
        yield world
