"""What is read when /metrics is asked, of one worker or another."""

from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from proxy.core.deltas import OPERATOR, Rest
from proxy.core.usage import COUNTERS, FIRST_BYTE, LATENCY
from proxy.runtime.metrics import Metrics, _is_barred
from proxy.runtime.roster import Entry
from proxy.runtime.snapshot import Snapshots
from proxy.runtime.syncer import Syncer
from proxy.store import instances, keys
from proxy.store import usage_sums as sums_module
from proxy.store.db import StoreUnavailable
from proxy.store.usage_sums import UsageSums
from tests.builders import AUTHOR, KEPT, MODEL, config
from tests.runtime.world import PROMPT, World


class Worker:
    """One process of several: with its own memory, and everybody's database."""

    def __init__(self, database, *configs, entries=None, most_clients=10):
        self.world = World(*configs)
        self.snapshots = Snapshots(database)
        self.syncer = Syncer(
            database,
            self.world.state,
            self.snapshots,
            interval_seconds=1,
            kept=KEPT,
            clock=self.world.clock,
        )
        self.syncer.sync()
        self.metrics = Metrics(
            version="1.2.3",
            workers=2,
            most_clients=most_clients,
            database=database,
            snapshots=self.snapshots,
            state=self.world.state,
            clients=self.syncer._clients,
            roster=SimpleNamespace(read=lambda: entries or {}),
            clock=self.world.clock,
        )

    def read(self, family):
        """Labels to values."""
        found = [r for r in self.metrics.read() if r.family == family]
        assert len({r.labels for r in found}) == len(found)
        return {r.labels: r.value for r in found}


@pytest.fixture
def make_worker(database):
    """A function from configs that are in the database from the first time on."""
    known = set()
    with ExitStack() as stack:

        def make(*configs, **options):
            new = [each for each in configs if each.name not in known]
            if new:
                known.update(each.name for each in new)
                with database.session() as session:
                    instances.add(session, new, author=AUTHOR)
            worker = Worker(database, *configs, **options)
            stack.callback(worker.syncer.stop)
            return worker

        yield make


A = config("a", supported_models=(MODEL,), max_tpm=1000)


def test_counters_are_of_all_workers_whoever_is_asked(make_worker):
    one, two = make_worker(A), make_worker(A)
    one.world.forward()
    for worker in (two, one):
        worker.world.forward()
        worker.syncer.sync()
    for worker in (one, two):
        assert worker.read("gateway_requests_total") == {("a", MODEL): 3}
        tokens = worker.read("gateway_tokens_total")
        assert tokens["a", MODEL, "prompt"] == 3 * PROMPT
        assert worker.read("gateway_client_requests_total") == {}  # "app" has no key


def test_a_worker_that_is_killed_takes_nothing_along(make_worker):
    one, two = make_worker(A), make_worker(A)
    one.world.forward()
    one.syncer.sync()
    before = two.read("gateway_attempts_total")
    one.world.forward()  # and it is killed before it wrote that
    del one
    assert make_worker(A).read("gateway_attempts_total") == before
    assert before["a", MODEL, "succeeded"] == 1


def test_counters_never_fall_while_what_was_counted_waits_to_be_written(make_worker):
    one, two = make_worker(A), make_worker(A)
    one.world.forward()
    assert one.read("gateway_requests_total") == two.read("gateway_requests_total") == {}


def test_without_the_database_there_are_no_counters_and_all_else(make_worker, monkeypatch):
    worker = make_worker(A)
    worker.world.forward()
    worker.syncer.sync()

    def fail(_connection):
        raise StoreUnavailable("It is locked.")

    assert worker.read("gateway_database_up") == {(): 1}
    monkeypatch.setattr(sums_module, "read", fail)
    assert worker.read("gateway_database_up") == {(): 0}
    assert worker.read("gateway_requests_total") == {}
    assert worker.read("gateway_instance_enabled") == {("a",): 1}


def test_buckets_of_a_histogram_are_counted_apart_and_its_sum_is_in_seconds(
    make_worker, monkeypatch
):
    counts = dict.fromkeys(COUNTERS, 0)
    counts |= {"first_byte_total_ms": 1500, FIRST_BYTE[0]: 2, FIRST_BYTE[-1]: 1}
    served = UsageSums({("a", "m"): counts}, {}, {})
    monkeypatch.setattr(sums_module, "read", lambda _: served)
    worker = make_worker()
    (found,) = (r for r in worker.metrics.read() if r.family == "gateway_first_byte_seconds")
    assert (found.value, found.counts[0], found.counts[-1]) == (1.5, 2, 1)
    assert sum(found.counts) == 3


def test_how_long_answers_take_is_told_by_model(make_worker, monkeypatch):
    served = sums([("a", "m"), ("b", "m"), ("a", ""), ("a", "other")], requests=1)
    models = sums([("m",), ("",), ("other",), ("not told",)], latency_total_ms=1500)
    models["m",] |= {"latency_total_ms": 3000, LATENCY[3]: 4}
    monkeypatch.setattr(sums_module, "read", lambda _: UsageSums(served, models, {}))
    family = "gateway_request_duration_seconds"
    found = {r.labels: r for r in make_worker().metrics.read() if r.family == family}
    assert (found["m",].value, found["m",].counts[3], sum(found["m",].counts)) == (3.0, 4, 4)
    # Requests without a model of ours are no model named other.
    assert set(found) == {("m",), ("",), ("other",)}


def sums(keys, **counts):
    zero = dict.fromkeys(COUNTERS, 0)
    return {key: {**zero, **counts} for key in keys}  # each its own


def test_requests_for_which_nobody_was_asked_are_told_by_reason(make_worker, monkeypatch):
    served = sums([("", "m"), ("", "")], requests=3, refused=2, limited=1)
    monkeypatch.setattr(sums_module, "read", lambda _: UsageSums(served, {}, {}))
    worker = make_worker()
    refused = worker.read("gateway_requests_refused_total")
    assert (refused["m", "refused"], refused["m", "limited"]) == (2, 1)
    assert refused["", "refused"] == 2  # of names that clients made up
    assert worker.read("gateway_requests_total") == {}


def test_it_is_told_how_many_are_left_out(make_worker, monkeypatch):
    monkeypatch.setattr(sums_module, "read", lambda _: UsageSums({}, {}, {}, dropped=2))
    assert make_worker().read("gateway_usage_series_dropped") == {(): 2}


def test_the_first_clients_are_told_one_by_one(database, make_worker, monkeypatch):
    with database.session() as session:
        for name in ("one", "two", "three"):
            keys.add(session, name, {"max_tokens_per_day": 10}, author=AUTHOR)
    by_client = sums([("one",), ("two",), ("three",), ("removed",), ("",)], requests=1)
    monkeypatch.setattr(sums_module, "read", lambda _: UsageSums({}, {}, by_client))
    worker = make_worker(most_clients=2)
    told = {labels[0] for labels in worker.read("gateway_client_requests_total")}
    assert told == {"one", "two", ""}
    assert set(worker.read("gateway_client_tokens_limit")) == {("one", "day"), ("two", "day")}


LIMITS = {
    "max_tpm": 100,
    "max_rpm": 10,
    "max_parallel_requests": 3,
    "max_tokens_per_month": 1000,
    "max_cost_per_day": 2.0,
}


def test_of_a_client_with_limits_is_told_what_is_left(database, make_worker):
    with database.session() as session:
        keys.add(session, "app", LIMITS, author=AUTHOR)
        keys.add(session, "free", {}, author=AUTHOR)
    worker = make_worker()
    (app,) = (k.client for k in worker.snapshots.current.keys.values() if k.client.max_rpm)
    clients = worker.syncer._clients
    clients.start(app, 50, 0)
    clients.start(app, 40, 0).settle(SimpleNamespace(total_tokens=30), 500_000_000)
    assert worker.read("gateway_client_calls_in_flight") == {("app",): 1}
    assert worker.read("gateway_client_calls_limit") == {("app",): 3}
    assert worker.read("gateway_client_requests_remaining") == {("app",): 8}
    assert worker.read("gateway_client_tokens_limit") == {
        ("app", "minute"): 100,
        ("app", "month"): 1000,
    }
    assert worker.read("gateway_client_tokens_remaining") == {
        ("app", "minute"): 20,
        ("app", "month"): 970,
    }
    assert worker.read("gateway_client_cost_remaining") == {("app", "day"): 1.5}


def test_what_is_in_flight_is_summed_up_over_all_workers(make_worker):
    now = World().clock.now
    entries = {
        0: Entry(2, 512, 1, now - 3, False, 7, {"a": 2}, 4, 528),
        3: Entry(1, 512, 0, 0.0, True, 6, {"a": 1, "gone": 1}),
    }
    worker = make_worker(A, config("b"), entries=entries)
    assert worker.read("gateway_attempts_in_flight") == {("a",): 3, ("b",): 0, ("gone",): 1}
    assert worker.read("gateway_calls_open") == {("0",): 2, ("3",): 1}
    assert worker.read("gateway_threads_busy") == {("0",): 4}
    assert worker.read("gateway_threads_limit") == {("0",): 528}
    assert worker.read("gateway_sync_age_seconds") == {("0",): 3}  # the other never did
    assert worker.read("gateway_sync_failed") == {("0",): 0, ("3",): 1}
    assert worker.read("gateway_config_revision") == {("0",): 7, ("3",): 6}


def test_what_is_in_flight_alone_is_told_without_the_database(make_worker, statements):
    entries = {0: Entry(2, 512, 1, 0.0, False, 7, {"a": 2})}
    worker = make_worker(A, entries=entries)
    asked = statements(worker.metrics._database)
    found = list(worker.metrics.read({"gateway_attempts_in_flight"}))
    assert [(r.labels, r.value) for r in found] == [(("a",), 2)]
    assert asked == []
    some = {"gateway_workers", "gateway_database_up"}
    assert {r.family for r in worker.metrics.read(some)} == some


def ones(found, name):
    return {labels[1] for labels, value in found.items() if labels[0] == name and value}


def test_an_instance_says_how_it_is(make_worker):
    worker = make_worker(A, config("b", enabled=False))
    assert worker.read("gateway_instance_enabled") == {("a",): 1, ("b",): 0}
    assert ones(worker.read("gateway_instance_status"), "a") == {"healthy"}
    assert ones(worker.read("gateway_breaker_state"), "a") == {"closed"}
    worker.world.state.rest("a", worker.world.clock.now + 30)
    assert ones(worker.read("gateway_instance_status"), "a") == {"rate_limited"}
    assert worker.read("gateway_rest_seconds") == {("a", "", OPERATOR): 30}


def test_one_whose_secret_cannot_be_read_is_misconfigured(make_worker):
    worker = make_worker(config("a", api_key="env:NOT_SET_ANYWHERE"))
    assert ones(worker.read("gateway_instance_status"), "a") == {"misconfigured"}


def test_rests_of_deployments_that_only_clients_named_are_told_together(make_worker):
    named = config("a", supported_models=(), model_deployments={MODEL: "d"})
    worker = make_worker(named)
    now = worker.world.clock.now
    for deployment, seconds in (("d", 5), ("made up", 7), ("made up, too", 9)):
        worker.world.state._add_rest("a", deployment, Rest(now + seconds, "throttled", now))
    assert worker.read("gateway_rest_seconds") == {
        ("a", "d", "throttled"): 5,
        ("a", "other", "throttled"): 9,
    }


def test_what_is_left_of_limits_is_told_of_instances_deployments_and_models(make_worker):
    limited = config(
        "a", supported_models=(MODEL,), max_tpm=1000, model_limits={MODEL: {"max_tpm": 400}}
    )
    worker = make_worker(limited, config("b", max_tpm=0), config("off", enabled=False))
    worker.world.forward()
    used = worker.world.state.view("a").current_tpm
    assert used > 0
    assert worker.read("gateway_instance_tokens_limit") == {("a",): 1000}
    assert worker.read("gateway_instance_tokens_remaining") == {("a",): 1000 - used}
    assert worker.read("gateway_deployment_tokens_limit") == {("a", MODEL): 400}
    assert worker.read("gateway_deployment_tokens_remaining") == {("a", MODEL): 400 - used}
    # b serves any model, and has no limit.
    assert worker.read("gateway_model_tokens_remaining") == {}


def test_of_an_instance_that_rests_a_model_has_nothing_left(make_worker):
    worker = make_worker(A)
    assert worker.read("gateway_model_tokens_remaining") == {(MODEL,): 1000}
    worker.world.state.rest("a", worker.world.clock.now + 30)
    assert worker.read("gateway_model_tokens_remaining") == {(MODEL,): 0}
    assert worker.read("gateway_model_tokens_limit") == {(MODEL,): 1000}


@pytest.mark.parametrize(
    "breaker, barred", [("closed", False), ("open", True), ("half_open", True)]
)
def test_of_one_that_fails_nothing_is_left_until_it_answers_again(breaker, barred):
    views = {"a": SimpleNamespace(breaker=breaker, rests={})}
    assert _is_barred(SimpleNamespace(config=A, deployment=MODEL), views) is barred


def test_it_says_which_version_runs(make_worker):
    ((version, python),) = make_worker().read("gateway_build_info")
    assert (version, python.split(".")[0]) == ("1.2.3", "3")
