"""Whoever tells how much was done tells the same: what the clients themselves counted."""

import json
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from proxy import create_app
from proxy.context import EXTENSION
from proxy.settings import load_settings
from proxy.simulator import Simulator
from tests.e2e.conftest import ADMIN_KEY, Gateway, add_instance, free_port, until
from tests.web.conftest import log_kept

ADMIN = {"X-Admin-API-Key": ADMIN_KEY}
THREADS = 8
RPM = 3
# That works; of which the first instance has too many requests, or fails twice; for which both
# find the request bad; at which both fail.
WELL, BUSY, SHAKY, PICKY, BROKEN = MODELS = (
    *("gpt-4o", "gpt-35-turbo-instruct", "text-embedding-3-small", "o1", "o3"),
)
SHAKY_FAILURES = 2
HI = [{"role": "user", "content": "Hi"}]
CHAT = {"model": WELL, "messages": HI}
STREAM = CHAT | {"stream": True, "stream_options": {"include_usage": True}}

Json = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """What one client got. `instance` is the one that answered, "" if none was asked."""

    status: int
    client: str
    instance: str
    prompt: int = 0
    completion: int = 0


@dataclass(frozen=True)
class Keys:
    app: str
    small: str


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, simulator: Simulator
) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path_factory.mktemp("figures"), free_port())
    gateway.client_key = "none is made"
    gateway.start()
    yield gateway
    gateway.stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def keys(gateway: Gateway, simulator: Simulator) -> Keys:
    """Of two clients, when all workers know them and both instances."""
    made = [
        requests.post(f"{gateway.url}/admin/keys", json=client, headers=ADMIN, timeout=10)
        for client in ({"name": "app"}, {"name": "small", "max_rpm": RPM})
    ]
    for resource in simulator.resources.values():
        resource.region = resource.name
        # The first is asked first, and fails at some.
        rank = {"east": 1, "west": 2}[resource.name]
        add_instance(gateway, resource, supported_models=MODELS, priority=rank)
    return Keys(*(answer.json()["key"] for answer in made))


def asked(gateway: Gateway, key: str, client: str, body: Any, path: str) -> Seen:
    answer = requests.post(
        f"{gateway.url}/v1/{path}",
        headers={"Authorization": f"Bearer {key}"},
        timeout=30,
        **({"data": body} if isinstance(body, bytes) else {"json": body}),
    )
    usage = usage_of(answer) if answer.ok else {}
    return Seen(
        answer.status_code,
        client,
        answer.headers.get("x-ms-region", ""),
        usage.get("prompt_tokens", 0),
        usage.get("completion_tokens", 0),
    )


def usage_of(answer: requests.Response) -> Json:
    if not answer.headers["Content-Type"].startswith("text/event-stream"):
        return answer.json()["usage"]
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if "{" in line]
    return next(event["usage"] for event in events if event.get("usage"))


def done(gateway: Gateway, simulator: Simulator, keys: Keys) -> list[Seen]:
    """A bit of everything, by several threads at once."""
    simulator["east"].faults[BUSY] = "429"
    simulator["east"].faults[SHAKY] = f"500*{SHAKY_FAILURES}"
    for resource in simulator.resources.values():
        resource.faults[PICKY] = "bad-request"
        resource.faults[BROKEN] = "500"

    def app(body: Any, path: str = "chat/completions") -> Callable[[], Seen]:
        return lambda: asked(gateway, keys.app, "app", body, path)

    mix = [
        *[app(CHAT), app(CHAT), app(STREAM)] * 30,
        *[app({"model": BUSY, "prompt": "Hi"}, "completions")] * 10,
        *[app({"model": SHAKY, "input": "Hi"}, "embeddings")] * 10,
        *[app({"model": PICKY, "messages": HI}), app(b"{"), app(CHAT | {"model": "none"})] * 6,
        *[lambda: asked(gateway, "sk-nobody", "", CHAT, "chat/completions")] * 3,
        *[lambda: asked(gateway, keys.small, "small", CHAT, "chat/completions")] * (RPM + 2),
        app({"model": BROKEN, "messages": HI}),
    ]
    with ThreadPoolExecutor(THREADS) as pool:
        return [each.result() for each in [pool.submit(one) for one in mix]]


@dataclass(frozen=True)
class Counted:
    """What clients saw, and how often each instance was asked for each deployment."""

    seen: list[Seen]
    tried: dict[str, Counter[str]]

    def figures(self, **what: str) -> Json:
        """Those of a report that can be known from outside, of all or of one instance or
        client."""
        seen = [s for s in self.seen if all(getattr(s, n) == v for n, v in what.items())]
        good = [s for s in seen if s.status == 200]
        tokens = sum(s.prompt for s in good), sum(s.completion for s in good)
        return {
            "requests": len(seen),
            "succeeded": len(good),
            "limited": sum(s.status == 429 for s in seen),
            "lost": sum(s.status >= 500 for s in seen),
            "client": sum(s.status in (400, 401, 404) for s in seen),
            "tokens": (*tokens, sum(tokens)),
        }

    def attempts(self, name: str) -> Json:
        tried, is_first = self.tried[name], name == "east"
        return {
            "attempts": tried.total(),
            "upstream_429": tried[BUSY] if is_first else 0,
            "upstream_5xx": tried[BROKEN] + (SHAKY_FAILURES if is_first else 0),
            "upstream_4xx": 0,
            "connection": 0,
        }

    def all_attempts(self) -> Json:
        east, west = self.attempts("east"), self.attempts("west")
        return {name: east[name] + west[name] for name in east}


def figures_of(shown: Json) -> Json:
    tokens = shown["tokens"]
    return {
        **{name: shown[name] for name in ("requests", "succeeded", "limited", "lost")},
        "client": shown["errors"]["client"],
        "tokens": (tokens["prompt"], tokens["completion"], tokens["total"]),
    }


def attempts_of(shown: Json) -> Json:
    names = ("upstream_429", "upstream_5xx", "upstream_4xx", "connection")
    return {"attempts": shown["attempts"], **{name: shown["errors"][name] for name in names}}


@pytest.fixture(scope="module")
def counted(gateway: Gateway, simulator: Simulator, keys: Keys) -> Counted:
    """When all of it has come to the database."""
    seen = done(gateway, simulator, keys)
    tried = {
        name: Counter(received.path.split("/")[3] for received in resource.requests)
        for name, resource in simulator.resources.items()
    }
    until(
        lambda: shown(gateway, "stats")["total"]["requests"] >= len(seen),
        "both workers have written what they counted",
    )
    return Counted(seen, tried)


def shown(gateway: Gateway, path: str) -> Json:
    return requests.get(f"{gateway.url}/admin/{path}", headers=ADMIN, timeout=10).json()


def test_the_mix_has_something_of_everything(counted: Counted):
    statuses = Counter(s.status for s in counted.seen)
    assert set(statuses) == {200, 400, 401, 404, 429, 500}
    assert {s.instance for s in counted.seen} == {"east", "west", ""}
    assert counted.tried["west"][BUSY] == counted.tried["west"][SHAKY] + 8 == 10
    assert min(counted.tried["east"][name] for name in MODELS) > 0


def test_the_admin_api_counts_as_clients_did_whichever_worker_answers(
    gateway: Gateway, counted: Counted
):
    stats = shown(gateway, "stats?group_by=instance&series=minute")
    assert figures_of(stats["total"]) == counted.figures()
    assert attempts_of(stats["total"]) == counted.all_attempts()
    groups = {group["name"]: group for group in stats["groups"]}
    for name in ("east", "west"):
        assert figures_of(groups[name]) == counted.figures(instance=name)
        assert attempts_of(groups[name]) == counted.attempts(name)
    assert sum(point["requests"] for point in stats["series"]) == len(counted.seen)
    rows = shown(gateway, "usage?by=day&group_by=client")["rows"]
    for client in ("app", "small", ""):
        (row,) = (r for r in rows if r["client"] == client)  # unless it is midnight
        assert figures_of(row) == counted.figures(client=client)
    assert gateway.agreed(lambda: shown(gateway, "stats")["total"], stats["total"], times=6)
    assert counted.figures()["limited"] == 2


def test_the_metrics_say_so_too(gateway: Gateway, counted: Counted):
    told = requests.get(f"{gateway.url}/metrics", timeout=10).text
    families = {f.name: f.samples for f in text_string_to_metric_families(told)}

    def total(name: str, **labels: str) -> float:
        samples = [s for s in families[name] if s.name.endswith(("_total", "_count"))]
        return sum(s.value for s in samples if labels.items() <= s.labels.items())

    whole = counted.figures()
    requests_refused = total("gateway_requests_refused")
    assert total("gateway_requests") + requests_refused == whole["requests"]
    assert total("gateway_requests_refused", reason="limited") == whole["limited"]
    assert total("gateway_requests_lost") == whole["lost"]
    assert total("gateway_first_byte_seconds") == whole["succeeded"]
    assert total("gateway_tokens") == whole["tokens"][2]
    for client in ("app", "small", ""):
        clients = counted.figures(client=client)["requests"]
        assert total("gateway_client_requests", client=client) == clients
    for name in ("east", "west"):
        mine, tried = counted.figures(instance=name), counted.attempts(name)
        assert total("gateway_requests", instance_name=name) == mine["requests"]
        for kind, tokens in zip(("prompt", "completion"), mine["tokens"], strict=False):
            assert total("gateway_tokens", instance_name=name, kind=kind) == tokens
        for outcome, number in (
            ("succeeded", mine["succeeded"]),
            ("rejected", counted.tried[name][PICKY]),
            ("throttled", tried["upstream_429"]),
            ("failed", tried["upstream_5xx"]),
        ):
            assert total("gateway_attempts", instance_name=name, outcome=outcome) == number


def command(gateway: Gateway, *arguments: str) -> Json:
    """As in a process of its own, which would take seconds to start."""
    settings = load_settings(environ=gateway.environment(), env_file=None)
    with log_kept():
        app = create_app(settings)
    result = app.test_cli_runner().invoke(args=arguments)
    app.extensions[EXTENSION].database.dispose()
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_commands_say_so_too(gateway: Gateway, counted: Counted):
    def is_over() -> bool:
        """A worker tells the others what it has in flight once a second or so."""
        instances = command(gateway, "top", "--json")["instances"]
        return [row["in_flight"] for row in instances] == [0, 0]

    until(is_over, "nothing is in flight")
    usage = command(gateway, "usage", "--json", "--group-by", "instance")
    top = command(gateway, "top", "--json")
    stats = shown(gateway, "stats?group_by=instance")
    assert top["usage"] == stats["total"]
    groups = {group.pop("name"): group for group in stats["groups"]}
    for row in top["instances"]:
        assert row["usage"] == groups[row["name"]]
    for name in ("east", "west"):
        (row,) = (r for r in usage["rows"] if r["instance"] == name)  # unless an hour ended
        assert figures_of(row) == counted.figures(instance=name)
        assert attempts_of(row) == counted.attempts(name)


def test_the_console_says_so_too(gateway: Gateway, counted: Counted):
    whole, failed = counted.figures(), counted.all_attempts()
    with requests.Session() as browser:
        door = f"{gateway.url}/admin/ui/sign-in"
        token = re.search(r'name="csrf_token" value="([^"]+)"', browser.get(door).text)
        assert token is not None
        signed_in = browser.post(door, data={"csrf_token": token[1], "key": ADMIN_KEY})
        assert signed_in.ok, signed_in.text

        def text(page: str) -> str:
            live = browser.get(f"{gateway.url}/admin/ui/live/{page}").text
            return " ".join(re.sub(r"<[^>]+>", " ", live).split())

        overview, table = text("overview"), text("instances")
    assert f"Requests in 15 minutes {whole['requests']} {whole['succeeded']} " in overview
    assert f"Tokens in 15 minutes {whole['tokens'][2]:,} {whole['tokens'][0]:,} in" in overview
    assert f"429: {failed['upstream_429']} · 5xx: {failed['upstream_5xx']}" in overview
    assert f"client&#39;s: {whole['client']} · refused here: {whole['limited']}" in overview
    for name in ("east", "west"):
        mine = counted.figures(instance=name)
        cells = re.search(rf"\b{name}\b.*? no limit (\S+) (\S+) tokens ", table)
        assert cells is not None, table
        assert cells.groups() == (f"{mine['requests']:,}", f"{mine['tokens'][2]:,}")
        errors = counted.attempts(name) | {"client": counted.tried[name][PICKY]}
        words = {"upstream_429": "429", "upstream_5xx": "5xx", "client": "client&#39;s"}
        told = " · ".join(f"{words[kind]}: {errors[kind]}" for kind in words if errors[kind])
        assert f" % {told} Verify" in table
