import logging

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from proxy.core.histogram import BOUNDS_MS
from proxy.core.metrics import FAMILIES
from proxy.core.sources import networks
from proxy.web.metrics import PAUSE_SECONDS
from tests.builders import MODEL
from tests.web.conftest import ADMIN, STREAM

TOKEN = "planted-metrics-token-0123"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
ELSEWHERE = {"REMOTE_ADDR": "192.0.2.7"}
LIMITS = {
    "max_tpm": 100_000,
    "max_rpm": 100,
    "max_parallel_requests": 9,
    "max_tokens_per_day": 10**6,
    "max_cost_per_month": 3.0,
}
ODD = 'a "b"\\c d é'


def status(world, headers=None, **environ):
    return world.client.get("/metrics", headers=headers, environ_base=environ).status_code


def families(world):
    answer = world.client.get("/metrics")
    assert answer.status_code == 200
    return {family.name: family for family in text_string_to_metric_families(answer.text)}


def values(family):
    return {tuple(s.labels.values()): s.value for s in family.samples if "le" not in s.labels}


@pytest.fixture
def busy(world):
    """One that has something of everything to tell."""
    limited = {MODEL: {"max_tpm": 1000}}
    world.add("a", supported_models=[MODEL], model_limits=limited, quota_group="east us")
    group = world.client.put(
        "/admin/quota-groups/east us", headers=ADMIN, json={"max_tpm": 5000}
    )
    assert group.status_code < 300, group.text
    world.client_key = world.add_client("limited", **LIMITS)
    world.ask()
    world.ask(STREAM)
    world.ask({"model": "nobody has it", "messages": []})
    world.parts.syncer.sync()
    world.parts.state.rest("a", 4e9)
    world.parts.roster.threads = _Threads
    yield world
    world.parts.roster.threads = None


class _Threads:
    busy, size = 3, 528


def test_prometheus_reads_it_and_finds_every_family(busy):
    found = families(busy)
    names = {f.name.removesuffix("_total"): f for f in FAMILIES}
    assert set(found) == set(names)
    for name, family in found.items():
        expected = names[name]
        assert (family.type, family.documentation) == (expected.kind, expected.help)
        assert family.samples
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(expected.labels)
        assert len({(s.name, *sorted(s.labels.items())) for s in family.samples}) == len(
            family.samples
        )


def test_it_is_told_in_open_metrics_if_that_is_asked_for(busy):
    answer = busy.client.get("/metrics", headers={"Accept": "application/openmetrics-text"})
    assert answer.content_type.startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
    found = {family.name: family.type for family in openmetrics_families(answer.text)}
    assert found["gateway_first_byte_seconds"] == "histogram"


def test_the_numbers_are_those_of_what_was_asked(busy):
    found = families(busy)
    assert values(found["gateway_requests"])["a", MODEL] == 2
    assert values(found["gateway_requests_refused"])["", "mistaken"] == 1
    assert values(found["gateway_client_requests"])["limited",] == 3
    assert values(found["gateway_threads_busy"]) == {("0",): 3}
    instance = {"instance_name": "a", "model": MODEL}
    buckets = [
        (float(s.labels["le"]), s.value)
        for s in found["gateway_first_byte_seconds"].samples
        if s.labels.items() >= instance.items() and "le" in s.labels
    ]
    assert [bound for bound, _ in buckets] == [b / 1000 for b in BOUNDS_MS] + [float("inf")]
    assert [count for _, count in buckets] == sorted(count for _, count in buckets)
    assert buckets[-1][1] == 2


def test_odd_names_are_told_as_they_are(world):
    world.add(ODD, api_base=world.simulator["a"].url)
    names = values(families(world)["gateway_instance_enabled"])
    assert names == {(ODD,): 1}


def test_now_and_then_it_lets_others_have_the_interpreter(busy, monkeypatch):
    pauses = []
    monkeypatch.setattr("proxy.web.metrics.time.sleep", pauses.append)
    monkeypatch.setattr("proxy.web.metrics.TOGETHER", 10)
    text = busy.client.get("/metrics").text
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(pauses) >= len(lines) // 10
    assert set(pauses) == {PAUSE_SECONDS}


# Who may read it.


def test_by_default_only_this_host_may(world):
    assert status(world) == 200
    assert status(world, REMOTE_ADDR="::1") == 200
    answer = world.client.get("/metrics", environ_base=ELSEWHERE)
    assert answer.status_code == 403
    assert "PROXY_METRICS_NETWORKS" in answer.get_json()["error"]["message"]


def test_other_networks_may_be_named(make_world):
    world = make_world(metrics_networks=networks(["192.0.2.0/24"]))
    assert status(world, **ELSEWHERE) == 200
    assert status(world, REMOTE_ADDR="127.0.0.1") == 403


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"])
def test_what_a_proxy_on_this_host_passes_on_is_not_of_this_host(world, header):
    assert status(world, {header: "127.0.0.1"}) == 403


def test_a_trusted_proxy_is_believed(make_world):
    world = make_world(trusted_proxies=networks(["127.0.0.1"]))
    assert status(world, {"X-Forwarded-For": "127.0.0.2"}) == 200
    assert status(world, {"X-Forwarded-For": "192.0.2.7"}) == 403
    # Another one on this host is none of them.
    assert status(world, {"X-Forwarded-For": "127.0.0.2"}, REMOTE_ADDR="127.0.0.9") == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Real-IP": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"Via": "1.1 front"},
        {"X-Forwarded-For": ""},
    ],
)
def test_a_trusted_proxy_that_does_not_say_for_whom_it_asks_gets_nothing(make_world, headers):
    world = make_world(trusted_proxies=networks(["127.0.0.1"]))
    assert status(world, headers) == 403
    assert status(world, headers | {"X-Forwarded-For": "127.0.0.2"}) == 200


@pytest.mark.parametrize(
    "headers, expected",
    [
        (BEARER, 200),
        ({"Authorization": f"bearer  {TOKEN}"}, 200),
        ({"Authorization": f"Basic {TOKEN}"}, 401),
        ({"Authorization": "Bearer "}, 401),
        ({"Authorization": "Bearer é"}, 401),
        ({}, 401),
    ],
)
def test_who_has_the_token_may_from_wherever(make_world, headers, expected):
    world = make_world(metrics_token=TOKEN)
    assert status(world, headers, **ELSEWHERE) == expected
    assert status(world) == 200  # from here nobody needs it


def test_without_networks_it_takes_the_token(make_world):
    world = make_world(metrics_token=TOKEN, metrics_networks=())
    assert (status(world), status(world, BEARER)) == (401, 200)


def test_an_empty_token_opens_nothing(world):
    assert status(world, {"Authorization": "Bearer"}, **ELSEWHERE) == 403
    assert status(world, {"Authorization": "Bearer "}, **ELSEWHERE) == 403


def test_a_wrong_token_is_logged_and_after_some_answered_429(make_world, caplog):
    world = make_world(metrics_token=TOKEN)
    logging.getLogger("proxy").propagate = True
    wrong = {"Authorization": "Bearer planted-wrong-token-4567"}
    statuses = [status(world, wrong) for _ in range(7)]  # also from here: it is a mistake
    assert statuses[0] == 401
    assert statuses[-1] == 429
    assert "a wrong metrics token: source=127.0.0.1" in caplog.text
    assert status(world, BEARER) == 200


def test_the_log_is_not_filled_with_it(make_world, tmp_path):
    world = make_world(log_dir=tmp_path)
    assert status(world) == 200
    assert world.client.get("/nothing").status_code == 404
    log = world.log()
    assert "path=/nothing" in log
    assert "/metrics" not in log


def test_each_reading_is_of_a_family(busy):
    labels = {family.name: family.labels for family in FAMILIES}
    for reading in busy.parts.metrics.read():
        assert len(reading.labels) == len(labels[reading.family])
