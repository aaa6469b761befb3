"""Env files of both eras: lists, spellings, and models that lost their punctuation."""

from pathlib import Path

import pytest

from migrations.legacy import env_files
from migrations.legacy.records import Era
from tests.migrations.legacy.files import KEY, told

FILE = Path(".env")


def read(*lines):
    return env_files.read(FILE, "\n".join(lines) + "\n")


def only(*lines):
    reading = read(*lines)
    assert reading.problems == ()
    (found,) = reading.records
    return found


def test_instances_are_listed_in_their_own_case_and_set_in_capitals():
    found = only(
        "API_INSTANCES=Azure1",
        f"API_INSTANCE_AZURE1_API_KEY={KEY}",
        "API_INSTANCE_AZURE1_PRIORITY=1",
        "API_INSTANCE_AZURE1_SUPPORTED_MODELS=gpt-4o, gpt-4.1 ,",
    )
    assert (found.name, found.layout, found.era) == ("Azure1", "E2", Era.ENV_API)
    assert found.place == "API_INSTANCE_AZURE1"
    assert found.config == {
        "name": "Azure1",
        "api_key": KEY,
        "priority": "1",  # text: this layout has nothing else
        "supported_models": ["gpt-4o", "gpt-4.1"],
    }


def test_the_older_era_has_a_list_of_its_own():
    found = only("AZURE_INSTANCES=a", f"AZURE_INSTANCE_A_API_KEY={KEY}")
    assert (found.layout, found.era, found.config["api_key"]) == ("E1", Era.ENV_AZURE, KEY)


def test_both_eras_may_be_in_one_file():
    reading = read("API_INSTANCES=a", "AZURE_INSTANCES=a")
    assert [each.layout for each in reading.records] == ["E2", "E1"]


@pytest.mark.parametrize(
    "lines, config",
    [
        (
            ["API_KEY=k", "API_BASE=b", "API_PROVIDER_TYPE=generic"],
            {"api_key": "k", "api_base": "b", "provider_type": "generic"},
        ),
        (
            ["AZURE_OPENAI_API_KEY=k", "AZURE_OPENAI_API_VERSION=v"],
            {"api_key": "k", "api_version": "v"},
        ),
    ],
)
def test_one_instance_without_a_list_is_the_default_of_the_older_era(lines, config):
    found = only(*lines)
    assert (found.name, found.layout, found.era) == ("default", "E1", Era.ENV_AZURE)
    assert found.config == {"name": "default", **config}


def test_one_instance_in_both_spellings_is_two_records_that_have_to_agree():
    reading = read("API_KEY=k", "AZURE_OPENAI_API_KEY=x")
    assert [each.place for each in reading.records] == ["AZURE_OPENAI_API_KEY", "API_KEY"]
    assert len({each.recency for each in reading.records}) == 1


def test_one_instance_beside_a_list_was_passed_over_and_is_told():
    reading = read(
        "API_INSTANCES=a", f"AZURE_OPENAI_API_KEY={KEY}", "AZURE_OPENAI_API_VERSION=v"
    )
    assert [each.name for each in reading.records] == ["a"]
    assert reading.settings == {}
    assert reading.notes == (
        "AZURE_OPENAI_API_KEY, AZURE_OPENAI_API_VERSION: the old program passed over one"
        " instance beside a list, so they are only in the backup; to import it, give it a"
        " name in the list",
    )
    assert KEY not in told(reading)


def test_a_version_alone_is_no_instance():
    reading = read("API_VERSION=2024-05-15", "API_KEY=")
    assert reading.records == ()
    assert reading.settings == {"API_VERSION": "2024-05-15", "API_KEY": ""}


@pytest.mark.parametrize(
    "line, value",
    [
        ("{}=" + KEY + "   # inline comment", KEY),
        ("{}='" + KEY + " # none'", f"{KEY} # none"),
        ('export {}="' + KEY + '"', KEY),
        ("{}=" + KEY + "#none", f"{KEY}#none"),
        ("{}=", ""),
    ],
)
def test_quotes_and_comments(line, value):
    found = only("API_INSTANCES=a", line.replace("{}", "API_INSTANCE_A_API_KEY"))
    assert found.config["api_key"] == value


@pytest.mark.parametrize("spelling", ["EAST-1.B_C", "EAST_1_B_C"])
def test_what_a_shell_cannot_write_in_a_name_may_be_an_underscore(spelling):
    found = only("API_INSTANCES=east-1.b_c", f"API_INSTANCE_{spelling}_API_KEY={KEY}")
    assert (found.name, found.config["api_key"]) == ("east-1.b_c", KEY)


def test_a_space_in_a_name_is_an_underscore():
    assert only("API_INSTANCES=a b", "API_INSTANCE_A_B_WEIGHT=1").config["weight"] == "1"


def test_a_variable_in_two_spellings_is_kept_twice():
    found = only("API_INSTANCES=a-b", "API_INSTANCE_A-B_WEIGHT=1", "API_INSTANCE_A_B_WEIGHT=2")
    assert found.config["weight"] == "1"
    assert found.extra == {"API_INSTANCE_A_B_WEIGHT": "2"}


def test_two_names_that_are_written_alike_share_and_say_so():
    reading = read("API_INSTANCES=a-b,a.b", "API_INSTANCE_A_B_WEIGHT=1")
    assert [each.config["weight"] for each in reading.records] == ["1", "1"]
    assert all("of all of 'a-b', 'a.b'" in each.notes[0] for each in reading.records)


def test_the_longest_name_owns_a_variable():
    reading = read(
        "API_INSTANCES=a,a_b,x,x_api",
        "API_INSTANCE_A_WEIGHT=1",
        "API_INSTANCE_A_B_WEIGHT=2",
        "API_INSTANCE_X_API_KEY=k",  # API_KEY of x, not KEY of x_api
    )
    config = {each.name: each.config for each in reading.records}
    assert (config["a"]["weight"], config["a_b"]["weight"]) == ("1", "2")
    assert (config["x"].get("api_key"), "api_key" in config["x_api"]) == ("k", False)


MODELS = "API_INSTANCE_A_SUPPORTED_MODELS"
MAP = "API_INSTANCE_A_MODEL_MAP_"


@pytest.mark.parametrize(
    "models, written, model",
    [
        ("gpt-4o,gpt-4.1", "GPT_4O", "gpt-4o"),
        ("gpt-4o,gpt-4.1", "GPT_4_1", "gpt-4.1"),
        ("gpt-4o-2024-11-20", "GPT4O_2024_11_20", "gpt-4o-2024-11-20"),
        ("GPT-4o-Audio", "GPT_4O_AUDIO", "GPT-4o-Audio"),
        ("gpt-41,gpt-4.1", "GPT_4_1", "gpt-4.1"),  # written exactly so
        ("gpt-4o,GPT-4o", "GPT_4O", "gpt-4o"),
    ],
)
def test_a_model_of_the_map_is_found_among_the_supported(models, written, model):
    # The map may stand before the models.
    found = only("API_INSTANCES=a", f"{MAP}{written}=d", f"{MODELS}={models}")
    assert found.config["model_deployments"] == {model: "d"}
    assert (found.extra, found.notes) == ({}, ())


@pytest.mark.parametrize(
    "models, written",
    [
        ("gpt-4o", "GPT_5"),
        ("", "GPT_4O"),
        ("gpt-4.1,gpt-4-1", "GPT_4_1"),
        ("g-41,g.41", "G4_1"),
    ],
)
def test_a_model_that_cannot_be_told_is_kept_and_noted(models, written):
    found = only("API_INSTANCES=a", f"{MODELS}={models}", f"{MAP}{written}=d")
    assert "model_deployments" not in found.config
    assert found.extra == {f"{MAP}{written}": "d"}
    assert f"{MAP}{written}" in found.notes[0]


def test_two_deployments_of_one_model_are_not_guessed_between():
    found = only("API_INSTANCES=a", f"{MODELS}=gpt-4o", f"{MAP}GPT_4O=x", f"{MAP}GPT4O=y")
    assert found.config["model_deployments"] == {"gpt-4o": "x"}
    assert found.extra == {f"{MAP}GPT4O": "y"}


def test_unknown_variables_of_an_instance_are_kept():
    found = only("API_INSTANCES=a", "API_INSTANCE_A_DEPLOYMENT_NAME=x")
    assert found.extra == {"API_INSTANCE_A_DEPLOYMENT_NAME": "x"}


def test_everything_else_is_a_setting():
    reading = read("API_INSTANCES=a", "PORT=3010", "USE_REDIS=true # yes", "API_VERSION=v")
    assert reading.settings == {"PORT": "3010", "USE_REDIS": "true", "API_VERSION": "v"}
    assert reading.notes == ()


@pytest.mark.parametrize(
    "listed, prefix",
    [("API_INSTANCES", "API_INSTANCE_"), ("AZURE_INSTANCES", "AZURE_INSTANCE_")],
)
def test_an_instance_out_of_the_list_was_switched_off_and_is_told(listed, prefix):
    reading = read(
        f"{listed}=a",
        f"{prefix}OFF_API_KEY={KEY}",
        f"{prefix}A_WEIGHT=1",
        f"{prefix}OFF_TOO_API_BASE=https://off.example",
        f"{prefix}OFF_DEPLOYMENT=x",
        f"{prefix}STRANGE=y",
    )
    assert [each.name for each in reading.records] == ["a"]
    assert (reading.problems, reading.settings) == ((), {})
    why = "the old program passed over what"
    assert reading.notes == (
        f"{prefix}OFF_API_KEY, {prefix}OFF_DEPLOYMENT: {why} {listed} does not name, so they"
        f" are only in the backup; to import it, add OFF to {listed}",
        f"{prefix}OFF_TOO_API_BASE: {why} {listed} does not name, so they"
        f" are only in the backup; to import it, add OFF_TOO to {listed}",
        f"{prefix}STRANGE: {why} {listed} does not name, so they"
        f" are only in the backup; to import it, add its name to {listed}",
    )
    assert KEY not in told(reading)


def test_an_empty_list_is_a_list():
    reading = read("API_INSTANCES=", f"API_INSTANCE_OFF_API_KEY={KEY}")
    assert (reading.records, reading.problems) == ((), ())
    assert "add OFF to API_INSTANCES" in reading.notes[0]


def test_instances_without_their_list_are_a_problem():
    reading = read(f"API_INSTANCE_A_API_KEY={KEY}")
    assert reading.problems[0].field == "API_INSTANCES"
    assert KEY not in told(reading)


def test_a_name_without_variables_is_a_record():
    assert only("API_INSTANCES=a").config == {"name": "a"}


def test_a_name_that_is_twice_in_the_list_is_one_record_that_says_so():
    assert only("API_INSTANCES=a, a").notes == ("it is twice in API_INSTANCES",)


def test_of_a_variable_that_is_there_twice_the_later_counts():
    found = only("API_INSTANCES=a", "API_INSTANCE_A_WEIGHT=1", "API_INSTANCE_A_WEIGHT=2")
    assert found.config["weight"] == "2"
    assert "stands twice" in found.notes[0]


@pytest.mark.parametrize("line", [f"API_KEY='{KEY}", KEY, f"{KEY} {KEY}"])
def test_a_line_that_is_no_setting_is_a_problem_and_not_shown(line):
    reading = read("PORT=1", "", "# comment", line, "HOST=x")
    assert [each.message for each in reading.problems] == ["Line 4 is no setting."]
    assert reading.settings == {"PORT": "1", "HOST": "x"}
    assert KEY not in told(reading)


def test_an_env_file_without_instances_is_no_problem():
    reading = read("# comment", "PORT=1")
    assert (reading.layout, reading.records, reading.problems) == ("env", (), ())


@pytest.mark.parametrize(
    "written, value",
    [
        ("${ABOVE}", "from above"),
        ("'${ABOVE}'", "from above"),  # python-dotenv makes no difference
        ("x-${ABOVE}/${OUTSIDE}", "x-from above/from outside"),
        ("${OUTSIDE}", "from outside"),
        ("${BOTH}", "from the file"),
        ("${BELOW:-else}", "else"),  # it reads from top to bottom
        ("${NOWHERE}", ""),
        ("$ABOVE", "$ABOVE"),
    ],
)
def test_variables_within_values_are_what_the_old_program_read(written, value):
    lines = f"ABOVE=from above\nBOTH=from the file\nX={written}\nBELOW=from below\n"
    environ = {"OUTSIDE": "from outside", "BOTH": "from the environment"}
    assert env_files.variables(lines, environ)["X"] == value


def test_that_variables_were_replaced_is_told_without_their_values():
    lines = (
        f"RESOURCE_KEY={KEY}",
        "API_INSTANCES=a",
        "API_INSTANCE_A_API_KEY=${RESOURCE_KEY}",
        "API_INSTANCE_A_API_BASE=${NOWHERE}",
    )
    reading = env_files.read(FILE, "\n".join(lines), {})
    assert reading.records[0].config["api_key"] == KEY
    assert reading.notes == (
        "API_INSTANCE_A_API_KEY has ${RESOURCE_KEY}: it was replaced, as it was then",
        "API_INSTANCE_A_API_BASE has ${NOWHERE}, which is not set before it or in the"
        " environment: it was replaced, as it was then",
    )
    assert KEY not in told(reading)
