"""JSON of every era: which layout it is, what goes where, and what is wrong with it."""

import json
from pathlib import Path

import pytest

from migrations.legacy import discover, json_files
from migrations.legacy.records import Era
from tests.migrations.legacy.files import KEY, RECORD, STATE, record, told

FILE = Path("old.json")


def read(data, file=FILE):
    return json_files.read(file, data if isinstance(data, str) else json.dumps(data))


def only(data, file=FILE):
    reading = read(data, file)
    assert reading.problems == ()
    (found,) = reading.records
    return found


@pytest.mark.parametrize(
    "data, layout, era",
    [
        ({"timestamp": 1.5, "worker_id": "w", "instances": [RECORD]}, "M1", Era.SHARED_STATE),
        ({"instances": [RECORD], "last_updated": 1.5}, "M2", Era.INSTANCE_STATE),
        (
            {"timestamp": 1.5, "version": "v-1", "instances": [RECORD]},
            "M2'",
            Era.INSTANCE_STATE,
        ),
        # An array without its envelope: as old as the oldest.
        ([RECORD], "M1", Era.SHARED_STATE),
        ({"instances": {"a": RECORD}, "last_updated": 1.5}, "M2", Era.INSTANCE_STATE),
        ({"a": RECORD | STATE}, "M3", Era.FLAT),
        ({"a": RECORD | STATE, "timestamp": 1.5, "worker_id": "w"}, "M3", Era.FLAT),
        ({"a": RECORD}, "S1", Era.SPLIT),
        ({"a": STATE}, "S2", Era.SPLIT),
        # One stray key does not make it another layout.
        ({"a": RECORD, "b": RECORD, "c": RECORD | STATE}, "S1", Era.SPLIT),
        ({"a": STATE, "b": STATE, "c": STATE | {"weight": 1}}, "S2", Era.SPLIT),
        # An instance may be named as an envelope's key.
        ({"instances": RECORD}, "S1", Era.SPLIT),
        ({"version": RECORD}, "S1", Era.SPLIT),
    ],
)
def test_what_a_file_holds_decides_its_layout(data, layout, era):
    reading = read(data)
    assert (reading.layout, reading.problems) == (layout, ())
    assert {each.era for each in reading.records} == {era}
    assert {each.layout for each in reading.records} == {layout}


@pytest.mark.parametrize("data", [[], {}, {"instances": []}, {"instances": {}}])
def test_a_file_without_instances_is_no_problem(data):
    reading = read(data)
    assert (reading.records, reading.problems) == ((), ())


def test_the_name_of_a_file_decides_where_its_content_does_not():
    assert read({}, Path("instance_states.json")).layout == "S2"
    assert read({}, Path("instance_configs.json")).layout == "S1"
    assert read({"a": {"weight": 1}}, Path("instance_states.json")).layout == "S2"
    assert read({"a": {"weight": 1}}, Path("instance_configs.json")).layout == "S1"


def test_values_keep_the_types_they_have():
    """Integers as strings, negative limits, an error count that is no number."""
    found = only([record(max_tpm="30000", weight=-5, stats={"error_count": "many"})])
    assert (found.config["max_tpm"], found.config["weight"]) == ("30000", -5)
    assert found.state == {"error_count": "many"}


def test_state_is_under_stats_or_flat():
    assert only([record(stats={"error_count": 2})]).state == {"error_count": 2}
    assert only({"a": record(error_count=2)}).state == {"error_count": 2}


def test_stats_that_are_null_are_an_empty_state():
    found = only([record(stats=None)])
    assert (found.state, found.extra, found.notes) == ({}, {}, ())


def test_stats_that_are_no_object_are_kept_and_told():
    found = only([record(stats=KEY)])
    assert found.extra == {"stats": KEY}
    assert "`stats` is text of" in found.notes[0]
    assert KEY not in found.notes[0]


def test_of_state_in_both_places_the_one_under_stats_counts():
    found = only([record(error_count=1, stats={"error_count": 2, "mood": 3})])
    assert found.state == {"error_count": 2}
    assert found.extra == {"error_count": 1, "stats": {"mood": 3}}


def test_a_states_config_keys_are_none_unless_it_has_a_whole_config():
    """The old program never read config from the file of states."""
    a, b, _ = read({"a": STATE | {"weight": 1}, "b": STATE | RECORD, "c": STATE}).records
    assert (a.config, a.extra) == ({"name": "a"}, {"weight": 1})
    assert b.config["api_key"] == KEY


def test_unknown_keys_are_kept():
    extra = {"deployment_name": "x", "tags": ["a"], "is_healthy": True, "instance_stats": {}}
    assert only([RECORD | extra]).extra == extra


@pytest.mark.parametrize(
    "key",
    [
        *("current_error_rate", "current_429_rate", "current_client_503_rate", "current_tpm"),
        *("usage_window", "request_window", "error_500_window", "client_error_other_window"),
        *("upstream_429_window", "total_upstream_other_errors", "total_client_errors_500"),
    ],
)
def test_counters_rates_and_windows_of_the_last_release_are_state(key):
    assert only({"a": STATE | {key: 1}}).state[key] == 1


@pytest.mark.parametrize("key", ["window", "my_window", "error_window_x", "total_tokens"])
def test_what_only_sounds_like_state_is_not(key):
    assert only({"a": RECORD | {key: 1}}).extra == {key: 1}


def test_the_last_release_of_the_sibling_in_go_keeps_its_types():
    found = only({"a": {"name": "a", "last_used": "2025-03-01T10:00:00Z", "error_count": 1}})
    assert found.state["last_used"] == "2025-03-01T10:00:00Z"


def test_names_stay_as_they_are():
    """Mixed case, spaces and slashes."""
    assert only([record("Azure East US/1")]).name == "Azure East US/1"


def test_of_a_key_and_another_name_inside_the_key_counts():
    found = only({"a": record("b")})
    assert (found.name, found.config["name"], found.extra["name"]) == ("a", "a", "b")
    assert found.notes == ("`name` inside is 'b': the key 'a' counts",)


def test_a_record_by_name_needs_no_name_inside():
    found = only({"a": {"api_key": KEY}})
    assert (found.name, found.place, found.notes) == ("a", "key 'a'", ())


def test_an_empty_key_does_not_name_a_record():
    assert only({"": record("b")}).name == "b"


@pytest.mark.parametrize("name", ["", " ", 5, None, ["a"]])
def test_a_record_without_a_usable_name_has_none(name):
    found = only([RECORD | {"name": name}])
    assert (found.name, found.place, found.config["name"]) == (None, "instances[0]", name)


def test_a_record_without_name_or_key_is_read():
    assert only([{"api_base": "x"}]).name is None


def test_records_of_one_name_are_all_there():
    assert [each.name for each in read([record("a"), record("a")]).records] == ["a", "a"]


def test_a_place_is_short_whatever_the_key():
    assert len(only({"n" * 100_000: RECORD}).place) < 200


def test_an_entry_that_is_no_object_is_a_problem_and_the_others_are_read():
    reading = read({"instances": [record("a"), KEY, record("b"), None]})
    assert [each.name for each in reading.records] == ["a", "b"]
    assert [each.problem.record for each in reading.bad] == ["instances[1]", "instances[3]"]
    assert [(each.name, each.raw) for each in reading.bad] == [(None, KEY), (None, None)]
    assert KEY not in told(reading)


def test_a_scalar_by_name_is_a_problem_unless_the_program_wrote_it():
    reading = read({"a": RECORD, "b": 5, "timestamp": 1.5, "worker_id": "w"})
    assert [(each.problem.record, each.name) for each in reading.bad] == [("key 'b'", "b")]


@pytest.mark.parametrize("value", ["eu", 5, 1.5, True])
def test_a_scalar_beside_records_with_state_may_be_none_of_them(value):
    reading = read({"a": RECORD | STATE, "region": value, "b": None, "c": []})
    assert reading.layout == "M3"
    assert [(each.name, each.raw) for each in reading.aside] == [("region", value)]
    assert [each.name for each in reading.bad] == ["b", "c"]


def test_what_stands_beside_the_list_is_told():
    reading = read({"instances": [], "timestamp": 1.5, "region": "eu"})
    assert reading.settings == {"region": '"eu"'}


@pytest.mark.parametrize("data", ['"text"', "5", "null", {"instances": 5}, {"instances": None}])
def test_json_without_records_is_a_problem(data):
    reading = read(data)
    assert reading.records == ()
    assert "no records" in reading.problems[0].message


@pytest.mark.parametrize(
    "text, message",
    [
        (
            '{"a": {"api_key": "sk-1"',
            "line 1, column 25: Expecting ',' delimiter. The file seems",
        ),
        ('{\n"a": {"api_key": "sk-1', "line 2, column 18: Unterminated string"),
        ('{"a": 1}\n{"b": 2}', "line 2, column 1: Extra data"),
        ("x", "line 1, column 1"),
        ("[" * 100_000, "nested too deeply"),
        ('{"instances": [],\n"instances": []}', "stands twice in one object (lines 1 and 2)"),
    ],
)
def test_damaged_json_is_a_problem_that_says_where(text, message):
    reading = read(text)
    assert reading.records == ()
    assert message in reading.problems[0].message
    assert "sk-1" not in told(reading)


LONG = "9" * 5000
DEEP = "[" * 500 + "]" * 500


@pytest.mark.parametrize(
    "damaged, field, message",
    [
        (
            '"weight": 1,\n"weight": 1',
            "",
            "'weight' stands twice in one object (lines 1 and 2)",
        ),
        ('"tags": [{"x": 1, "x": 2}]', "tags", "The key 'x' stands twice in one object"),
        (f'"weight": {LONG}', "weight", "This is a number of 5000 digits."),
        (f'"tags": [[-{LONG}]]', "tags", "This is a number of 5001 digits."),
        (f'"tags": {DEEP}', "tags", "It is nested too deeply."),
    ],
)
@pytest.mark.parametrize("layout", ["by name", "in a list", "beside state"])
def test_a_damaged_spot_is_a_problem_of_its_record_alone(layout, damaged, field, message):
    a, b = f'{{"name": "a", "api_key": "{KEY}", {damaged}}}', json.dumps(RECORD)
    reading = read(
        {
            "by name": f'{{"a": {a}, "b": {b}}}',
            "in a list": f'{{"instances": [{a}, {b}]}}',
            "beside state": f'{{"timestamp": {LONG}, "a": {a}, "b": {b}}}',
        }[layout]
    )
    assert (len(reading.records), reading.problems) == (1, ())
    (bad,) = reading.bad
    assert (bad.name, bad.problem.field, bad.problem.record) == ("a", field, bad.place)
    assert message in bad.problem.message
    assert bad.problem.remedy
    assert KEY in repr(bad.raw)
    assert KEY not in told(reading)


def test_what_stands_twice_is_kept_twice():
    (bad,) = read('{"a": {"name": "a", "weight": 1, "weight": 2}}').bad
    assert bad.raw == [{"name": "a"}, {"weight": 1}, {"weight": 2}]


def test_a_record_with_two_names_inside_has_none_in_a_list():
    named, unnamed = '{"a": {"name": "a", "name": "b"}}', '[{"name": "a", "name": "b"}]'
    assert [read(text).bad[0].name for text in (named, unnamed)] == ["a", None]


def test_two_entries_of_one_name_are_both_bad_and_the_others_are_read():
    reading = read('{"a": {"api_key": "k"},\n"b": {"api_key": "k"},\n"a": {"api_key": "k2"}}')
    assert [each.name for each in reading.records] == ["b"]
    said = "The key 'a' stands twice in one object (lines 1 and 3)."
    assert [(each.name, each.problem.message) for each in reading.bad] == [("a", said)] * 2
    assert [each.raw["api_key"] for each in reading.bad] == ["k", "k2"]


WHOLE = json.dumps(
    {"é\n": [True, False, None, -1.5e-10, float("nan"), float("-inf"), {}, "\\", "x y"]},
    indent=1,
)


@pytest.mark.parametrize("length", range(1, len(WHOLE)))
def test_wherever_a_file_is_cut_that_is_said(length):
    (problem,) = read(WHOLE[:length]).problems
    assert problem.message.endswith(" The file seems to be cut off.")


@pytest.mark.parametrize(
    "text", ['{"a": 1,}', '{"a" 1}', '{"a": x}', '{"a": "\n"}', '{"a": 1}}', "[1 2]", '["\\x"]']
)
def test_what_is_damaged_elsewhere_does_not_seem_cut(text):
    (problem,) = read(text).problems
    assert "cut off" not in problem.message


def test_half_a_character_becomes_a_whole_one_and_its_digits():
    found = only('[{"name": "a", "last_error": "caf\\udce9 \\ud83d\\ude00 \\\\udce9"}]')
    assert found.state["last_error"] == "caf\ufffddce9 \N{GRINNING FACE} \\udce9"


@pytest.mark.parametrize("kind", ["names", "unknown keys"])
def test_texts_that_differ_in_halves_of_characters_stay_apart(kind):
    """Names in GBK, which the old program could not decode."""
    east, west = '"a\\udcb6\\udcab"', '"a\\udcce\\udcf7"'
    if kind == "names":
        found = read(f'{{{east}: {{"api_key": "k"}}, {west}: {{"api_key": "k2"}}}}')
        texts = [each.name for each in found.records]
    else:
        found = read(f'{{"b": {{"api_key": "k", {east}: 1, {west}: 2}}}}')
        texts = list(found.records[0].extra)
    assert texts == ["a\ufffddcb6\ufffddcab", "a\ufffddcce\ufffddcf7"]
    assert found.notes == (
        "half of a character (\\udcb6) stands there 4 times: it was read as \ufffddcb6, also"
        " in names and keys",
    )


def test_text_without_halves_of_characters_has_no_note():
    assert read('{"a \\ud83d\\ude00 \\\\udce9": {"api_key": "k"}}').notes == ()


@pytest.mark.parametrize("inner", [[RECORD], {"a": RECORD}])
def test_an_instance_beside_the_list_is_none_of_the_settings(inner):
    reading = read({"instances": inner, "b": RECORD | {"name": "b"}, "region": "here"})
    assert list(reading.settings) == ["region"]
    assert [each.name for each in reading.records] == ["a"]
    (bad,) = reading.bad
    assert bad.name == "b"
    assert "beside `instances`" in bad.problem.message
    assert KEY not in str(bad)


@pytest.mark.parametrize(
    "value",
    [
        {"name": "a", "config": RECORD, "state": STATE},
        {"apiKey": KEY, "apiBase": "https://a"},
        {"Base-URL": "https://a", "mood": 1},
    ],
)
def test_a_config_in_other_words_is_no_state(value):
    reading = read({"a": value}, Path("instance_states.json"))
    assert reading.records == ()
    (bad,) = reading.bad
    assert "seems to be a config" in bad.problem.message
    assert KEY not in str(bad)


def test_a_config_among_states_is_one():
    data = {"a": STATE, "b": RECORD | {"name": "b"}, "c": STATE}
    reading = read(data, Path("instance_states.json"))
    assert (reading.layout, reading.bad) == ("S2", ())
    assert reading.records[1].config["api_key"] == KEY


@pytest.mark.parametrize("value", [{"mood": 1}, STATE | {"endpoint": "x"}, {"name": "a"}])
def test_what_says_nothing_of_a_config_stays_a_state(value):
    assert only({"a": value}, Path("instance_states.json")).layout == "S2"


def test_damage_beside_halves_of_characters_is_where_the_file_has_it():
    (problem,) = read('{"\\udcb6": 1, x').problems
    assert problem.message.startswith("No JSON at line 1, column 15:")


def test_keys_are_not_in_what_is_told():
    bad_proxy = record(proxy_url=f"http://u:{KEY}@p", tags=[KEY], stats={"x": KEY})
    assert KEY not in told(read([bad_proxy, [KEY], KEY]))


def test_a_file_that_was_never_split_does_not_contradict_the_split_files(tmp_path):
    """Without any state it looks like a split config; it is of the older era all the same."""
    path = tmp_path / "instances.json"
    path.write_text('{"a": {"name": "a", "api_key": "k", "api_base": "https://a.example"}}')
    (reading,) = discover.read(path, [path], {})
    assert reading.layout == "M3"


def test_a_null_in_stats_does_not_overrule_a_rest_beside_it(tmp_path):
    path = tmp_path / "instance_state.json"
    record = '{"name": "a", "rate_limited_until": 5, "stats": {"rate_limited_until": null}}'
    path.write_text('{"instances": [' + record + '], "last_updated": 1}')
    (reading,) = discover.read(path, [path], {})
    assert reading.records[0].state["rate_limited_until"] == 5
