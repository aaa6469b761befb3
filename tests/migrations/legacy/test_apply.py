from pathlib import Path

import pytest
from sqlalchemy import event, text

from migrations.legacy.apply import apply
from migrations.legacy.records import Era
from proxy.core.deltas import TOTALS, Deltas
from proxy.core.types import Serving
from proxy.runtime.state import State
from proxy.store import instances, states
from tests.builders import AUTHOR, call, config
from tests.migrations.legacy.imports import CONFIG, LATER, NOW, contents, found, planned, rows

COUNTS = {
    "error_count": 1,
    "total_requests": 20,
    "successful_requests": 10,
    "total_tokens_served": 5_000_000_000,
    "total_upstream_400_errors": 3,
    "total_upstream_429_errors": 4,
    "total_upstream_500_errors": 5,
    "total_upstream_other_errors": 6,
}
STATE = COUNTS | {
    "last_error": "429: busy",
    "last_error_time": 1.5e9,
    "last_used": 1.6e9,
    "avg_latency_ms": 512.25,
    "total_errors_503": 7,
}
PASSWORD = "planted-password"
NOT_COMPARED = ("legacy_import",)


def applied(database, *records, now=NOW):
    with database.write() as connection:
        source, backup = Path("/old"), Path("/backup")
        return apply(connection, planned(*records), source=source, backup=backup, now=now)


def add_deltas(database, name="a", **counts):
    """As a worker does that used the instance."""
    deltas = Deltas()
    deltas.add_totals(name, counts)
    with database.write() as connection:
        states.add(connection, deltas)


def compared(database):
    return {k: v for k, v in contents(database).items() if k not in NOT_COMPARED}


def rest_until(database, name="a"):
    with database.read() as connection:
        rest = states.read(connection, NOW).rests.get((name, ""))
    return rest and rest.until


def set_rest(database, until):
    with database.write() as connection:
        connection.execute(
            text("INSERT INTO deployment_state VALUES ('a', '', :until, 'operator', 1.0)"),
            {"until": until},
        )


def test_a_config_is_one_as_the_proxy_reads_it(database):
    more = {
        "provider_type": "generic",
        "proxy_url": "http://user:pa%40ss@10.0.0.5:3128",
        "supported_models": ["GPT-4o"],
        "model_deployments": {"gpt-4o": "x"},
        "timeout_seconds": 7.5,
        "enabled": False,
    }
    result = applied(database, found(**more))
    assert result.imported == ["a"]
    with database.read() as connection:
        (stored,) = instances.load_all(connection)
    expected = CONFIG | more | {"provider_type": "openai", "api_version": "2023-05-15"}
    expected |= {"supported_models": ("GPT-4o",)}
    assert stored.config == config("a", **expected)
    assert (stored.created_at, stored.updated_at) == (NOW, NOW)


def test_each_config_makes_a_revision_that_is_its_version_and_has_no_secret(database):
    proxy = f"http://user:{PASSWORD}@10.0.0.5:3128"
    applied(database, *(found(f"a{n}", proxy_url=proxy) for n in range(1500)))
    there = contents(database)
    (revision,) = there["config_revision"]
    assert (revision["author"], revision["action"]) == ("migration", "instance imported")
    changes = {c["name"]: c["changes"] for c in there["config_change"]}
    assert len(changes) == 1500
    for row in there["instance_config"]:
        assert row["revision"] == revision["id"]
        assert row["name"] == changes[row["name"]]["name"][1]
    assert CONFIG["api_key"] not in repr(changes)
    assert PASSWORD not in repr(changes)


def test_state_goes_to_the_table_of_state_field_by_field(database):
    assert applied(database, found(state=STATE)).states == ["a"]
    row = rows(database, "instance_state")["a"]
    expected = COUNTS | {
        "latency_total_ms": 5122,
        "last_error": "429: busy",
        "last_error_time": 1.5e9,
        "last_used": 1.6e9,
        "legacy_imported_at": NOW,
    }
    assert {k: row[k] for k in expected} == expected
    kept = {"avg_latency_ms": 512.25, "successful_requests": 10, "total_errors_503": 7}
    assert row["legacy_state"] == kept


def test_totals_are_added_to_what_is_there_once(database):
    add_deltas(database, total_requests=5, successful_requests=5, latency_total_ms=100)
    applied(database, found(state=STATE))
    for _ in range(2):
        with database.read() as connection:
            totals = states.read(connection, NOW).instances["a"].totals
        mine = {"total_requests": 5, "successful_requests": 5, "latency_total_ms": 5222}
        expected = COUNTS | {"latency_total_ms": 0}
        assert totals == {c: expected[c] + mine.get(c, 0) for c in TOTALS}
        assert applied(database, found(state=STATE), now=NOW + 1).states == []


def test_of_two_last_errors_and_uses_the_later_counts(database):
    for name, error_time, used in (("later", 9.0, 9.0), ("earlier", 1.0, 1.0)):
        with database.write() as connection:
            connection.exec_driver_sql(
                "INSERT INTO instance_state (instance_name, last_error, last_error_time,"
                " last_used, total_requests, successful_requests, error_count,"
                " total_tokens_served, total_upstream_400_errors, total_upstream_429_errors,"
                " total_upstream_500_errors, total_upstream_other_errors, latency_total_ms,"
                f" write_number) VALUES ('{name}', 'ours', {error_time}, {used}, {'0, ' * 9} 0)"
            )
    old = {"last_error": "theirs", "last_error_time": 5.0, "last_used": 5.0}
    applied(database, found("later", state=old), found("earlier", state=old))
    found_rows = rows(database, "instance_state")
    moments = ("last_error", "last_error_time", "last_used")
    assert [found_rows["later"][m] for m in moments] == ["ours", 9.0, 9.0]
    assert [found_rows["earlier"][m] for m in moments] == ["theirs", 5.0, 5.0]


def test_an_error_without_a_time_is_carried(database):
    add_deltas(database, total_requests=1)
    applied(database, found(state={"last_error": "boom"}))
    row = rows(database, "instance_state")["a"]
    assert (row["last_error"], row["last_error_time"]) == ("boom", None)


def test_a_rest_that_is_not_over_is_one_of_the_running_proxy(database):
    until = NOW + 30
    applied(database, found(state={"rate_limited_until": until}), found("b"))
    clock = [NOW]
    state = State(lambda: clock[0])
    servings = [Serving(config("a"), "x"), Serving(config("b"), "x")]
    with database.read() as connection:
        state.merge(states.read(connection, NOW))
    assert state.view("a").status == "rate_limited"
    a, b = state.refusals(servings, call())
    assert b is None
    assert (a.reason, a.wait_seconds) == ("throttled", 30)
    clock[0] = until
    assert state.refusals(servings, call()) == [None, None]


@pytest.mark.parametrize("present", [NOW - 1, NOW + 1, NOW + 100])
def test_of_two_rests_the_longer_counts(database, present):
    with database.session() as session:
        instances.add(session, [config("a")], author=AUTHOR)
    set_rest(database, present)
    applied(database, found(state={"rate_limited_until": NOW + 30}))
    assert rest_until(database) == max(present, NOW + 30)


def test_rests_of_a_removed_instance_are_not_of_the_one_that_is_imported(database):
    set_rest(database, LATER)
    applied(database, found())
    assert rest_until(database) is None


def test_running_it_twice_changes_nothing_but_the_list_of_imports(database):
    records = [
        found(state=STATE | {"rate_limited_until": LATER}, extra={"tags": ["x"]}),
        found("b", config=None, state=STATE),
    ]
    applied(database, *records)
    before = compared(database)
    result = applied(database, *records, now=NOW + 1)
    assert (result.imported, result.states, result.kept) == ([], [], {"a": []})
    assert compared(database) == before
    first, second = contents(database)["legacy_import"]
    assert first["counts"]["written"] == {"configs": 1, "states": 2}
    assert second["counts"]["written"] == {"configs": 0, "states": 0}
    assert first["counts"]["found"] == second["counts"]["found"] == 2
    assert (first["source"], first["backup_folder"]) == ("/old", "/backup")


def test_what_an_operator_changed_between_two_imports_is_kept_and_told(database):
    applied(database, found(priority=5))
    with database.session() as session:
        instances.change(session, "a", {"priority": 7, "enabled": False}, author=AUTHOR)
    before = compared(database)
    result = applied(database, found(priority=5, weight=3))
    assert result.kept == {"a": ["priority", "weight", "enabled"]}
    assert compared(database) == before


def test_what_an_operator_removed_after_an_import_does_not_come_back(database):
    applied(database, found(state=STATE))
    with database.session() as session:
        instances.remove(session, "a", author=AUTHOR)
    before = compared(database)
    assert applied(database, found(state=STATE)).removed == ["a"]
    assert compared(database) == before


def test_state_that_was_found_later_is_still_added(database):
    applied(database, found())
    assert applied(database, found(state=STATE)).states == ["a"]


def test_unknown_keys_are_kept_with_the_row_also_where_it_exists(database):
    with database.session() as session:
        instances.add(session, [config("a")], author=AUTHOR)
    extra = {"tags": ["x"], "deployment_name": "y"}
    applied(database, found(extra=extra), found("b", extra=extra), found("c"))
    there = rows(database, "instance_config")
    assert [there[n]["legacy_extra"] for n in "abc"] == [extra, extra, None]
    with database.read() as connection:
        nulls = connection.exec_driver_sql(
            "SELECT name FROM instance_config WHERE legacy_extra IS NULL"
        )
        assert nulls.scalars().all() == ["c"]


def test_unknown_keys_that_are_found_later_are_kept_beside_what_was_written_for_nothing(
    database,
):
    applied(database, found(proxy_url=""))
    for extra in ({"tags": ["x"]}, {"tags": ["later"]}):
        applied(database, found(proxy_url="", extra=extra))
    kept = rows(database, "instance_config")["a"]["legacy_extra"]
    assert kept == {"proxy_url": "", "tags": ["x"]}


def test_unknown_keys_without_a_config_are_kept_with_the_state(database):
    applied(database, found(config=None, state=STATE, extra={"tags": ["x"]}))
    assert rows(database, "instance_config") == {}
    kept = rows(database, "instance_state")["a"]["legacy_state"]
    assert kept["extra"] == {"tags": ["x"]}


def test_unknown_keys_that_json_has_not_are_kept_as_text(database):
    # YAML has sets and bytes, and Python's JSON has NaN, which other databases refuse.
    applied(database, found(extra={"a": {1}, "b": b"x", "c": float("nan")}))
    kept = rows(database, "instance_config")["a"]["legacy_extra"]
    assert kept == {"a": "{1}", "b": "b'x'", "c": "NaN"}


def test_later_tables_may_have_more_columns(database):
    with database.write() as connection:
        for table in ("instance_config", "instance_state", "deployment_state"):
            connection.exec_driver_sql(
                f"ALTER TABLE {table} ADD COLUMN later INTEGER NOT NULL DEFAULT 7"
            )
    applied(database, found(state=STATE | {"rate_limited_until": LATER}))
    assert rows(database, "instance_config")["a"]["later"] == 7


def test_an_earlier_table_may_lack_a_column_that_the_schema_has(database):
    with database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE instance_config DROP COLUMN retry_count")
    applied(database, found())
    assert "retry_count" not in rows(database, "instance_config")["a"]


def test_statements_do_not_grow_with_the_number_of_instances(database):
    # 10,000 instances are to take less than 10 s.
    statements = []

    @event.listens_for(database.engine, "before_cursor_execute")
    def count(connection, cursor, statement, *_):
        statements.append(statement)

    def records(prefix, number):
        state = STATE | {"rate_limited_until": LATER}
        return [found(f"{prefix}{n}", state=state, era=Era.FLAT) for n in range(number)]

    applied(database, *records("few", 2))
    few = len(statements)
    statements.clear()
    applied(database, *records("many", 500))
    assert len(statements) <= few
    statements.clear()
    for n in range(500):
        add_deltas(database, f"used{n}", total_requests=1)
    statements.clear()
    applied(database, *records("used", 500))
    assert len(statements) <= few + 2
    assert len(rows(database, "instance_state")) == 1002


def test_workers_that_run_see_what_was_added(database):
    add_deltas(database, total_requests=1)
    with database.read() as connection:
        before = states.read(connection, NOW)
    applied(database, found(state={"total_requests": 4}), found("b", state={"error_count": 1}))
    with database.read() as connection:
        since = states.read(connection, NOW, before.number).instances
    assert since["a"].totals["total_requests"] == 5
    assert since["b"].totals["error_count"] == 1
