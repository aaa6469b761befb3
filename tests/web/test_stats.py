"""What the gateway tells of its use, compared with what was asked of the simulated Azure."""

import csv
import io
import time

import pytest

from proxy.core import verdict
from proxy.web import counted, schemas_usage
from proxy.web.stats import as_csv
from tests.builders import MODEL
from tests.web.conftest import ADMIN, CHAT, STREAM


def get(world, path, **query):
    answer = world.client.get(f"/admin/{path}", query_string=query, headers=ADMIN)
    assert answer.status_code == 200, answer.text
    return answer.get_json()


def total(world, **query):
    world.parts.syncer.sync()
    return get(world, "stats", **{"window": 5} | query)["total"]


def test_stats_agree_with_what_was_done(world):
    """Through the whole app: successes, a stream, a bad request, an unknown key and model, a
    429 that another instance makes good, and a mistake that an instance told of."""
    world.add("a", supported_models=[MODEL], priority=1)
    world.add("b", supported_models=[MODEL], priority=2)
    tokens = {"prompt": 0, "completion": 0}
    for _ in range(5):
        used = world.ask().get_json()["usage"]
        tokens["prompt"] += used["prompt_tokens"]
        tokens["completion"] += used["completion_tokens"]
    shown = total(world)["tokens"]
    assert {kind: shown[kind] for kind in tokens} == tokens
    assert world.ask(STREAM).status_code == 200
    assert world.ask(b"{").status_code == 400
    assert world.ask(CHAT | {"model": "made-up"}).status_code == 404
    assert world.ask(headers={"Authorization": "Bearer nobody"}).status_code == 401
    world.simulator["a"].faults["*"] = "429"
    assert world.ask().status_code == 200  # b's
    world.simulator["b"].faults["*"] = "bad-request"
    assert world.ask().status_code == 400
    world.parts.syncer.sync()
    found = get(world, "stats", window=5, group_by="model", series="minute")
    whole = found["total"]
    assert (whole["requests"], whole["succeeded"]) == (11, 7)
    assert whole["attempts"] == sum(world.asked()) == 9
    assert whole["errors"] == {
        **{"client": 4, "ours": 0, "upstream_429": 1},
        **{"upstream_4xx": 0, "upstream_5xx": 0, "connection": 0, "timeout": 0},
    }
    assert (whole["success_rate"], whole["attempt_success_rate"]) == (1.0, 0.875)
    assert {g["name"]: g["requests"] for g in found["groups"]} == {MODEL: 8, "": 3}
    assert sum(point["requests"] for point in found["series"]) == 11
    assert whole["latency_ms"]["p50"] is not None
    rows = get(world, "usage", by="minute", group_by="client,instance")["rows"]
    assert sum(row["requests"] for row in rows) == 11
    assert {(row["client"], row["instance"]) for row in rows} == {
        *(("app", "a"), ("app", "b"), ("app", ""), ("", ""))
    }


@pytest.mark.parametrize(
    "path, schema",
    [
        ("stats?group_by=model&series=minute", schemas_usage.StatsSchema),
        ("stats/instances", schemas_usage.InstancesStatsSchema),
        ("usage?group_by=instance,model,client", schemas_usage.UsageReportSchema),
    ],
)
def test_what_is_answered_is_what_the_schema_says(world, path, schema):
    world.add("a")
    world.ask()
    world.parts.syncer.sync()
    found = world.client.get(f"/admin/{path}", headers=ADMIN).get_json()
    assert schema().dump(schema().load(found)) == found


def test_a_failure_that_nobody_makes_good_is_lost(world):
    world.add("a", retry_count=0)
    world.simulator["a"].faults["*"] = "500"
    assert world.ask().status_code >= 500
    found = total(world, instance="a")
    assert (found["requests"], found["lost"], found["success_rate"]) == (1, 1, 0.0)
    assert found["errors"]["upstream_5xx"] == found["attempts"]


def test_clients_that_wait_for_a_moment_only_make_nothing_critical(world):
    world.add("a")
    world.simulator["a"].faults["*"] = "hang"
    in_a_hurry = {"x-request-timeout-ms": "1"}
    assert {world.ask(headers=in_a_hurry).status_code for _ in range(10)} == {504}
    found = total(world)
    assert (found["requests"], found["lost"], found["aborted"]) == (10, 0, 10)
    assert found["errors"]["timeout"] == 0
    assert get(world, "stats/health")["status"] == "healthy"


def test_a_504_for_want_of_time_is_lost_and_nobody_left(world, monkeypatch):
    monkeypatch.setattr(verdict, "HASTY_SECONDS", 0.0)
    world.add("a")
    world.simulator["a"].faults["*"] = "hang"
    in_a_hurry = {"x-request-timeout-ms": "1"}
    assert {world.ask(headers=in_a_hurry).status_code for _ in range(10)} == {504}
    found = total(world)
    assert (found["requests"], found["lost"], found["aborted"]) == (10, 10, 0)
    assert (found["success_rate"], found["errors"]["timeout"]) == (0.0, found["attempts"])
    health = get(world, "stats/health")
    assert health["status"] == "critical"
    assert health["reasons"] == ["Of the requests of the last minutes 0.0 % succeeded."]


def test_a_limit_of_the_key_is_told_from_a_lack_of_instances(world):
    world.add("a")
    world.client_key = world.add_client("small", max_rpm=1)
    assert [world.ask().status_code for _ in range(2)] == [200, 429]
    world.parts.state.rest("a", 2e9)
    world.client_key = world.add_client("other")
    assert world.ask().status_code == 429
    assert total(world, client="small")["limited"] == 1
    found = total(world)
    assert (found["errors"]["ours"], found["limited"], found["success_rate"]) == (2, 1, 0.5)


def test_each_instance_has_its_figures_and_its_state(world):
    world.add("a", priority=1)
    world.add("b", priority=2, enabled=False)
    world.ask()
    world.parts.syncer.sync()
    found = get(world, "stats/instances", window=60)["instances"]
    assert [(i["name"], i["status"], i["requests"]) for i in found] == [
        *(("a", "healthy", 1), ("b", "disabled", 0))
    ]
    assert found[0]["current_rpm"] == 1


def test_health_says_how_it_is_in_one_sentence(world):
    assert get(world, "stats/health")["status"] == "critical"
    world.add("a", supported_models=[MODEL], max_tpm=1000)
    world.add("b", supported_models=[MODEL, "o1"], max_tpm=1000)
    found = get(world, "stats/health")
    assert (found["status"], found["reasons"]) == ("healthy", [])
    world.parts.state.rest("b", 2e9)
    found = get(world, "stats/health")
    assert found["status"] == "critical"
    assert found["reasons"][0] == "No instance that serves o1 can be asked now."
    assert found["sentence"].startswith("1 of 2 instances rests; ")
    assert found["budgets"] == {MODEL: 0.5, "o1": 0.0}


def test_money_is_in_the_report_as_csv_too(world):
    world.add("a")
    price = {"prompt_per_million": 1_000_000, "completion_per_million": 0}
    world.client.put(f"/admin/prices/{MODEL}", json=price, headers=ADMIN)
    prompt = world.ask().get_json()["usage"]["prompt_tokens"]
    world.parts.syncer.sync()
    answer = world.client.get("/admin/usage?format=csv&group_by=model&by=day", headers=ADMIN)
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert (row["model"], float(row["cost"]), row["requests"]) == (MODEL, prompt, "1")
    assert int(row["tokens_prompt"]) == prompt


def test_csv_of_nothing_has_its_line_of_names_and_no_formula_gets_in():
    assert as_csv([], ["model"]).startswith("at,model,requests,")
    assert as_csv([{"model": "=1+1"}], ["model"]).splitlines()[1].startswith(",'=1+1,0")


@pytest.mark.parametrize(
    "path, param",
    [
        ("stats?window=7", "window"),
        ("stats?window=5&from=2020-01-01", "window"),
        ("stats?from=tomorrow", "from"),
        ("stats?from=20&to=10", "from"),
        ("stats?group_by=colour", "group_by"),
        ("stats?colour=1", "colour"),
        ("stats/instances?group_by=model", "group_by"),
        ("usage?group_by=model,colour", "group_by"),
        ("usage?by=week", "by"),
    ],
)
def test_an_error_names_the_field(shared_world, path, param):
    answer = shared_world.client.get(f"/admin/{path}", headers=ADMIN)
    assert (answer.status_code, answer.get_json()["error"]["param"]) == (422, param)


@pytest.mark.parametrize(
    "query, days, remedy",
    [
        ("by=minute", 3, "or by hour or day."),
        ("by=hour", 91, "or by day."),
        ("by=day", 1200, "on."),
    ],
)
def test_what_is_not_kept_so_finely_any_more_is_refused_with_what_is(
    shared_world, query, days, remedy
):
    since = int(time.time()) - days * 86_400
    answer = shared_world.client.get(f"/admin/usage?{query}&from={since}", headers=ADMIN)
    error = answer.get_json()["error"]
    assert (answer.status_code, error["param"]) == (422, "from")
    assert "usage is kept since 20" in error["message"]
    assert error["message"].endswith(remedy)


def test_all_that_is_kept_may_be_asked_for_in_one_sum(shared_world):
    found = shared_world.client.get("/admin/stats?from=0", headers=ADMIN).get_json()
    assert found["from"] > time.time() - 1101 * 86_400


def test_a_series_over_exactly_the_time_that_is_kept_is_answered(shared_world):
    since = int(time.time()) - 2 * 86_400
    answer = shared_world.client.get(f"/admin/usage?by=minute&from={since}", headers=ADMIN)
    assert (answer.status_code, answer.get_json()["from"] - since <= 60) == (200, True)


def test_too_many_rows_are_refused(world, monkeypatch):
    monkeypatch.setattr(counted, "MAX_ROWS", 1)
    world.add("a", supported_models=[MODEL])
    world.ask()
    world.ask(CHAT | {"model": "made-up"})
    world.parts.syncer.sync()
    answer = world.client.get("/admin/usage?group_by=model", headers=ADMIN)
    assert answer.status_code == 422
    assert "more than 1 rows" in answer.get_json()["error"]["message"]
