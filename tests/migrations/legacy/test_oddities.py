"""Oddities of real files, one by one: each as it was found, and what becomes of it."""

import json
import os
import stat

import pytest

from migrations.legacy import report
from migrations.legacy.run import ImportRefused
from tests.migrations.legacy.files import KEY, RECORD, STATE, record, write
from tests.migrations.legacy.imports import imported, rows

WHOLE = f"api_key: {KEY}, api_base: 'https://a.example'"


@pytest.fixture
def old(tmp_path):
    return tmp_path / "old"


@pytest.fixture
def carried(database, old):
    """What stands in the table of config after an import of these records, in one list."""

    def carry(*records):
        write(old, "instances.json", {"timestamp": 1.0, "instances": records})
        imported(database, old)
        return rows(database, "instance_config")

    return carry


@pytest.fixture
def refused(database, old):
    """The report about these records, in one list, none of which is imported."""

    def refuse(*records):
        write(old, "instances.json", {"timestamp": 1.0, "instances": records})
        with pytest.raises(ImportRefused) as caught:
            imported(database, old)
        assert rows(database, "instance_config") == {}
        return str(caught.value)

    return refuse


def from_yaml(database, old, text, **environ):
    write(old, "config/base.yaml", text)
    outcome = imported(database, old, environ=environ)
    return rows(database, "instance_config"), outcome.as_text()


def test_an_api_base_with_a_trailing_slash(carried):
    assert (
        carried(record(api_base="https://a.example/"))["a"]["api_base"] == "https://a.example/"
    )


def test_names_and_models_in_mixed_case(carried):
    more = {"supported_models": ["GPT-4o"], "model_deployments": {"gpt-4o": "X"}}
    row = carried(record("Azure2", **more))["Azure2"]
    assert {key: row[key] for key in more} == more


@pytest.mark.parametrize(
    "deployments, note",
    [
        ({"GPT-4o": "x", "gpt-4o": "y"}, "'GPT-4o' and 'gpt-4o': the old program looked"),
        ({"GPT-4o": "x", "gpt-4o": "y"}, "so 'gpt-4o' counted; here each counts as it is"),
        ({"GPT-4o": "x", "Gpt-4o": "y"}, "so none of them counted"),
    ],
)
def test_deployments_of_one_model_in_two_cases(database, old, deployments, note):
    write(old, "instance_configs.json", {"a": record(model_deployments=deployments)})
    text = imported(database, old).as_text()
    assert rows(database, "instance_config")["a"]["model_deployments"] == deployments
    assert note in text


@pytest.mark.parametrize(
    "deployments", [{"GPT-4o": "x", "gpt-4o": "x"}, {"GPT-4o": "x", "gpt-4.1": "y"}, {}]
)
def test_deployments_that_do_not_depend_on_case_have_no_note(database, old, deployments):
    write(old, "instance_configs.json", {"a": record(model_deployments=deployments)})
    assert "lower case" not in imported(database, old).as_text()


def test_names_with_spaces_and_slashes(carried):
    assert carried(record("Azure East US/1")).keys() == {"Azure East US/1"}


def test_duplicate_names_that_agree(carried):
    assert carried(record(), record()).keys() == {"a"}


def test_duplicate_names_that_disagree(refused):
    assert "max_tpm: Disagrees with instances[0]" in refused(record(), record(max_tpm=5))


def test_a_dict_key_and_an_inner_name_that_differ(database, old):
    write(old, "instance_configs.json", {"key": record("inner")})
    outcome = imported(database, old)
    assert rows(database, "instance_config").keys() == {"key"}
    assert "`name` inside is 'inner': the key 'key' counts" in outcome.as_text()


def test_a_record_without_a_name(refused):
    text = refused(record(), {k: v for k, v in RECORD.items() if k != "name"})
    assert "instances[1]: name: It has no name. Give the record a name" in text


def test_a_record_without_an_api_key(refused):
    text = refused({k: v for k, v in RECORD.items() if k != "api_key"})
    assert "instances[0] ('a'): api_key: It has no key." in text


def test_the_api_key_none(carried):
    assert carried(record(api_key="NONE"))["a"]["api_key"] == "NONE"


def test_integers_as_strings(database, old):
    write(old, "instance_configs.json", {"a": record(max_tpm="30000")})
    text = imported(database, old).as_text()
    assert rows(database, "instance_config")["a"]["max_tpm"] == 30_000
    assert "converted max_tpm: '30000' -> 30000" in text


def test_negative_limits(refused):
    text = refused(record(max_tpm=-5))
    assert "max_tpm: Must be greater than or equal to 0" in text
    assert "Found: -5." in text


def test_stats_that_are_null(carried):
    assert carried(record(stats=None)).keys() == {"a"}


def test_an_error_count_that_is_many(refused):
    text = refused(record(stats={"error_count": "many"}))
    assert "error_count: Must be a whole number that is not negative. Found: 'many'." in text


def test_unknown_keys(carried):
    unknown = {"deployment_name": "x", "tags": ["a"], "is_healthy": True, "instance_stats": {}}
    assert carried(RECORD | unknown)["a"]["legacy_extra"] == unknown


def test_a_file_cut_in_the_middle(database, old):
    text = json.dumps({"a": record(), "b": record("b")}, indent=2)
    write(old, "instance_configs.json", text[: len(text) // 2])
    with pytest.raises(ImportRefused, match=r"The file seems to be cut off\."):
        imported(database, old)
    assert rows(database, "instance_config") == {}


def test_yaml_lists_of_base_and_environment_that_were_concatenated(database, old):
    write(old, "config/base.yaml", f"instances: [{{name: a, {WHOLE}, priority: 1}}]")
    write(old, "config/production.yaml", f"instances: [{{name: a, {WHOLE}, priority: 2}}]")
    counts = report.counts(imported(database, old).plan)
    assert rows(database, "instance_config")["a"]["priority"] == 2
    assert (counts["found"], counts["imported"], counts["merged"]) == (2, 1, 1)


def test_a_yaml_variable_as_a_whole_value_and_within_one(database, old):
    text = (
        "instances: [{name: a, api_key: '${K}', api_base: 'https://a.example', tag: 'x${K}'}]"
    )
    there, told = from_yaml(database, old, text, K=KEY)
    assert (there["a"]["api_key"], there["a"]["legacy_extra"]) == (KEY, {"tag": "x${K}"})
    assert "`tag` has ${K} within its value: the old program did not replace it" in told


def test_a_yaml_variable_that_is_missing(database, old):
    text = "instances: [{name: a, api_key: '${K}', api_base: 'https://a.example'}]"
    with pytest.raises(ImportRefused) as caught:
        from_yaml(database, old, text)
    assert "`api_key` is empty: the variable K is not set" in str(caught.value)


def test_a_yaml_date_without_quotes(database, old):
    text = f"instances: [{{name: a, {WHOLE}, api_version: 2024-05-15}}]"
    there, _ = from_yaml(database, old, text)
    assert there["a"]["api_version"] == "2024-05-15"


def test_yaml_without_the_keys_that_came_later(database, old):
    there, _ = from_yaml(database, old, f"instances: [{{name: a, {WHOLE}}}]")
    later = {"enabled": True, "timeout_seconds": 60.0, "retry_count": 3}
    assert {key: there["a"][key] for key in later} == later


def test_files_that_everybody_can_read_and_that_hold_live_keys(database, old):
    file = write(old, "instance_configs.json", {"a": RECORD, "b": record("b", max_tpm=-1)})
    file.chmod(0o666)
    before = os.umask(0)
    try:
        outcome = imported(database, old, skip_bad=True)
    finally:
        os.umask(before)
    assert stat.S_IMODE(outcome.backup.stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in outcome.backup.iterdir()} == {0o600}
    assert KEY not in outcome.as_text()


def test_states_of_the_sibling_program_in_go(database, old):
    write(old, "instance_configs.json", {"a": RECORD})
    state = STATE | {"last_used": "2025-03-17T08:00:00Z", "last_error_time": 1_742_198_400}
    write(old, "instance_states.json", {"a": state})
    imported(database, old)
    row = rows(database, "instance_state")["a"]
    assert (row["last_used"], row["last_error_time"]) == (1742198400.0, 1742198400.0)


def test_env_values_with_comments_and_with_quoted_ones(database, old):
    lines = (
        "API_INSTANCES=a",
        f"API_INSTANCE_A_API_KEY='{KEY}#no-comment'",
        "API_INSTANCE_A_API_BASE=https://a.example # inline",
        "API_INSTANCE_A_MAX_TPM=30000   # inline comment",
    )
    write(old, ".env", "\n".join(lines))
    imported(database, old)
    row = rows(database, "instance_config")["a"]
    assert (row["api_key"], row["max_tpm"]) == (f"{KEY}#no-comment", 30_000)
