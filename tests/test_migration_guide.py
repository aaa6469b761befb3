"""The guide for moving in: its commands are run, and what it quotes is what the code says.

Its blocks of bash are run in their order, in a copy of the project, against an old deployment
made here. SUBSTITUTES says what is put in the place of what. `./scripts/run` stays in the
foreground, so it is started and left running; a block of text that stops the service ends
it. What else is in blocks of text needs a host of its own.
"""

import ast
import functools
import importlib.util
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests

from migrations.legacy.convert import OLD_TOTALS
from migrations.legacy.records import CARRIED_STATE_KEYS, CONFIG_KEYS
from proxy.settings import ROOT, SETTINGS
from proxy.simulator import Resource, Simulator
from proxy.web.retired import RETIRED
from tests.e2e.conftest import free_port, until

GUIDE = (ROOT / "docs/migration.md").read_text()
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [match.groups() for match in BLOCK.finditer(GUIDE)]

START = "./scripts/run"
STOP = "sudo systemctl stop azure-openai-gateway"
# What only a host with the right to change it can show.
NOT_RUN = ("sudo ",)

PROJECT = "proxy migrations scripts alembic.ini wsgi.py requirements.txt .env.example".split()

COMMAND_SECONDS = 180
LATER = 4_102_444_800.0  # 2100: a rest that is not over

KEY = "planted-key-of-east-0123456789"
OLD_SOURCES = {
    "app/__init__.py": "",
    "app/instance/__init__.py": "",
    "app/instance/factory.py": "class InstanceFactory:\n    pass\n",
    "app/instance/manager.py": "instance_manager = 'the old one'\n",
    "app/instance/instance_context.py": "instance_manager = 'the new one'\n",
    "app/main.py": "from app.instance.manager import instance_manager\n",
    "migration/init_factory.py": "",
    "migration/initialize_new_implementation.py": "",
    ".env": (
        "# production\nAPI_INSTANCES=east-us\nUSE_NEW_IMPLEMENTATION=true\n"
        f"API_INSTANCE_EAST-US_API_KEY={KEY}\nAPI_INSTANCE_EAST-US_API_BASE=https://old\n"
    ),
}


def old_config(name, url, **changes):
    return {
        "name": name,
        "provider_type": "azure",
        "api_key": KEY,
        "api_base": url,
        "api_version": "2024-10-21",
        "proxy_url": None,
        "priority": 100,
        "weight": 100,
        "max_tpm": 240_000,
        "max_input_tokens": 0,
        "supported_models": ["gpt-4o"],
        "model_deployments": {"gpt-4o": "gpt-4o"},
        "enabled": True,
        "timeout_seconds": 60.0,
        "retry_count": 3,
    } | changes


def old_state(name, **changes):
    return {
        "name": name,
        "status": "healthy",
        "error_count": 2,
        "last_error": "500: boom",
        "last_error_time": 1_742_198_000.0,
        "rate_limited_until": None,
        "current_tpm": 77,
        "current_rpm": 3,
        "total_requests": 1000,
        "successful_requests": 998,
        "total_tokens_served": 5000,
        "last_used": 1_742_198_400.5,
        "avg_latency_ms": 512.0,
        "utilization_percentage": 12.5,
    } | changes


def write_old_deployment(folder, url):
    """Small, with one instance that is fine and one that rests; and the program's sources."""
    configs = [old_config("east-us", url), old_config("Azure West/1", url, tags=["spare"])]
    states = [old_state("east-us"), old_state("Azure West/1", rate_limited_until=LATER)]
    files = OLD_SOURCES | {
        "instance_configs.json": json.dumps({each["name"]: each for each in configs}),
        "instance_states.json": json.dumps({each["name"]: each for each in states}),
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def copy_project(folder):
    """With an environment that `./scripts/run` takes for its own: the one of the tests."""
    for name in PROJECT:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", ".*")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder / name)
    (folder / ".venv").mkdir()
    for name in os.listdir(sys.prefix):
        if not name.startswith("."):
            (folder / ".venv" / name).symlink_to(os.path.join(sys.prefix, name))
    stamp = "cat requirements.txt requirements.txt | cksum >.venv/.installed-requirements.txt"
    subprocess.run(stamp, shell=True, cwd=folder, check=True)


@dataclass
class Walk:
    """Through the guide, a block at a time. `outputs` has what each printed."""

    folder: Path
    port: int
    substitutes: dict[str, str]
    outputs: list[tuple[str, str]] = field(default_factory=list)
    gateway: subprocess.Popen | None = None

    @property
    def project(self):
        return self.folder / "gateway"

    def environment(self):
        ours = {s.name for s in SETTINGS} | {"ENVIRONMENT", "FLASK_APP", "CURL_HOME"}
        ours.add("PYTHONDONTWRITEBYTECODE")  # many commands, one copy of the project
        clean = {k: v for k, v in os.environ.items() if k not in ours}
        return clean | {
            "HOME": str(self.folder),
            "NO_PROXY": "*",
            # Beside what the guide sets in .env.
            "PORT": str(self.port),
            "PROXY_WORKERS": "1",
        }

    def run(self, language, text):
        for here, yours in self.substitutes.items():
            text = text.replace(here, yours)
        if language == "bash" and text.strip() == START:
            self.start()
        elif language == "bash":
            self.outputs.append((text, self.output(text)))
        elif STOP in text:
            self.stop()

    def output(self, text):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.project,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        if "keys add" in text:
            self.substitutes["your-client-key"] = re.search("^gw_.+$", done.stdout, re.M)[0]
        return done.stdout

    def start(self):
        with (self.folder / "gateway.log").open("ab") as log:
            self.gateway = subprocess.Popen(
                [START], cwd=self.project, env=self.environment(), stdout=log, stderr=log
            )
        until(self.answers, "the gateway answers", COMMAND_SECONDS)

    def answers(self):
        assert self.gateway.poll() is None, (self.folder / "gateway.log").read_text()
        try:
            return requests.get(f"http://127.0.0.1:{self.port}/ready", timeout=5).ok
        except requests.ConnectionError:
            return False

    def stop(self, number=signal.SIGTERM):
        if self.gateway is not None and self.gateway.poll() is None:
            self.gateway.send_signal(number)
            self.gateway.wait(COMMAND_SECONDS)

    def said(self, command):
        """By the first block that has this in it."""
        return next(output for text, output in self.outputs if command in text)


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    if shutil.which("curl") is None or importlib.util.find_spec("pip") is None:
        pytest.skip("the guide needs curl, and scripts/run an environment with pip")
    folder = tmp_path_factory.mktemp("guide")
    port = free_port()
    with Simulator([Resource("east", api_key=KEY, tokens=10)]) as simulator:
        write_old_deployment(folder / "old", simulator["east"].url)
        (folder / "gateway").mkdir()
        copy_project(folder / "gateway")
        # An answer that says no ends a command, as it would end a person's patience.
        (folder / ".curlrc").write_text("fail-with-body\nsilent\nshow-error\n")
        walk = Walk(
            folder,
            port,
            # SUBSTITUTES. Of `/srv/old-proxy.before` too. The client's key comes with the
            # command that makes it.
            {
                "/srv/old-proxy": str(folder / "old"),
                "localhost:8000": f"localhost:{port}",
                "your-instance-name": "east-us",
                "your-admin-api-key": "admin-key-of-the-guide",
            },
        )
        try:
            for language, text in BLOCKS:
                walk.run(language, text)
            yield walk
        finally:
            walk.stop(signal.SIGKILL)


def test_every_command_of_the_guide_works(walk):
    assert len(walk.outputs) == sum(language == "bash" for language, _ in BLOCKS) - 1


def test_the_benchmark_tells_how_long_each_command_took(walk):
    told = re.findall(
        r"^\| `(.+)` \| ([\d.]+) \| ([\d.]+) \|", walk.said("import_benchmark"), re.M
    )
    assert [
        name.partition(" ")[0] for name, *_ in told
    ] == "flask alembic flask alembic".split()
    assert all(float(seconds) > 0 and float(cpu) > 0 for _, seconds, cpu in told)


def test_the_gateway_was_started_and_stopped(walk):
    assert walk.gateway.returncode == 0


def test_the_inspection_counts_what_there_is(walk):
    said = walk.said("legacy inspect")
    assert "5 records found = 2 imported + 3 merged + 0 rejected." in said
    assert KEY not in said


def test_the_old_config_and_totals_are_shown_apart(walk):
    said = walk.said("east-us/config")
    _, config, state = documents(said)
    assert (config["name"], config["max_tpm"]) == ("east-us", 240_000)
    assert (state["total_requests"], state["last_error"]) == (1000, "500: boom")
    assert KEY not in said


def documents(text):
    """Answers of several commands, one after the other."""
    while text := text.lstrip():
        document, end = json.JSONDecoder().raw_decode(text)
        yield document
        text = text[end:]


def test_the_way_back_has_what_was_changed_here(walk):
    found = json.loads((walk.folder / "old/instance_configs.json").read_text())
    assert found["east-us"]["priority"] == 50
    assert found["Azure West/1"]["tags"] == ["spare"]
    states = json.loads((walk.folder / "old/instance_states.json").read_text())
    # One by the client, ten of each kind by the load; a call to verify does not count.
    assert states["east-us"]["total_requests"] == 1000 + 1 + 20
    assert states["Azure West/1"]["rate_limited_until"] == LATER


def test_the_last_import_has_both_instances(walk):
    with closing(sqlite3.connect(walk.project / "instance/proxy.db")) as connection:
        rows = connection.execute("SELECT name, priority FROM instance_config ORDER BY name")
        assert rows.fetchall() == [("Azure West/1", 100), ("east-us", 50)]


def test_the_old_checkout_is_as_it_was(walk):
    for name, content in OLD_SOURCES.items():
        assert (walk.folder / "old" / name).read_text() == content


def test_nothing_with_a_key_is_left_behind(walk):
    left = {
        str(path.relative_to(walk.folder))
        for path in walk.folder.rglob("*")
        if ".venv" not in path.parts and path.is_file() and KEY in path.read_text("latin-1")
    }
    # Not the new database: there it is encrypted.
    in_use = {"old/.env", "old/instance_configs.json"}
    assert {name for name in left if "/backups/" not in name} == in_use


def test_there_are_no_blocks_of_another_kind():
    assert {language for language, _ in BLOCKS} == {"bash", "text"}


def test_what_could_be_run_is_run():
    lines = [line for kind, text in BLOCKS if kind == "text" for line in text.splitlines()]
    assert [line for line in lines if not line.startswith(NOT_RUN)] == []


@pytest.mark.parametrize("path", RETIRED)
def test_every_old_path_is_in_its_table(path):
    assert f"`{path.replace('<path:name>', '{name}')}`" in GUIDE


@pytest.mark.parametrize("key", [*CONFIG_KEYS, *CARRIED_STATE_KEYS, *OLD_TOTALS])
def test_every_field_is_in_its_table(key):
    assert f"`{key}`" in GUIDE.partition("## What is carried")[2].partition("\n## ")[0]


def quoted():
    """What the code is said to say: code in the first column, with a space in it."""
    table = GUIDE.partition("## When something is wrong")[2]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ")]
    codes = [code for cell in cells for code in re.findall("`([^`]+)`", cell)]
    return [code for code in codes if " " in code]


@functools.cache
def sentences():
    """Every text in the sources; what is filled in is `…`."""
    files = [
        f for room in ("proxy", "migrations", "scripts") for f in (ROOT / room).rglob("*.py")
    ]
    return [text for file in files for text in _texts(ast.parse(file.read_text()))]


def _texts(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(v.value if isinstance(v, ast.Constant) else "…" for v in node.values)


@pytest.mark.parametrize("message", quoted())
def test_messages_are_quoted_as_the_code_says_them(message):
    pattern = ".*".join(map(re.escape, message.split("…")))
    assert [text for text in sentences() if re.search(pattern, text, re.DOTALL)]
