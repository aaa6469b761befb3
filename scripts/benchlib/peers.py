"""Other gateways, each in an environment of its own, in front of the same upstream.

And nginx, where it is installed: it passes on what comes and does nothing else, so it tells
what a hop costs on this machine at the least.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from loadlib.gateway import free_port

from benchlib.loads import HOST, Target
from benchlib.places import API_VERSION, MODEL, UPSTREAM_KEY, WORKERS, Place, direct, served

LITELLM_VERSION = "1.108.7"
PORTKEY_VERSION = "1.15.2"
# With later ones that it allows, it answers 500 to every stream.
PORTKEYS_SERVER_VERSION = "1.13.8"
PORTKEYS_PROGRAM = "node_modules/@portkey-ai/gateway/build/start-server.js"

# Where systems put it that a user's PATH leaves out.
NGINX_PATH = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin"
NGINX_CONNECTIONS = 4096  # of each of its workers, to both sides
NGINX_KEPT_REQUESTS = 1_000_000_000  # it would close a connection after 1,000

CLIENT_KEY = "sk-bench"
START_SECONDS = 180.0
STAMP = ".installed"


class NotInstalled(Exception):
    """A peer could not be installed; the text says why."""


@dataclass(frozen=True, slots=True)
class Peer:
    """`install` brings it into an empty folder; `start` listens while it is entered. `program`
    is whose installation it is, where several are started from one."""

    name: str
    version: str
    install: Callable[[Path], None]
    start: Callable[[Path, Path, int], AbstractContextManager[Place]]
    program: str = ""


def installed(peer: Peer, folder: Path) -> Path:
    """Where it is, after it was brought there if it was not. Raises NotInstalled."""
    place = folder / f"{peer.program or peer.name}-{peer.version}"
    if not (place / STAMP).exists():
        shutil.rmtree(place, ignore_errors=True)  # of an installation that was broken off
        place.mkdir(parents=True)
        peer.install(place)
        (place / STAMP).touch()
    return place


def _run(*command: str | Path) -> None:
    """Raises NotInstalled."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise NotInstalled(f"{command[0]} is not installed") from error
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise NotInstalled(f"{command[0]} ended with code {done.returncode}: {' '.join(last)}")


def _install_litellm(place: Path) -> None:
    _run(sys.executable, "-m", "venv", place)
    python = place / "bin/python"
    _run(python, "-m", "pip", "install", "--quiet", f"litellm[proxy]=={LITELLM_VERSION}")


@contextmanager
def _litellm(place: Path, folder: Path, upstream_port: int) -> Iterator[Place]:
    """As its documentation advises for production, but for what needs a database: a worker a
    core, errors only in its log, no calls home."""
    config = {
        "model_list": [
            {
                "model_name": MODEL,
                "litellm_params": {
                    "model": f"azure/{MODEL}",
                    "api_base": f"http://{HOST}:{upstream_port}",
                    "api_key": UPSTREAM_KEY,
                    "api_version": API_VERSION,
                },
            }
        ],
        "litellm_settings": {"set_verbose": False, "telemetry": False},
        "general_settings": {"master_key": CLIENT_KEY},
    }
    file = folder / "litellm.yaml"
    file.write_text(json.dumps(config))  # which is YAML, too
    port = free_port()
    command = [str(place / "bin/litellm"), "--config", str(file), "--host", HOST]
    command += ["--port", str(port), "--num_workers", str(WORKERS)]
    environment = {
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "PATH": f"{place / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    with served(
        command, environment, port, folder / "litellm.log", start_seconds=START_SECONDS
    ) as process:
        headers = (f"Authorization: Bearer {CLIENT_KEY}",)
        yield Place("litellm", Target(port, "/v1/chat/completions", headers), process.pid)


def _install_portkey(place: Path) -> None:
    wanted = {
        "private": True,
        "dependencies": {"@portkey-ai/gateway": PORTKEY_VERSION},
        "overrides": {"@hono/node-server": PORTKEYS_SERVER_VERSION},
    }
    (place / "package.json").write_text(json.dumps(wanted))
    _run("npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", place)


def _portkey(place: Path, folder: Path, upstream_port: int) -> AbstractContextManager[Place]:
    """As it comes: one process, and no option for more."""
    port = free_port()
    command = ["node", str(place / PORTKEYS_PROGRAM), f"--port={port}", "--headless"]
    return _portkey_of("portkey", command, port, folder, upstream_port)


def _portkey_cluster(
    place: Path, folder: Path, upstream_port: int
) -> AbstractContextManager[Place]:
    """By Node.js' own cluster as many of it as others have workers, which it does not do
    itself."""
    port = free_port()
    file = folder / "portkey.cjs"
    file.write_text(
        "const cluster = require('node:cluster');\n"
        f"cluster.setupPrimary({{exec: {json.dumps(str(place / PORTKEYS_PROGRAM))},"
        f" args: ['--port={port}', '--headless']}});\n"
        f"for (let i = 0; i < {WORKERS}; i++) cluster.fork();\n"
    )
    return _portkey_of("portkey-cluster", ["node", str(file)], port, folder, upstream_port)


@contextmanager
def _portkey_of(
    name: str, command: list[str], port: int, folder: Path, upstream_port: int
) -> Iterator[Place]:
    headers = (
        f"Authorization: Bearer {UPSTREAM_KEY}",
        "x-portkey-provider: openai",
        f"x-portkey-custom-host: http://{HOST}:{upstream_port}/v1",
    )
    environment = {"NODE_ENV": "production"}
    with served(
        command, environment, port, folder / f"{name}.log", start_seconds=60
    ) as process:
        yield Place(name, Target(port, "/v1/chat/completions", headers), process.pid)


def _find_nginx(_place: Path) -> None:
    _nginx_program()


def _nginx_program() -> str:
    program = shutil.which("nginx", path=NGINX_PATH)
    if program is None:
        raise NotInstalled("nginx is not installed (apt-get install nginx-light)")
    return program


@contextmanager
def _nginx(_place: Path, folder: Path, upstream_port: int) -> Iterator[Place]:
    """As its documentation advises in front of an upstream that streams."""
    port = free_port()
    file = folder / "nginx.conf"
    file.write_text(f"""
daemon off;
worker_processes {WORKERS};
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections {NGINX_CONNECTIONS}; }}
http {{
    access_log off;
    keepalive_requests {NGINX_KEPT_REQUESTS};
    upstream azure {{
        server {HOST}:{upstream_port};
        keepalive {NGINX_CONNECTIONS // 2};
        keepalive_requests {NGINX_KEPT_REQUESTS};
    }}
    server {{
        listen {HOST}:{port} backlog={NGINX_CONNECTIONS};
        location / {{
            proxy_pass http://azure;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
""")
    command = [_nginx_program(), "-e", "stderr", "-c", str(file)]
    with served(command, {}, port, folder / "nginx.log") as process:
        asked = direct(upstream_port).target
        yield Place("nginx", replace(asked, port=port), process.pid)


PEERS = {
    peer.name: peer
    for peer in (
        Peer("litellm", LITELLM_VERSION, _install_litellm, _litellm),
        Peer("portkey", PORTKEY_VERSION, _install_portkey, _portkey),
        Peer("portkey-cluster", PORTKEY_VERSION, _install_portkey, _portkey_cluster, "portkey"),
        Peer("nginx", "system", _find_nginx, _nginx),
    )
}
