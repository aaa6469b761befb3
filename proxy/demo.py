"""`--demo`: three simulated instances, a database of its own, and lines to try it with."""

import http.client
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType

from proxy import create_app
from proxy.cli.mock import simulated_resources
from proxy.context import EXTENSION, Parts
from proxy.core.types import InstanceConfig
from proxy.errors import NotFound
from proxy.settings import INSTANCE_FOLDER, ROOT, Settings
from proxy.simulator import Simulator
from proxy.start import check_port, gunicorn_command, prepare
from proxy.store import instances, keys
from proxy.store.revisions import Author

AUTHOR = Author("demo")
CLIENT = "demo"
MODELS = ("gpt-4o", "gpt-4o-mini", "text-embedding-3-small")
STOP_SECONDS = 10.0
# Until it answers; then its lines are shown all the same, and the log says why it does not.
READY_SECONDS = 30.0
LOOK_SECONDS = 0.05

TRY_IT = """\

The demo runs at {address}: three simulated instances, nothing leaves this machine.

Stream an answer:

  curl -N {address}/v1/chat/completions -H "Authorization: Bearer {client_key}" \\
    -H "Content-Type: application/json" \\
    -d '{{"model": "gpt-4o", "stream": true,
         "messages": [{{"role": "user", "content": "Hi"}}]}}'

List the instances, their config and state:

  curl {address}/admin/instances -H "X-Admin-API-Key: {admin_key}"

Open the console: {address}/admin/ui   Sign in with the admin key {admin_key}

Look from the command line, in another terminal:

  export PROXY_DATABASE_URL={database_url} PROXY_SECRET_KEY_FILE={secret_key_file}
  export ADMIN_API_KEY={admin_key} PROXY_BIND={bind} PORT={port}
  .venv/bin/flask top

Browse the admin API: {address}/admin/docs   Stop with Ctrl-C.
What it keeps is in instance/demo.db and instance/demo.key: delete both to begin anew.

"""


def run_demo(settings: Settings) -> int:
    """Runs until Ctrl-C or a signal; stops all it started. Returns gunicorn's exit code."""
    check_port(settings)
    settings = replace(
        settings,
        database_url=f"sqlite:///{INSTANCE_FOLDER / 'demo.db'}",
        secret_key_file=INSTANCE_FOLDER / "demo.key",
        # Never the operator's: it is printed.
        admin_api_key=secrets.token_urlsafe(16),
    )
    parts: Parts = create_app(settings).extensions[EXTENSION]
    prepare(parts)
    resources = simulated_resources(3, latency_ms=100.0, event_interval_ms=30.0)
    with Simulator(resources) as simulator:
        client_key = _fill(parts, simulator)
        parts.database.dispose()
        try_it = TRY_IT.format(
            address=settings.address,
            client_key=client_key,
            admin_key=settings.admin_api_key,
            bind=settings.bind,
            port=settings.port,
            database_url=settings.database_url,
            secret_key_file=settings.secret_key_file,
        )
        with _gunicorn(settings) as process:
            try:
                _wait_until_ready(process, settings.bind, settings.port)
                if process.poll() is None:
                    sys.stderr.write(try_it)
                return process.wait()
            except KeyboardInterrupt:
                return 0  # how it is meant to end


def _fill(parts: Parts, simulator: Simulator) -> str:
    """The three instances as they are this time, and a new client key."""
    with parts.database.session() as session:
        for resource in simulator.resources.values():
            config = InstanceConfig(
                name=resource.name,
                api_base=resource.url,
                api_key=resource.api_key or "NONE",
                supported_models=MODELS,
            )
            try:
                instances.remove(session, resource.name, author=AUTHOR)
            except NotFound:
                pass  # the first time
            instances.add(session, [config], author=AUTHOR)
        try:
            keys.remove(session, CLIENT, author=AUTHOR)
        except NotFound:
            pass  # the first time
        return keys.add(session, CLIENT, author=AUTHOR)


@contextmanager
def _gunicorn(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """The server as a child, stopped in whatever way we end."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    environment = {
        **os.environ,
        "PROXY_DATABASE_URL": settings.database_url,
        "PROXY_SECRET_KEY_FILE": str(settings.secret_key_file),
        "ADMIN_API_KEY": settings.admin_api_key,
    }
    # A session of its own: Ctrl-C reaches us alone, and we stop it in order.
    process = subprocess.Popen(
        gunicorn_command(), cwd=ROOT, env=environment, start_new_session=True
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], host: str, port: int) -> None:
    """Who is told how to try it does so at once."""
    until = time.monotonic() + READY_SECONDS
    while process.poll() is None and time.monotonic() < until and not _is_ready(host, port):
        time.sleep(LOOK_SECONDS)


def _is_ready(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=1.0)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
