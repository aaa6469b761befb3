import pytest

from migrations.legacy.convert import COUNTERS, OLD_TOTALS, convert_config, convert_state
from tests.migrations.legacy.imports import CONFIG, FILE, LATER, NOW, found

GO = "2025-03-17T08:00:00.123456789+01:00"
GO_NEVER = "0001-01-01T00:00:00Z"


def config(**values):
    return convert_config(found(**values))


def state(**values):
    return convert_state(found(config=None, state=values), NOW)


def problem(carried):
    assert len(carried.problems) == 1
    return carried.problems[0]


def test_what_a_file_does_not_say_is_as_the_old_program_took_it():
    carried = config()
    assert carried.problems == carried.converted == []
    assert carried.config == CONFIG | {
        "name": "a",
        "provider_type": "azure",
        "api_version": "2023-05-15",
        "proxy_url": None,
        "priority": 100,
        "weight": 100,
        "max_tpm": 240_000,
        "max_input_tokens": 0,
        "supported_models": [],
        "model_deployments": {},
        "enabled": True,
        "timeout_seconds": 60.0,
        "retry_count": 3,
        "rate_limit_enabled": True,
        "max_rpm": 0,
        "model_limits": {},
        "quota_group": None,
        "auth": "key",
    }


@pytest.mark.parametrize("empty", [None, ""])
@pytest.mark.parametrize("field", ["proxy_url", "api_version", "max_tpm", "supported_models"])
def test_null_and_empty_are_as_if_the_file_did_not_say(field, empty):
    carried = config(**{field: empty})
    assert (carried.config, carried.problems) == (config().config, [])


@pytest.mark.parametrize(
    "field, given, taken",
    [
        ("max_tpm", "30000", 30_000),
        ("priority", " -5 ", -5),
        ("priority", "+5", 5),
        ("retry_count", 5.0, 5),  # as programs write that know no integers
        ("timeout_seconds", "7.5", 7.5),
        ("timeout_seconds", "60", 60.0),
        ("enabled", "False", False),
        ("rate_limit_enabled", "yes", True),
        ("enabled", 0, False),
        ("enabled", 1.0, True),
        ("rate_limit_enabled", 1, True),
        ("supported_models", ["a", "b", "a"], ["a", "b"]),
    ],
)
def test_what_is_plainly_meant_is_converted_and_listed(field, given, taken):
    carried = config(**{field: given})
    assert (carried.config[field], carried.problems) == (taken, [])
    (converted,) = carried.converted
    assert (converted.field, converted.before) == (field, repr(given))
    assert converted.after == repr(taken)


@pytest.mark.parametrize(
    "field, given",
    [
        ("max_tpm", "1e3"),
        ("max_tpm", "1_000"),
        ("max_tpm", "30,000"),
        ("max_tpm", "many"),
        ("max_tpm", 5.5),
        ("max_tpm", True),
        ("max_tpm", -5),
        ("max_tpm", 2**63),
        ("max_tpm", "9" * 30),
        ("priority", float("nan")),
        ("weight", float("inf")),
        ("timeout_seconds", float("nan")),
        ("timeout_seconds", float("inf")),
        ("timeout_seconds", "60s"),
        ("timeout_seconds", 0),
        ("enabled", 2),
        ("enabled", 0.5),
        ("enabled", "maybe"),
        ("provider_type", "aws"),
        ("supported_models", "gpt-4o"),
        ("supported_models", {}),
        ("supported_models", 0),
        ("supported_models", False),
        ("model_deployments", []),
        ("api_base", "http://169.254.169.254/latest"),
        ("api_base", "http://metadata.google.internal"),
    ],
)
def test_what_is_not_plain_is_a_problem_with_field_value_and_remedy(field, given):
    carried = config(**{field: given})
    found_problem = problem(carried)
    assert carried.config == {}
    assert (found_problem.file, found_problem.record) == (FILE, "key 'a' ('a')")
    assert (found_problem.field, found_problem.value) == (field, repr(given))
    assert found_problem.message
    assert found_problem.remedy == "Correct the value in the file, or take the record out."


def test_a_value_within_a_list_is_named_by_its_place():
    found_problem = problem(config(model_deployments={"gpt-4o": 5}))
    assert found_problem.field.startswith("model_deployments.gpt-4o")
    assert found_problem.value == "5"


def test_every_bad_field_is_a_problem_of_its_own():
    fields = [p.field for p in config(max_tpm=-1, weight=-1, api_base="x").problems]
    assert sorted(fields) == ["api_base", "max_tpm", "weight"]


def test_a_record_without_a_name_is_a_problem():
    found_problem = problem(config(name=None))
    assert (found_problem.field, found_problem.record) == ("name", "key None")
    assert "Give the record a name" in found_problem.remedy


@pytest.mark.parametrize("key", [None, "", 0])
def test_a_record_without_a_key_is_a_problem_that_names_the_word_for_none(key):
    found_problem = problem(config(api_key=key))
    assert (found_problem.field, found_problem.value) == ("api_key", "")
    assert '"NONE"' in found_problem.remedy


def test_the_key_none_means_that_the_server_wants_none():
    assert config(api_key="NONE").config["api_key"] == "NONE"


@pytest.mark.parametrize(
    "name", ["new", "new/a", "migrate", "a/", "/a", "a/config", " a", "a\n", "..", "x" * 101]
)
def test_a_name_that_the_admin_api_would_refuse_is_a_problem(name):
    found_problem = problem(config(name=name))
    assert (found_problem.field, found_problem.value) == ("name", repr(name))
    assert found_problem.remedy == "Give the record a name, or take it out of the file."


@pytest.mark.parametrize("name", ["Azure East US/1", "东部", "a.b", "A" * 100])
def test_names_as_real_files_have_them_are_carried(name):
    assert config(name=name).config["name"] == name


def test_an_address_stays_as_it_is_written():
    written = "https://A.openai.azure.com/openai/"
    assert config(api_base=written).config["api_base"] == written


SECRET = "hunter2-hunter2-hunter2"


@pytest.mark.parametrize(
    "field, value",
    [
        ("max_tpm", SECRET),
        ("supported_models", SECRET),
        ("model_deployments", [SECRET]),
        ("provider_type", SECRET),
        ("timeout_seconds", f"x {SECRET}"),
        ("enabled", {SECRET: 1}),
        ("api_key", f"{SECRET} {SECRET}x y"),
        ("api_key", [SECRET]),
        ("api_key", {SECRET: SECRET}),
        ("api_key", 71_234_567_890),
        ("proxy_url", f"10.0.0.5:3128:user:{SECRET}"),  # as sellers of proxies write it
        ("proxy_url", f"http://10.0.0.5:3128:user:{SECRET}"),
        ("proxy_url", f"socks5://user:{SECRET}@10.0.0.5"),
        ("proxy_url", [SECRET]),
        ("api_base", SECRET),  # columns that were mixed up
        ("api_base", f"https://user:{SECRET}@a.example"),
        ("api_base", f"https://a.example/?api-key={SECRET}"),
        ("api_base", [f"https://user:{SECRET}@a.example"]),
    ],
)
def test_what_may_be_a_secret_is_not_shown_when_it_is_bad(field, value):
    found_problem = problem(config(**{field: value}))
    assert found_problem.field.startswith(field)
    assert found_problem.value
    assert SECRET not in repr(found_problem)
    assert "71" not in repr(found_problem)


def test_a_bad_address_without_secrets_is_shown():
    assert problem(config(api_base="http://a b.example")).value == "'http://a b.example'"


def test_state_that_has_a_meaning_is_carried_and_what_is_derived_is_not():
    counts = dict.fromkeys((*COUNTERS, *OLD_TOTALS), 7)
    more = {"last_error": "boom", "avg_latency_ms": 512.25, "rate_limited_until": LATER}
    moments = {"last_error_time": 1.5, "last_used": 2.5}
    derived = {"status": "error", "current_tpm": 5, "current_error_rate": 0.5}
    windows = {"usage_window": {"1742198400": 5}}
    carried = state(**counts, **more, **moments, **derived, **windows)
    assert carried.problems == carried.converted == []
    assert carried.state == counts | more | moments


@pytest.mark.parametrize("name", [*COUNTERS, *OLD_TOTALS])
@pytest.mark.parametrize("bad", ["many", -1, 1.5, True, 2**63, float("nan"), [], {}])
def test_a_counter_that_is_no_count_is_a_problem(name, bad):
    found_problem = problem(state(**{name: bad}))
    assert (found_problem.field, found_problem.value) == (name, repr(bad))


@pytest.mark.parametrize("given, taken", [("12", 12), (12.0, 12), (" 0 ", 0)])
def test_a_counter_that_is_plainly_one_is_converted_and_listed(given, taken):
    carried = state(total_requests=given)
    assert carried.state == {"total_requests": taken}
    assert [c.before for c in carried.converted] == [repr(given)]


@pytest.mark.parametrize("missing", [None, ""])
def test_counters_and_moments_may_be_missing(missing):
    carried = state(total_requests=missing, last_used=missing, avg_latency_ms=missing)
    assert carried.state == {}
    assert carried.problems == carried.converted == []


@pytest.mark.parametrize(
    "given, seconds",
    [
        (1742198400.12, 1742198400.12),
        (1742198400, 1742198400.0),
        ("1742198400.5", 1742198400.5),
        (GO, 1742194800.123456),
        ("2025-03-17T08:00:00Z", 1742198400.0),
    ],
)
def test_a_moment_is_seconds_or_a_date_with_a_zone(given, seconds):
    carried = state(last_used=given)
    assert (carried.state, carried.problems) == ({"last_used": seconds}, [])
    assert len(carried.converted) == isinstance(given, str)


@pytest.mark.parametrize(
    "never, is_listed", [(0, False), (0.0, False), (-1, True), (GO_NEVER, True)]
)
def test_how_programs_write_never_is_no_moment(never, is_listed):
    carried = state(last_used=never, last_error_time=None)
    assert carried.state == {}
    assert carried.problems == []
    assert [c.after for c in carried.converted] == ["None"] * is_listed


@pytest.mark.parametrize(
    "bad",
    [
        "yesterday",
        "2025-03-17T08:00:00",  # of which zone?
        "0001-01-01T00:00:00",
        "20250317T",
        float("nan"),
        float("inf"),
        float("-inf"),
        10**400,
        1_742_198_400_000,  # milliseconds: a rest until the year 57,178
        True,
        [],
    ],
)
@pytest.mark.parametrize("name", ["last_used", "last_error_time", "rate_limited_until"])
def test_what_is_no_moment_is_a_problem(name, bad):
    assert problem(state(**{name: bad})).field == name


@pytest.mark.parametrize(
    "until, is_carried", [(NOW + 0.1, True), (NOW, False), (NOW - 1, False), (LATER, True)]
)
def test_a_rest_is_carried_while_it_is_not_over(until, is_carried):
    carried = state(rate_limited_until=until)
    assert carried.state == ({"rate_limited_until": until} if is_carried else {})
    assert carried.problems == []


@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf"), "fast", True, []])
def test_a_latency_that_is_none_is_a_problem(bad):
    assert problem(state(avg_latency_ms=bad)).field == "avg_latency_ms"


def test_a_latency_that_no_column_can_hold_is_a_problem():
    assert problem(state(avg_latency_ms=1e10, successful_requests=10**10)).value == repr(1e10)


def test_an_error_that_is_no_text_becomes_text_and_is_listed():
    carried = state(last_error={"code": 429})
    assert carried.state == {"last_error": "{'code': 429}"}
    assert [c.field for c in carried.converted] == ["last_error"]


def test_a_name_longer_than_its_column_is_a_problem_of_state_too():
    carried = convert_state(found("x" * 101, config=None, state={"error_count": 1}), NOW)
    assert problem(carried).field == "name"
