import json
from pathlib import Path

import pytest
from hypothesis import given, settings

from migrations.legacy import report
from migrations.legacy.records import Era, Problem
from tests.migrations.legacy.imports import FILE, LATER, bad, found, planned
from tests.migrations.legacy.test_plan import record_sets

KEY = "sk-planted-key-4711-0815"
PASSWORD = "planted-password"
PROXY = f"http://user:{PASSWORD}@10.0.0.5:3128"
SECRETS = {"api_key": KEY, "proxy_url": PROXY}
STATE = {"error_count": 3, "rate_limited_until": LATER}


def everything(plan):
    return report.as_text(plan) + json.dumps(report.as_json(plan))


def test_a_problem_is_told_with_file_record_field_value_and_remedy():
    plan = planned(found(max_tpm=-5, file=Path("/old/one/instances.json")))
    line = next(each for each in report.as_text(plan).splitlines() if "max_tpm" in each)
    assert line == (
        "  /old/one/instances.json key 'a' ('a'): max_tpm: Must be greater than or equal to 0"
        " and less than or equal to 2147483647. Found: -5. Correct the value in the file, or"
        " take the record out."
    )
    (problem,) = report.as_json(plan)["problems"]
    assert problem.keys() == {"file", "record", "field", "value", "message", "remedy"}
    assert problem["file"] == "/old/one/instances.json"


def test_every_field_of_an_instance_is_told_with_where_it_comes_from():
    plan = planned(found(place="S1"), found(config=None, state=STATE, place="S2", layout="S2"))
    text = report.as_text(plan)
    (instance,) = plan.instances
    for name, value in (instance.config | instance.state).items():
        shown = "***6789" if name == "api_key" else value
        assert f"    {name} = {shown!r}" in text
    assert "config from S1 old.json S1 'a'" in text
    assert "state from S2 old.json S2 'a'" in text
    assert text.endswith("\n2 records found = 1 imported + 1 merged + 0 rejected.")


def test_what_was_shadowed_is_named():
    plan = planned(found(), found(era=Era.CSV, layout="C1", place="row 5", file=Path("l.csv")))
    assert "C1 l.csv row 5 'a': shadowed by S1 (old.json, key 'a')" in report.as_text(plan)
    (instance,) = report.as_json(plan)["instances"]
    assert [s["place"] for s in instance["shadowed"]] == ["row 5"]


def test_what_was_converted_and_unknown_keys_are_listed():
    plan = planned(found(max_tpm="30000", extra={"tags": ["a"], "b": 1}))
    assert "converted max_tpm: '30000' -> 30000" in report.as_text(plan)
    assert "  unknown keys, kept as legacy_extra: b, tags\n" in report.as_text(plan)
    (instance,) = report.as_json(plan)["instances"]
    assert instance["legacy_extra"] == ["b", "tags"]
    assert instance["converted"] == [
        {"field": "max_tpm", "before": "'30000'", "after": "30000"}
    ]


def test_unknown_keys_of_a_state_are_listed():
    state = found(layout="S2", config=None, state=STATE, extra={"mood": KEY})
    plan = planned(found(), state)
    assert "  unknown keys of the state, kept with it: mood\n" in report.as_text(plan)
    (instance,) = report.as_json(plan)["instances"]
    assert (instance["legacy_extra"], instance["legacy_state_extra"]) == ([], ["mood"])
    assert KEY not in everything(plan)


def test_state_that_is_neither_carried_nor_computed_anew_is_listed():
    derived = {"status": "error", "current_tpm": 5, "current_429_rate": 0.5}
    empty = {"request_window": {}, "health_status": "unknown"}
    state = STATE | derived | empty | {"usage_window": {"1742198400": 5}}
    plan = planned(found(state=state))
    assert "not carried, only in the backup: usage_window\n" in report.as_text(plan)
    (instance,) = report.as_json(plan)["instances"]
    assert instance["not_carried"] == ["usage_window"]


def test_a_bad_file_is_said_beside_the_counts_that_lack_it():
    cut = Problem(FILE, "", "", "", "", "The file is cut.")
    assert report.counts_line(planned(found(), problems=(cut,))) == (
        "1 records found = 1 imported + 0 merged + 0 rejected. What bad files hold is not"
        " counted: 1."
    )


def test_notes_about_a_file_are_told_with_its_name():
    plan = planned(found(), notes=("X_API_KEY: passed over",))
    assert "\nNotes:\n  old.json: X_API_KEY: passed over\n" in report.as_text(plan)
    (note,) = report.as_json(plan)["notes"]
    assert (note["file"], note["note"]) == ("old.json", "X_API_KEY: passed over")
    assert note.keys() == {"file", "place", "layout", "name", "note"}


def test_settings_are_named_without_their_values():
    plan = planned(settings={"REDIS_PASSWORD": KEY, "PORT": "80"})
    assert "not carried: PORT, REDIS_PASSWORD" in report.as_text(plan)
    assert KEY not in everything(plan)


def test_keys_and_passwords_are_nowhere_in_the_report():
    plan = planned(
        found("fine", **SECRETS, extra={"token": KEY}),
        found("bad", **SECRETS, max_tpm=-1),
        found("twice", **SECRETS, place="1"),
        found("twice", place="2"),
        found("old", **SECRETS),
        found("old", **SECRETS, era=Era.CSV),
        found("mixed up", api_key=PROXY, api_base=KEY, proxy_url=KEY),
        found(None, **SECRETS),
        settings={"ADMIN_API_KEY": KEY},
        bad=(bad(raw=KEY),),
    )
    assert len(plan.problems) > 4
    for text in (everything(plan), repr(plan), repr(plan.problems)):
        assert KEY not in text
        assert PASSWORD not in text


HEX = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    "said",
    [
        f"401 invalid subscription key {HEX}",
        f"401 invalid subscription key '{HEX}'.",
        # Too short to look like a key; it is one of those in the files.
        "Access denied due to invalid short.k7.",
        "Access denied for <other.k8>: no such key",
    ],
)
def test_a_key_in_an_error_text_is_masked(said):
    plan = planned(
        found(api_key="short.k7", state={"last_error": said}),
        found("b", api_key="other.k8", max_tpm=-1),
    )
    for secret in (HEX, "short.k7", "other.k8"):
        assert secret not in everything(plan)
    assert report.as_json(plan)["instances"][0]["state"]["last_error"].startswith(said[:3])


def test_an_error_text_that_was_no_text_is_masked_too():
    plan = planned(found(state={"last_error": {"message": f"no key {HEX}"}}))
    assert "converted last_error" in report.as_text(plan)
    assert HEX not in everything(plan)


@pytest.mark.parametrize("name", [HEX, "sk-planted-key-4711", "short.k7", f"x: {HEX}"])
def test_a_key_that_became_a_name_is_masked(name):
    states = found(config=None, state={"error_count": 1}, extra={name: 1})
    plan = planned(found(api_key="short.k7", extra={name: 1}), states, settings={name: "1"})
    assert name not in everything(plan)
    assert "unknown keys of the state, kept with it: " in report.as_text(plan)


@pytest.mark.parametrize(
    "name", ["API_INSTANCE_A_MODEL_MAP_GPT4O_2024_11_20", "total_client_errors_of_2024", "模型"]
)
def test_other_names_are_told(name):
    assert f"legacy_extra: {name}" in report.as_text(planned(found(extra={name: 1})))


def test_rejected_records_are_told_whole_for_a_file_only_its_owner_reads():
    wrong = found(max_tpm=-5, state=STATE, extra={"tags": ["a"]}, api_key=KEY)
    other = found(config=None, state=STATE, place="S2")
    plan = planned(wrong, other, bad=(bad(None, raw=["text"], place="[1]"),))
    assert f"S2: {report.WITH_ANOTHER}.\n" in report.as_text(plan).replace(" 'a'", "")
    third, first, second = report.rejected_json(plan)
    assert (first["config"], first["state"], first["extra"]) == (
        wrong.config,
        STATE,
        {"tags": ["a"]},
    )
    assert [p["field"] for p in first["problems"]] == ["max_tpm"]
    assert second["why"] == "another record of this instance cannot be carried"
    assert (third["file"], third["place"], third["entry"]) == (str(FILE), "[1]", ["text"])
    assert third["problems"][0]["record"] == "[1]"


@settings(max_examples=100, deadline=None)
@given(record_sets)
def test_the_counts_of_every_report_add_up_and_its_json_is_valid(records):
    plan = planned(*records)
    text = json.dumps(report.as_json(plan), allow_nan=False)
    told = json.loads(text)
    counts = told["counts"]
    assert counts["found"] == len(records)
    assert counts["found"] == counts["imported"] + counts["merged"] + counts["rejected"]
    assert counts["imported"] == len(told["instances"])
    assert counts["merged"] == len(told["merged"])
    assert counts["rejected"] == len(told["rejected"])
    assert report.as_text(plan).endswith(report.counts_line(plan))


def test_a_bad_value_is_neither_told_whole_nor_with_its_secrets():
    """Columns that were mixed up, and a file that somebody filled with something else."""
    plan = planned(
        found("one", max_tpm=KEY, supported_models=[KEY, 5], enabled="x " * 100_000),
        found("two", config=None, state={"total_requests": KEY, "last_used": PROXY}),
        found("three", api_base=f"https://a.example/{'x' * 5000}", place="1"),
        found("three", place="2"),
    )
    assert len(plan.problems) > 4
    assert KEY not in everything(plan)
    assert PASSWORD not in everything(plan)
    assert all(len(line) < 500 for line in report.as_text(plan).splitlines())


def test_secrets_that_slipped_into_other_fields_are_masked():
    """As where two lines of an env file were joined."""
    odd = {
        "supported_models": [f"gpt-4o_API_KEY={KEY}"],
        "model_deployments": {"api_key": KEY, "gpt-4o": f"x {PROXY}"},
        "api_base": f"https://a.example/API_KEY={KEY}",
    }
    plan = planned(found(**odd))
    assert plan.problems == []
    assert KEY not in everything(plan)
    assert PASSWORD not in everything(plan)


def test_long_names_and_texts_are_cut():
    plan = planned(
        found("n" * 100_000, place="1"),
        found("a", state={"last_error": "e " * 100_000, "error_count": 1}),
        found("b", config=None, state={"last_error": ["e"] * 100_000, "error_count": 1}),
    )
    assert all(len(line) < 500 for line in report.as_text(plan).splitlines())
