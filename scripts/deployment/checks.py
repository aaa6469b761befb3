"""Whether a deployment that runs is well, asked through its admin API."""

import ipaddress
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import requests

TIMEOUT_SECONDS = 10.0
VERIFY_SECONDS = 600.0  # a real call to each deployment, one after the other
BACKUP_SECONDS = 120.0  # the newest backup is read and checked
PAGE = 1000  # what the admin API gives at most
TEXT_CHARACTERS = 300

OK, FAILED, SKIPPED = "ok", "failed", "skipped"
# An instance that rests because it was asked to is doing what it should.
WELL = ("healthy", "rate_limited")
# `monitor` would tell everybody; here somebody is looking already.
WEBHOOK_VARIABLE = "BACKUP_WEBHOOK_URL"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Check:
    """`result` is OK, FAILED or SKIPPED; `text` says what was found."""

    name: str
    result: str
    text: str

    def to_dict(self) -> dict[str, str]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.result:<7}  {self.name}: {self.text}"


class NoAnswer(Exception):
    """A sentence; holds no key."""


class Gateway:
    """Asks over one session. `close` it."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self._session = requests.Session()
        # Neither .netrc nor the environment's proxies: the key is for the gateway alone.
        self._session.trust_env = False
        self._session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
        self._key = {"X-Admin-API-Key": key.encode()}

    def get(self, path: str) -> tuple[int, Json]:
        """Without the key."""
        return self._ask("GET", path, {}, TIMEOUT_SECONDS)

    def admin(
        self, method: str, path: str, seconds: float = TIMEOUT_SECONDS
    ) -> tuple[int, Json]:
        return self._ask(method, f"/admin/instances{path}", self._key, seconds)

    def close(self) -> None:
        self._session.close()

    def _ask(
        self, method: str, path: str, headers: dict[str, bytes], seconds: float
    ) -> tuple[int, Json]:
        try:
            answer = self._session.request(
                method,
                self.url + path,
                headers=headers,
                timeout=seconds,
                # It would take the key along to another host.
                allow_redirects=False,
            )
            body = answer.json()
        except requests.JSONDecodeError:
            raise NoAnswer(
                f"HTTP {answer.status_code} without JSON; is it the gateway?"
            ) from None
        except requests.Timeout:
            raise NoAnswer(f"No answer within {seconds:.0f} s.") from None
        except requests.exceptions.SSLError:
            raise NoAnswer("Its certificate is not trusted; see REQUESTS_CA_BUNDLE.") from None
        except requests.RequestException as error:
            raise NoAnswer(f"No answer ({type(error).__name__}); does it run?") from None
        if not isinstance(body, dict):
            raise NoAnswer(f"HTTP {answer.status_code} with other JSON; is it the gateway?")
        return answer.status_code, body


def check(gateway: Gateway, *, verify: bool, backup_tool: Path) -> Iterator[Check]:
    """One after the other, as they are done; ends early if nobody answers."""
    try:
        yield _health(gateway)
        yield _ready(gateway)
        instances = _instances(gateway)
        yield _list(instances)
        for each in instances:
            yield _instance(each)
            if verify and each["config"]["enabled"]:
                yield _verified(gateway, each["config"]["name"])
    except NoAnswer as error:
        yield Check("gateway", FAILED, f"{gateway.url}: {error}")
    yield backups(gateway.url, backup_tool)


def _health(gateway: Gateway) -> Check:
    status, body = gateway.get("/health")
    problem = body.get("problem")
    if status != 200:
        return Check("health", FAILED, _said(status, body))
    return Check("health", FAILED if problem else OK, problem or "no problem")


def _ready(gateway: Gateway) -> Check:
    status, body = gateway.get("/ready")
    if status == 200:
        return Check("ready", OK, "clients can be served")
    return Check("ready", FAILED, body.get("problem") or _said(status, body))


def _instances(gateway: Gateway) -> list[Json]:
    """Page by page. Raises NoAnswer."""
    found: list[Json] = []
    while True:
        path = f"?limit={PAGE}&offset={len(found)}"
        status, body = gateway.admin("GET", path)
        if status != 200:
            raise NoAnswer(_said(status, body))
        found += body["instances"]
        if not body["instances"] or len(found) >= body["total"]:
            return found


def _list(instances: list[Json]) -> Check:
    enabled = sum(each["config"]["enabled"] for each in instances)
    text = f"{len(instances)} instances, {enabled} enabled"
    return Check("instances", OK if enabled else FAILED, text)


def _instance(instance: Json) -> Check:
    config, state = instance["config"], instance["state"]
    name, status = f"instance {config['name']}", state["status"]
    if not config["enabled"]:
        return Check(name, OK, "disabled")
    if status in WELL:
        return Check(name, OK, status)
    return Check(name, FAILED, _short(f"{status}: {state['last_error']}"))


def _verified(gateway: Gateway, name: str) -> Check:
    what = f"verify {name}"
    status, body = gateway.admin("POST", f"/{quote(name)}/verify", VERIFY_SECONDS)
    if status != 200:
        return Check(what, FAILED, _said(status, body))
    bad = [c for c in body["checks"] if not c["ok"]]
    wrong = [f"{c['model']}: {c['detail']}" for c in bad if c["model"] is not None]
    if wrong:
        return Check(what, FAILED, _short(" ".join(wrong)))
    # Of what serves any model, or too many, there is nothing to try; that is no fault of it.
    untried = [c["detail"] for c in bad]
    if untried:
        return Check(what, SKIPPED, _short(" ".join(untried)))
    return Check(what, OK, f"{len(body['checks'])} deployments answered")


def backups(url: str, tool: Path) -> Check:
    """What `backup_monitor.py monitor` says of the database and its newest backup."""
    if not tool.is_file():
        return Check("backups", SKIPPED, f"there is no {tool.name}")
    if not _is_here(url):
        return Check("backups", SKIPPED, "they are on the gateway's host; check there")
    environment = {k: v for k, v in os.environ.items() if k != WEBHOOK_VARIABLE}
    try:
        done = subprocess.run(
            [sys.executable, str(tool), "monitor", "--json"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=BACKUP_SECONDS,
            check=False,
        )
        told = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return Check("backups", FAILED, f"not read within {BACKUP_SECONDS:.0f} s")
    except json.JSONDecodeError:
        return Check("backups", FAILED, f"{tool.name} failed; run it to see why")
    alerts = [alert["text"] for alert in told.get("alerts", [])] + told["problems"]
    if done.returncode == 2:  # not its kind of database
        return Check("backups", SKIPPED, _short(" ".join(alerts)))
    if alerts:
        return Check("backups", FAILED, _short(" ".join(alerts)))
    return Check("backups", OK, "the newest is whole and not too old")


def _is_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _said(status: int, body: Json) -> str:
    error = body.get("error")
    message = error.get("message", "") if isinstance(error, dict) else ""
    return _short(f"HTTP {status}. {message}")


def _short(text: str) -> str:
    return " ".join(text.split())[:TEXT_CHARACTERS]
