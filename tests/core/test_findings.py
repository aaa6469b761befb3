import pytest

from proxy.core import findings
from proxy.core.findings import DAY_SECONDS, ERROR, OK, SKIPPED, WARNING, Finding

NOW = 1_700_000_000.0
WELL = {"status": "ok", "problem": None}
IN_MEMORY = WELL | {"secret_key": "in memory", "out_of_service": 0}
GB = 1_000_000_000


def only(found):
    (one,) = found
    return one


def severities(found):
    return [f.severity for f in found]


@pytest.mark.parametrize(
    "key, admins, severity",
    [
        ("", 0, WARNING),  # the admin API is closed
        ("", 1, OK),
        ("x" * 15, 1, ERROR),  # it can be guessed
        ("your-admin-api-key", 1, ERROR),  # everybody can read it in README
        ("x" * 16, 0, OK),
    ],
)
def test_somebody_has_to_be_admin_with_a_key_that_nobody_guesses(key, admins, severity):
    found = findings.of_admins(key, admins)
    assert found.severity == severity
    assert not key or key not in str(found)


@pytest.mark.parametrize(
    "auth, bind, keys, expected",
    [
        ("key", "0.0.0.0", 1, []),
        ("key", "127.0.0.1", 0, [WARNING]),
        ("off", "127.0.0.1", 0, [WARNING]),
        ("off", "0.0.0.0", 5, [ERROR]),  # open to a whole network
    ],
)
def test_clients_need_keys(auth, bind, keys, expected):
    assert severities(findings.of_client_auth(auth, bind, keys)) == expected


@pytest.mark.parametrize(
    "total, enabled, severity, remedy",
    [
        (0, 0, ERROR, "Add one: README, First steps."),
        (2, 0, ERROR, "flask instances enable NAME."),
        (2, 1, OK, ""),
    ],
)
def test_somebody_has_to_be_there_to_serve(total, enabled, severity, remedy):
    found = findings.of_instances(total, enabled)
    assert (found.severity, found.remedy) == (severity, remedy)


def test_too_few_files_for_the_threads_is_told_with_both_ways_out():
    assert findings.of_open_files(1736, 1736, 512).severity == OK
    found = findings.of_open_files(1024, 1736, 512)
    assert found.severity == WARNING
    assert "1,024 files; for PROXY_THREADS=512" in found.what
    assert "LimitNOFILE" in found.remedy


@pytest.mark.parametrize("free, severity", [(99_000_000, ERROR), (GB - 1, WARNING), (GB, OK)])
def test_a_disk_that_fills_up(free, severity):
    assert findings.of_disk("/data", free).severity == severity


def test_each_file_that_others_can_read_is_told_with_the_command_that_mends_it():
    one, two = findings.of_exposed(["/a", "/b"])
    assert (one.severity, one.remedy, two.remedy) == (ERROR, "chmod 600 /a", "chmod 600 /b")
    assert only(findings.of_exposed([])).severity == OK


@pytest.mark.parametrize(
    "offsets, severity",
    [
        ([], SKIPPED),
        ([4.9], OK),
        ([5.0], WARNING),
        ([-120.0], ERROR),
        ([0.1, 0.2, 9000.0], OK),  # one upstream's own clock is wrong
    ],
)
def test_the_clock_is_compared_with_most_upstreams(offsets, severity):
    assert findings.of_clock(offsets).severity == severity


def test_a_wrong_clock_is_told_with_its_direction():
    assert findings.of_clock([60.0]).what == "The clock is 60 s behind upstreams'."
    assert findings.of_clock([-60.0]).what == "The clock is 60 s ahead of upstreams'."


@pytest.mark.parametrize(
    "mode, damage, wal_bytes, expected",
    [
        ("wal", None, 0, [OK]),
        ("", None, 0, [OK]),  # PostgreSQL
        ("delete", None, 0, [WARNING]),
        ("wal", "page 3 is gone", 0, [ERROR]),
        ("wal", None, 256_000_001, [WARNING]),
    ],
)
def test_a_database_is_whole_in_wal_mode_and_read_by_nobody_for_ever(
    mode, damage, wal_bytes, expected
):
    assert severities(findings.of_database(mode, damage, 1, wal_bytes)) == expected


def test_secrets_that_cannot_be_decrypted_are_named_but_not_by_thousands():
    found = only(findings.of_secrets(None, 9, 0, [f"row {n}" for n in range(9)]))
    assert found.severity == ERROR
    assert found.what == ("9 secrets cannot be decrypted: row 0; row 1; row 2; and 6 more.")


def test_a_closed_vault_and_an_unfinished_rotation():
    assert severities(findings.of_secrets("it is gone", 0, 0, [])) == [ERROR]
    assert severities(findings.of_secrets(None, 3, 2, [])) == [WARNING, OK]
    assert severities(findings.of_secrets(None, 3, 0, [])) == [OK]


def test_references_that_lead_nowhere_are_told_by_instance():
    found = only(findings.of_references({"a": "api_key: /none cannot be read."}))
    assert found.severity == ERROR
    assert found.what == "Instance a is out of service: api_key: /none cannot be read."


def test_what_only_a_command_lacks_is_no_instance_out_of_service():
    found = only(findings.of_references({"a": "api_key: none."}, serves=True))
    assert found.severity == WARNING
    assert found.what.startswith("Instance a is in service, but would not be")


def test_those_that_are_not_asked_are_named_but_not_by_thousands():
    assert not list(findings.of_not_asked([], serves=True))
    found = only(findings.of_not_asked([f"i{n:02}" for n in range(12)], serves=True))
    assert found.severity == SKIPPED
    assert found.what.endswith("i08, i09 and 2 more.")


@pytest.mark.parametrize(
    "answers, key, serves",
    [
        ([None], None, False),
        ([WELL], None, False),  # of an older version
        ([IN_MEMORY, None, IN_MEMORY], "in memory", True),
        ([IN_MEMORY, IN_MEMORY | {"secret_key": "there"}], "in memory", True),
        ([IN_MEMORY, {"secret_key": "gone", "out_of_service": 3}], "gone", False),
    ],
)
def test_of_what_workers_say_the_worst_counts(answers, key, serves):
    assert (findings.key_of(answers), findings.serves_all(answers)) == (key, serves)


def test_a_key_that_nothing_replaced_is_told_by_instance():
    found = only(findings.of_variables(["a"]))
    assert found.severity == WARNING
    assert found.what.startswith("The key of a names a variable")
    assert "env:NAME" in found.remedy
    assert not list(findings.of_variables([]))


@pytest.mark.parametrize(
    "seconds, what",
    [
        (None, None),
        (14 * DAY_SECONDS + 1, None),
        (14 * DAY_SECONDS, "The key of client app expires in 14 days."),
        (3600, "The key of client app expires in 60 min."),
        (0, "The key of client app has expired."),
    ],
)
def test_keys_that_end_soon(seconds, what):
    expires_at = None if seconds is None else NOW + seconds
    found = only(findings.of_expiries([("client", "app", expires_at)], NOW))
    if what is None:
        assert (found.severity, found.what) == (OK, "None expires within 14 days.")
    else:
        assert (found.severity, found.what) == (WARNING, what)


def test_the_remedy_of_a_key_is_the_command_for_its_kind():
    found = only(findings.of_expiries([("client", "x", None), ("admin", "ann", NOW)], NOW))
    assert found.remedy.startswith("flask admins change --expires 90d -- ann;")
    found = only(findings.of_expiries([("client", "--x $y", NOW)], NOW))
    assert found.remedy.startswith("flask keys change --expires 90d -- '--x $y';")


@pytest.mark.parametrize(
    "answers, expected",
    [
        ([None], [SKIPPED]),  # it does not run: that may be meant so
        ([WELL, WELL], [OK]),
        ([WELL, None], [ERROR]),
        ([WELL, {"problem": "State was last synced 30 s ago."}, WELL], [ERROR]),
    ],
)
def test_what_the_running_workers_say(answers, expected):
    assert severities(findings.of_gateway("http://127.0.0.1:8000", answers)) == expected


def test_what_many_workers_say_alike_is_told_once():
    late = {"problem": "State was last synced 30 s ago."}
    found = only(findings.of_gateway("http://127.0.0.1:8000", [late] * 6))
    assert found.what == "A worker says: State was last synced 30 s ago."


@pytest.mark.parametrize(
    "version, severity",
    [
        ("2024-10-21", OK),
        ("2024-06-01", WARNING),  # the last that refuses stream_options
        ("2025-04-01-preview", OK),
        ("2024-08-01-preview", WARNING),
        ("v1", WARNING),
    ],
)
def test_versions_of_azures_classic_api(version, severity):
    found = only(findings.of_api_versions([("a", version)], (2026, 1, 15)))
    assert found.severity == severity


def test_where_nobody_has_a_version_there_is_nothing_to_say():
    assert list(findings.of_api_versions([], (2026, 1, 15))) == []


def reached(problem=None, *, area="tls", days=None):
    until = None if days is None else NOW + days * DAY_SECONDS
    return findings.of_host("h", problem, area=area, certificate_until=until, now=NOW)


@pytest.mark.parametrize("area", ["dns", "tls", "connection"])
def test_a_host_that_cannot_be_reached_has_a_remedy_by_how_far_it_went(area):
    found = reached("why", area=area)
    assert (found.area, found.severity, found.what) == (area, ERROR, "h: why.")
    assert found.remedy


def test_a_certificate_that_ends_soon_was_forgotten():
    assert reached(days=13.9).severity == WARNING
    assert reached(days=14).severity == OK
    assert reached(area="connection").severity == OK


def test_what_verify_found_of_an_instance():
    assert findings.of_check("a", "deployment", ok=True, detail="x", model="m").severity == OK
    found = findings.of_check("a", "key", ok=False, detail="It was refused.", model="m")
    assert (found.severity, found.what) == (ERROR, "a, m: It was refused.")
    assert "api_key" in found.remedy


def test_that_verify_did_not_know_what_to_try_is_no_error_of_the_instance():
    """One that names no model serves any."""
    found = findings.of_check("a", "deployment", ok=False, detail="It names none.", model=None)
    assert found == findings.skipped("instances", "a: It names none.")


@pytest.mark.parametrize(
    "detail",
    ["HTTP 500", "It broke off its answer.", "No answer: it timed out while we waited for it."],
)
def test_one_that_is_ill_is_not_to_be_configured_otherwise(detail):
    found = findings.of_check("a", "deployment", ok=False, detail=detail, model="m")
    assert found.remedy == findings.ILL_REMEDY


def test_the_summary_counts_what_is_wrong():
    def of(*severities):
        return findings.summary([Finding("x", s, "y") for s in severities])

    assert of(OK) == "Nothing is wrong."
    assert of(ERROR, WARNING, WARNING, OK) == "1 error, 2 warnings."
    assert of(SKIPPED) == "Nothing is wrong, 1 not looked at."
    assert not findings.has_error([Finding("x", WARNING, "y")])
